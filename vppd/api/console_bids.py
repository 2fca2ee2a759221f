"""What is offered to the market and what it has awarded, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table


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
