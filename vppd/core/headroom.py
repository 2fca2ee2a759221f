"""What has been sold and can be asked for now: power and energy that the plan's wishes must leave alone. Pure.

Storage keeps as much as it can of what was sold, shared out by what each can give; what it cannot keep, clusters keep ready
to be shed, and generators to be held back. What is sold both ways is kept on both sides. Counted twice over: from rest (the
baseline of an order) and from what is drawn now (what a meter sees).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from vppd.core.aggregate import is_storage
from vppd.core.economics import EASE_S
from vppd.core.failsafe import SOC_MARGIN_FRAC, Severity
from vppd.core.state import Decision
from vppd.model import Obligation
from vppd.snapshot import Bools, Floats, Plant, Readings

LONGEST_S = 3600.0
"""An obligation without an end, and without a time it is to be sustained, counts for this long. [s]"""


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """What each asset could give now, shapes (n,)."""

    usable: Bools
    lower_w: Floats
    """Least power of storage by rating, device and failsafes. [W]"""
    upper_w: Floats
    """Most power of storage. [W]"""
    spare_wh: Floats
    """Stored above the reserve and its margin, at the terminals. [Wh]"""
    room_wh: Floats
    """What can be charged until it is full, at the terminals. [Wh]"""
    available_w: Floats
    """What a cluster would draw unheld, 0 for others. [W]"""
    shed_w: Floats
    """What of it may be shed, all tiers. [W]"""
    made_w: Floats
    """What PV and wind would give unheld, 0 for others. [W, >= 0]"""


@dataclass(slots=True, eq=False)
class _Kept:
    """Shares of what was sold, shapes (n,)."""

    power_w: Floats
    energy_wh: Floats


def standing(readings: Readings, decision: Decision, plant: Plant) -> Standing:
    """Return what each asset could give, for what the last cycle believed of it."""
    state, usable = decision.state, decision.state.counted
    storage = is_storage(plant) & usable & np.isfinite(state.soc_frac)
    capacity_wh, eff = np.nan_to_num(plant.capacity_wh), plant.efficiency_frac
    soc_frac = np.nan_to_num(state.soc_frac)
    declared_lower_w = np.where(np.isfinite(readings.lower_w), readings.lower_w, -np.inf)
    declared_upper_w = np.where(np.isfinite(readings.upper_w), readings.upper_w, np.inf)
    gives = storage & (decision.severity < Severity.PROTECT)
    spare_frac = np.maximum(soc_frac - plant.reserve_frac - SOC_MARGIN_FRAC, 0.0)
    said_w = np.where(np.isfinite(readings.available_w), readings.available_w, np.nan_to_num(state.power_w))
    cluster = usable & ~is_storage(plant) & (said_w > 0.0)
    generates = usable & ~is_storage(plant) & (said_w < 0.0)
    return Standing(
        usable=usable,
        lower_w=np.where(gives, np.minimum(np.maximum(plant.rated_lower_w, declared_lower_w), 0.0), 0.0),
        upper_w=np.where(storage, np.maximum(np.minimum(plant.rated_upper_w, declared_upper_w), 0.0), 0.0),
        spare_wh=np.where(gives, spare_frac * capacity_wh * eff, 0.0),
        room_wh=np.where(storage, (1.0 - soc_frac) * capacity_wh / eff, 0.0),
        available_w=np.where(cluster, said_w, 0.0),
        shed_w=np.where(cluster, np.minimum(readings.tier_shed_w[:, 1:].sum(axis=1), np.maximum(said_w, 0.0)), 0.0),
        made_w=np.where(generates, -said_w, 0.0),
    )


def running(obligations: Sequence[Obligation], at: datetime) -> tuple[Obligation, ...]:
    """Return the obligations that can be asked for now, the ones of a single asset first, then those of feeds."""
    return tuple(o for o in obligations if o.interval.contains(at))


def narrowed(wish_w: Floats, obligations: Sequence[Obligation], at: datetime, now: Standing, plant: Plant) -> Floats:
    """Return the wishes (n,) without those parts that what is sold and running now does not leave. [W]"""
    found_w = wish_w
    ordered = sorted(running(obligations, at), key=lambda o: (_rank(o.resource, plant), o.award_id))
    up = [o for o in ordered if o.direction in ("up", "symmetric")]
    down = [o for o in ordered if o.direction in ("down", "symmetric")]
    if up:
        found_w = _kept_up(found_w, up, at, now, plant)
    if down:
        found_w = _kept_down(found_w, down, at, now, plant)
    return found_w


def deliverable_w(resource: str, sustain_s: float, now: Standing, plant: Plant) -> float:
    """Return how much less a resource could draw for ``sustain_s``, from rest. [W]"""
    on = members(resource, plant)
    return float(_storage_up_w(now, sustain_s, 0.0, 0.0)[on].sum() + now.shed_w[on].sum())


def members(resource: str, plant: Plant) -> Bools:
    """Return the assets a resource consists of, (n,): one, or those on a node and below it. Raises KeyError."""
    if resource in plant.asset_ids:
        return np.asarray(np.arange(len(plant.asset_ids)) == plant.asset_ids.index(resource))
    if resource not in plant.nodes:
        raise KeyError(resource)
    inside = np.zeros(len(plant.nodes), dtype=np.bool_)
    inside[plant.nodes.index(resource)] = True
    for i in range(1, len(inside)):
        inside[i] |= inside[plant.parent[i]]
    return np.asarray(inside[plant.node])


def sustained_s(obligation: Obligation, at: datetime) -> float:
    """Return for how long the sold power may be asked for from now on: no longer than the interval lasts. [s]"""
    end = obligation.interval.end
    left_s = LONGEST_S if end is None else max((end - at).total_seconds(), 0.0)
    return left_s if obligation.sustain_s is None else min(obligation.sustain_s, left_s)


def _rank(resource: str, plant: Plant) -> int:
    return 0 if resource in plant.asset_ids else 2 if resource == plant.nodes[0] else 1


def _storage_up_w(now: Standing, sustain_s: float, taken_w: Floats | float, taken_wh: Floats | float) -> Floats:
    """Return what storage can still give for so long, beside what is taken of it already. [W]"""
    hours = max(sustain_s, 1.0) / 3600.0
    return np.asarray(
        np.minimum(np.maximum(-now.lower_w - taken_w, 0.0), np.maximum(now.spare_wh - taken_wh, 0.0) / hours)
    )


def _kept_up(wish_w: Floats, sold: Sequence[Obligation], at: datetime, now: Standing, plant: Plant) -> Floats:
    """Return wishes that leave power and energy for drawing less."""
    n = len(wish_w)
    kept, ready_w = _Kept(np.zeros(n), np.zeros(n)), np.zeros(n)
    for o in sold:
        if _rank(o.resource, plant) == 1 and o.resource not in plant.nodes:
            continue  # of a resource that is no longer configured
        on, sustain_s = members(o.resource, plant), sustained_s(o, at)
        can_w = np.where(on, _storage_up_w(now, sustain_s, kept.power_w, kept.energy_wh), 0.0)
        share_w = _shared(o.power_w, can_w)
        kept.power_w += share_w
        kept.energy_wh += share_w * sustain_s / 3600.0
        left_w = o.power_w - float(share_w.sum())
        ready_w += _shared(left_w, np.where(on, np.maximum(now.shed_w - ready_w, 0.0), 0.0))
    free_wh = np.maximum(now.spare_wh - kept.energy_wh, 0.0)
    least_w = np.maximum(now.lower_w + kept.power_w, -free_wh / (EASE_S / 3600.0))
    cluster = now.available_w > 0.0
    budget_w = now.available_w - now.shed_w + ready_w
    touched = is_storage(plant) & (kept.power_w > 0.0)
    wish_w = np.where(touched, np.maximum(wish_w, np.minimum(least_w, 0.0)), wish_w)
    return np.where(cluster & (ready_w > 0.0), np.maximum(wish_w, budget_w), wish_w)


def _kept_down(wish_w: Floats, sold: Sequence[Obligation], at: datetime, now: Standing, plant: Plant) -> Floats:
    """Return wishes that leave power and room for drawing more."""
    n = len(wish_w)
    kept, ready_w = _Kept(np.zeros(n), np.zeros(n)), np.zeros(n)
    for o in sold:
        if _rank(o.resource, plant) == 1 and o.resource not in plant.nodes:
            continue
        on, hours = members(o.resource, plant), max(sustained_s(o, at), 1.0) / 3600.0
        room_w = np.maximum(now.room_wh - kept.energy_wh, 0.0) / hours
        share_w = _shared(o.power_w, np.where(on, np.minimum(np.maximum(now.upper_w - kept.power_w, 0.0), room_w), 0.0))
        kept.power_w += share_w
        kept.energy_wh += share_w * hours
        left_w = o.power_w - float(share_w.sum())
        ready_w += _shared(left_w, np.where(on, np.maximum(now.made_w - ready_w, 0.0), 0.0))
    free_wh = np.maximum(now.room_wh - kept.energy_wh, 0.0)
    most_w = np.minimum(now.upper_w - kept.power_w, free_wh / (EASE_S / 3600.0))
    wish_w = np.where(kept.power_w > 0.0, np.minimum(wish_w, np.maximum(most_w, 0.0)), wish_w)
    return np.where(ready_w > 0.0, np.minimum(wish_w, -ready_w), wish_w)


def _shared(power_w: float, can_w: Floats) -> Floats:
    """Return the power shared out by what each can give, all of it when that is not enough. [W]"""
    total_w = float(can_w.sum())
    return can_w * min(max(power_w, 0.0) / total_w, 1.0) if total_w > 0.0 else np.zeros(len(can_w))
