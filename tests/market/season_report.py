"""What a season came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from vppd.market.accounts import Account, Pays, Tariff, account
from vppd.market.rounds import Deal

WHOLE_FRAC = 0.98
"""An award that was there for so much of its time was there. [0-1]"""


@dataclass
class Tally:
    """What came of one product."""

    direction: str
    awards: int = 0
    obliged_wh: Decimal = Decimal(0)
    delivered_wh: Decimal = Decimal(0)
    owed: Decimal = Decimal(0)

    @property
    def delivered_frac(self) -> float:
        """Return the part that was delivered, 1 where nothing was to be. [0-1]"""
        return float(self.delivered_wh / self.obliged_wh) if self.obliged_wh else 1.0


@dataclass
class Report:
    """Counts, energies and money; exact."""

    days: int
    offers: int = 0
    awards: int = 0
    refused: list[str] = field(default_factory=list)
    obligations: int = 0
    statements: Counter[str] = field(default_factory=Counter)
    """By award."""
    sold_twice: list[str] = field(default_factory=list)
    energy: list[Account] = field(default_factory=list)
    """Of what was delivered over a slot or on a call."""
    money: list[Account] = field(default_factory=list)
    """Of everything: what was kept ready is paid for being there."""
    delivered: dict[str, float] = field(default_factory=dict)
    """By award, told in words: the part that was delivered. [0-1]"""
    products: dict[str, Tally] = field(default_factory=dict)
    held_frac: list[float] = field(default_factory=list)
    """Of each award that was kept ready, the part of the time in which it was there. [0-1]"""

    @property
    def obliged_wh(self) -> Decimal:
        """Return the energy that was to be delivered. [Wh]"""
        return sum((a.obliged_wh for a in self.energy), Decimal(0))

    @property
    def delivered_wh(self) -> Decimal:
        """Return what was of it. [Wh]"""
        return sum((a.delivered_wh for a in self.energy), Decimal(0))

    @property
    def delivered_frac(self) -> float:
        """Return the part that was delivered. [0-1]"""
        return float(self.delivered_wh / self.obliged_wh) if self.obliged_wh else 1.0

    @property
    def owed(self) -> Decimal:
        """Return the revenue, penalties taken off."""
        return sum((a.owed for a in self.money), Decimal(0))

    def settle(self, deals: Iterable[Deal]) -> None:
        """Give every award its account."""
        for deal in deals:
            tally = self.products.setdefault(deal.product, Tally(deal.direction))
            tally.awards += 1
            paid = account(deal, Tariff(Pays.CAPACITY))
            if paid is not None:
                self.money.append(paid)
                tally.owed += paid.owed
            settled = account(deal, Tariff())
            if settled is None:
                continue
            self.energy.append(settled)
            tally.obliged_wh += settled.obliged_wh
            tally.delivered_wh += settled.delivered_wh
            if settled.obliged_wh:
                name = f"{deal.product} {deal.start:%d. %H:%M} {deal.power_w / 1e3:.0f} kW"
                self.delivered[name] = float(settled.delivered_wh / settled.obliged_wh)

    @property
    def short(self) -> dict[str, float]:
        """Return the awards that were not delivered in full, and the part that was. [0-1]"""
        return {name: frac for name, frac in self.delivered.items() if frac < WHOLE_FRAC}
