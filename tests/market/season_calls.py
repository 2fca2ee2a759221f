"""How a season's market calls what is kept ready: orders now and then, and a signal behind those that go both ways."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.market.season_products import ISSUER, Line
from vppd.grid.wander import signals
from vppd.market.market import ORDERED_AS
from vppd.market.rounds import Deal
from vppd.model import Interval, Order, OrderKind, Priority

CALLED_FRAC = 0.15
"""How likely what is kept ready is called. [0-1]"""
SIGNAL_S = 180.0
"""A signal holds so long: the plant is looked at every minute. [s]"""
CALL = "call-"


@dataclass
class Caller:
    """Calls the awards of the lines that are kept ready; the same seed calls the same."""

    lines: Mapping[str, Line]
    """By product."""
    seed: int
    _courses: dict[str, list[float]] = field(default_factory=dict)
    """By award, of those that go both ways."""
    _heard: Deal | None = None
    """Whose signal the plant hears."""

    def is_time(self, deal: Deal, at: datetime) -> bool:
        """Say whether an award may be called just now."""
        if deal.dispatch != "order" or deal.order_id:
            return False
        return at == deal.start + timedelta(minutes=self.lines[deal.product].call_minute)

    def call(self, deal: Deal, at: datetime) -> Order | None:
        """Return the order of an award that is called, and note it in the award."""
        if random.Random(f"{self.seed} {deal.award_id}").random() >= CALLED_FRAC:
            return None
        end = at + timedelta(seconds=deal.sustain_s or 900.0)
        deal.order_id, deal.order_start, deal.order_end = f"{CALL}{deal.award_id}", at, end
        if deal.direction == "symmetric":
            levels = signals(f"{self.seed} {deal.award_id}", math.ceil((end - at).total_seconds() / SIGNAL_S), SIGNAL_S)
            self._courses[deal.award_id] = levels
            deal.swing_frac = math.fsum(map(abs, levels)) / len(levels)
            self._heard = deal
        kind, when = OrderKind(ORDERED_AS[deal.direction]), Interval(at, end)
        return Order(
            deal.order_id, ISSUER, kind, deal.resource, when, float(deal.power_w),
            priority=Priority.AWARD, product=deal.product, received_at=at,
        )  # fmt: skip

    def level_frac(self, at: datetime) -> float | None:
        """Return the signal of now, None when there is none. [-1, 1]"""
        deal = self._heard
        if deal is None or deal.order_start is None or deal.order_end is None or at >= deal.order_end:
            return None
        levels = self._courses[deal.award_id]
        return levels[int((at - deal.order_start).total_seconds() // SIGNAL_S)]

    def moves(self, at: datetime, deals: Iterable[Deal]) -> bool:
        """Say whether something is called, or the signal changes, at a full minute."""
        if any(self.is_time(deal, at) for deal in deals):
            return True
        return self.level_frac(at) != self.level_frac(at - timedelta(seconds=1))
