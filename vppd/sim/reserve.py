"""The battery of a scenario: it takes the top off the cuts of an event, evenly, and is charged again when all is over."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vppd.sim.scenario import BatteryTable
from vppd.snapshot import Floats

RECHARGE_PER_H = 0.25
"""Part of the capacity that is charged in an hour, so that nothing rebounds."""


@dataclass(frozen=True, slots=True)
class Store:
    """A battery and what is in it."""

    power_w: float
    capacity_wh: float
    full_wh: float
    """What it is charged to again."""
    least_wh: float
    energy_wh: float
    efficiency_frac: float

    def most_w(self, step_s: float) -> float:
        """Return the most it can give for a whole step. [W]"""
        usable_wh = max(self.energy_wh - self.least_wh, 0.0) * self.efficiency_frac
        return min(self.power_w, usable_wh * 3600.0 / step_s)


def full_store(table: BatteryTable | None) -> Store:
    """Return the battery at the beginning; without a table one that holds nothing."""
    if table is None:
        return Store(0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    energy_wh = table.soc_frac * table.capacity_wh
    least_wh = table.reserve_frac * table.capacity_wh
    return Store(table.power_w, table.capacity_wh, energy_wh, least_wh, energy_wh, table.efficiency_frac)


def discharge_w(store: Store, need_w: Floats, step_s: float) -> Floats:
    """Return what it gives in each step to come, (t,): so that what is left for the jobs is as level as can be. [W]"""
    usable_wh = max(store.energy_wh - store.least_wh, 0.0) * store.efficiency_frac
    if usable_wh <= 0.0 or store.power_w <= 0.0:
        return np.zeros(len(need_w))
    run = np.flatnonzero(need_w <= 0.0)
    mine_w = np.where(np.arange(len(need_w)) < (run[0] if len(run) else len(need_w)), need_w, 0.0)
    low_w, high_w = 0.0, float(mine_w.max(initial=0.0))
    for _ in range(60):
        level_w = (low_w + high_w) / 2.0
        spent_wh = float(np.clip(mine_w - level_w, 0.0, store.power_w).sum()) * step_s / 3600.0
        low_w, high_w = (level_w, high_w) if spent_wh > usable_wh else (low_w, level_w)
    return np.clip(mine_w - high_w, 0.0, store.power_w)


def recharge_w(store: Store, step_s: float) -> float:
    """Return what it is charged with for a step when nothing is asked of it. [W]"""
    missing_wh = max(store.full_wh - store.energy_wh, 0.0) / store.efficiency_frac
    return min(store.power_w, RECHARGE_PER_H * store.capacity_wh, missing_wh * 3600.0 / step_s)


def discharged(store: Store, power_w: float, step_s: float) -> Store:
    """Return the battery after giving ``power_w`` for a step."""
    return replace(store, energy_wh=store.energy_wh - power_w * step_s / 3600.0 / store.efficiency_frac)


def charged(store: Store, power_w: float, step_s: float) -> Store:
    """Return the battery after taking ``power_w`` for a step."""
    return replace(store, energy_wh=store.energy_wh + power_w * step_s / 3600.0 * store.efficiency_frac)
