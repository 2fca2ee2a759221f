"""From the ledger of a daemon to documents that the Nordic market takes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from nexa_mfrr_eam import MARIMode, deserialize_reserve_bid_document
from nexa_mfrr_eam.bids.validation import validate_document

from tests.grid.test_reserve_bid_file import CODES, NOW, offered
from tests.planning.market_rig import config
from vppd.config.load import Config
from vppd.errors import ConfigError, Refused
from vppd.grid.offers import offer_event
from vppd.ledger.sqlite import open_ledger
from vppd.planning.trade.submission import submit


def site(folder: Path, products: tuple[str, ...] = ("nordic-mfrr",)) -> Config:
    """Return a site that sells there."""
    plain = config(products=list(products), reserve_bid=CODES)
    return plain.model_copy(update={"site": plain.site.model_copy(update={"state_dir": folder})})


async def test_what_the_daemon_has_on_offer_is_written(tmp_path: Path) -> None:
    """Read while the daemon has the ledger open; the newest revision, and nothing that is withdrawn."""
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        for found in (offered(0), offered(0, revision=2), offered(1), offered(1, state="withdrawn")):
            await ledger.append(offer_event(found.bid, found.state, found.gate_closes_at, NOW, None))
        (file,) = submit(site(tmp_path), tmp_path / "out", NOW)
        assert submit(site(tmp_path), tmp_path / "late", NOW + timedelta(days=1)) == ()
    document = deserialize_reserve_bid_document(file.read_bytes())
    assert validate_document(document, MARIMode.PRE_MARI) == []
    assert [series.period.point.quantity for series in document.bid_time_series] == [2, 3]


def test_without_a_market_a_product_or_a_ledger_it_says_so(tmp_path: Path) -> None:
    """Each with the reason."""
    with pytest.raises(Refused, match="no table"):
        submit(site(tmp_path).model_copy(update={"market": None}), tmp_path, NOW)
    with pytest.raises(ConfigError, match=r"ledger\.db"):
        submit(site(tmp_path), tmp_path, NOW)
