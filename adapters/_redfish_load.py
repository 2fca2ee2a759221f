"""What a set of capped nodes offers, and how a budget is divided among them. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vppd.model import TIERS
from vppd.workload import Curtailment, Job, Knob, Workload

_STEADY_FRAC = 0.01
"""A cap that would move by less stays as it is: BMCs keep limits in flash."""


@dataclass(frozen=True, slots=True)
class Load:
    """One node."""

    name: str
    tier: int
    full_w: float
    """What it draws when nothing holds it back: as measured before it was capped. [W]"""
    floor_w: float
    """No cap goes below this. [W]"""
    power_w: float | None
    """Measured lately; None: nobody knows. [W]"""
    cap_w: float | None
    """Our cap, as read back; None: we hold it by none. [W]"""
    answers: bool

    @property
    def headroom_w(self) -> float:
        """Return what a cap could save; nothing where the BMC is silent or the tier is 0. [W]"""
        return max(self.full_w - self.floor_w, 0.0) if self.tier > 0 and self.answers else 0.0

    @property
    def draw_w(self) -> float:
        """Return what it draws now, as much as it could where nobody knows. [W]"""
        return self.full_w if self.power_w is None else self.power_w


def shed_w(loads: Sequence[Load]) -> tuple[float, ...]:
    """Return what caps could save, by tier. [W]"""
    return tuple(math.fsum(load.headroom_w for load in loads if load.tier == tier) for tier in range(TIERS))


def shed_first(loads: Sequence[Load]) -> tuple[tuple[str, float], ...]:
    """Return the nodes that could be throttled: the most tolerant first, of these the one that gives most."""
    able = [load for load in loads if load.headroom_w > 0.0]
    able.sort(key=lambda load: (-load.tier, -load.headroom_w, load.name))
    return tuple((load.name, load.draw_w) for load in able)


def headroom(loads: Sequence[Load], aim_w: float) -> dict[str, float]:
    """Return a cap by node so that all together draw ``aim_w``: each gives the same part of its headroom. [W]"""
    need_w = math.fsum(load.full_w for load in loads) - aim_w
    able = [load for load in loads if load.headroom_w > 0.0]
    room_w = math.fsum(load.headroom_w for load in able)
    if need_w <= 0.0 or room_w <= 0.0:
        return {}
    part = min(need_w / room_w, 1.0)
    return {load.name: load.full_w - part * load.headroom_w for load in able}


def workload(loads: Sequence[Load]) -> Workload:
    """Return the nodes as jobs for a planner: one each, slowed by its cap; those that are nobody's to touch are the rest."""
    jobs = tuple(
        Job(
            id=load.name,
            tier=load.tier,
            full_w=load.full_w,
            knob=Knob.CAP,
            floor_frac=min(load.floor_w / load.full_w, 1.0),
            level_frac=1.0 if load.cap_w is None else min(load.cap_w / load.full_w, 1.0),
            power_w=load.power_w,
        )
        for load in loads
        if load.tier > 0 and load.answers and load.full_w > 0.0
    )
    known = {job.id for job in jobs}
    rest_w = math.fsum(load.full_w for load in loads if load.name not in known)
    return Workload(jobs, rest_w, math.fsum(load.draw_w for load in loads))


def planned(loads: Sequence[Load], wanted: Curtailment) -> dict[str, float]:
    """Return what a planner's levels mean as caps; never below a node's floor, never for a node that is nobody's to touch. [W]"""
    able = {load.name: load for load in loads if load.tier > 0 and load.answers}
    return {
        name: max(level_frac * able[name].full_w, min(able[name].floor_w, able[name].full_w))
        for name, level_frac in wanted.level_frac.items()
        if name in able and level_frac < 1.0
    }


def steady(fresh_w: Mapping[str, float], now_w: Mapping[str, float]) -> dict[str, float]:
    """Return the fresh caps, each as it is now where it would move by less than a hundredth; never more in all than is fresh. [W]"""
    kept_w = {name: _near(cap_w, now_w.get(name)) for name, cap_w in fresh_w.items()}
    excess_w = math.fsum(kept_w.values()) - math.fsum(fresh_w.values())
    # The aim is below the budget by a margin as large: what is kept may lie above the fresh by half of that.
    return kept_w if excess_w <= 0.5 * _STEADY_FRAC * math.fsum(fresh_w.values()) else dict(fresh_w)


def _near(cap_w: float, now_w: float | None) -> float:
    return now_w if now_w is not None and abs(cap_w - now_w) <= _STEADY_FRAC * cap_w else cap_w
