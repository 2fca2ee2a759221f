"""How much better no schedule can be: each battery's exact optimum at the site's marginal prices.

With the power balance priced by its multipliers the problem falls apart into one battery each (Lagrangian duality), so
that LP optimum + sum of (battery's true optimum - its part in the LP) is a proven bound. The true optimum is found on
a grid of stored energies, after both step sizes have been rounded up and both limits rounded outwards to the grid.
That only widens the choice, and makes the grid exact: the cost to go is piecewise linear, and its convex kinks are at
limits moved by whole steps, thus on the grid, where a cheapest way may then stay.
"""

from __future__ import annotations

import numpy as np

from vppd.core.schedule.problem import Batteries
from vppd.core.schedule.program import Layout, Program
from vppd.snapshot import Floats

POINTS = 4096
NUDGE = 1e-9


def least_cost(
    batteries: Batteries, k: int, price_per_w: Floats, step_h: float, stored_per_wh: Floats | None = None
) -> float:
    """Return a lower bound of what battery ``k`` costs, never charging and discharging at once, at a price per step.

    ``stored_per_wh`` is a price of what is stored after each step. Minus infinity where the battery's initial energy is
    outside its limits and the grid has nowhere to stand.
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
    # What every rung costs when the lowest is free; the lowest is put back at the end, once.
    slope = np.zeros(len(price_per_w)) if stored_per_wh is None else stored_per_wh * point_wh
    for rise, fall, worth in zip(charging[::-1], discharging[::-1], slope[::-1], strict=True):
        if worth:
            to_go = to_go + worth * at
        higher = lowest_ahead(to_go + rise * at, up) - rise * at
        lower = lowest_ahead((to_go - fall * at)[::-1], down)[::-1] + fall * at
        to_go = np.minimum(higher, lower)
    lowest_wh = initial_wh - below * point_wh
    return float(to_go[below] + slope.sum() / point_wh * lowest_wh)


def battery_prices(program: Program, layout: Layout, row_dual: Floats) -> tuple[Floats, Floats | None]:
    """Return what power (per W) and stored energy (per Wh) of each battery are worth at each step to everything else.

    That is the reduced cost without the rows that are the battery's own, from the power balance and, where there are
    any, from reserves and feeds; without those nothing stored has a price of its own.
    """
    if layout.extra is None:
        return np.broadcast_to(layout.price_per_w(row_dual), layout.charge.shape), None
    shared = np.zeros(len(program.row_lower), np.bool_)
    shared[layout.balance] = True
    for block in layout.extra.named:
        shared[block.rows] = True
    counts = shared[program.entry_row]
    weight = row_dual[program.entry_row[counts]] * program.entry[counts]
    reduced = program.cost - np.bincount(program.entry_column[counts], weight, minlength=len(program.cost))
    power = (reduced[layout.charge] - reduced[layout.discharge]) / 2.0
    scale = layout.scale
    return power * scale.price_per_wh * scale.step_h, reduced[layout.stored] * scale.price_per_wh


def lowest_ahead(values: Floats, reach: int) -> Floats:
    """Return for each entry the least of itself and the ``reach`` entries behind it, fewer at the end."""
    padded = np.concatenate((values, np.full(reach, np.inf)))
    length = 1
    while 2 * length <= reach + 1:
        padded = np.minimum(padded[:-length], padded[length:])
        length *= 2
    rest = reach + 1 - length
    return np.asarray(np.minimum(padded[: len(values)], padded[rest : rest + len(values)]))
