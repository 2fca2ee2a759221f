"""One battery alone against a price for every step and power: the best way by dynamic programming."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from vppd.core.schedule.problem import Batteries, Problem
from vppd.snapshot import Floats, Ints

FINEST = 8
"""A full step of charging or discharging is about this many rungs."""
MOST_RUNGS = 240
SLACK_FRAC = 1e-9


@dataclass(frozen=True, slots=True)
class Ladder:
    """Evenly spaced stored energies of one battery and the powers that lead from one to another in a step."""

    energy_wh: Floats
    start: int
    """Rung that the battery stands on."""
    reachable: Floats
    """0 where the battery may be after a step, infinite where not."""
    final: Floats
    """The same after the last step."""
    move: Ints
    """Rungs up or down, ascending."""
    power_w: Floats
    """Terminal power of each move, + = charging. [W]"""
    wear: Floats
    """What each move costs in wear."""


def ladders(problem: Problem) -> list[Ladder]:
    """Return the ladder of every battery."""
    return [ladder(problem.batteries, k, problem.step_h) for k in range(len(problem.batteries.names))]


def ladder(batteries: Batteries, k: int, step_h: float) -> Ladder:
    """Return the ladder of battery ``k``; it stands on its initial energy, and its final need is a rung where it can."""
    up_wh = step_h * batteries.charge_max_w[k] * batteries.efficiency_charge[k]
    down_wh = step_h * batteries.discharge_max_w[k] / batteries.efficiency_discharge[k]
    initial_wh, final_wh = float(batteries.initial_wh[k]), float(batteries.final_min_wh[k])
    lower_wh = min(float(batteries.reserve_wh[k]), initial_wh)
    upper_wh = max(float(batteries.energy_wh[k]), initial_wh)
    span_wh = max(upper_wh - lower_wh, 1e-9)
    steps_wh = [v for v in (up_wh, down_wh) if v > 0.0]
    rung_wh = max(min([*steps_wh, span_wh]) / FINEST, span_wh / MOST_RUNGS)
    apart_wh = abs(final_wh - initial_wh)
    if apart_wh > rung_wh:
        rung_wh = apart_wh / np.ceil(apart_wh / rung_wh)
    below = int((initial_wh - lower_wh) / rung_wh + SLACK_FRAC)
    above = int((upper_wh - initial_wh) / rung_wh + SLACK_FRAC)
    energy_wh = initial_wh + rung_wh * np.arange(-below, above + 1)
    most = len(energy_wh) - 1
    move = np.arange(-min(int(down_wh / rung_wh + SLACK_FRAC), most), min(int(up_wh / rung_wh + SLACK_FRAC), most) + 1)
    gain_w = move * rung_wh / step_h
    power_w = np.where(move > 0, gain_w / batteries.efficiency_charge[k], gain_w * batteries.efficiency_discharge[k])
    slack_wh = SLACK_FRAC * upper_wh
    allowed = (energy_wh >= batteries.reserve_wh[k] - slack_wh) & (energy_wh <= batteries.energy_wh[k] + slack_wh)
    return Ladder(
        energy_wh=energy_wh,
        start=below,
        reachable=np.where(allowed, 0.0, np.inf),
        final=np.where(allowed & (energy_wh >= final_wh - slack_wh), 0.0, np.inf),
        move=move,
        power_w=power_w,
        wear=batteries.wear_cost_per_wh[k] / 2.0 * step_h * np.abs(power_w),
    )


def best_powers(rungs: Ladder, cost: Floats) -> Floats | None:
    """Return the power per step of the cheapest way, ``cost`` having shape (step, move); None where no way leads. [W]"""
    down, up = -int(rungs.move[0]), int(rungs.move[-1])
    count, steps = len(rungs.energy_wh), len(cost)
    padded = np.full(count + down + up, np.inf)
    to_go = padded[down : down + count]
    window = sliding_window_view(padded, down + up + 1)
    choice = np.empty((steps, count), dtype=np.int64)
    at = np.arange(count)
    to_go[:] = rungs.final
    for t in range(steps - 1, -1, -1):
        total = window + cost[t]
        best = total.argmin(axis=1)
        choice[t] = best
        to_go[:] = total[at, best]
        if t:
            to_go += rungs.reachable
    if not np.isfinite(to_go[rungs.start]):
        return None
    powers, rung = np.empty(steps), rungs.start
    for t in range(steps):
        powers[t] = rungs.power_w[choice[t, rung]]
        rung += int(rungs.move[choice[t, rung]])
    return powers
