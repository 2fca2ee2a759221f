"""What the desk shows: products, gates, offers and why there are none, as plain JSON values. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from vppd.core.bidding.bid import Offered, price_per_mwh
from vppd.planning.trade.gates import Slot
from vppd.planning.trade.offer_form import Answer
from vppd.ports import Window
from vppd.products import ProductConfig

GATES_SHOWN = 10


def desk_view(
    now: datetime,
    products: Mapping[str, ProductConfig],
    reasons: Mapping[str, str],
    slots: Sequence[Slot],
    offers: Mapping[str, Offered],
    given: Answer | None,
    *,
    missing: Mapping[str, str],
    trouble: str,
    running: Sequence[Mapping[str, Any]],
    reserved: Mapping[str, Sequence[Window]],
) -> dict[str, Any]:
    """Return the desk as the HTTP API shows it; powers in W, prices per MWh, times as text."""
    return {
        "at": now.isoformat(),
        "trouble": trouble,
        "products": [_product(product, reasons.get(name, "")) for name, product in products.items()],
        "next_gates": [_slot(slot) for slot in slots if slot.gate_closes_at > now][:GATES_SHOWN],
        "offers": [_offer(offered) for offered in offers.values() if offered.bid.end > now],
        "not_offered": [
            {
                "product": left.product,
                "direction": left.direction,
                **_ends(left.interval.start, left.interval.end),
                "reason": left.reason,
            }
            for left in (given.unsold if given else ())
        ],
        "not_counted": dict(missing),
        "short_w": dict(given.short_w) if given else {},
        "split": given.status if given else "",
        "running": [dict(entry) for entry in running],
        "reserved": {
            cluster: [{**asdict(w), "start": w.start.isoformat(), "end": w.end.isoformat()} for w in windows]
            for cluster, windows in reserved.items()
        },
    }


def _product(product: ProductConfig, reason: str) -> dict[str, Any]:
    return {
        "name": product.name,
        "title": product.title,
        "market": product.market,
        "offered": not reason,
        "why_not": reason,
        "dispatch": product.dispatch,
    }


def _slot(slot: Slot) -> dict[str, Any]:
    return {"product": slot.product, **_ends(slot.start, slot.end), "closes_at": slot.gate_closes_at.isoformat()}


def _offer(offered: Offered) -> dict[str, Any]:
    bid = offered.bid
    return {
        "bid_id": bid.bid_id,
        "product": bid.product,
        "direction": bid.direction,
        **_ends(bid.interval.start, bid.end),
        "state": offered.state,
        "revision": bid.revision,
        "power_w": bid.power_w,
        "awarded_w": offered.awarded_w,
        "price_per_mwh": [f"{price_per_mwh(step):f}" for step in bid.steps],
        "closes_at": offered.gate_closes_at.isoformat(),
    }


def _ends(start: datetime, end: datetime | None) -> dict[str, str | None]:
    return {"start": start.isoformat(), "end": end.isoformat() if end else None}
