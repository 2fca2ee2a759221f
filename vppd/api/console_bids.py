"""What is offered to the market and what it has awarded, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table


def bids_table(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what is offered, then what is owed; times are UTC."""
    out = console or Console()
    if not found["offers"] and not found["obligations"]:
        out.print("Nothing is offered, and nothing is owed.")
        return
    offers = Table("offered", "resource", "delivery (UTC)", "awarded", "per MWh", "gate", "bid")
    for row in found["offers"]:
        offers.add_row(
            f"{row['product']} {row['direction']}", row["resource"], _span(row["start"], row["end"]),
            f"{_mw(row['awarded_w'])} of {_mw(row['power_w'])} MW", f"{_prices(row['steps'])} {row['currency']}",
            _moment(row["gate_closes_at"]), _name(row),
        )  # fmt: skip
    owed = Table("owed", "resource", "delivery (UTC)", "power", "per MWh", "dispatch", "award")
    for row in found["obligations"]:
        owed.add_row(
            f"{row['product']} {row['direction']}", row["resource"], _span(row["start"], row["end"]),
            f"{_mw(row['power_w'])} MW", f"{row['price']} {row['currency']}", row["dispatch"],
            f"{row['award_id'][:8]} by {row['issuer']}",
        )  # fmt: skip
    for table in (offers, owed):
        if table.row_count:
            out.print(table)


def _name(row: Mapping[str, Any]) -> str:
    revision = "" if row["revision"] == 1 else f" rev {row['revision']}"
    return f"{row['bid_id'][:8]}{revision}{'' if row['state'] == 'offered' else ' ' + row['state']}"


def _prices(steps: list[Mapping[str, Any]]) -> str:
    first, last = steps[0]["price"], steps[-1]["price"]
    return str(first) if first == last else f"{first} to {last}"


def _span(start: str, end: str) -> str:
    """Return from when to when; the day of the end only when it is another one."""
    first, last = _moment(start), _moment(end)
    return f"{first} - {last[6:] if first[:5] == last[:5] else last}"


def _moment(text: str) -> str:
    at = datetime.fromisoformat(text).astimezone(UTC)
    return f"{at:%m-%d %H:%M:%S}".removesuffix(":00")


def _mw(power_w: float) -> str:
    return f"{power_w / 1e6:.4g}"
