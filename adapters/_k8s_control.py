"""Carries out what the planner chose: holds, read-backs, and everything given back one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from adapters._k8s_config import KubernetesConfig
from adapters._k8s_held import HELD, held, hold, is_overridden, missing, restore
from adapters._k8s_kinds import Fields, Thing, Way, at
from adapters._k8s_link import Conflict, Link, Missing, together
from adapters._k8s_targets import REPLICAS, Picture, Target
from adapters._k8s_time import text
from adapters._tier_order import TOLERANCE_FRAC
from vppd.errors import DeviceError, Garbled, Refused, Unreachable
from vppd.workload import Curtailment

_BAR_S = 60.0
"""A workload that could not be held is left alone for this long."""
_TRIES = 4
"""Somebody else may change an object between our reading and our writing, but hardly as often as this."""
_BATCH_S = 0.05
_LATE_S = 60.0
_ROUNDING_FRAC = 1e-6

_Writes = list[tuple[Target, list[tuple[Thing, Fields]]]]


@dataclass(slots=True)
class Report:
    """What could not be put in force."""

    problems: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    """Targets that are not as they should be."""
    unreachable: bool = False
    """Some of it went unanswered: its outcome is not known."""

    def note(self, what: str, error: DeviceError) -> None:
        """Take down one failure."""
        self.problems.append(f"{what}: {error}")
        self.unreachable = self.unreachable or isinstance(error, Unreachable)


class Control:
    """Writes to one cluster; what it must put back is on the objects themselves."""

    def __init__(self, config: KubernetesConfig, link: Link) -> None:
        self._config = config
        self._link = link
        self._barred_until_s: dict[str, float] = {}
        self._late_since_s: dict[str, float] = {}
        self.dropped: set[str] = set()
        """Kinds whose first way of pausing this server does not know."""

    def barred(self, now_s: float) -> frozenset[str]:
        """Return the targets that refused a short while ago."""
        return frozenset(key for key, until_s in self._barred_until_s.items() if now_s < until_s)

    async def carry_out(
        self, plan: Curtailment, now: Picture, budget_w: float | None = None, *, rests: bool = False
    ) -> Report:
        """Put a plan in force as far as it is not; without a budget, let go of all that the plan does not hold.

        ``rests``: note on each job that was paused until when it may not be paused again.
        """
        report = Report()
        deeper, lighter = self._wanted(plan, now)
        await together(self._hold_all(target, writes, report) for target, writes in deeper)
        kept = {thing.uid for _, writes in (*deeper, *lighter) for thing, _ in writes}
        if budget_w is not None:
            # Pods take time to end: what goes on in their place must not come on top of them.
            room_w = max(budget_w, plan.expected_w) * (1.0 + _ROUNDING_FRAC) - now.workload.power_w
            late = self._late(plan, now, room_w, {target.job.id for target, _ in deeper})
            lighter = [(target, writes) for target, writes in lighter if target.job.id not in late]
            kept |= _left_as_they_are(now, late)
        back = [(tier, thing) for tier, thing in now.things if thing.uid not in kept]
        await self._give_back(back, lighter, report, rests=rests)
        return report

    def verify(self, plan: Curtailment, now: Picture, report: Report) -> None:
        """Compare what the cluster says now with what was wanted, and take down what is not so."""
        deeper, lighter = self._wanted(plan, now)
        for target, writes in (*deeper, *lighter):
            for thing, fields in writes:
                what = missing(thing.body, fields)
                if what and target.job.id not in report.failed:
                    report.problems.append(f"{thing.key}: {what}")
                    report.failed.add(target.job.id)

    # ---- holding down ----------------------------------------------------------------------------------------------

    def _wanted(self, plan: Curtailment, now: Picture) -> tuple[_Writes, _Writes]:
        """Return what is to be written: what goes deeper, and what comes up but not all the way."""
        deeper: _Writes = []
        lighter: _Writes = []
        for key, target in now.targets.items():
            paused = key in plan.paused and target.job.pausable
            level_frac = plan.level_frac.get(key, 1.0)
            is_slow = target.thing.kind.way is Way.REPLICAS and target.was and level_frac < 1.0
            writes = target.writes(level_frac) if (paused or is_slow) and not target.overridden else []
            if writes:
                (lighter if _comes_up(target, writes) else deeper).append((target, writes))
        return deeper, lighter

    async def _hold_all(self, target: Target, writes: Iterable[tuple[Thing, Fields]], report: Report) -> None:
        try:
            for thing, fields in writes:
                await self._hold(thing, fields, target)
        except Missing:
            return  # it has ended meanwhile
        except DeviceError as error:
            report.note(target.job.id, error)
            report.failed.add(target.job.id)
            if not isinstance(error, Unreachable | Conflict):  # those may go well in the next round
                self._barred_until_s[target.job.id] = asyncio.get_running_loop().time() + _BAR_S

    async def _hold(self, thing: Thing, fields: Fields, target: Target) -> None:
        """Write and read back. Raises Refused when the server does not keep what was written."""
        stored = await self._write(thing, fields, target)
        what = missing(stored.body, fields)
        first, *others = thing.kind.stops or ({},)
        if what and others and fields == first:
            self.dropped.add(thing.kind.name)
            stored = await self._write(stored, others[0], target)
            what = missing(stored.body, others[0])
        if what:
            await self._let_go(stored, "")
            raise Refused(f"the server did not keep it: {what}")

    async def _write(self, thing: Thing, fields: Fields, target: Target) -> Thing:
        for _ in range(_TRIES):
            patch = hold(thing, fields, self._link.now_s, self._config.holder, target.load.note())
            if patch is None:
                return thing
            try:
                return await self._link.patch(thing, patch)
            except Conflict:
                thing = await self._link.again(thing)
                if _is_elsewhere(thing, fields, target):
                    raise Conflict("somebody else is changing it") from None
        raise Unreachable(f"{thing.key}: it is changed faster than it can be written")

    # ---- giving back -----------------------------------------------------------------------------------------------

    def _late(self, plan: Curtailment, now: Picture, room_w: float, held: set[str]) -> set[str]:
        """Return who has to wait with coming up until there is room: never for longer than a minute."""
        now_s = asyncio.get_running_loop().time()
        late: dict[str, float] = {}
        for target in sorted(now.targets.values(), key=lambda t: (t.tier, t.job.id)):
            job = target.job
            level_frac = 0.0 if job.id in plan.paused else plan.level_frac.get(job.id, 1.0)
            more_w = job.full_w * (level_frac - (0.0 if job.paused else job.level_frac))
            if job.id in held or target.overridden or more_w <= 0.0:
                continue
            since_s = self._late_since_s.get(job.id, now_s)
            if more_w <= room_w or now_s - since_s > _LATE_S:
                room_w -= more_w
            else:
                late[job.id] = since_s
        self._late_since_s = late
        return set(late)

    async def _give_back(self, back: list[tuple[int, Thing]], lighter: _Writes, report: Report, *, rests: bool) -> None:
        """Let workloads go on, the least tolerant first and one after another: never a step of the whole cluster."""
        due = [(tier, thing) for tier, thing in back if _is_marked(thing)]
        due.sort(key=lambda entry: (entry[0], entry[1].kind.way is not Way.COMPANION, entry[1].key))
        steps = [self._attempt(thing, report, tier if rests else 0) for tier, thing in due]
        steps += [self._hold_all(target, writes, report) for target, writes in lighter]
        config = self._config
        rest_s = min(config.stagger_s, config.release_within_s / len(steps)) if steps else 0.0
        at_once = max(1, round(_BATCH_S / rest_s)) if rest_s > 0.0 else max(len(steps), 1)
        for start in range(0, len(steps), at_once):
            if start:
                await asyncio.sleep(rest_s * at_once)
            await together(steps[start : start + at_once])

    async def _attempt(self, thing: Thing, report: Report, tier: int) -> None:
        try:
            await self._let_go(thing, self._rests_until(thing, tier) if tier else "")
        except Missing:
            return
        except DeviceError as error:
            report.note(f"{thing.key} is not restored", error)

    async def _let_go(self, thing: Thing, rests_until: str) -> None:
        for _ in range(_TRIES):
            patch = restore(thing, rests_until)
            if patch is None:
                return
            try:
                stored = await self._link.patch(thing, patch)
            except Conflict:
                thing = await self._link.again(thing)
                continue
            if _is_marked(stored):
                raise Refused("the server keeps its annotation")
            return
        raise Unreachable(f"{thing.key}: it is changed faster than it can be written")

    def _rests_until(self, thing: Thing, tier: int) -> str:
        """Return when a job may be paused again so that its average stays within its tier; empty when it was not paused."""
        note = held(thing)
        if note is None or not thing.kind.stops:
            return ""
        lasted_s = max(self._link.now_s - note.since_s, 0.0)
        return text(self._link.now_s + lasted_s * (1.0 / TOLERANCE_FRAC[tier] - 1.0))


def _left_as_they_are(now: Picture, late: Collection[str]) -> set[str]:
    """Return the objects that nobody touches now: of targets that somebody else has changed, and of those that go on later."""
    later = [target for target in now.targets.values() if target.overridden or target.job.id in late]
    return {thing.uid for target in later for thing in (*target.autoscalers, target.where)}


def _comes_up(target: Target, writes: Iterable[tuple[Thing, Fields]]) -> bool:
    """Say whether a write lets replicas start."""
    return any(REPLICAS in fields and fields[REPLICAS] > (at(t.body, REPLICAS) or 0) for t, fields in writes)


def _is_elsewhere(thing: Thing, fields: Mapping[str, object], target: Target) -> bool:
    """Say whether what was planned with is no longer so: the next round plans with what there is then."""
    if target.thing.kind.way is not Way.REPLICAS or thing.uid != target.thing.uid:
        return False
    return any(at(thing.body, p) != at(target.thing.body, p) for p in fields)


def _is_marked(thing: Thing) -> bool:
    return HELD in thing.annotations or HELD in thing.labels


def left_alone(now: Picture) -> list[str]:
    """Return what somebody else has changed while it was held."""
    found = []
    for target in now.targets.values():
        try:
            if target.overridden and is_overridden(target.where):
                found.append(f"{target.job.id}: changed by somebody else, left alone")
        except Garbled as error:
            found.append(str(error))
    return found
