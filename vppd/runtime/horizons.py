"""How long the orders on each asset go on, and whether what can be held to their end is too little."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vppd.core.curtail.bearing import bearing, left_s
from vppd.core.state import Decision
from vppd.runtime.clock import Clock
from vppd.snapshot import Plant

SHORT_S = 10.0
"""A node that is short for so long has not just been asked. [s]"""
SHORT_FRAC = 0.01
"""Of the limit wanted; less is none. [0-1]"""


class Horizons:
    """Looks at the newest decision for the planners."""

    def __init__(self, plant: Plant, decided: Callable[[], Decision | None], clock: Clock, cycle_s: float) -> None:
        self._plant, self._decided, self._clock, self._cycle_s = plant, decided, clock, cycle_s
        self._short_since_s: dict[int, float] = {}
        self._at_once: set[int] = set()

    def left_s(self, asset: int) -> float:
        """Return how long the orders that bear on an asset go on, inf without an end, 0 when there is none. [s]"""
        decision = self._decided()
        if decision is None:  # whoever is held by an order of before stays so until it has been looked at
            return self._cycle_s
        return left_s(bearing(asset, decision.demands, self._plant), self._clock.now())

    def is_short(self, asset: int) -> bool:
        """Say whether orders on the asset need what it can give for a while only; then so until they have ended.

        Else what it offers would come and go with what is missing.
        """
        decision = self._decided()
        if decision is None or not bearing(asset, decision.demands, self._plant):
            self._at_once.discard(asset)
            self._short_since_s.pop(asset, None)
            return False
        if not self._misses(asset, decision):
            self._short_since_s.pop(asset, None)
        elif self._clock.mono_s() - self._short_since_s.setdefault(asset, self._clock.mono_s()) >= SHORT_S:
            self._at_once.add(asset)
        return asset in self._at_once

    def _misses(self, asset: int, decision: Decision) -> bool:
        node = int(self._plant.node[asset])
        while node >= 0:
            wanted_w = decision.node_wanted_upper_w[node]
            if np.isfinite(wanted_w) and decision.shortfall_w[node] > SHORT_FRAC * max(abs(wanted_w), 1.0):
                return True
            node = int(self._plant.parent[node])
        return False
