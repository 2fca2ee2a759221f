"""What is offered to the market and what it has awarded, as plain JSON values."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from vppd.core.bidding.bid import Offered, price_per_mwh
from vppd.model import Obligation


def bids_view(offers: Iterable[Offered], obligations: Iterable[Obligation], at: datetime) -> dict[str, Any]:
    """Return offers and obligations that are not over at ``at``, by their time: powers in W, prices as text per MWh."""
    live = sorted((o for o in offers if o.bid.end > at), key=lambda o: (o.bid.interval.start, o.bid.bid_id))
    owed = sorted(obligations, key=lambda found: (found.interval.start, found.award_id))
    return {"offers": [_offer(entry) for entry in live], "obligations": [found.to_body() for found in owed]}


def _offer(entry: Offered) -> dict[str, Any]:
    bid = entry.bid
    return {
        "bid_id": bid.bid_id,
        "revision": bid.revision,
        "state": entry.state,
        "product": bid.product,
        "resource": bid.resource,
        "direction": bid.direction,
        "start": bid.interval.start.isoformat(),
        "end": bid.end.isoformat(),
        "gate_closes_at": entry.gate_closes_at.isoformat(),
        "power_w": bid.power_w,
        "awarded_w": entry.awarded_w,
        "min_w": bid.min_w,
        "divisible": bid.divisible,
        "steps": [{"upto_w": step.upto_w, "price": f"{price_per_mwh(step):f}"} for step in bid.steps],
        "currency": bid.currency,
        "dispatch": bid.dispatch,
        "exclusive_group": bid.exclusive_group,
    }
