"""The jobs of a hall as its workload manager keeps them: who runs where, who is held, stopped, capped, and what was done to whom."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vppd.sim.curves import CLASSES
from vppd.sim.faults import Clock
from vppd.sim.hall import Hall, HallCommands, HallState, Slot

Epoch = Callable[[], float]
"""Seconds since 1970."""

_KEEP_ENDED_S = 60.0
_LOG_LENGTH = 20_000
_DAY_MIN = 1440


@dataclass(slots=True)
class Job:
    """One job, from submission to end."""

    job_id: int
    slot: int
    place: Slot
    comment: str
    state: str = "PENDING"
    """PENDING, RUNNING, STOPPED, COMPLETED or CANCELLED."""
    submitted_at_s: float = 0.0
    """Epoch. [s]"""
    started_at_s: float = 0.0
    ended_at_s: float = 0.0
    held: bool = False
    admin_comment: str = ""
    time_limit_min: int = _DAY_MIN
    stops: int = 0
    """Times the job was stopped."""
    work_gpu_s: float = 0.0

    @property
    def name(self) -> str:
        """Return a name that says what the job does."""
        return f"{CLASSES[self.place.job_class]}-{self.job_id}"

    @property
    def over(self) -> bool:
        """Say whether the job has ended."""
        return self.state in ("COMPLETED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class Cap:
    """A node's power cap, and when its lease ends."""

    cap_w: float
    ends_s: float


@dataclass(slots=True)
class ActionLog:
    """What was done to a hall from outside."""

    stops: int = 0
    continues: int = 0
    cancels: int = 0
    updates: int = 0
    cap_writes: int = 0
    cap_transitions: int = 0
    cap_expiries: int = 0
    refused: int = 0
    entries: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_LOG_LENGTH))

    def counts(self) -> dict[str, int]:
        """Return the counters by name."""
        return {
            "stops": self.stops,
            "continues": self.continues,
            "cancels": self.cancels,
            "updates": self.updates,
            "cap_writes": self.cap_writes,
            "cap_transitions": self.cap_transitions,
            "cap_expiries": self.cap_expiries,
            "refused": self.refused,
        }


class HallBoard:
    """The jobs and nodes of one hall: takes orders from outside, turns them into commands, follows what the physics does."""

    def __init__(self, hall: Hall, state: HallState, clock: Clock, epoch: Epoch) -> None:
        self.hall = hall
        self.state = state
        self.jobs: dict[int, Job] = {}
        self.log = ActionLog()
        self._clock = clock
        self._epoch = epoch
        self._caps: dict[int, Cap] = {}
        self._cancelled: set[int] = set()
        self._ended: deque[Job] = deque()
        self.sync(state)

    @property
    def partition(self) -> str:
        """Return the name of the hall's only partition."""
        return self.hall.spec.name

    def node_name(self, node: int) -> str:
        """Return what the workload manager calls a node."""
        return f"{self.hall.spec.name.removeprefix('hall-')}{node + 1:02d}"

    def node_number(self, name: str) -> int | None:
        """Return the node of that name, None when there is none."""
        return next((n for n in range(self.hall.spec.nodes) if self.node_name(n) == name), None)

    def commands(self) -> HallCommands:
        """Return what the hall has been told, as it stands now."""
        self._expire_caps()
        cap_w = np.full(self.hall.spec.nodes, np.inf)
        for node, cap in self._caps.items():
            cap_w[node] = cap.cap_w
        return HallCommands(
            cap_w=cap_w,
            paused=frozenset(j.job_id for j in self.jobs.values() if j.state == "STOPPED"),
            held=frozenset(j.job_id for j in self.jobs.values() if j.held and j.state == "PENDING"),
            cancelled=frozenset(self._cancelled),
        )

    def sync(self, state: HallState) -> None:
        """Follow one step of the physics: jobs that ended, started or were queued."""
        self.state = state
        for ended in state.ended:
            self._end(self.jobs[ended.job_id], ended.how.value, ended.done_gpu_s)
        if state.ended or not self.jobs or self._vacant():
            for slot, (running, queued) in enumerate(zip(state.job.tolist(), state.queued.tolist(), strict=True)):
                self._admit(slot, running, queued)
        self._forget()

    def stop(self, job: Job) -> None:
        """Stop a running job where it stands; it keeps its GPUs and loses nothing."""
        self.log.stops += 1
        if job.state == "RUNNING":
            job.state, job.stops = "STOPPED", job.stops + 1
            self._note("stop", job)

    def resume(self, job: Job) -> None:
        """Let a stopped job go on."""
        self.log.continues += 1
        if job.state == "STOPPED":
            job.state = "RUNNING"
            self._note("continue", job)

    def cancel(self, job: Job) -> None:
        """Kill a job; what it has done is lost."""
        self.log.cancels += 1
        self._cancelled.add(job.job_id)
        self._note("cancel", job)

    def hold(self, job: Job, *, held: bool) -> None:
        """Keep a pending job from starting, or let it."""
        if job.held != held:
            job.held = held
            self._note("hold" if held else "release", job)

    def cap(self, node: int, cap_w: float | None, valid_for_s: float | None) -> None:
        """Cap a node's power, None for no cap; without renewal the cap ends after ``valid_for_s``. [W]"""
        self.log.cap_writes += 1
        before = self.cap_of(node)
        if cap_w is None:
            self._caps.pop(node, None)
        else:
            self._caps[node] = Cap(cap_w, math.inf if valid_for_s is None else self._clock() + valid_for_s)
        if before != cap_w:
            self.log.cap_transitions += 1
            self.log.entries.append(
                {"at_s": self._clock(), "what": "cap", "node": self.node_name(node), "cap_w": cap_w}
            )

    def cap_of(self, node: int) -> float | None:
        """Return a node's cap, None for none. [W]"""
        cap = self._caps.get(node)
        return None if cap is None else cap.cap_w

    def summary(self) -> dict[str, Any]:
        """Return what a test or a demo wants to know of the hall."""
        alive = [job for job in self.jobs.values() if not job.over]
        return {
            "power_w": self.state.total_w,
            "jobs": {s: sum(j.state == s for j in alive) for s in ("RUNNING", "STOPPED", "PENDING")},
            "stopped": sorted(job.job_id for job in alive if job.state == "STOPPED"),
            "held": sorted(job.job_id for job in alive if job.held),
            "caps_w": {self.node_name(node): cap.cap_w for node, cap in sorted(self._caps.items())},
            "completed": self.state.completed,
            "cancelled": self.state.cancelled,
            "work_gpu_s": self.state.work_gpu_s,
            "lost_gpu_s": self.state.lost_gpu_s,
            **self.log.counts(),
        }

    def tier_power_w(self) -> list[float]:
        """Return what the nodes of each flex tier draw. [W]"""
        tier_of = {node: slot.tier for slot in self.hall.spec.slots for node in slot.nodes}
        power_w = [0.0, 0.0, 0.0, 0.0]
        for node, tier in tier_of.items():
            power_w[tier] += float(self.state.power_w[node])
        return power_w

    def progress(self) -> Mapping[int, tuple[float, float]]:
        """Return done and total work of every running job. [GPU s]"""
        columns = (self.state.job.tolist(), self.state.done_gpu_s.tolist(), self.state.total_gpu_s.tolist())
        return {job: (done_gpu_s, total_gpu_s) for job, done_gpu_s, total_gpu_s in zip(*columns, strict=True) if job}

    def _vacant(self) -> bool:
        """Say whether a slot stands empty because its next job is held."""
        return bool((self.state.job == 0).any()) or any(
            self.jobs[job].state == "PENDING" for job in self.state.job.tolist()
        )

    def _admit(self, slot: int, running: int, queued: int) -> None:
        """Know the jobs of a slot, the running one as started."""
        for job_id in (running, queued):
            if job_id and job_id not in self.jobs:
                self.jobs[job_id] = self._submitted(job_id, slot)
        if running and self.jobs[running].state == "PENDING":
            self.jobs[running].state = "RUNNING"
            self.jobs[running].started_at_s = self._epoch()

    def _submitted(self, job_id: int, slot: int) -> Job:
        """Return a new job for a slot, tagged with its flex tier."""
        place = self.hall.spec.slots[slot]
        stop_safe = " vpp:stopsafe" if len(place.nodes) > 1 and place.tier >= 2 else ""
        comment = f"vpp:tier={place.tier}{stop_safe}"
        return Job(job_id, slot, place, comment, submitted_at_s=self._epoch())

    def _end(self, job: Job, state: str, work_gpu_s: float) -> None:
        """Close a job."""
        job.state, job.work_gpu_s, job.ended_at_s, job.held = state, work_gpu_s, self._epoch(), False
        self._cancelled.discard(job.job_id)
        self._ended.append(job)

    def _forget(self) -> None:
        """Drop jobs that ended a while ago."""
        while self._ended and self._ended[0].ended_at_s < self._epoch() - _KEEP_ENDED_S:
            self.jobs.pop(self._ended.popleft().job_id, None)

    def _expire_caps(self) -> None:
        """Lift caps whose lease has ended."""
        for node in [n for n, cap in self._caps.items() if cap.ends_s <= self._clock()]:
            del self._caps[node]
            self.log.cap_expiries += 1
            self.log.entries.append({"at_s": self._clock(), "what": "cap-expiry", "node": self.node_name(node)})

    def _note(self, what: str, job: Job) -> None:
        """Log what was done to a job."""
        self.log.entries.append({"at_s": self._clock(), "what": what, "job_id": job.job_id, "tier": job.place.tier})
