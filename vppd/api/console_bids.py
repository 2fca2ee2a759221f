"""What is offered to the market and what it has awarded, as rows for JSON and as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from vppd.core.bid import Offered, price_per_mwh
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


def bids_table(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what is offered, then what is owed."""
    out = console or Console()
    if not found["offers"] and not found["obligations"]:
        out.print("Nothing is offered, and nothing is owed.")
        return
    offers = Table(
        "bid", "product", "resource", "way", "from", "until", "offered", "awarded", "per MWh", "gate", "state"
    )
    for row in found["offers"]:
        name = row["bid_id"][:8] if row["revision"] == 1 else f"{row['bid_id'][:8]} rev {row['revision']}"
        offers.add_row(
            name, row["product"], row["resource"], row["direction"], *_span(row), _mw(row["power_w"]), _mw(row["awarded_w"]),
            f"{_prices(row['steps'])} {row['currency']}", _clock(row["gate_closes_at"]), row["state"],
        )  # fmt: skip
    owed = Table("award", "issuer", "product", "resource", "way", "from", "until", "power", "per MWh", "dispatch")
    for row in found["obligations"]:
        owed.add_row(
            row["award_id"][:8], row["issuer"], row["product"], row["resource"], row["direction"], *_span(row),
            _mw(row["power_w"]), f"{row['price']} {row['currency']}", row["dispatch"],
        )  # fmt: skip
    out.print(offers)
    out.print(owed)


def _prices(steps: list[Mapping[str, Any]]) -> str:
    first, last = steps[0]["price"], steps[-1]["price"]
    return first if first == last else f"{first} to {last}"


def _span(row: Mapping[str, Any]) -> tuple[str, str]:
    return _clock(row["start"]), _clock(row["end"])


def _clock(text: str) -> str:
    return f"{datetime.fromisoformat(text):%m-%d %H:%M:%S}".removesuffix(":00")


def _mw(power_w: float) -> str:
    return f"{power_w / 1e6:.3g} MW"
