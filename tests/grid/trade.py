"""A bid, its award and what the award obliges to, as the tests of offers and awards use them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from tests.grid.dispatcher import AWARD_TOPIC, NOW, award_data, event, inbound, watts, when
from tests.grid.plant import key
from vppd.core.bidding.bid import Bid, Offered
from vppd.core.bidding.quote import Step
from vppd.model import Inbound, Interval, Obligation

BID_ID = "3f0d7c52-6d0f-5a51-9a7e-8f5d0b1c2a34"
"""Ids of bids follow from what is offered, so they are UUIDs of version 5."""
AWARD_ID = "0d4f5d1c-3c8e-4b56-8f0a-6d2f5b9a7e10"
GATE = NOW + timedelta(minutes=5)
SLOT = Interval(NOW + timedelta(minutes=10), NOW + timedelta(minutes=25))
STEPS = (Step(150e3, 62.10e-6), Step(400e3, 118.45e-6))


def a_bid(**changes: Any) -> Bid:
    """Return a divisible bid of 400 kW up in two steps, at least 100 kW of it, ten minutes from NOW."""
    plain = Bid(BID_ID, "mfrr-up", "dc1", "up", SLOT, STEPS, "EUR", min_w=100e3)
    return replace(plain, **changes)


def offered(awarded_w: float = 0.0, **changes: Any) -> Offered:
    """Return that bid as it stands in the market."""
    return Offered(a_bid(**changes), "offered", GATE, awarded_w)


def an_obligation(**changes: Any) -> Obligation:
    """Return what an award of 300 kW of it obliges to."""
    plain = Obligation(AWARD_ID, BID_ID, "tso", "mfrr-up", "dc1", "up", SLOT, 300e3, "118.45", "EUR")
    return replace(plain, **changes)


def award_of(bid: Bid, power_w: float, **changes: Any) -> dict[str, Any]:
    """Return the data of an award of so much of a bid, at the price of its dearest step; None leaves a key out."""
    start_s, end_s = ((t - NOW).total_seconds() for t in (bid.interval.start, bid.end))
    plain = {
        "bid_id": bid.bid_id,
        "resource": bid.resource,
        "product": bid.product,
        "direction": bid.direction,
        "power": watts(power_w),
        "interval": {"start_time": when(start_s), "end_time": when(end_s)},
        "price": {"amount": "118.45", "currency": "EUR"},
    }
    data = award_data(**{**plain, **changes})
    return {k: v for k, v in data.items() if v is not None}


def award_message(data: dict[str, Any], issuer: str = "tso") -> Inbound:
    """Return a signed award."""
    content = event("vpp.bid.award.v1", key(f"{issuer}-1").jws(data), source=f"//grid/v1/isv/{issuer}", subject="bid")
    return inbound(AWARD_TOPIC.replace("tso", issuer), content)


def later(seconds: float) -> datetime:
    """Return the time so long after NOW."""
    return NOW + timedelta(seconds=seconds)
