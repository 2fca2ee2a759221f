"""Who runs what: the opted-in objects with their pods and autoscalers, as the planner's workload. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters._k8s_config import MIN_PAUSE_S, KubernetesConfig
from adapters._k8s_held import HELD, RESTS, Held, held, in_force
from adapters._k8s_kinds import QUEUE_LABEL, SUSPEND, Fields, Thing, Way, at
from adapters._k8s_pick import Picker, same_queue
from adapters._k8s_power import Load, Node, Pod, idle_w, load_of, noted, used
from adapters._k8s_scalers import ceiling, is_scaler, least_of, scalers_of
from adapters._k8s_time import parsed_s
from adapters._tier_order import TOLERANCE_FRAC
from vppd.errors import Garbled
from vppd.workload import Job, Knob, Workload

REPLICAS = "/spec/replicas"


@dataclass(frozen=True, slots=True)
class Target:
    """One opted-in workload."""

    thing: Thing
    where: Thing
    """What is patched: the object itself, or what Kueue has made of it."""
    tier: int
    job: Job
    load: Load
    """What it asks for at full speed."""
    pods: tuple[Pod, ...] = ()
    autoscalers: tuple[Thing, ...] = ()
    was: int = 0
    """Replicas when nothing is held back."""
    least: int = 0
    stop: Fields = field(default_factory=dict)
    overridden: bool = False
    """Somebody else has changed what we wrote: it is left alone for as long as the budget binds."""

    def writes(self, level_frac: float) -> list[tuple[Thing, Fields]]:
        """Return what makes it run at a level, autoscalers first; nothing for full speed."""
        if self.thing.kind.way is not Way.REPLICAS:
            return [(self.where, self.stop)]
        count = max(self.least, int(level_frac * self.was + 1e-6))
        if count >= self.was:
            return []
        writes = [(scaler, ceiling(scaler, count)) for scaler in self.autoscalers]
        return [*writes, (self.thing, {REPLICAS: count})]


@dataclass(frozen=True, slots=True)
class Picture:
    """The cluster at one moment."""

    targets: Mapping[str, Target]
    workload: Workload
    strays: tuple[Thing, ...] = ()
    """Held, but no longer ours to hold: their label is gone."""
    troubles: tuple[str, ...] = ()

    @property
    def things(self) -> list[tuple[int, Thing]]:
        """Return all that may be held, with tiers."""
        own = [(t.tier, thing) for t in self.targets.values() for thing in (*t.autoscalers, t.where)]
        return own + [(0, thing) for thing in self.strays]

    @property
    def is_held(self) -> bool:
        """Say whether anything is."""
        return any(HELD in thing.annotations or HELD in thing.labels for _, thing in self.things)


@dataclass(frozen=True, slots=True)
class Rules:
    """What else decides about targets."""

    barred: frozenset[str] = frozenset()
    """Targets that refused a short while ago."""
    dropped: frozenset[str] = frozenset()
    """Kinds whose first way of pausing this server does not know."""
    alone: bool = True
    """No planner keeps accounts, so nothing is slowed beyond its tier at any time, and jobs rest after a pause."""
    kueue: bool = True
    """Kueue is there: it decides about the jobs in its queues."""
    floor: Callable[[Thing, int], int] = lambda thing, replicas: 0
    """The fewest replicas that keep the latency of a service."""


def picture(
    config: KubernetesConfig, things: list[Thing], pods: list[Pod], nodes: Iterable[Node], now_s: float, rules: Rules
) -> Picture:
    """Return who draws what now, and what would be drawn if nothing were held back."""
    builder = _Builder(config, things, Picker(pods), now_s, rules)
    targets, troubles = builder.build()
    mine = {target.thing.uid for target in targets} | {target.where.uid for target in targets}
    mine |= {scaler.uid for target in targets for scaler in target.autoscalers} | builder.unreadable
    strays = tuple(t for t in things if t.uid not in mine and (HELD in t.labels or HELD in t.annotations))
    ours_w = sum(builder.draw_w(target) for target in targets)
    pods_w, nodes_w = load_of(pods).power_w(config), idle_w(config, nodes)
    rest_w = nodes_w + max(pods_w - ours_w, 0.0)
    jobs = tuple(target.job for target in targets)
    return Picture({t.job.id: t for t in targets}, Workload(jobs, rest_w, nodes_w + pods_w), strays, tuple(troubles))


class _Builder:
    def __init__(
        self, config: KubernetesConfig, things: list[Thing], picker: Picker, now_s: float, rules: Rules
    ) -> None:
        self.config, self.now_s, self.rules, self.picker = config, now_s, rules, picker
        self.opted = [t for t in things if t.kind.way is not Way.COMPANION and self.tier(t)]
        self.scalers = [t for t in things if is_scaler(t)]
        self.admitted = [t for t in things if t.kind.name == "Workload"]
        self.unreadable: set[str] = set()

    def build(self) -> tuple[list[Target], list[str]]:
        uids = {thing.uid for thing in self.opted}
        queues = [thing for thing in self.opted if thing.kind.way is Way.QUEUE]
        targets, troubles = [], []
        for thing in self.opted:
            if thing.owners & uids:  # whoever made it is opted in too, and decides about it
                continue
            where = self.where(thing)
            if any(same_queue(queue, thing, where) for queue in queues):
                continue
            try:
                target = self.target(thing, where)
            except Garbled as error:
                troubles.append(str(error))
                self.unreadable |= {thing.uid} | ({where.uid} if where else set())
                continue
            if target is not None:
                targets.append(target)
        return targets, troubles

    def target(self, thing: Thing, where: Thing | None) -> Target | None:
        if where is None:  # in a queue that has not seen it yet: nothing runs
            return None
        if thing.kind.way is Way.REPLICAS:
            return self.replicas(thing)
        return self.pausable(thing, where)

    def tier(self, thing: Thing) -> int:
        text = thing.labels.get(self.config.tier_label, "")
        return int(text) if text in ("1", "2", "3") else 0

    def where(self, thing: Thing) -> Thing | None:
        """Return what is patched to pause it: Kueue itself undoes what others do to its jobs."""
        if thing.kind.way is not Way.PAUSE or QUEUE_LABEL not in thing.labels or not self.rules.kueue:
            return thing
        return next((workload for workload in self.admitted if thing.uid in workload.owners), None)

    def draw_w(self, target: Target) -> float:
        """Return what its pods draw now. [W]"""
        if target.thing.kind.way is Way.QUEUE:
            return self.queue_load(target.thing).power_w(self.config)
        return load_of(target.pods).power_w(self.config)

    # ---- replicas --------------------------------------------------------------------------------------------------

    def replicas(self, thing: Thing) -> Target | None:
        note, pods, scalers = held(thing), self.picker.pods(thing), self.autoscalers(thing)
        said = at(thing.body, REPLICAS)
        count = int(said) if said is not None else 1
        was = int(note.was.get(REPLICAS) or 1) if note else count
        if note is not None and _is_overridden(count, note.wrote.get(REPLICAS), bool(scalers)):
            return self._left(thing, thing, pods, was, count)
        if was == 0:
            return None
        load = noted(note.load) if note else load_of(pod for pod in pods if not pod.ending)
        least = self._floor(thing, scalers, was)
        job = self._scaled(thing, load, count / was, least / was)
        return Target(thing, thing, job.tier, job, load, pods, scalers, was, least)

    def _floor(self, thing: Thing, scalers: Iterable[Thing], was: int) -> int:
        """Return the fewest replicas that all who have a say in it allow, of ``was``."""
        kept = math.ceil((1.0 - TOLERANCE_FRAC[self.tier(thing)]) * was - 1e-6) if self.rules.alone else 0
        return min(max(self.least(thing, scalers), self.rules.floor(thing, was), kept), was)

    def _scaled(self, thing: Thing, load: Load, level_frac: float, floor_frac: float) -> Job:
        """Return the job of a service that runs at a level and may go down to a floor. [0-1]"""
        scalable = floor_frac < 1.0 and thing.key not in self.rules.barred
        return Job(
            id=thing.key,
            tier=self.tier(thing),
            full_w=load.power_w(self.config),
            gpus=load.weight,
            knob=Knob.REPLICAS if scalable else Knob.NONE,
            curve=((floor_frac, floor_frac), (1.0, 1.0)) if scalable else (),
            floor_frac=floor_frac if scalable else 1.0,
            level_frac=min(level_frac, 1.0),
            restart_s=self.number(thing, self.config.restart_annotation),
        )

    def autoscalers(self, thing: Thing) -> tuple[Thing, ...]:
        """Return what scales it."""
        return scalers_of(thing, self.scalers)

    def least(self, thing: Thing, scalers: Iterable[Thing]) -> int:
        text = thing.annotations.get(self.config.least_annotation, "")
        if text:
            return round(_count(thing, self.config.least_annotation, text))
        named = [least_of(scaler) for scaler in scalers]
        return max([self.config.least_replicas, *named]) if named else self.config.least_replicas

    # ---- pauses ----------------------------------------------------------------------------------------------------

    def pausable(self, thing: Thing, where: Thing) -> Target | None:
        note = held(where)
        pods = self.picker.pods(thing)
        is_paused = note is not None and in_force(where.body, note.wrote)
        if note is not None and not is_paused:
            return self._left(thing, where, pods)
        stop = self.stop(where, note)
        running = self.queue_load(thing) if thing.kind.way is Way.QUEUE else load_of(p for p in pods if not p.ending)
        load = noted(note.load) if note else running
        if note is None and (in_force(where.body, stop) or (running.gpus == 0 and running.millicpus == 0)):
            return None  # paused by somebody else, ended, or not yet begun: nothing to give
        tier = self.tier(thing)
        job = Job(
            id=thing.key,
            tier=tier,
            full_w=load.power_w(self.config),
            gpus=load.weight,
            pausable=self.may_pause(thing, where, note, tier),
            paused=is_paused,
            restart_s=self.number(thing, self.config.restart_annotation),
            checkpoint_s=self.number(thing, self.config.checkpoint_annotation),
            least_pause_s=0.0,
            most_pause_s=self.config.max_pause_s.get(tier, 0.0),
        )
        return Target(thing, where, tier, job, load, pods, stop=stop)

    def may_pause(self, thing: Thing, where: Thing, note: Held | None, tier: int) -> bool:
        most_s = self.config.max_pause_s.get(tier, 0.0)
        if most_s < MIN_PAUSE_S or thing.key in self.rules.barred:
            return False
        if note is not None:
            return self.now_s - note.since_s < most_s
        return not (self.rules.alone and parsed_s(where.annotations.get(RESTS, "")) > self.now_s)

    def stop(self, where: Thing, note: Held | None) -> Fields:
        """Return the fields that pause it: as they were written, or by the first way that this server knows."""
        if note is not None:
            return note.wrote
        ways = where.kind.stops or (SUSPEND,)
        return ways[-1] if where.kind.name in self.rules.dropped else ways[0]

    def queue_load(self, queue: Thing) -> Load:
        status = queue.body.get("status") or {}
        return used(self.config, status.get("flavorsUsage") or status.get("flavorUsage") or ())

    # ---- both ------------------------------------------------------------------------------------------------------

    def _left(self, thing: Thing, where: Thing, pods: tuple[Pod, ...], was: int = 1, count: int = 1) -> Target:
        """Return a target whose fields somebody else has changed while we held it: it draws as much as is theirs to say."""
        note = held(where)
        load = noted(note.load) if note else Load()
        job = Job(thing.key, self.tier(thing), load.power_w(self.config) * count / was, gpus=load.weight)
        return Target(thing, where, job.tier, job, load, pods, self.autoscalers(thing), overridden=True)

    def number(self, thing: Thing, annotation: str) -> float:
        text = thing.annotations.get(annotation, "")
        return _count(thing, annotation, text) if text else 0.0


def _count(thing: Thing, annotation: str, text: str) -> float:
    """Return a number from an annotation, at least 0. Raises Garbled."""
    try:
        count = float(text)
    except ValueError:
        count = -1.0
    if not 0.0 <= count < 1e6:
        raise Garbled(f"{thing.key}: its annotation {annotation} is {text!r}, not a number of 0 or more")
    return count


def _is_overridden(count: int, written: Any, scaled: bool) -> bool:
    """Say whether somebody has decided otherwise than we wrote: an autoscaler may well go below it, and nobody above."""
    if written is None or count > written:
        return True
    return bool(count < written) and not scaled
