"""Which products a site can sell, as rows for JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from vppd.config.load import Config
from vppd.core.bidding.qualify import Direction, Shortcoming, qualify
from vppd.products import products_in, shipped, site_of

_WAYS: Final = {Direction.EITHER: (Direction.REDUCE, Direction.INCREASE)}
_TOLD: Final = {"reduce": "{} less", "increase": "{} more", "symmetric": "{} both ways"}


def product_rows(config: Config, folder: Path | None = None) -> list[dict[str, Any]]:
    """Return a row per product: what could be offered [W], in which direction, else what fails.

    Raises InvalidConfig for a bad product file.
    """
    site = site_of(config)
    rows = []
    for product in products_in(folder or shipped()):
        verdict = qualify(product.terms, site)
        ways = _WAYS.get(product.direction, (product.direction,))
        verdicts = {str(way): qualify(replace(product.terms, direction=way), site) for way in ways}
        rows.append(
            {
                "name": product.name,
                "title": product.title,
                "market": product.market,
                "qualifies": verdict.qualifies,
                "offer_w": verdict.offer_w,
                "direction": str(product.direction),
                "offers_w": {way: found.offer_w for way, found in verdicts.items() if found.qualifies},
                "shortcomings": [asdict(shortcoming) for shortcoming in verdict.shortcomings],
                "unconfirmed": list(product.unconfirmed),
            }
        )
    return rows


def products_table(rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print the products, those the site qualifies for first."""
    table = Table("product", "market", "offer up to", "what fails")
    for row in sorted(rows, key=lambda row: not row["qualifies"]):
        offer = ", ".join(_TOLD[way].format(_power(w)) for way, w in row["offers_w"].items()) or "-"
        table.add_row(row["name"], row["market"], offer, "; ".join(_failing(s) for s in row["shortcomings"]))
    out = console or Console()
    out.print(table)
    out.print("By nameplate. What a source does not settle is not checked: `--json` lists it for each product.")


def _failing(shortcoming: Mapping[str, Any]) -> str:
    row = Shortcoming(**shortcoming)
    if row.unit == "W":
        have, need, short = _power(row.have), _power(row.need), _power(row.need - row.have)
        return f"{row.requirement}: {have} of {need}, {short} short ({row.what})"
    return f"{row.requirement}: {row.have:g} {row.unit} instead of {row.need:g} {row.unit} ({row.what})"


def _power(power_w: float) -> str:
    return f"{power_w / 1e6:.3g} MW"
