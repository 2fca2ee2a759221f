"""What the trading desk says, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table

_WAYS: Final = {"symmetric": "both"}
"""up and down say themselves."""


def market_table(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print products, the next gates, what is on offer, and what is not and why; times are UTC."""
    out = console or Console()
    if found["trouble"]:
        out.print(f"[red]Offers could not be computed: {found['trouble']}[/]")
    products = Table("product", "market", "an award is", "offered")
    for entry in found["products"]:
        products.add_row(
            entry["name"], entry["market"], entry["dispatch"], "yes" if entry["offered"] else entry["why_not"]
        )
    out.print(products)
    gates = Table("next gate", "product", "delivery")
    for gate in found["next_gates"]:
        gates.add_row(_time(gate["closes_at"]), gate["product"], _slot(gate))
    out.print(gates)
    offers = Table("delivery", "product", "way", "kW", "awarded", "per MWh", "state", "missing")
    for offer in found["offers"]:
        missing_w = found["short_w"].get(f"offered/{offer['bid_id']}")
        prices = "-".join(dict.fromkeys((offer["price_per_mwh"][0], offer["price_per_mwh"][-1])))
        way = _WAYS.get(offer["direction"], offer["direction"])
        row = (_slot(offer), offer["product"], way, _kw(offer["power_w"]), _kw(offer["awarded_w"]), prices)
        offers.add_row(*row, f"{offer['state']} ({offer['revision']})", _kw(missing_w))
    out.print(offers)
    for entry in found["not_offered"]:
        way = _WAYS.get(entry["direction"], entry["direction"])
        out.print(f"{entry['product']} ({way}) at {_time(entry['start'])} is not offered: {entry['reason']}")
    for asset, reason in found["not_counted"].items():
        out.print(f"{asset} is not counted on: {reason}")


def _slot(entry: Mapping[str, Any]) -> str:
    return f"{_time(entry['start'])}-{entry['end'][11:16]}"


def _time(text: str) -> str:
    """Return month, day and time (UTC)."""
    return text[5:16].replace("T", " ")


def _kw(power_w: float | None) -> str:
    return "" if not power_w else f"{power_w / 1e3:.1f}"
