"""Which gates have closed, and which of them before the desk had done its work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog

from vppd.planning.trade.gates import Slot

log = structlog.get_logger()


class GateLog:
    """Counts gates by product while the desk is at work; those that close before its first round are not known to it."""

    def __init__(self, lead_s: float) -> None:
        """``lead_s``: so long before a gate its slots are in play. [s]"""
        self.closed: Counter[str] = Counter()
        """Gates that have closed, by product."""
        self.missed: Counter[str] = Counter()
        """Those of them before which no round was carried through while their slots were in play."""
        self._lead = timedelta(seconds=lead_s)
        self._open: frozenset[tuple[datetime, str]] = frozenset()
        self._served: datetime | None = None

    def looked(self, found: Iterable[Slot], now: datetime) -> None:
        """Take the slots whose gates are open now; gates that were open at the look before and have closed are counted."""
        found = tuple(found)
        for product in {slot.product for slot in found}:  # what has not happened yet is a count too: of 0
            self.closed[product] += 0
            self.missed[product] += 0
        for closes_at, product in sorted(gate for gate in self._open if gate[0] <= now):
            self.closed[product] += 1
            if self._served is None or self._served < closes_at - self._lead:
                self.missed[product] += 1
                log.warning("gate_missed", product=product, closed_at=closes_at.isoformat())
        self._open = frozenset((slot.gate_closes_at, slot.product) for slot in found if slot.gate_closes_at > now)

    def served(self, at: datetime) -> None:
        """Note that a round that began at ``at`` has been carried through: the market knows what it should."""
        self._served = at
