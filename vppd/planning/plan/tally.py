"""What was planned and what was measured, step by step: the day so far. Cheap enough for every cycle."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from vppd.core.aggregate import is_storage
from vppd.core.state import Decision
from vppd.model import Kind
from vppd.snapshot import KINDS, Floats, Plant, Snapshot

LEAST_COVERED_FRAC = 0.5
"""A step of which less was measured counts as not measured. [0-1]"""
KEPT_STEPS = 300
LONGEST_CYCLES = 5.0
"""A picture stands for no more than so many beats."""


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """What the plan in force at the end of a step said of it."""

    power_w: Floats
    """(n,) NaN for no plan. [W]"""
    import_w: float
    renewable_w: float
    price_per_wh: float


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step that is over; NaN is not measured."""

    start: datetime
    power_w: Floats
    """(n,) measured means. [W]"""
    unheld_w: Floats
    """(n,) what would have been drawn or generated if nothing had held it. [W]"""
    import_w: float
    renewable_w: float
    """Measured output of PV and wind. [W, >= 0]"""
    planned: Planned | None


class Tally:
    """Means over the steps of the plan's grid; ``steps`` holds those that are over, the oldest first."""

    def __init__(self, plant: Plant, step_s: float) -> None:
        self._plant, self._step_s = plant, step_s
        generates = [KINDS.index(kind) for kind in (Kind.PV, Kind.WIND)]
        self._source = np.isin(plant.kind, np.array(generates, dtype=np.int64))
        self._storage = is_storage(plant)
        self._longest_s = LONGEST_CYCLES * plant.cycle_s
        n = len(plant.asset_ids)
        self.steps: deque[Step] = deque(maxlen=KEPT_STEPS)
        self.start: datetime | None = None
        """Beginning of the present step, None before the first cycle."""
        self.stored_wh = np.full(n, np.nan)
        """(n,) energy at the first cycle of the present step. [Wh]"""
        self.month, self.peak_w = "", 0.0
        """The highest import of a step in this month so far. [W]"""
        self._sums, self._covered_s = np.zeros((3, n)), np.zeros((3, n))
        self._sums_before, self._covered_before_s = self._sums, self._covered_s
        self._mono_s = -np.inf

    def take(self, snapshot: Snapshot, decision: Decision) -> datetime | None:
        """Count one cycle; return the beginning of the step that it ends, None within a step."""
        start = snapshot.at - timedelta(seconds=snapshot.at.timestamp() % self._step_s)
        ended = self.start if self.start is not None and start != self.start else None
        passed_s = min(max(snapshot.mono_s - self._mono_s, 0.0), self._longest_s)
        if self.start is None or ended is not None:
            self._begin(start, decision)
            passed_s = min(passed_s, (snapshot.at - start).total_seconds())
        self._mono_s = snapshot.mono_s
        values = self._values(snapshot, decision)
        known = np.isfinite(values)
        self._sums += np.where(known, values, 0.0) * passed_s
        self._covered_s += known * passed_s
        return ended

    def close(self, start: datetime, planned: Planned | None) -> Step:
        """Keep the step that ``take`` said has ended, and return it."""
        means, covered_s = self._sums_before / np.maximum(self._covered_before_s, 1e-9), self._covered_before_s
        means = np.where(covered_s >= LEAST_COVERED_FRAC * self._step_s, means, np.nan)
        sources_w = means[0][self._source]
        found = Step(
            start=start,
            power_w=means[0],
            unheld_w=means[1],
            import_w=float(means[2, 0]),
            renewable_w=float(np.maximum(-sources_w, 0.0).sum()) if np.isfinite(sources_w).all() else np.nan,
            planned=planned,
        )
        self.steps.append(found)
        month = f"{start:%Y-%m}"
        if month != self.month:
            self.month, self.peak_w = month, 0.0
        if np.isfinite(found.import_w):
            self.peak_w = max(self.peak_w, found.import_w)
        return found

    def _begin(self, start: datetime, decision: Decision) -> None:
        self.start = start
        self._sums_before, self._covered_before_s = self._sums, self._covered_s
        self._sums, self._covered_s = np.zeros_like(self._sums), np.zeros_like(self._covered_s)
        soc_frac = np.where(self._storage, decision.state.soc_frac, np.nan)
        self.stored_wh = soc_frac * self._plant.capacity_wh

    def _values(self, snapshot: Snapshot, decision: Decision) -> Floats:
        """Return power and unheld power of each asset, and the site's import in the first place of a row of its own. [W]"""
        r = snapshot.readings
        fresh = snapshot.mono_s - r.mono_s <= self._plant.stale_after_s
        power_w = np.where(fresh, r.power_w, np.nan)
        unheld_w = np.where(fresh & np.isfinite(r.available_w), r.available_w, power_w)
        site_w = np.full(len(power_w), np.nan)
        site_w[:1] = decision.node_power_w[0]
        return np.stack([power_w, unheld_w, site_w])
