"""Wishes of the plan -> what each asset prefers now: above its reserve, within every limit, moved by the site's ramps. Pure.

The lowest priority there is: a preference is only where a cost curve has its least (``merit``). Whatever binds - an order, an award,
a failsafe, a limit - moves assets away from it at least cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vppd.core.aggregate import Image, is_storage, sum_up
from vppd.core.envelope import Envelope
from vppd.core.failsafe import SOC_MARGIN_FRAC, SOC_WARN_FRAC
from vppd.core.state import State
from vppd.snapshot import Bools, Floats, Plant

KEPT_FRAC = SOC_MARGIN_FRAC + SOC_WARN_FRAC
"""Storage is not discharged for money below its reserve plus this: no failsafe is to notice. [0-1]"""
EASE_S = 300.0
"""Nearing its reserve, or full, storage is slowed so that this much time is always left. [s]"""
CAREFUL_FRAC = 0.2
"""Under an order clusters are given back by this part of the site's ramp: storage must be able to follow them. [0-1]"""
SETTLED_W = 1.0
"""What is this close to where it goes has arrived. [W]"""


@dataclass(frozen=True, slots=True, eq=False)
class Preference:
    """What each asset prefers now, shapes (n,)."""

    rest_w: Floats
    """Power of storage, 0 for others. [W]"""
    held_w: Floats
    """Most that a cluster should draw, most that a generator should give (negative); NaN for no wish. [W]"""
    wished_w: Floats | None
    """For the next cycle: how far the wishes have got, None when nothing of them is left. [W]"""
    planned: Bools
    """Assets with a wish."""


@dataclass(frozen=True, slots=True, eq=False)
class PutOff:
    """What clusters do not draw because the plan has put their work off. [W, >= 0]"""

    asset_w: Floats
    """(n,)"""
    node_w: Floats
    """(m,) of all that is beneath each node."""

    @classmethod
    def of(cls, state: State, image: Image, plant: Plant) -> PutOff:
        """Return it by how far the wishes of the plan have got."""
        if state.wished_w is None:
            return cls(np.zeros(len(plant.node)), np.zeros(len(plant.nodes)))
        cluster = image.usable & ~is_storage(plant) & (image.available_w > 0.0) & np.isfinite(state.wished_w)
        asset_w = np.where(cluster, np.maximum(image.available_w - state.wished_w, 0.0), 0.0)
        return cls(asset_w, sum_up(plant, _on_node(asset_w, plant)))


def preference(
    wish_w: Floats | None, rest_w: Floats, state: State, image: Image, plant: Plant, bound: Bools, raised: Bools,
    now: Envelope, sustained: Envelope, dt_s: float,
) -> Preference | None:  # fmt: skip
    """Return what the assets prefer ``dt_s`` after the last cycle; None when there is no wish, and none left to undo.

    ``wish_w`` (n,): power of storage, budget of clusters, ceiling of generators, NaN for none [W]; ``rest_w`` (n,):
    what storage without a wish does [W]. ``bound`` (m,): nodes that an order holds; there storage gives no more than it can hold
    to the order's end, and takes no more where the order has ``raised`` the node. A wish that ends is given back by the ramp.
    """
    if wish_w is None and state.wished_w is None:
        return None
    before_w = np.full(len(plant.node), np.nan) if state.wished_w is None else state.wished_w
    wish_w = np.full(len(plant.node), np.nan) if wish_w is None else wish_w
    wish_w = np.where(image.usable, wish_w, np.nan)
    storage, wished = is_storage(plant), np.isfinite(wish_w)
    free_w = np.where(storage, rest_w, image.available_w)
    goal_w = np.where(storage, _storage(wish_w, image, plant, bound, raised, now, sustained), _held(wish_w, image, now))
    goal_w = np.where(wished, goal_w, free_w)
    goal_w = np.where(storage, _fitted(goal_w, storage, image, plant), goal_w)
    careful = bound[plant.node] & ~plant.fast
    from_w = _from(before_w, storage & bound[plant.node], storage, state, image)
    eased_w = _eased(from_w, goal_w, careful, plant, dt_s)
    # A budget above what a cluster would draw anyway is no hold; storage that is to rest is told so.
    moved = np.abs(eased_w - free_w) > SETTLED_W
    active = image.usable & ((wished & (storage | moved)) | (np.isfinite(before_w) & moved))
    wished_w = np.where(active, eased_w, np.nan)
    return Preference(
        rest_w=np.where(storage & active, eased_w, rest_w),
        held_w=np.where(active & ~storage, eased_w, np.nan),
        wished_w=wished_w if active.any() else None,
        planned=active,
    )


def _storage(
    wish_w: Floats, image: Image, plant: Plant, bound: Bools, raised: Bools, now: Envelope, sustained: Envelope
) -> Floats:  # fmt: skip
    """Return the wishes of storage within what it can do, slowing down before its reserve and before it is full. [W]"""
    lower_w = np.where(bound[plant.node], np.maximum(now.lower_w, sustained.lower_w), now.lower_w)
    ease_h = EASE_S / 3600.0
    capacity_wh = np.nan_to_num(plant.capacity_wh)
    spare_wh = np.maximum(image.soc_frac - plant.reserve_frac - KEPT_FRAC, 0.0) * capacity_wh
    room_wh = np.where(image.soc_stale, 0.0, np.maximum(1.0 - image.soc_frac, 0.0)) * capacity_wh
    lower_w = np.maximum(lower_w, -spare_wh * plant.efficiency_frac / ease_h)
    upper_w = np.where(raised[plant.node], np.minimum(now.upper_w, sustained.upper_w), now.upper_w)
    upper_w = np.minimum(upper_w, room_wh / plant.efficiency_frac / ease_h)
    return np.asarray(np.clip(wish_w, np.minimum(lower_w, upper_w), upper_w))


def _held(wish_w: Floats, image: Image, now: Envelope) -> Floats:
    """Return budgets and ceilings between what may be shed and what would be drawn or generated anyway. [W]"""
    return np.asarray(np.clip(wish_w, now.lower_w, np.maximum(now.upper_w, image.available_w)))


def _fitted(goal_w: Floats, storage: Bools, image: Image, plant: Plant) -> Floats:
    """Return goals with charging and discharging scaled down where a node would come too near to a limit. [W]

    Charging does not count on others' discharging, nor the other way round; nothing is done where a meter has never been read.
    """
    own_w = image.base_w + _on_node(np.where(image.usable & ~storage, goal_w, 0.0), plant)
    fixed_w = sum_up(plant, own_w)
    charge_w = sum_up(plant, _on_node(np.where(storage, np.maximum(goal_w, 0.0), 0.0), plant))
    discharge_w = sum_up(plant, _on_node(np.where(storage, np.maximum(-goal_w, 0.0), 0.0), plant))
    room_w = plant.node_upper_w - plant.margin_frac * np.abs(plant.node_upper_w) - fixed_w
    depth_w = fixed_w - plant.node_lower_w - plant.margin_frac * np.abs(fixed_w)
    more = np.where(image.node_known, _part(room_w, charge_w), 0.0)
    less = np.where(image.node_known, _part(depth_w, discharge_w), 0.0)
    for i in range(1, len(plant.nodes)):
        more[i], less[i] = min(more[i], more[plant.parent[i]]), min(less[i], less[plant.parent[i]])
    return np.asarray(goal_w * np.where(goal_w > 0.0, more[plant.node], less[plant.node]))


def _part(room_w: Floats, asked_w: Floats) -> Floats:
    """Return which part of what is asked there is room for. [0-1]"""
    return np.asarray(np.clip(room_w / np.maximum(asked_w, SETTLED_W), 0.0, 1.0))


def _from(before_w: Floats, moved: Bools, storage: Bools, state: State, image: Image) -> Floats:
    """Return where each asset starts from: from how far its wish had got, else from what it does. [W]

    Storage that an order has ``moved`` starts from its setpoint. Elsewhere that may be the edge of a band it cannot run in.
    """
    power_w = np.where(np.isfinite(state.target_w), state.target_w, np.nan_to_num(image.power_w))
    known = np.isfinite(before_w) & ~moved
    return np.where(known, before_w, np.where(storage, power_w, image.available_w))


def _eased(from_w: Floats, goal_w: Floats, careful: Bools, plant: Plant, dt_s: float) -> Floats:
    """Return how far the assets get in ``dt_s``: all of them together by no more than the site's ramps. [W]"""
    change_w = goal_w - from_w
    change_w = np.where(careful, np.minimum(change_w, CAREFUL_FRAC * plant.ramp_up_w_per_s * dt_s), change_w)
    up_w, down_w = float(change_w[change_w > 0.0].sum()), float(-change_w[change_w < 0.0].sum())
    up = min(1.0, plant.ramp_up_w_per_s * dt_s / max(up_w, SETTLED_W))
    down = min(1.0, plant.ramp_down_w_per_s * dt_s / max(down_w, SETTLED_W))
    return np.asarray(np.where(change_w > 0.0, from_w + up * change_w, from_w + down * change_w))


def _on_node(value_w: Floats, plant: Plant) -> Floats:
    return np.asarray(np.bincount(plant.node, weights=value_w, minlength=len(plant.nodes)), dtype=np.float64)
