"""The picture of a cluster in the words of whoever plans, and what is planned as stops and caps of nodes. Pure.

Below the planner stands what this adapter guards itself: a wish to stop a job that may not be stopped now, or to cap a node deeper
than its floor or than the accounts of its jobs allow, is not carried out, and told job by job.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from adapters._slurm_plan import CAP_STEP_W, Plan, is_frozen, power_floor_frac, slow_down_frac
from adapters._slurm_power import Load, Picture, Spot
from vppd.workload import Curtailment, Job, Knob, Workload

_POINTS = 6
_WORTH_FRAC = 0.98
"""A knob that cannot go below this is none."""
_FULL_FRAC = 0.999
_KEEP_FRAC = 0.02
"""A cap in force stays while the one wanted is no more than this part of the node's draw above it: agents need not be asked each second."""


@dataclass(frozen=True, slots=True)
class _Gang:
    """Jobs that share nodes all of which can be capped: one level for all of them."""

    name: str
    floor_frac: float
    level_frac: float
    curve: tuple[tuple[float, float], ...]


def workload(picture: Picture, cap_w: Mapping[str, float]) -> Workload:
    """Return the cluster in the planner's words; ``cap_w`` are the caps of ours that are in force, by node. [W]"""
    on: dict[int, list[Spot]] = {}
    for spot in picture.spots.values():
        for job_id in _active(spot):
            on.setdefault(job_id, []).append(spot)
    gangs = _gangs(picture, on, cap_w)
    jobs = tuple(_job(picture.loads[job_id], spots, gangs.get(job_id)) for job_id, spots in on.items())
    return Workload(jobs, picture.available_w - sum(job.full_w for job in jobs), picture.power_w)


def as_plan(
    picture: Picture, wish: Curtailment, budget_w: float, cap_w: Mapping[str, float], frozen: bool = False
) -> Plan:
    """Return what is to be in force for a wish: all of it that may be, and by job why the rest may not."""
    stop, refused = _stops(picture, wish)
    cappable = _cappable(picture)
    level_frac = {i: wish.level_frac[str(i)] for i in picture.loads if str(i) in wish.level_frac}
    refused += [
        f"job {i}: not slowed: not all of its nodes may be capped"
        for i, frac in level_frac.items()
        if frac < _FULL_FRAC and i not in stop and not _may_cap(picture.loads[i], picture, cappable)
    ]
    caps: dict[str, float] = {}
    slow_frac: dict[int, float] = {}
    for name in cappable:
        spot = picture.spots[name]
        node_w = _cap_w(spot, stop, level_frac, picture, cap_w.get(name))
        if node_w is None:
            continue
        caps[name] = node_w
        lost_frac = _slowed_frac(spot, stop, node_w)
        for i in _active(spot):
            if i not in stop:
                slow_frac[i] = max(slow_frac.get(i, 0.0), lost_frac)
    return Plan(
        stop=frozenset(stop),
        cap_w=caps,
        slow_frac=slow_frac,
        freeze=is_frozen(picture.available_w, budget_w, frozen),
        expected_w=sum(
            min(spot.draw_w(frozenset(stop & spot.full_w.keys())), caps.get(spot.name, math.inf))
            for spot in picture.spots.values()
        ),
        refused=tuple(refused),
    )


# ---- to the planner ------------------------------------------------------------------------------------------------


def _job(load: Load, spots: list[Spot], gang: _Gang | None) -> Job:
    measured = all(spot.now_w for spot in spots) and not load.stopped
    return Job(
        id=str(load.id),
        tier=load.tier,
        full_w=sum(spot.full_w[load.id] for spot in spots),
        kept_w=sum(spot.kept_w[load.id] for spot in spots),
        gpus=float(load.gpus),
        family=load.family,
        group=gang.name if gang else "",
        knob=Knob.CAP if gang else Knob.NONE,
        curve=gang.curve if gang else (),
        floor_frac=gang.floor_frac if gang else 1.0,
        level_frac=gang.level_frac if gang else 1.0,
        power_w=sum(spot.now_w.get(load.id, 0.0) for spot in spots) if measured else None,
        pausable=load.stoppable,
        paused=load.stopped,
        most_pause_s=load.most_pause_s,
    )


def _gangs(picture: Picture, on: Mapping[int, list[Spot]], cap_w: Mapping[str, float]) -> dict[int, _Gang]:
    """Return the gang of every job that may be slowed by caps."""
    cappable = _cappable(picture)
    gangs: dict[int, _Gang] = {}
    for names, ids in _islands(picture, on):
        spots = [picture.spots[name] for name in names]
        if not all(name in cappable for name in names) or not all(_has_all(picture.loads[i], picture) for i in ids):
            continue
        floor_frac = max(1.0 - (spot.draw_w() - _deepest_w(spot, set(), picture)) / _full_w(spot) for spot in spots)
        if floor_frac > _WORTH_FRAC:
            continue
        level_frac = min(_level_frac(spot, cap_w.get(spot.name), picture) for spot in spots)
        follows_frac = min(_gpu_w(spot, _active(spot)) / _full_w(spot) for spot in spots)
        curve = _curve(max(floor_frac, 0.0), follows_frac)
        name = min(names) if len(ids) > 1 else ""
        gangs.update(dict.fromkeys(ids, _Gang(name, max(floor_frac, 0.0), level_frac, curve)))
    return gangs


def _curve(floor_frac: float, follows_frac: float) -> tuple[tuple[float, float], ...]:
    """Return throughput over a job's power for the class of work that suffers most; only its GPUs' part follows the cap."""
    levels_frac = [floor_frac + (1.0 - floor_frac) * i / (_POINTS - 1) for i in range(_POINTS - 1)]
    points = [(at_frac, 1.0 - slow_down_frac(1.0 - (1.0 - at_frac) / follows_frac)) for at_frac in levels_frac]
    return (*points, (1.0, 1.0))


def _level_frac(spot: Spot, cap_w: float | None, picture: Picture) -> float:
    """Return the level that a cap in force leaves to the jobs that run on a node."""
    stopped = frozenset(i for i in spot.full_w if picture.loads[i].stopped)
    full_w = _full_w(spot, stopped)
    if cap_w is None or full_w <= 0.0:
        return 1.0
    return min(1.0, max(0.0, 1.0 - (spot.draw_w(stopped) - cap_w) / full_w))


def _islands(picture: Picture, on: Mapping[int, list[Spot]]) -> Iterable[tuple[set[str], list[int]]]:
    """Yield nodes that hang together by jobs on several of them, with these jobs."""
    seen: set[int] = set()
    for first in on:
        if first in seen:
            continue
        seen.add(first)
        names: set[str] = set()
        ids, queue = [], [first]
        while queue:
            job_id = queue.pop()
            ids.append(job_id)
            for spot in on[job_id]:
                if spot.name in names:
                    continue
                names.add(spot.name)
                fresh = [i for i in _active(spot) if i not in seen]
                seen.update(fresh)
                queue.extend(fresh)
        yield names, ids


# ---- from the planner ----------------------------------------------------------------------------------------------


def _stops(picture: Picture, wish: Curtailment) -> tuple[set[int], list[str]]:
    """Return the jobs that are stopped, and why others are not that should be."""
    stop: set[int] = set()
    refused: list[str] = []
    for load in picture.loads.values():
        if str(load.id) not in wish.paused:
            continue
        if load.stoppable:
            stop.add(load.id)
        else:
            why = "it is of tier 0" if load.tier == 0 else "its account or the adapter's limits forbid it now"
            refused.append(f"job {load.id}: not stopped: {why}")
    return stop, refused


def _cap_w(
    spot: Spot, stop: set[int], level_frac: Mapping[int, float], picture: Picture, in_force_w: float | None
) -> float | None:
    """Return the cap of a node: the least deep level of its jobs, whole steps downwards, never below what guards them. [W]"""
    running = [i for i in _active(spot) if i not in stop]
    if not running or (at_frac := max(level_frac.get(i, 1.0) for i in running)) >= _FULL_FRAC:
        return None
    draw_w = spot.draw_w(frozenset(stop & spot.full_w.keys()))
    wanted_w = draw_w - (1.0 - at_frac) * sum(spot.full_w[i] for i in running)
    deepest_w = _deepest_w(spot, stop, picture)
    if deepest_w >= draw_w:
        return None
    cap_w = max(math.floor(wanted_w / CAP_STEP_W) * CAP_STEP_W, deepest_w)
    if in_force_w is not None and deepest_w <= in_force_w and 0.0 < cap_w - in_force_w <= _KEEP_FRAC * draw_w:
        return in_force_w
    return cap_w


def _slowed_frac(spot: Spot, stop: set[int], cap_w: float) -> float:
    """Return how much a cap slows the worst class of work on a node."""
    saves_w = spot.draw_w(frozenset(stop & spot.full_w.keys())) - cap_w
    gpu_w = _gpu_w(spot, [i for i in _active(spot) if i not in stop])
    return slow_down_frac(1.0 - saves_w / gpu_w) if gpu_w > 0.0 else 0.0


def _deepest_w(spot: Spot, stop: set[int], picture: Picture) -> float:
    """Return the lowest cap a node may have; jobs whose accounts are empty are slowed by no more than their tier accepts. [W]"""
    running = [i for i in _active(spot) if i not in stop]
    draw_w = spot.draw_w(frozenset(stop & spot.full_w.keys()))
    low_w = spot.floor_w
    for i in running:
        load = picture.loads[i]
        if load.credit_s <= 0.0:
            low_w = max(low_w, draw_w - _gpu_w(spot, running) * (1.0 - power_floor_frac(load.tier)))
    return min(max(low_w, draw_w - _gpu_w(spot, running)), draw_w)


# ---- nodes ---------------------------------------------------------------------------------------------------------


def _active(spot: Spot) -> list[int]:
    """Return the jobs that draw power on a node, or would if we had not stopped them."""
    return [i for i, full_w in spot.full_w.items() if full_w > spot.kept_w[i]]


def _full_w(spot: Spot, stopped: frozenset[int] = frozenset()) -> float:
    return sum(spot.full_w[i] for i in _active(spot) if i not in stopped)


def _gpu_w(spot: Spot, running: Iterable[int]) -> float:
    """Return what follows a cap. [W]"""
    return sum(spot.full_w[i] * spot.gpu_frac + spot.gpu_rest_w[i] for i in running)


def _cappable(picture: Picture) -> frozenset[str]:
    """Return the nodes that have a cap agent, and nothing of tier 0 on them."""
    return frozenset(
        name
        for name, spot in picture.spots.items()
        if spot.cappable and (ids := _active(spot)) and min(picture.loads[i].tier for i in ids) > 0
    )


def _has_all(load: Load, picture: Picture) -> bool:
    """Say whether we see every node of a job: others would not be capped with it."""
    return all(name in picture.spots for name in load.nodes)


def _may_cap(load: Load, picture: Picture, cappable: frozenset[str]) -> bool:
    return _has_all(load, picture) and all(name in cappable for name in load.nodes)
