"""What a market came to, as JSON values and as a table: offers, prices, awards, receipts, what was delivered, what is owed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from vppd.errors import ConfigError
from vppd.market.accounts import Account, Tariff, account
from vppd.market.market import Market
from vppd.market.memory import Memory, deal_body, round_body
from vppd.market.rounds import Deal


def results(market: Market) -> dict[str, Any]:
    """Return everything that came of a market, as plain JSON values; money and energy as exact decimal text."""
    memory = market.memory
    return {
        "issuer": market.rules.issuer,
        "slots": [round_body(found) for found in memory.rounds],
        "awards": [_award(deal, market.tariff) for deal in memory.deals.values()],
        "ignored": list(market.ignored),
        "totals": _totals(memory, market.tariff),
    }


def write(found: Mapping[str, Any], path: Path) -> None:
    """Write the results, whole or not at all. Raises ConfigError where that cannot be done."""
    draft = path.with_name(f".{path.name}.new")
    try:
        draft.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print the results as tables."""
    slots = Table(title="Slots", box=SIMPLE_HEAD, title_justify="left")
    for name in ("product", "direction", "delivery", "offered kW", "others kW", "needed kW", "taken kW", "price"):
        slots.add_column(name, justify="left" if name in ("product", "direction", "delivery") else "right")
    for slot in found["slots"]:
        powers = (slot["offered_w"], slot["rivals_w"], slot["need_w"], sum(slot["taken_w"].values()))
        price = "-" if slot["price"] is None else f"{slot['price']} {slot['currency']}{' scarce' * slot['scarce']}"
        slots.add_row(slot["product"], slot["direction"], _span(slot), *(f"{w / 1e3:,.0f}" for w in powers), price)
    console.print(slots)
    console.print(_awards_table(found))


def _awards_table(found: Mapping[str, Any]) -> Table:
    awards = Table(title="Awards", box=SIMPLE_HEAD, title_justify="left")
    words = ("plant", "direction", "delivery", "receipt")
    for name in ("plant", "direction", "delivery", "kW", "receipt", "obliged kWh", "delivered kWh", "owed"):
        awards.add_column(name, justify="left" if name in words else "right")
    for award in found["awards"]:
        settled = award["account"] or {"obliged_wh": None, "delivered_wh": None, "owed": None}
        energies = (
            "-" if settled[k] is None else f"{Decimal(settled[k]) / 1000:,.3f}" for k in ("obliged_wh", "delivered_wh")
        )
        owed = "-" if settled["owed"] is None else f"{settled['owed']} {award['currency']}"
        receipt = f"{award['state']} {award['reason']}".strip()
        power = f"{award['power_w'] / 1e3:,.1f}"
        awards.add_row(award["vpp"], award["direction"], _span(award), power, receipt, *energies, owed)
    return awards


def _award(deal: Deal, tariff: Tariff) -> dict[str, Any]:
    settled = account(deal, tariff)
    return deal_body(deal) | {"account": None if settled is None else _account_body(settled)}


def _account_body(settled: Account) -> dict[str, str]:
    names = ("obliged_wh", "delivered_wh", "pay", "penalty", "owed")
    return {name: str(getattr(settled, name)) for name in names}


def _totals(memory: Memory, tariff: Tariff) -> dict[str, Any]:
    deals = list(memory.deals.values())
    settled = [(deal.currency, found) for deal in deals if (found := account(deal, tariff)) is not None]
    owed: dict[str, Decimal] = defaultdict(Decimal)
    for currency, found in settled:
        owed[currency] += found.owed
    return {
        "slots": len(memory.rounds),
        "awards": len(deals),
        "accepted": sum(deal.state == "accepted" for deal in deals),
        "rejected": sum(deal.state == "rejected" for deal in deals),
        "statements": sum(bool(deal.statements) for deal in deals),
        "obliged_wh": str(sum((found.obliged_wh for _, found in settled), Decimal(0))),
        "delivered_wh": str(sum((found.delivered_wh for _, found in settled), Decimal(0))),
        "owed": {currency: str(money) for currency, money in owed.items()},
    }


def _span(entry: Mapping[str, Any]) -> str:
    return f"{entry['start'][:10]} {entry['start'][11:19]}-{entry['end'][11:19]}"
