"""IEC 62325 reserve bids, read back and checked by an independent library."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nexa_mfrr_eam import MARIMode, deserialize_reserve_bid_document
from nexa_mfrr_eam.bids.validation import validate_document

from vppd.core.bidding.bid import Bid
from vppd.core.bidding.quote import Step
from vppd.errors import Refused
from vppd.grid.reserve_bid import Market, Party, reserve_bid
from vppd.model import Interval

TEN = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
CREATED = datetime(2026, 11, 21, 14, 30, 5, tzinfo=UTC)
MARKET = Market(
    sender=Party("44X-00000000004B"),
    receiver=Party("10X1001A1001A264"),
    domain=Party("10YFI-1--------U"),
    acquiring=Party("10Y1001A1001A91G"),
    resources=(("dc1", Party("FIN-1")),),
)


def bid(**changes: Any) -> Bid:
    """A bid of 5 MW for a quarter of an hour."""
    values = {
        "bid_id": "3a1f1c52-0000-4000-8000-000000000001", "product": "nordic-mfrr", "resource": "dc1", "direction": "up",
        "interval": Interval(TEN, TEN + timedelta(minutes=15)), "steps": (Step(5e6, 1.2e-4),), "currency": "EUR",
        "min_w": 1e6, **changes,
    }  # fmt: skip
    return Bid(**values)


def read(*bids: Bid) -> Any:
    """Write a document and return what the independent reader makes of it; it must find nothing wrong."""
    document = deserialize_reserve_bid_document(reserve_bid(bids, MARKET, "doc-1", CREATED))
    assert validate_document(document, MARIMode.PRE_MARI) == []
    return document


def test_a_bid_is_read_back_as_it_was_meant() -> None:
    """Quantity, least quantity, price, direction, time and parties survive."""
    document = read(bid())
    assert (document.document_type, document.process_type, document.sender_mrid) == ("A37", "A47", "44X-00000000004B")
    assert document.created_datetime == CREATED
    (series,) = document.bid_time_series
    point = series.period.point
    assert (point.quantity, point.minimum_quantity, point.energy_price) == (5, 1, Decimal("120.00"))
    assert (series.flow_direction, series.divisible_code, series.registered_resource_mrid) == ("A01", "A01", "FIN-1")
    assert series.period.time_interval_start == TEN


def test_steps_are_parts_and_quarter_hours_are_linked() -> None:
    """Two steps over half an hour are four series: the parts of a quarter hour share an id, a step's quarter hours another."""
    half = Interval(TEN, TEN + timedelta(minutes=30))
    series = read(bid(interval=half, steps=(Step(2e6, 1e-4), Step(5e6, 2e-4)))).bid_time_series
    assert [s.period.point.quantity for s in series] == [2, 3, 2, 3]
    assert [s.period.point.energy_price for s in series] == [Decimal(100), Decimal(200)] * 2
    parts, links = [s.multipart_bid_identification for s in series], [s.linked_bids_identification for s in series]
    assert parts[0] == parts[1] != parts[2] == parts[3]
    assert links[0] == links[2] != links[1] == links[3]
    assert len({s.mrid for s in series}) == 4


def test_what_cannot_be_divided_says_so() -> None:
    """An indivisible bid has no least quantity below its quantity."""
    (series,) = read(bid(divisible=False)).bid_time_series
    assert (series.divisible_code, series.period.point.minimum_quantity) == ("A02", None)


def test_rest_and_longest_activation_are_told() -> None:
    """What protects the jobs from a second activation too soon is part of the bid."""
    (series,) = read(bid(resting_s=1800.0, max_duration_s=3600.0)).bid_time_series
    assert (series.resting_constraint_duration, series.maximum_constraint_duration) == ("PT30M", "PT60M")


def test_the_same_bid_is_the_same_document() -> None:
    """Submitting twice changes nothing; a revision has ids of its own."""
    once, again = (reserve_bid((bid(),), MARKET, "doc-1", CREATED) for _ in range(2))
    assert once == again
    assert once != reserve_bid((bid(revision=2),), MARKET, "doc-1", CREATED)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"steps": (Step(0.5e6, 1e-4),), "min_w": 0.0}, "whole MW"),
        ({"steps": (Step(2.5e6, 1e-4),)}, "whole MW"),
        ({"steps": (Step(5e6, 0.02),)}, "beyond the limit"),
        ({"resource": "dc2"}, "no code for 'dc2'"),
        ({"interval": Interval(TEN + timedelta(minutes=7), TEN + timedelta(minutes=22))}, "quarter hour"),
    ],
)
def test_what_the_market_would_not_take_is_refused_with_the_reason(changes: dict[str, Any], why: str) -> None:
    """Nothing is sent that would come back."""
    with pytest.raises(Refused, match=why):
        reserve_bid((bid(**changes),), MARKET, "doc-1", CREATED)
    with pytest.raises(Refused, match="needs a bid"):
        reserve_bid((), MARKET, "doc-1", CREATED)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"direction": "sideways"}, "goes up, down, or both"),
        ({"steps": ()}, "needs a step"),
        ({"steps": (Step(2e6, 2e-4), Step(1e6, 3e-4))}, "rise in quantity"),
        ({"steps": (Step(2e6, 2e-4), Step(3e6, 1e-4))}, "do not fall in price"),
        ({"interval": Interval(TEN)}, "ends after it starts"),
        ({"min_w": 6e6}, "not above its power"),
    ],
)
def test_a_bid_that_makes_no_sense_cannot_be_made(changes: dict[str, Any], why: str) -> None:
    """A bid that no market could read is refused where it is made."""
    with pytest.raises(ValueError, match=why):
        bid(**changes)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.0, 9e-3)), min_size=1, max_size=5),
    st.integers(0, 95),
    st.integers(1, 6),
    st.sampled_from(["up", "down"]),
    st.integers(0, 30),
)
def test_any_bid_that_is_written_is_good(
    parts: list[tuple[int, float]], first: int, units: int, direction: str, least_mw: int
) -> None:
    """Whatever the steps, the independent reader finds nothing wrong, all power is there, and no price is below what was asked."""
    steps, upto_w = [], 0.0
    for quantity_mw, price in zip((q for q, _ in parts), sorted(p for _, p in parts), strict=True):
        upto_w += quantity_mw * 1e6
        steps.append(Step(upto_w, price))
    start = TEN + first * timedelta(minutes=15)
    made = bid(
        steps=tuple(steps), direction=direction, min_w=min(least_mw * 1e6, upto_w),
        interval=Interval(start, start + units * timedelta(minutes=15)),
    )  # fmt: skip
    series = read(made).bid_time_series
    assert len(series) == units * len(steps)
    assert sum(s.period.point.quantity for s in series) == units * round(upto_w / 1e6)
    for one, step in zip(series, steps * units, strict=True):
        assert one.period.point.energy_price >= Decimal(repr(step.price_per_wh * 1e6))
