"""The regulation signal behind orders for symmetric awards: one course per power plant, neutral over the time it is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from vppd.grid.wander import SIGNAL_S, signals
from vppd.market.link import Clerk, Wire
from vppd.market.rounds import Deal


@dataclass(slots=True)
class Signalling:
    """Sends what is due; a signal that is lost is not sent again, the next one follows."""

    clerk: Clerk
    wire: Wire
    seed: int = 1
    every_s: float = SIGNAL_S
    _courses: dict[str, list[float]] = field(default_factory=dict)
    """By award id, while it is ordered."""
    _sent: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Which signal of which award each power plant had last."""

    def course(self, deal: Deal) -> list[float]:
        """Return all signals of an award's order: the same after a restart. [-1, 1]"""
        assert deal.order_start is not None
        assert deal.order_end is not None
        count = math.ceil((deal.order_end - deal.order_start).total_seconds() / self.every_s)
        return signals(f"{self.seed} {deal.award_id}", count, self.every_s)

    def swing_frac(self, deal: Deal) -> float:
        """Return the mean size of the signals of an award's order. [0-1]"""
        levels = self.course(deal)
        return round(math.fsum(map(abs, levels)) / max(len(levels), 1), 6)

    def tick(self, deals: Iterable[Deal], at: datetime) -> None:
        """Send each power plant the signal of now; it has one of each issuer, so the order that began first says it."""
        running = [deal for deal in deals if _is_regulated(deal, at)]
        self._courses = {deal.award_id: self._courses.get(deal.award_id) or self.course(deal) for deal in running}
        first: dict[str, Deal] = {}
        for deal in sorted(running, key=lambda d: (not self._is_followed(d), d.order_start or at, d.award_id)):
            first.setdefault(deal.vpp, deal)
        for vpp, deal in first.items():
            self._signal(vpp, deal, at)

    def _is_followed(self, deal: Deal) -> bool:
        """Say whether its course is the one that its power plant hears: it hears it to the end."""
        return self._sent.get(deal.vpp, ("", 0))[0] == deal.award_id

    def _signal(self, vpp: str, deal: Deal, at: datetime) -> None:
        assert deal.order_start is not None
        levels = self._courses[deal.award_id]
        number = min(int((at - deal.order_start).total_seconds() / self.every_s), len(levels) - 1)
        if self._sent.get(vpp) == (deal.award_id, number):
            return
        self._sent[vpp] = (deal.award_id, number)
        command = self.clerk.issuer.signal(vpp, levels[number])
        self.wire.publish(command.topic, command.payload, 0)


def _is_regulated(deal: Deal, at: datetime) -> bool:
    if deal.order_state != "accepted" or deal.direction != "symmetric":
        return False
    return deal.order_start is not None and deal.order_end is not None and deal.order_start <= at < deal.order_end
