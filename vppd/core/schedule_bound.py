"""How much better no schedule can be: each battery's exact optimum at the site's marginal prices.

With the power balance priced by its multipliers the problem falls apart into one battery each (Lagrangian duality), so
that LP optimum + sum of (battery's true optimum - its part in the LP) is a proven bound. The true optimum is found on
a grid of stored energies, after both step sizes have been rounded up and both limits rounded outwards to the grid.
That only widens the choice, and makes the grid exact: the cost to go is piecewise linear, and its convex kinks are at
limits moved by whole steps, thus on the grid, where a cheapest way may then stay.
"""

from __future__ import annotations

import numpy as np

from vppd.core.schedule_problem import Batteries
from vppd.snapshot import Floats

POINTS = 4096
NUDGE = 1e-9


def least_cost(batteries: Batteries, k: int, price_per_w: Floats, step_h: float) -> float:
    """Return a lower bound of what battery ``k`` costs, never charging and discharging at once, at a price per step.

    Minus infinity where its initial energy is outside its limits and the grid has nowhere to stand.
    """
    initial_wh, span_wh = float(batteries.initial_wh[k]), float(batteries.energy_wh[k] - batteries.reserve_wh[k])
    if span_wh <= 0.0 or not batteries.reserve_wh[k] <= initial_wh <= batteries.energy_wh[k]:
        return -np.inf
    point_wh = span_wh / POINTS
    into, out = float(batteries.efficiency_charge[k]), float(batteries.efficiency_discharge[k])
    below = int(np.ceil((initial_wh - batteries.reserve_wh[k]) / point_wh - NUDGE))
    above = int(np.ceil((batteries.energy_wh[k] - initial_wh) / point_wh - NUDGE))
    count = below + above + 1
    up = min(int(np.ceil(step_h * batteries.charge_max_w[k] * into / point_wh - NUDGE)), count - 1)
    down = min(int(np.ceil(step_h * batteries.discharge_max_w[k] / out / point_wh - NUDGE)), count - 1)
    wear = float(batteries.wear_cost_per_wh[k]) / 2.0
    charging = (price_per_w / step_h + wear) / into * point_wh
    discharging = (wear - price_per_w / step_h) * out * point_wh
    at = np.arange(count, dtype=np.float64)
    final = int(np.floor((batteries.final_min_wh[k] - initial_wh) / point_wh + NUDGE)) + below
    to_go = np.where(at >= final, 0.0, np.inf)
    for rise, fall in zip(charging[::-1], discharging[::-1], strict=True):
        higher = lowest_ahead(to_go + rise * at, up) - rise * at
        lower = lowest_ahead((to_go - fall * at)[::-1], down)[::-1] + fall * at
        to_go = np.minimum(higher, lower)
    return float(to_go[below])


def lowest_ahead(values: Floats, reach: int) -> Floats:
    """Return for each entry the least of itself and the ``reach`` entries behind it, fewer at the end."""
    padded = np.concatenate((values, np.full(reach, np.inf)))
    length = 1
    while 2 * length <= reach + 1:
        padded = np.minimum(padded[:-length], padded[length:])
        length *= 2
    rest = reach + 1 - length
    return np.asarray(np.minimum(padded[: len(values)], padded[rest : rest + len(values)]))
