"""Which jobs are stopped and which nodes capped for a budget: absolute, from the present jobs alone. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from adapters._slurm_journal import TOLERANCE_FRAC
from adapters._slurm_power import Load, Picture, Spot

SLOW_A, SLOW_B = 0.958, 1.358
"""Throughput under a cap is 1 - A (1 - p)^B at the fraction p of uncapped GPU power, for the class of work that suffers most."""
CAP_STEP_W = 10.0
_STICKY_FRAC = 0.02
_LEAST_FRAC = 0.02
"""A cap that saves less than this part of a node's draw is not worth a write."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What ought to be in force."""

    stop: frozenset[int]
    cap_w: Mapping[str, float] = field(default_factory=dict)
    slow_frac: Mapping[int, float] = field(default_factory=dict)
    """How much the caps slow each job."""
    freeze: bool = False
    """Nothing new may start."""
    expected_w: float = 0.0
    """What the cluster will draw. [W]"""
    refused: tuple[str, ...] = ()
    """By job: what somebody wished, and this adapter does not do."""


@dataclass(frozen=True, slots=True)
class _Room:
    """What a cap on one node saves."""

    tier: int
    saves_w: float = 0.0
    gpu_w: float = 0.0
    """What follows the cap. [W]"""


def plan(picture: Picture, budget_w: float, frozen: bool = False) -> Plan:
    """Return what keeps the draw within the budget: first no new starts, then caps, then stops by tier, none above its tier.

    Starts that are ``frozen`` already, and jobs that are stopped already, stay so until there is some power to spare.
    """
    excess_w = picture.available_w - budget_w
    sticky_w = budget_w * _STICKY_FRAC
    if excess_w <= 0.0:
        freeze = is_frozen(picture.available_w, budget_w, frozen)
        return Plan(frozenset(), freeze=freeze, expected_w=picture.available_w)
    trial = _Trial(picture)
    chosen = _choose(trial, excess_w)
    _give_back(trial, chosen, excess_w, sticky_w)
    caps = _caps(trial, excess_w - trial.stops_save_w)
    return Plan(
        stop=frozenset(trial.stopped),
        cap_w={name: cap_w for name, (cap_w, _) in caps.items()},
        slow_frac=_slowed(trial, caps),
        freeze=True,
        expected_w=sum(min(_draw_w(trial, s), caps.get(s.name, (math.inf, 0.0))[0]) for s in picture.spots.values()),
    )


def is_frozen(available_w: float, budget_w: float, frozen: bool) -> bool:
    """Say whether new starts would break a budget; what is frozen thaws with some power to spare."""
    return available_w > budget_w - (budget_w * _STICKY_FRAC if frozen else 0.0)


def sheddable(picture: Picture) -> tuple[float, float, float, float]:
    """Return what could be shed from the available power now, by tier: a stopped job's whole, else what a cap saves. [W]"""
    trial = _Trial(picture)
    shed_w = [0.0] * 4
    for load in picture.loads.values():
        if load.stoppable:
            shed_w[load.tier] += trial.stop(load)
    for room in trial.rooms.values():
        shed_w[room.tier] += room.saves_w
    return shed_w[0], shed_w[1], shed_w[2], shed_w[3]


def shed_first(picture: Picture, most: int = 16) -> tuple[tuple[str, float], ...]:
    """Return nodes with flexible work and what they draw, those with the most tolerant work first. [W]"""
    tiers = {name: min((picture.loads[i].tier for i in spot.full_w), default=0) for name, spot in picture.spots.items()}
    names = sorted(
        (n for n, tier in tiers.items() if tier > 0), key=lambda n: (-tiers[n], -picture.spots[n].power_w, n)
    )
    return tuple((name, picture.spots[name].power_w) for name in names[:most])


def power_floor_frac(tier: int) -> float:
    """Return how far GPU power may be capped so that the slow-down stays within the tier."""
    return 1.0 - math.pow(TOLERANCE_FRAC[tier] / SLOW_A, 1.0 / SLOW_B)


def slow_down_frac(power_frac: float) -> float:
    """Return the slow-down at a fraction of uncapped GPU power."""
    return SLOW_A * math.pow(max(1.0 - power_frac, 0.0), SLOW_B)


class _Trial:
    """A set of stopped jobs, with what they save and what caps on the rest could save besides."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.stopped: set[int] = set()
        self.stops_save_w = 0.0
        self.rooms = {name: self._room(spot) for name, spot in picture.spots.items()}
        self.caps_save_w = sum(room.saves_w for room in self.rooms.values())

    @property
    def saves_w(self) -> float:
        """Return the most that is saved by these stops and by caps as deep as they may be. [W]"""
        return self.stops_save_w + self.caps_save_w

    def stop(self, load: Load) -> float:
        """Add a job and return what stopping it saves, caps left aside. [W]"""
        return self._turn(load, True)

    def keep(self, load: Load) -> None:
        """Take a job out again."""
        self._turn(load, False)

    def _turn(self, load: Load, stopped: bool) -> float:
        if stopped:
            self.stopped.add(load.id)
        else:
            self.stopped.discard(load.id)
        spots = [self.picture.spots[name] for name in load.nodes if name in self.picture.spots]
        own_w = sum(spot.full_w[load.id] - spot.kept_w[load.id] for spot in spots)
        self.stops_save_w += own_w if stopped else -own_w
        for spot in spots:
            self.caps_save_w -= self.rooms[spot.name].saves_w
            self.rooms[spot.name] = self._room(spot)
            self.caps_save_w += self.rooms[spot.name].saves_w
        return own_w

    def _room(self, spot: Spot) -> _Room:
        active = [i for i in spot.full_w if i not in self.stopped and spot.full_w[i] > spot.kept_w[i]]
        tier = min((self.picture.loads[i].tier for i in active), default=0)
        if not spot.cappable or tier == 0:
            return _Room(tier)
        gpu_w = sum(spot.full_w[i] * spot.gpu_frac + spot.gpu_rest_w[i] for i in active)
        draw_w = _draw_w(self, spot)
        deepest_w = max(draw_w - gpu_w * (1.0 - power_floor_frac(tier)), spot.floor_w)
        saves_w = draw_w - deepest_w
        return _Room(tier, saves_w, gpu_w) if saves_w > _LEAST_FRAC * draw_w else _Room(tier)


def _draw_w(trial: _Trial, spot: Spot) -> float:
    return spot.draw_w(frozenset(trial.stopped & spot.full_w.keys()))


def _choose(trial: _Trial, excess_w: float) -> list[Load]:
    """Stop jobs until that and the caps suffice: the most tolerant tier first, and those stopped already before others."""
    chosen: list[Load] = []
    loads = [load for load in trial.picture.loads.values() if load.stoppable]
    for load in sorted(loads, key=lambda x: (-x.tier, not x.stopped, -x.credit_s, x.id)):
        if trial.saves_w >= excess_w:
            break
        trial.stop(load)
        chosen.append(load)
    return chosen


def _give_back(trial: _Trial, chosen: list[Load], excess_w: float, sticky_w: float) -> None:
    """Let go on whoever is not needed, the last chosen first; a job stopped already only with some power to spare."""
    for load in reversed(chosen):
        trial.keep(load)
        if trial.saves_w < excess_w + (sticky_w if load.stopped else 0.0):
            trial.stop(load)


def _caps(trial: _Trial, excess_w: float) -> dict[str, tuple[float, float]]:
    """Return cap and saving by node: tier 3 first, nodes of one tier equally deep, whole steps downwards. [W]"""
    caps: dict[str, tuple[float, float]] = {}
    for tier in (3, 2, 1):
        rooms = {name: room for name, room in trial.rooms.items() if room.tier == tier and room.saves_w > 0.0}
        total_w = sum(room.saves_w for room in rooms.values())
        if excess_w <= 0.0 or total_w <= 0.0:
            continue
        depth_frac = min(1.0, excess_w / total_w)
        for name, room in rooms.items():
            draw_w = _draw_w(trial, trial.picture.spots[name])
            deepest_w = draw_w - room.saves_w
            cap_w = max(math.floor((draw_w - depth_frac * room.saves_w) / CAP_STEP_W) * CAP_STEP_W, deepest_w)
            caps[name] = cap_w, draw_w - cap_w
        excess_w -= depth_frac * total_w
    return caps


def _slowed(trial: _Trial, caps: Mapping[str, tuple[float, float]]) -> dict[int, float]:
    """Return how much the caps slow each job: as much as on its slowest node."""
    slow_frac: dict[int, float] = {}
    for name, (_, saves_w) in caps.items():
        frac = slow_down_frac(1.0 - saves_w / trial.rooms[name].gpu_w)
        for i in trial.picture.spots[name].full_w:
            if i not in trial.stopped:
                slow_frac[i] = max(slow_frac.get(i, 0.0), frac)
    return slow_frac
