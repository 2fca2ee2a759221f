"""Open bids as documents of the Nordic market, read back by an independent library."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nexa_mfrr_eam import MARIMode, deserialize_reserve_bid_document
from nexa_mfrr_eam.bids.validation import validate_document

from vppd.config.market import MarketConfig
from vppd.core.bidding.bid import Bid, Offered
from vppd.core.bidding.quote import Step
from vppd.errors import Refused
from vppd.grid.reserve_bid_file import write_reserve_bids
from vppd.model import Interval
from vppd.products import products_in, shipped

TEN = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
NOW = TEN - timedelta(hours=1)
CODES = {
    "sender": "44X-00000000004B", "receiver": "10X1001A1001A264", "domain": "10YFI-1--------U",
    "acquiring": "10Y1001A1001A91G", "resource": "FIN-1",
}  # fmt: skip
MARKET = MarketConfig.model_validate({"issuer": "tso", "products": ["nordic-mfrr"], "reserve_bid": CODES})
PRODUCTS = products_in(shipped())


def offered(quarter: int = 0, **changes: Any) -> Offered:
    """Return a bid of 5 MW in two steps for a quarter of an hour."""
    start = TEN + quarter * timedelta(minutes=15)
    bid = Bid(
        f"3a1f1c52-0000-4000-8000-00000000000{quarter}", "nordic-mfrr", "dc1", "up",
        Interval(start, start + timedelta(minutes=15)), (Step(2e6, 1e-4), Step(5e6, 1.2e-4)), "EUR", min_w=1e6,
    )  # fmt: skip
    state = changes.pop("state", "offered")
    return Offered(replace(bid, **changes), state, start - timedelta(minutes=45))


def written(
    offers: Iterable[Offered], folder: Path, now: datetime = NOW, market: MarketConfig = MARKET
) -> tuple[Path, ...]:
    """Write what is open."""
    return write_reserve_bids(offers, market, PRODUCTS, "dc1", folder, now)


def test_what_is_open_is_a_document_the_market_takes(tmp_path: Path) -> None:
    """Two quarters of two steps each: four series, nothing to object to; what is withdrawn or of another product stays out."""
    offers = [offered(1), offered(0), offered(2, state="withdrawn"), offered(3, product="eu-mfrr")]
    (file,) = written(offers, tmp_path / "out")
    document = deserialize_reserve_bid_document(file.read_bytes())
    assert validate_document(document, MARIMode.PRE_MARI) == []
    assert [s.period.time_interval_start for s in document.bid_time_series] == [TEN] * 2 + [
        TEN + timedelta(minutes=15)
    ] * 2
    assert {s.registered_resource_mrid for s in document.bid_time_series} == {"FIN-1"}


def test_behind_the_gate_nothing_is_written(tmp_path: Path) -> None:
    """A quarter whose gate has closed is not handed in again."""
    (file,) = written([offered(0), offered(1)], tmp_path, TEN - timedelta(minutes=40))
    assert len(deserialize_reserve_bid_document(file.read_bytes()).bid_time_series) == 2
    assert written([offered(0)], tmp_path, TEN) == ()


def test_the_same_bids_are_the_same_document_and_a_revision_another(tmp_path: Path) -> None:
    """Handing in twice is harmless."""
    (once,), (again,) = (written([offered()], tmp_path / name) for name in ("a", "b"))
    assert (once.name, once.read_bytes()) == (again.name, again.read_bytes())
    (revised,) = written([offered(revision=2)], tmp_path / "c")
    assert revised.name != once.name


def test_what_cannot_be_written_says_why(tmp_path: Path) -> None:
    """No codes, no price beyond the product's limit, no folder that is a file."""
    bare = MARKET.model_copy(update={"reserve_bid": None})
    with pytest.raises(Refused, match=r"market\.reserve_bid"):
        written([offered()], tmp_path, market=bare)
    with pytest.raises(Refused, match="beyond the limit"):
        written([offered(steps=(Step(5e6, 0.011),))], tmp_path)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(Refused, match="cannot be written"):
        written([offered()], tmp_path / "file")
