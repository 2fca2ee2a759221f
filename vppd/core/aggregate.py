"""Readings -> what is believed about every asset and node, and the inflexible load behind each meter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vppd.core.settled import Heard, Recent, settle
from vppd.core.state import State
from vppd.model import Kind
from vppd.snapshot import KINDS, Bools, Floats, Plant, Snapshot

_STORAGE = tuple(KINDS.index(k) for k in (Kind.BATTERY, Kind.UPS))
_GAIN_FRAC = 0.3
"""Part of a doubtful change of the inflexible load that is believed at once. With readings one cycle apart a full
gain makes the loop oscillate (z^2 + z - 1 has a root at -1.62); 0.3 puts both roots inside 0.79. [0-1]"""


@dataclass(frozen=True, slots=True, eq=False)
class Senses:
    """What is believed of each asset by itself, shapes (n,)."""

    fresh: Bools
    """Heard of within its stale limit."""
    power_w: Floats
    """Believed power, NaN for none. [W]"""
    soc_frac: Floats
    """State of charge, pessimistic when stale. [0-1]"""
    soc_stale: Bools
    soc_mono_s: Floats
    """When the state of charge was last believed. [s]"""
    soc_good_frac: Floats
    """The last believed one. [0-1]"""


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """What the cycle believes of the whole plant; shapes as in Plant."""

    fresh: Bools
    usable: Bools
    """(n,) controllable, with a believable power, and not taken out by a failsafe."""
    power_w: Floats
    """(n,) believed power, NaN for none. [W]"""
    soc_frac: Floats
    """(n,) state of charge, pessimistic when stale. [0-1]"""
    soc_stale: Bools
    available_w: Floats
    """(n,) power of each usable asset if nobody held it back, storage at rest. [W]"""
    node_power_w: Floats
    """(m,) believed power of each node. [W]"""
    base_w: Floats
    """(m,) inflexible power of each node itself: whatever its meter sees beyond the usable assets. [W]"""
    measured_base_w: Floats
    """(m,) the same, NaN where a meter has never been read. [W]"""
    node_known: Bools
    """(m,) the node's power has been measured at least once."""
    unheld_w: Floats
    """(m,) what each node would draw without us. [W]"""
    meter_stale: bool
    sure_base_w: Floats
    """(m,) base_w for budgets of slow assets: unmoved by power that only the meter, or only they, have shown yet. [W]"""
    baseline_w: Floats
    """(m,) what each node would draw without us, for orders that count from that. [W]"""
    recent: Recent | None
    """What the next cycle needs to tell such power."""
    unheld_before_w: Floats | None = None
    """(n,) generators that we hold back and that cannot say what they could give: what it was, NaN for others. [W]"""


def is_storage(plant: Plant) -> Bools:
    """Return which assets store energy, shape (n,)."""
    return np.isin(plant.kind, _STORAGE)


def perceive(snapshot: Snapshot, state: State, plant: Plant) -> Senses:
    """Return what to believe of each asset, given what was believed before."""
    r = snapshot.readings
    fresh = snapshot.mono_s - r.mono_s <= plant.stale_after_s
    rating_w = np.maximum(np.abs(plant.rated_lower_w), np.abs(plant.rated_upper_w))
    plausible = np.abs(r.power_w) <= np.where(rating_w > 0, plant.plausible_frac * rating_w, np.inf)
    return Senses(
        fresh, np.where(fresh & plausible, r.power_w, np.nan), *_soc(snapshot, state, plant, fresh & is_storage(plant))
    )


def aggregate(snapshot: Snapshot, state: State, plant: Plant, senses: Senses, excluded: Bools) -> Image:
    """Return what to believe of the plant; an excluded asset counts as part of the inflexible load."""
    said_w, power_w = snapshot.readings.available_w, senses.power_w
    usable = plant.controllable & np.isfinite(power_w) & ~excluded
    said_w, unheld_before_w = _said(said_w, power_w, state, plant)
    free_w = np.where(is_storage(plant), 0.0, np.where(np.isfinite(said_w), said_w, power_w))
    available_w = np.where(usable, free_w, 0.0)
    metered = plant.meter >= 0
    meter_w = np.where(metered, power_w[plant.meter], np.nan)
    handed_w = _handed_over(power_w, usable, state, plant)
    base_w, node_power_w = _nodes(meter_w, power_w, usable, handed_w, state, plant)
    heard = Heard(
        snapshot.mono_s, snapshot.readings.mono_s, power_w, state.power_w, state.target_w, available_w,
        usable, base_w, state.base_w, handed_w,
    )  # fmt: skip
    settled = settle(heard, state.recent, plant)
    free_node_w = _on_node(available_w, plant)
    return Image(
        fresh=senses.fresh,
        usable=usable,
        power_w=power_w,
        soc_frac=senses.soc_frac,
        soc_stale=senses.soc_stale,
        available_w=available_w,
        node_power_w=node_power_w,
        base_w=np.nan_to_num(base_w),
        measured_base_w=base_w,
        node_known=_known(base_w, plant),
        unheld_w=sum_up(plant, np.nan_to_num(base_w) + free_node_w),
        meter_stale=bool(np.isnan(meter_w[metered]).any()),
        sure_base_w=np.nan_to_num(settled.base_w),
        baseline_w=sum_up(plant, np.nan_to_num(settled.unheld_w) + free_node_w),
        recent=settled.recent,
        unheld_before_w=unheld_before_w,
    )


def _said(said_w: Floats, power_w: Floats, state: State, plant: Plant) -> tuple[Floats, Floats | None]:
    """Return what assets would draw unheld as far as they say, and what is remembered of those that cannot say it now. [W]

    Many inverters know what they could give only while no limit of ours binds. What they give under it is not all they have:
    believing that would end the limit, then set it again, in every other cycle.
    """
    blind = ~np.isfinite(said_w) & np.isfinite(state.target_w) & (plant.rated_lower_w < 0.0) & ~is_storage(plant)
    if not blind.any():
        return said_w, None
    last_w = state.power_w if state.unheld_before_w is None else state.unheld_before_w
    before_w = np.where(np.isfinite(last_w), last_w, state.power_w)
    before_w = np.where(blind, np.fmin(before_w, power_w), np.nan)
    return np.where(blind, before_w, said_w), before_w


def _soc(snapshot: Snapshot, state: State, plant: Plant, fresh: Bools) -> tuple[Floats, Bools, Floats, Floats]:
    """Return (pessimistic SoC, stale, time believed, last believed); implausible jumps are not believed."""
    said = snapshot.readings.soc_frac
    drain_per_s = plant.rated_lower_w / np.where(plant.capacity_wh > 0, plant.capacity_wh, np.inf) / 3600.0
    since_s = np.where(np.isfinite(state.soc_mono_s), snapshot.mono_s - state.soc_mono_s, 0.0)
    most = np.abs(drain_per_s) * np.maximum(since_s, plant.cycle_s) * 3.0 + 0.05
    jump = np.abs(said - state.soc_frac) > most
    good = fresh & (said >= 0.0) & (said <= 1.0) & ~(jump & (since_s < plant.stale_after_s))
    good_frac = np.where(good, said, state.soc_frac)
    mono_s = np.where(good, snapshot.readings.mono_s, state.soc_mono_s)
    age_s = np.where(np.isfinite(mono_s), snapshot.mono_s - mono_s, np.inf)
    stale = age_s > plant.stale_after_s
    drain_s = np.where(stale & np.isfinite(age_s), age_s, 0.0)
    drained = np.where(np.isfinite(age_s), np.nan_to_num(good_frac) - np.abs(drain_per_s) * drain_s, 0.0)
    return np.clip(drained, 0.0, 1.0), stale, mono_s, good_frac


def _on_node(value_w: Floats, plant: Plant) -> Floats:
    return np.asarray(np.bincount(plant.node, weights=value_w, minlength=len(plant.nodes)), dtype=np.float64)


def sum_up(plant: Plant, own_w: Floats) -> Floats:
    """Return each node's total from what hangs on each node itself, shape (m,). [W]"""
    total = own_w.copy()
    for i in range(len(total) - 1, 0, -1):
        total[plant.parent[i]] += total[i]
    return total


def _nodes(
    meter_w: Floats, power_w: Floats, usable: Bools, handed_w: Floats, state: State, plant: Plant
) -> tuple[Floats, Floats]:
    """Return the filtered inflexible power of each node and the believed power of each node. [W]"""
    own_w = _on_node(np.where(usable, power_w, 0.0), plant)
    rest_w = _on_node(np.where(plant.controllable & ~usable, np.nan_to_num(power_w), 0.0), plant)
    before_w = state.base_w + handed_w
    moved_w = _on_node(np.where(usable & state.counted, np.abs(power_w - state.power_w), 0.0), plant)
    children_w = np.zeros(len(own_w))
    base_w, node_w = np.zeros(len(own_w)), np.zeros(len(own_w))
    for i in range(len(own_w) - 1, -1, -1):
        if np.isfinite(meter_w[i]):
            base_w[i] = _believe(before_w[i], meter_w[i] - own_w[i] - children_w[i], moved_w[i])
            node_w[i] = meter_w[i]
        else:
            base_w[i] = rest_w[i] if plant.meter[i] < 0 else before_w[i]
            node_w[i] = np.nan_to_num(base_w[i]) + own_w[i] + children_w[i]
        if i:
            children_w[plant.parent[i]] += node_w[i]
            moved_w[plant.parent[i]] += moved_w[i]
    return base_w, node_w


def _handed_over(power_w: Floats, usable: Bools, state: State, plant: Plant) -> Floats:
    """Return by how much each node's inflexible power changes because assets came into play or were taken out. [W]"""
    left_w = np.where(state.counted & ~usable, np.nan_to_num(state.power_w), 0.0)
    joined_w = np.where(usable & ~state.counted, power_w, 0.0)
    return _on_node(left_w - joined_w, plant)


def _known(base_w: Floats, plant: Plant) -> Bools:
    """Say which nodes are known: those whose own inflexible load is, and that of every node below."""
    known = np.isfinite(base_w)
    for i in range(len(known) - 1, 0, -1):
        known[plant.parent[i]] &= known[i]
    return known


def _believe(before_w: float, raw_w: float, doubt_w: float) -> float:
    """Return the inflexible load to use: what assets' own movement explains is believed only in part. [W]

    Meter and assets are not read at the same instant, so while assets move by ``doubt_w`` the difference of the two
    is uncertain by about as much.
    """
    if np.isnan(before_w):
        return raw_w
    change_w = raw_w - before_w
    sure_w = np.sign(change_w) * max(abs(change_w) - doubt_w, 0.0)
    return float(before_w + sure_w + _GAIN_FRAC * (change_w - sure_w))
