"""What the trading desk says, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def market_table(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print products, the next gates, what is on offer, and what is not and why."""
    out = console or Console()
    if found["trouble"]:
        out.print(f"[red]Offers could not be computed: {found['trouble']}[/]")
    products = Table("product", "market", "an award is", "offered")
    for entry in found["products"]:
        products.add_row(
            entry["name"], entry["market"], entry["dispatch"], "yes" if entry["offered"] else entry["why_not"]
        )
    out.print(products)
    gates = Table("gate closes", "product", "delivery from", "until")
    for gate in found["next_gates"]:
        gates.add_row(_time(gate["closes_at"]), gate["product"], _time(gate["start"]), _time(gate["end"]))
    out.print(gates)
    offers = Table("delivery from", "product", "power", "awarded", "price per MWh", "state", "revision", "missing")
    for offer in found["offers"]:
        missing_w = found["short_w"].get(f"offered/{offer['bid_id']}")
        offers.add_row(
            _time(offer["start"]), offer["product"], _kw(offer["power_w"]), _kw(offer["awarded_w"]),
            " .. ".join(dict.fromkeys((offer["price_per_mwh"][0], offer["price_per_mwh"][-1]))), offer["state"],
            str(offer["revision"]), _kw(missing_w),
        )  # fmt: skip
    out.print(offers)
    for entry in found["not_offered"]:
        out.print(f"{entry['product']} at {_time(entry['start'])} is not offered: {entry['reason']}")
    for asset, reason in found["not_counted"].items():
        out.print(f"{asset} is not counted on: {reason}")


def _time(text: str) -> str:
    return text[:16].replace("T", " ")


def _kw(power_w: float | None) -> str:
    return "" if not power_w else f"{power_w / 1e3:.1f} kW"
