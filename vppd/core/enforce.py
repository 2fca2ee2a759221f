"""Demands -> the bounds in force on every node, reached and given back by ramps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vppd.core.aggregate import Image, sum_up
from vppd.core.arbitrate import Proposal, arbitrate
from vppd.core.economics import PutOff
from vppd.core.merit import resting
from vppd.core.state import Demand, State
from vppd.model import Bounds, Order, OrderKind
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
    """Some bound holds on the node or above it, or power is still being given back."""
    raised: Bools
    """The same of lower bounds alone."""
    tight: Bools
    """The same, but for lower bounds that are only being given back: those do not keep storage from recharging."""
    rising: Bools
    """The node's own lower bound is still on its way up."""


def enforce(demands: Sequence[Demand], state: State, plant: Plant, image: Image, dt_s: float) -> Enforced:
    """Return the bounds in force after ``dt_s``: tightening at the orders' rates, loosening at the site's. [W]"""
    m, demands = len(plant.nodes), _sharing(demands, state)
    lower_w, upper_w = np.full(m, -np.inf), np.full(m, np.inf)
    wanted_w, steady_lower_w, steady_upper_w = upper_w.copy(), lower_w.copy(), upper_w.copy()
    rising = np.zeros(m, dtype=np.bool_)
    for i in range(m):
        mine = [d for d in demands if d.node == i]
        held = np.isfinite(state.upper_w[i]) or np.isfinite(state.lower_w[i])
        if not mine and not held:
            continue
        goal = _goal(mine, plant, i)
        lower_w[i], upper_w[i] = _ramp(goal, mine, state, plant, image, i, dt_s)
        wanted_w[i], rising[i] = goal.upper_w if mine else np.inf, lower_w[i] < goal.lower_w
        steady = _goal(mine, plant, i, steady=True) if mine else Bounds(lower_w[i], upper_w[i])
        # Slow assets start at once down towards the goal, but never give back, or are let go, faster than the ramp.
        follows = _follows(mine)
        steady_lower_w[i] = steady.lower_w if follows else lower_w[i]
        steady_upper_w[i] = steady.upper_w if follows else min(steady.upper_w, upper_w[i])
    raised, bound, tight = _reaching(demands, lower_w, upper_w, plant)
    return Enforced(lower_w, upper_w, wanted_w, steady_lower_w, steady_upper_w, bound, raised, tight, rising)


def _sharing(demands: Sequence[Demand], state: State) -> Sequence[Demand]:
    """Return the demands with the site's ramp shared out among the nodes that are rising at once: they all rise the site."""
    increases = [d for d in demands if d.node >= 0 and d.order.kind is OrderKind.INCREASE]
    rising = {d.node for d in increases if d.lower_w > state.lower_w[d.node]}
    if len(rising) < 2:
        return demands
    return [replace(d, rate_w_per_s=d.rate_w_per_s / len(rising)) if d in increases else d for d in demands]


def _follows(demands: Sequence[Demand]) -> bool:
    """Say whether some demand is a target, from both sides, and not a bound."""
    return any(np.isfinite(d.lower_w) and np.isfinite(d.upper_w) for d in demands)


def _goal(demands: Sequence[Demand], plant: Plant, node: int, *, steady: bool = False) -> Bounds:
    """Return where the node's bounds shall end up: all its demands within its physical limits; at one priority increases yield. [W]"""
    feasible = Bounds(float(plant.node_lower_w[node]), float(plant.node_upper_w[node]))
    return arbitrate(
        feasible,
        [
            Proposal(
                _rank(d.order),
                d.order.priority,
                Bounds(d.steady_lower_w, d.steady_upper_w) if steady else Bounds(d.lower_w, d.upper_w),
            )
            for d in demands
        ],
    )


def _rank(order: Order) -> str:
    """Return what sorts the proposals of one priority: increases after all that may bound from above."""
    return f"{int(order.kind is OrderKind.INCREASE)}{order.order_id}"


def _ramp(
    goal: Bounds, mine: Sequence[Demand], state: State, plant: Plant, image: Image, i: int, dt_s: float
) -> tuple[float, float]:
    """Return (lower, upper) of node ``i`` after ``dt_s``, moving from what was in force, or from the measured power. [W]"""
    now_w = float(image.node_power_w[i])
    lowering = [d.rate_w_per_s for d in mine if np.isfinite(d.upper_w)]
    raising = [d.rate_w_per_s for d in mine if np.isfinite(d.lower_w)]
    tighten = max(lowering, default=plant.ramp_down_w_per_s) * dt_s
    loosen = plant.ramp_up_w_per_s * dt_s
    if _follows(mine):
        loosen = max(tighten, loosen)
    upper_w = _approach(float(state.upper_w[i]), max(now_w, goal.upper_w), goal.upper_w, down_w=tighten, up_w=loosen)
    if not lowering and (upper_w >= image.unheld_w[i] or not np.isfinite(state.upper_w[i])):
        upper_w = np.inf
    down_w = loosen if _follows(mine) else plant.ramp_down_w_per_s * dt_s
    if raising:
        up_w = max(max(raising) * dt_s, loosen if _follows(mine) else 0.0)
        lower_w = _approach(float(state.lower_w[i]), min(now_w, goal.lower_w), goal.lower_w, down_w=down_w, up_w=up_w)
    else:
        lower_w = _handed_back(float(state.lower_w[i]), now_w, down_w, state, image, plant, i)
    return min(lower_w, upper_w), upper_w


def _handed_back(
    before_w: float, now_w: float, step_w: float, state: State, image: Image, plant: Plant, i: int
) -> float:
    """Return a lower bound that nobody asks for any longer, one step down; -inf once the node would draw as much by itself. [W]"""
    if not np.isfinite(before_w):
        return -np.inf
    lower_w = min(before_w, now_w) - step_w
    return lower_w if lower_w > _natural_w(state, image, plant)[i] else -np.inf


def _natural_w(state: State, image: Image, plant: Plant) -> Floats:
    """Return what each node would draw with no bound on it: with what the plan puts off, and what storage recharges, (m,). [W]"""
    recharge_w = resting(image, plant, np.zeros(len(plant.nodes), dtype=np.bool_))
    if state.wished_w is not None:
        recharge_w = np.where(np.isfinite(state.wished_w), 0.0, recharge_w)
    own_w: Floats = np.bincount(plant.node, weights=recharge_w, minlength=len(plant.nodes)).astype(np.float64)
    return np.asarray(image.unheld_w + sum_up(plant, own_w) - PutOff.of(state, image, plant).node_w)


def _approach(before_w: float, start_w: float, goal_w: float, *, down_w: float, up_w: float) -> float:
    """Return the bound one step closer to its goal; ``start_w`` stands in where there was none. [W]"""
    from_w = before_w if np.isfinite(before_w) else start_w
    if not np.isfinite(goal_w):
        return goal_w
    return min(max(goal_w, from_w - down_w), from_w + up_w)


def _reaching(demands: Sequence[Demand], lower_w: Floats, upper_w: Floats, plant: Plant) -> tuple[Bools, Bools, Bools]:
    """Return ``raised``, ``bound`` and ``tight`` of Enforced."""
    raised, lowered = np.isfinite(lower_w), _inherited(np.isfinite(upper_w), plant)
    if not raised.any():
        return raised, lowered, lowered
    raised, asked = _inherited(raised, plant), np.zeros(len(raised), dtype=np.bool_)
    asked[[d.node for d in demands if d.node >= 0]] = True
    return raised, raised | lowered, lowered | _inherited(asked, plant)


def _inherited(bound: Bools, plant: Plant) -> Bools:
    """Say for every node whether a bound holds on it or on a node above it, shape (m,)."""
    found = bound.copy()
    for i in range(1, len(found)):
        found[i] |= found[plant.parent[i]]
    return found
