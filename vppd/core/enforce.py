"""Demands -> the bounds in force on every node, reached and given back by ramps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vppd.core.aggregate import Image
from vppd.core.arbitrate import Proposal, arbitrate
from vppd.core.state import Demand, State
from vppd.model import Bounds
from vppd.snapshot import Bools, Floats, Plant


@dataclass(frozen=True, slots=True, eq=False)
class Enforced:
    """Bounds on every node, shapes (m,)."""

    lower_w: Floats
    """In force now, -inf when free. [W]"""
    upper_w: Floats
    """In force now, inf when free. [W]"""
    wanted_upper_w: Floats
    """Where the ramp ends. [W]"""
    steady_lower_w: Floats
    """For slow assets: where the ramp ends, without the fast signal. [W]"""
    steady_upper_w: Floats
    bound: Bools
    """Some bound holds on the node or above or below it, or power is still being given back."""


def enforce(demands: Sequence[Demand], state: State, plant: Plant, image: Image, dt_s: float) -> Enforced:
    """Return the bounds in force after ``dt_s``: tightening at the order's rate, loosening at the site's. [W]"""
    m = len(plant.nodes)
    lower_w, upper_w = np.full(m, -np.inf), np.full(m, np.inf)
    wanted_w, steady_lower_w, steady_upper_w = upper_w.copy(), lower_w.copy(), upper_w.copy()
    for i in range(m):
        mine = [d for d in demands if d.node == i]
        held = np.isfinite(state.upper_w[i]) or np.isfinite(state.lower_w[i])
        if not mine and not held:
            continue
        goal = _goal(mine, plant, i)
        lower_w[i], upper_w[i] = _ramp(goal, mine, state, plant, image, i, dt_s)
        wanted_w[i] = goal.upper_w if mine else np.inf
        steady = _goal(mine, plant, i, steady=True) if mine else Bounds(lower_w[i], upper_w[i])
        follows = any(np.isfinite(d.lower_w) for d in mine)
        # Slow assets start at once towards the goal, but never give back faster than the ramp.
        steady_lower_w[i], steady_upper_w[i] = (
            steady.lower_w,
            steady.upper_w if follows else min(steady.upper_w, upper_w[i]),
        )
    return Enforced(lower_w, upper_w, wanted_w, steady_lower_w, steady_upper_w, _touched(lower_w, upper_w, plant))


def _goal(demands: Sequence[Demand], plant: Plant, node: int, *, steady: bool = False) -> Bounds:
    """Return where the node's bounds shall end up: all its demands within its physical limits. [W]"""
    feasible = Bounds(float(plant.node_lower_w[node]), float(plant.node_upper_w[node]))
    return arbitrate(
        feasible,
        [
            Proposal(
                d.order.order_id,
                d.order.priority,
                Bounds(d.steady_lower_w, d.steady_upper_w) if steady else Bounds(d.lower_w, d.upper_w),
            )
            for d in demands
        ],
    )


def _ramp(
    goal: Bounds, mine: Sequence[Demand], state: State, plant: Plant, image: Image, i: int, dt_s: float
) -> tuple[float, float]:
    """Return (lower, upper) of node ``i`` after ``dt_s``, moving from what was in force, or from the measured power. [W]"""
    now_w = float(image.node_power_w[i])
    follows = any(np.isfinite(d.lower_w) for d in mine)
    tighten = max((d.rate_w_per_s for d in mine), default=plant.ramp_down_w_per_s) * dt_s
    loosen = (max(tighten, plant.ramp_up_w_per_s * dt_s)) if follows else plant.ramp_up_w_per_s * dt_s
    upper_w = _approach(float(state.upper_w[i]), max(now_w, goal.upper_w), goal.upper_w, down_w=tighten, up_w=loosen)
    lower_w = -np.inf
    if follows or np.isfinite(state.lower_w[i]):
        lower_goal = goal.lower_w if follows else -np.inf
        lower_w = _approach(
            float(state.lower_w[i]), min(now_w, goal.lower_w), lower_goal, down_w=loosen, up_w=max(tighten, loosen)
        )
    if not mine and upper_w >= image.unheld_w[i]:
        return -np.inf, np.inf
    return min(lower_w, upper_w), upper_w


def _approach(before_w: float, start_w: float, goal_w: float, *, down_w: float, up_w: float) -> float:
    """Return the bound one step closer to its goal; ``start_w`` stands in where there was none. [W]"""
    from_w = before_w if np.isfinite(before_w) else start_w
    if not np.isfinite(goal_w):
        return goal_w
    return min(max(goal_w, from_w - down_w), from_w + up_w)


def _touched(lower_w: Floats, upper_w: Floats, plant: Plant) -> Bools:
    """Say for every node whether a bound holds on it or on a node above it, shape (m,)."""
    bound = np.isfinite(lower_w) | np.isfinite(upper_w)
    for i in range(1, len(bound)):
        bound[i] |= bound[plant.parent[i]]
    return bound
