"""Carries a plan out: written down first, then frozen, capped, stopped; and everything given back in reverse, one after another."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from adapters._slurm_accounts import DrawMemory, forget_ended, keep_accounts
from adapters._slurm_capping import Capping
from adapters._slurm_config import SlurmConfig
from adapters._slurm_freed import Freed
from adapters._slurm_jobs import LIVE, PENDING, RUNNING, SUSPENDED, Job
from adapters._slurm_journal import TOLERANCE_FRAC, Held, Journal, Touch
from adapters._slurm_link import SlurmLink, each
from adapters._slurm_plan import Plan
from adapters._slurm_power import Picture, held_by_us, in_scope, job_tier
from vppd.errors import DeviceError, Unreachable

_BAR_S = 60.0
"""A job that could not be stopped is left alone for this long."""
_HOLDS_AT_ONCE = 64
_BATCH_S = 0.05
_PARTITIONS_S = 5.0
"""Partitions that are DOWN for us are looked at this often: a restarted slurmctld has them UP again."""
_ENDS_S = 60.0
"""A job that is put back into the queue has ended by then: Slurm's KillWait is 30 s."""
_CONFIRM_S = 1.0
"""Steps that were being launched as their job was stopped are there by then."""


@dataclass(frozen=True, slots=True)
class Report:
    """What could not be put in force."""

    problems: tuple[str, ...] = ()
    uncapped: frozenset[str] = frozenset()
    """Nodes whose cap is not in force."""
    refused: bool = False
    """All of it is a clear no: trying again at once is of no use."""


class Control:
    """Puts plans in force on one cluster, and remembers in the journal what must be put back."""

    def __init__(self, config: SlurmConfig, link: SlurmLink, capping: Capping, journal: Journal) -> None:
        self.held = Held()
        self._config = config
        self._link = link
        self._capping = capping
        self._journal = journal
        self._memory = DrawMemory()
        self._barred_until_s: dict[int, float] = {}
        self._confirm_at_s: dict[int, float] = {}
        self.freed = Freed()
        self._partitions_at_s = 0.0
        self._problems: list[str] = []
        self._refused = True

    def barred(self, now_s: float) -> frozenset[int]:
        """Return the jobs that refused to be stopped a short while ago."""
        return frozenset(i for i, until_s in self._barred_until_s.items() if now_s < until_s)

    async def carry_out(self, plan: Plan, picture: Picture, jobs: Sequence[Job], now_s: float) -> Report:
        """Put a plan in force as far as it is not, and return what went wrong. Raises Refused when the journal cannot be written."""
        self._problems, self._refused = [], True
        by_id = {job.id: job for job in jobs}
        before = (dict(self.held.touched), dict(self.held.old_cap_w), dict(self.held.partitions))
        forget_ended(self.held, by_id)
        self._memory.keep(self.held, plan, picture, now_s)
        keep_accounts(self._config, self.held, plan, picture, now_s)
        if plan.freeze:
            await self._freeze(jobs, now_s)
        uncapped = await self._capping.put(plan.cap_w, self.held, now_s, lower=True)
        await self._stop([by_id[i] for i in sorted(plan.stop) if i in by_id], picture, now_s)
        uncapped |= await self._capping.put(plan.cap_w, self.held, now_s, lower=False)
        await self.take_back(jobs, plan.stop, now_s)
        await self._go_on(plan, by_id)
        if not plan.freeze:
            await self._thaw(by_id)
        if before != (self.held.touched, self.held.old_cap_w, self.held.partitions):
            await self._journal.save(self.held)
        self._problems += [f"node {name}: {why}" for name, why in sorted(uncapped.items())]
        return Report(
            tuple(self._problems), frozenset(uncapped), bool(self._problems) and self._refused and not uncapped
        )

    async def note_lease(self) -> None:
        """Write the end of the lease down; a lost write only makes a successor restore earlier."""
        if self.held:
            await self._journal.save(self.held, durable=False)

    # ---- holding down ----------------------------------------------------------------------------------------------

    async def _freeze(self, jobs: Iterable[Job], now_s: float) -> None:
        """Let nothing start: the partitions for it go DOWN, pending jobs elsewhere are held."""
        again = now_s >= self._partitions_at_s
        for name in self._config.freeze_partitions:
            if again or name not in self.held.partitions:
                await self._attempt(f"partition {name}", self._set_down(name))
        if again:
            self._partitions_at_s = now_s + _PARTITIONS_S
        pending = [
            job
            for job in jobs
            if job.state == PENDING
            and not job.held
            and job_tier(self._config, job) > 0
            and not set(job.partitions) <= set(self._config.freeze_partitions)
            and job.id not in self.barred(now_s)
        ]
        first = sorted(pending, key=lambda job: -job.priority)[:_HOLDS_AT_ONCE]
        ids = await self._touch(first, lambda job: Touch("hold", now_s), now_s)
        self._note(await each(ids, partial(self._link.hold, held=True)), now_s)

    async def _set_down(self, name: str) -> None:
        state = await self._link.partition_state(name)
        if state != "UP":
            return
        if name not in self.held.partitions:
            self.held.partitions[name] = state
            await self._journal.save(self.held)
        await self._link.set_partition(name, "DOWN")

    async def _stop(self, wanted: Sequence[Job], picture: Picture, now_s: float) -> None:
        """Stop jobs that run and should not; a job that is stopped already is left in peace."""
        await self._confirm({job.id for job in wanted}, now_s)
        running = [job for job in wanted if job.state == RUNNING]
        if not running:
            return
        what = "suspend" if self._config.stop_method == "suspend" else "stop"
        extend = self._config.extend_time_limit and what == "stop"

        def touch(job: Job) -> Touch:
            if not extend or job.limit_min is None:
                return Touch(what, now_s)
            load = picture.loads[job.id]
            pause_min = math.ceil(load.credit_s / (1.0 - TOLERANCE_FRAC[load.tier]) / 60.0)
            return Touch(what, now_s, job.limit_min, job.limit_min + pause_min)

        ids = await self._touch(await self._let_start(running, now_s), touch, now_s)
        if what == "suspend":
            self._note(await self._link.suspend(ids, True), now_s)
            return
        self._note(await self._link.stop(ids, True), now_s)
        self._confirm_at_s.update(dict.fromkeys(ids, now_s + _CONFIRM_S))

    async def _let_start(self, running: Sequence[Job], now_s: float) -> list[Job]:
        """Undo the hold of jobs that started as they were held, or they would not start again; return those that may be stopped."""
        started = [job.id for job in running if held_by_us(job, self.held) == "hold"]
        failed = await each(started, partial(self._link.hold, held=False))
        self._note(failed, now_s)
        return [job for job in running if job.id not in failed]

    async def _confirm(self, wanted: set[int], now_s: float) -> None:
        """Stop the steps of jobs stopped a moment ago once more."""
        self._confirm_at_s = {i: at_s for i, at_s in self._confirm_at_s.items() if i in wanted}
        due = [i for i, at_s in self._confirm_at_s.items() if now_s >= at_s]
        self._note(await self._link.stop_steps(due), now_s)
        for job_id in due:
            del self._confirm_at_s[job_id]

    async def _touch(self, jobs: Sequence[Job], touch: Callable[[Job], Touch], now_s: float) -> list[int]:
        """Write down, in the journal and in each job's comment, who is about to be held down; return those that now may be."""
        fresh: dict[int, Job] = {}
        for job in jobs:
            known, new = self.held.touched.get(job.id), touch(job)
            if known is None or known.what != new.what:
                if known is not None and known.limit_min is not None:  # requeued: it begins anew, with its own limit
                    new = replace(new, limit_min=known.written_min, written_min=known.limit_min)
                self.held.touched[job.id] = new
            if self.held.touched[job.id] is new or job.mark != new.what:
                fresh[job.id] = job
        if fresh:
            await self._journal.save(self.held)

        async def mark(job_id: int) -> None:
            job, touched = fresh[job_id], self.held.touched[job_id]
            # The limit keeps counting while a job is stopped: it is extended first, and trimmed when the job goes on.
            longer_min = touched.written_min if job.limit_min == touched.limit_min else None
            written = await self._link.mark(job, job.marked(touched.what), longer_min)
            if longer_min is not None and not written:
                self.held.touched[job_id] = replace(touched, limit_min=None, written_min=None)

        unmarked = await each(fresh, mark)
        self._note(unmarked, now_s)
        for job_id, error in unmarked.items():
            if not isinstance(error, Unreachable):  # else the mark may be there: a later round takes it off
                del self.held.touched[job_id]
        return [job.id for job in jobs if job.id not in unmarked]

    def _note(self, failed: Mapping[int, DeviceError], now_s: float) -> None:
        """Take jobs that refuse out of the next plans; what did not answer is looked at again in the next round."""
        for job_id, error in failed.items():
            self._problem(f"job {job_id}", error)
            if not isinstance(error, Unreachable):
                self._barred_until_s[job_id] = now_s + _BAR_S

    async def requeue(self, jobs: Sequence[Job], now_s: float) -> tuple[str, ...]:
        """Put running jobs back into the queue, held, and return what became of each."""
        self._problems = []
        ids = await self._touch(jobs, lambda job: Touch("requeue", now_s), now_s)
        failed = await each(ids, self._link.requeue)
        self._note(failed, now_s)
        await self._journal.save(self.held)
        return (*self._problems, *(f"job {i}: put back into the queue" for i in ids if i not in failed))

    # ---- giving back -----------------------------------------------------------------------------------------------

    async def take_back(self, jobs: Iterable[Job], wanted: frozenset[int], now_s: float) -> None:
        """Let jobs go on once more that were stopped late."""
        if late := self.freed.late(jobs, wanted, self.held, now_s):
            self._note(await self._link.stop(late, False), now_s)

    async def _go_on(self, plan: Plan, by_id: Mapping[int, Job]) -> None:
        """Let jobs go on that the plan does not stop: the least tolerant first, one after another, for a second at most."""
        back = [
            job
            for job in by_id.values()
            if job.state in LIVE and held_by_us(job, self.held) and job.id not in plan.stop and self._is_ours(job)
        ]
        back = [job for job in back if not self._is_ending(job)]
        if not back:
            return
        back.sort(key=lambda job: (job_tier(self._config, job), job.id))
        rest_s = min(self._config.stagger_s, self._config.release_within_s / len(back))
        at_once = max(1, math.ceil(_BATCH_S / rest_s)) if rest_s > 0.0 else len(back)
        spent_s = 0.0
        for start in range(0, len(back), at_once):
            if start:
                await asyncio.sleep(rest_s * at_once)
                spent_s += rest_s * at_once
            if spent_s >= 1.0:
                return
            await self._resume(back[start : start + at_once])

    async def _resume(self, jobs: Sequence[Job]) -> None:
        now_s = asyncio.get_running_loop().time()
        by_id = {job.id: job for job in jobs}
        ways = {job.id: held_by_us(job, self.held) for job in jobs}
        stopped = [i for i, how in ways.items() if how == "stop"]
        failed = dict(await self._link.stop(stopped, False))
        self.freed.note(stopped, now_s)
        suspended = [i for i, how in ways.items() if how == "suspend" and by_id[i].state == SUSPENDED]
        if suspended:
            failed.update(await self._link.suspend(suspended, False))
        started = [i for i, how in ways.items() if how == "hold"]  # it started as it was held: its priority is 0 now
        failed.update(await each(started, partial(self._link.hold, held=False)))
        for job_id, error in failed.items():
            self._problem(f"job {job_id} does not go on", error)
        await self._unmark([job for job in jobs if job.id not in failed], now_s)

    async def _thaw(self, by_id: Mapping[int, Job]) -> None:
        """Let jobs start again: first those that are held, then the partitions."""
        now_s = asyncio.get_running_loop().time()
        pending = [
            job for job in by_id.values() if job.state == PENDING and held_by_us(job, self.held) and self._is_ours(job)
        ]
        pending.sort(key=lambda job: job.id)
        # One by one: Slurm ranks what is released by the order in which that happens.
        # A job that we stopped and somebody else requeued and held is not ours to let start.
        frozen = [job.id for job in pending if job.held and held_by_us(job, self.held) in ("hold", "requeue")]
        failed = await each(frozen, partial(self._link.hold, held=False), at_once=1)
        for job_id, error in failed.items():
            self._problem(f"job {job_id} stays held", error)
        await self._unmark([job for job in pending if job.id not in failed], now_s)
        for name in list(self.held.partitions):
            await self._attempt(f"partition {name}", self._set_up(name))

    async def _set_up(self, name: str) -> None:
        if await self._link.partition_state(name) == "DOWN":  # else somebody has decided otherwise meanwhile
            await self._link.set_partition(name, self.held.partitions[name])
        del self.held.partitions[name]

    async def _unmark(self, jobs: Sequence[Job], now_s: float) -> None:
        """Take our mark off jobs and set their limits to what they had plus what they lost; then forget them."""
        by_id = {job.id: job for job in jobs}

        async def unmark(job_id: int) -> None:
            job, touch = by_id[job_id], self.held.touched.get(job_id)
            limit_min = None
            # A limit that is not as we wrote it is somebody else's: it stays.
            if touch is not None and touch.what == "stop" and touch.limit_min is not None:
                lost_min = math.ceil((now_s - touch.since_s) / 60.0)
                limit_min = touch.limit_min + lost_min if job.limit_min == touch.written_min else None
            await self._link.mark(job, job.marked(""), limit_min)

        failed = await each(by_id, unmark)
        for job_id in by_id:
            error = failed.get(job_id)
            if error is not None:
                self._problem(f"job {job_id} keeps its mark", error)
            if not isinstance(
                error, Unreachable
            ):  # it goes on: a mark that may not be wiped off is no reason to insist
                self.held.touched.pop(job_id, None)

    def _is_ending(self, job: Job) -> bool:
        """Say whether a job was put back into the queue a moment ago: it runs until it has been ended."""
        touch = self.held.touched.get(job.id)
        now_s = asyncio.get_running_loop().time()
        return touch is not None and touch.what == "requeue" and now_s < touch.since_s + _ENDS_S

    # ---- bookkeeping -----------------------------------------------------------------------------------------------

    def _is_ours(self, job: Job) -> bool:
        return job.id in self.held.touched or in_scope(self._config, job.partitions)

    async def _attempt(self, what: str, doing: Awaitable[None]) -> None:
        try:
            await doing
        except DeviceError as error:
            self._problem(what, error)

    def _problem(self, what: str, error: DeviceError) -> None:
        self._problems.append(f"{what}: {error}")
        self._refused = self._refused and not isinstance(error, Unreachable)
