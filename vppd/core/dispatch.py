"""Bounds on nodes -> setpoints: slow assets go to the steady least-cost split, fast ones cover the gap meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vppd.core.aggregate import Image, is_storage, sum_up
from vppd.core.allocate import Allocation, Curves
from vppd.core.commitment import commit
from vppd.core.enforce import Enforced
from vppd.core.envelope import Envelope
from vppd.core.merit import merit_order
from vppd.core.named import Named
from vppd.core.state import Demand, State
from vppd.core.yielding import yielding
from vppd.snapshot import Bools, Floats, Ints, Plant, Readings

HEADROOM_FRAC = 0.2
"""Part of what storage can hold that the steady split leaves unused: it answers clouds and load steps. [0-1]"""
SEARCH_EFFORT = 20_000
"""Bound on the search over bands and on/off assets within one cycle."""
LONGEST_HORIZON_S = 3600.0
SHORTEST_HORIZON_S = 60.0
TIGHTEN_BAND_FRAC = 0.005
"""A slow asset's budget is not tightened by less than this part of its rating; storage covers it. [0-1]"""
LOOSEN_BAND_FRAC = 0.02
"""Nor loosened by less than this. [0-1]"""


@dataclass(frozen=True, slots=True, eq=False)
class Dispatch:
    """The split of this cycle."""

    target_w: Floats
    """(n,) [W]"""
    steady_w: Floats
    """(n,) where the split will be once slow assets have landed. [W]"""
    kept: Bools
    """(n,) slow assets left where they are by the dead band."""
    node_planned_w: Floats
    """(m,) power the setpoints give now, slow assets as measured. [W]"""
    shortfall_w: Floats
    """(m,) signed, see allocate. [W]"""


def horizon(demands: Sequence[Demand], at_s: float) -> float:
    """Return how long storage must hold out, from the orders' ends (epoch seconds). [s]"""
    left = [
        LONGEST_HORIZON_S if d.order.interval.end is None else d.order.interval.end.timestamp() - at_s for d in demands
    ]
    return min(max([SHORTEST_HORIZON_S, *left]), LONGEST_HORIZON_S)


def dispatch(
    readings: Readings,
    image: Image,
    plant: Plant,
    state: State,
    enforced: Enforced,
    now: Envelope,
    sustained: Envelope,
    rest_w: Floats,
    own: Named,
    dt_s: float,
    held_w: Floats | None = None,
) -> Dispatch:
    """Return the setpoints of all usable assets.

    Steady: least cost over all assets, storage limited to what it can hold for the horizon. Now: slow assets count as
    measured, fast ones take up the difference within what they can do this minute, the energy of each spread over the orders. ``own`` is what orders want of the
    assets they name; ``held_w`` where the plan holds an asset, NaN for nowhere.
    """
    slow = image.usable & ~plant.fast
    steady_w = np.where(image.usable, rest_w, 0.0)
    if slow.any():
        curves = merit_order(readings, image, plant, _with_headroom(sustained, plant), rest_w, held_w, own.lower_w)
        steady_w = _split(image.sure_base_w, curves, enforced.steady_lower_w, enforced.steady_upper_w, plant).power_w
    slow_w, kept = _budget(
        steady_w, slow, now, state, plant, np.minimum(plant.rated_upper_w, own.upper_w),
        slow & (enforced.raised[plant.node] | own.raised), dt_s,
    )  # fmt: skip
    measured_w = np.bincount(plant.node, weights=np.where(slow, image.power_w, 0.0), minlength=len(plant.nodes))
    fast = np.flatnonzero(image.usable & plant.fast)
    curves = _only(merit_order(readings, image, plant, now, rest_w, held_w, own.lower_w, sustained), fast)
    split = _split(image.base_w + measured_w, curves, enforced.lower_w, enforced.upper_w, plant, fast)
    target_w = np.where(slow, slow_w, 0.0)
    target_w[fast] = split.power_w
    return Dispatch(target_w, steady_w, kept, split.node_power_w, split.shortfall_w)


def _with_headroom(sustained: Envelope, plant: Plant) -> Envelope:
    """Return the envelope with part of the storage's range kept for what comes unforeseen. [W]"""
    factor = np.where(is_storage(plant), 1.0 - HEADROOM_FRAC, 1.0)
    return Envelope(sustained.lower_w * factor, sustained.upper_w * factor)


def overloaded(image: Image, plant: Plant, rest_w: Floats) -> Bools:
    """Say for every node whether it would break a physical limit if nothing were done, shape (m,)."""
    free_w = np.where(image.usable, np.maximum(rest_w, image.available_w), 0.0)
    own_w = image.base_w + np.bincount(plant.node, weights=free_w, minlength=len(plant.nodes))
    total_w = sum_up(plant, own_w)
    return (total_w > plant.node_upper_w) | (total_w < plant.node_lower_w)


def _split(
    base_w: Floats, curves: Curves, lower_w: Floats, upper_w: Floats, plant: Plant, which: Ints | None = None
) -> Allocation:
    """Return the least-cost split with each node's inflexible power taken off its bounds. [W]

    Where lower bounds that orders have set would break the upper bound of a node above, they yield as far as it takes.
    """
    below_w = sum_up(plant, base_w)
    least_w = plant.node_lower_w - below_w
    upper_w = np.minimum(upper_w, plant.node_upper_w) - below_w
    lower_w = np.minimum(np.maximum(lower_w - below_w, least_w), upper_w)
    gap_asset, chosen = plant.gap_asset, np.ones(len(plant.gap_asset), dtype=np.bool_)
    if which is not None:
        gap_asset, chosen = np.searchsorted(which, plant.gap_asset), np.isin(plant.gap_asset, which)
    gaps = gap_asset[chosen], plant.gap_lower_w[chosen], plant.gap_upper_w[chosen]

    def split(lower_w: Floats) -> Allocation:
        return commit(plant.parent, lower_w, upper_w, curves, *gaps, effort=SEARCH_EFFORT)

    found = split(lower_w)
    if (found.shortfall_w > 0.0).any() and (lower_w > least_w).any():
        found = yielding(found, split, np.minimum(least_w, upper_w), lower_w, upper_w, curves, plant)
    return Allocation(found.power_w, found.node_power_w + below_w, found.shortfall_w)


def _only(curves: Curves, index: Ints) -> Curves:
    return Curves(curves.node[index], curves.lower_w[index], curves.width_w[index], curves.cost_per_wh[index])


def _budget(
    steady_w: Floats, slow: Bools, now: Envelope, state: State, plant: Plant, open_w: Floats, raised: Bools, dt_s: float
) -> tuple[Floats, Bools]:
    """Return the budgets of slow assets, left alone within a dead band, and which were. [W]

    A budget that asks for nothing is opened to ``open_w``, so that growth of the load is not held by accident. Assets that an
    order has ``raised`` are let go by the site's ramp: what lands all at once is a step that storage can only follow.
    """
    change_w = steady_w - state.target_w
    rating_w = np.maximum(plant.rated_upper_w, 1.0)
    kept = slow & (change_w >= -TIGHTEN_BAND_FRAC * rating_w) & (change_w <= LOOSEN_BAND_FRAC * rating_w)
    freed_w = np.where(raised & (change_w > 0.0), change_w, 0.0)
    most_w = plant.ramp_up_w_per_s * dt_s
    part = min(1.0, most_w / max(float(freed_w.sum()), most_w)) if freed_w.any() else 1.0
    eased_w = steady_w - (1.0 - part) * freed_w
    budget_w = np.where(kept, state.target_w, eased_w)
    needless = slow & (eased_w >= now.upper_w)
    return np.where(needless, open_w, budget_w), kept & ~needless
