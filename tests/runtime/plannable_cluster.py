"""A small cluster in virtual time that does what a planner says, with books of its own beside the planner's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from vppd.ports import Planner
from vppd.workload import Curtailment, Job, Knob, Workload

TOLERANCE_FRAC = (0.0, 0.10, 0.25, 0.50)
REST_W = 2_000.0


def slow_down_frac(level_frac: float) -> float:
    """Return what a cap costs the class of work that suffers most."""
    return float(0.958 * max(1.0 - level_frac, 0.0) ** 1.358)


def unbound(level_frac: float) -> float:
    """Return the power of work that no cap of this depth touches."""
    return 1.0


def bound(level_frac: float) -> float:
    """Return the power of work that draws what its cap lets it."""
    return level_frac


@dataclass
class Truth:
    """One job as it really is."""

    job: Job
    draws_frac: Callable[[float], float] = bound
    """Power under a level, as a part of full power. [0-1]"""
    slows_frac: Callable[[float], float] = slow_down_frac
    deaf: bool = False
    """Does nothing it is told."""
    parts: int = 0
    """Replicas: levels are rounded down to whole ones; 0: any level."""
    lag_s: int = 0
    """What it is told happens so much later. [s]"""
    told: list[tuple[float, bool]] = field(default_factory=list)
    level_frac: float = 1.0
    paused: bool = False
    restarting_s: float = 0.0
    lost_s: list[float] = field(default_factory=list)
    """Lost in each second it ran. [s]"""

    @property
    def power_w(self) -> float:
        """What it draws now. [W]"""
        return self.job.kept_w if self.paused else self.job.full_w * self.draws_frac(self.level_frac)

    def live(self, dt_s: float) -> None:
        """Let time pass and book what is lost."""
        lost = 1.0 if self.paused or self.restarting_s > 0.0 else self.slows_frac(self.level_frac)
        if not self.paused:
            self.restarting_s = max(self.restarting_s - dt_s, 0.0)
        self.lost_s.append(lost * dt_s)

    def hear(self, level_frac: float, paused: bool) -> None:
        """Be told a level or a pause, once a second."""
        self.told.append((level_frac, paused))
        if not self.deaf and len(self.told) > self.lag_s:
            self._obey(*self.told[-1 - self.lag_s])

    def _obey(self, level_frac: float, paused: bool) -> None:
        if self.parts:
            level_frac = np.floor(level_frac * self.parts + 1e-9) / self.parts
        if self.paused and not paused:
            self.restarting_s = self.job.restart_s
        self.level_frac, self.paused = level_frac, paused

    def read_back(self) -> Job:
        """Return the job as an adapter would describe it."""
        return replace(self.job, level_frac=self.level_frac, paused=self.paused, power_w=self.power_w)


class Cluster:
    """Jobs by id; the planner is asked every ``every_s``, the books are kept every second."""

    def __init__(self, *truths: Truth, every_s: int = 4, begins_s: float = 1_000.0) -> None:
        self.jobs = {truth.job.id: truth for truth in truths}
        self.ended: dict[str, Truth] = {}
        self.now_s, self.every_s = begins_s, every_s
        self.power_w: list[float] = []
        self.answers: list[Curtailment] = []
        self.rest_w = REST_W
        """What is drawn beside the jobs. [W]"""
        self.hidden_w = 0.0
        """Drawn, and told by nobody but the meter. [W]"""

    @property
    def full_w(self) -> float:
        """What it draws when nobody holds it. [W]"""
        return self.rest_w + sum(truth.job.full_w for truth in self.jobs.values())

    def now(self) -> float:
        """Return the virtual time. [s]"""
        return self.now_s

    def look(self) -> Workload:
        """Return what an adapter would see."""
        jobs = tuple(truth.read_back() for truth in self.jobs.values())
        power_w = self.rest_w + self.hidden_w + sum(truth.power_w for truth in self.jobs.values())
        return Workload(jobs, self.rest_w, power_w)

    def live(self, planner: Planner, budget_w: float | Callable[[float], float], lasts_s: int) -> None:
        """Let an adapter ask the planner and carry out its answers."""
        for second in range(lasts_s):
            if second % self.every_s == 0:
                limit_w = budget_w(self.now_s) if callable(budget_w) else budget_w
                self.answers.append(planner.plan(self.look(), limit_w, self.now_s))
            answer = self.answers[-1]
            for job_id, truth in self.jobs.items():
                truth.hear(answer.level_frac.get(job_id, 1.0), job_id in answer.paused)
            self.power_w.append(self.look().power_w)
            for truth in self.jobs.values():
                truth.live(1.0)
            self.now_s += 1.0

    def end(self, job_id: str) -> None:
        """End a job."""
        self.ended[job_id] = self.jobs.pop(job_id)

    def overdrawn(self, window_s: int) -> dict[str, float]:
        """Return the jobs that lost more than their tier accepts in some window, and by how much. [s]"""
        found = {}
        for job_id, truth in {**self.ended, **self.jobs}.items():
            total = np.concatenate(([0.0], np.cumsum(truth.lost_s)))
            width = min(window_s, len(total) - 1)
            worst_s = float((total[width:] - total[: len(total) - width]).max(initial=0.0))
            over_s = worst_s - TOLERANCE_FRAC[truth.job.tier] * window_s
            if over_s > 1e-6:
                found[job_id] = over_s
        return found


def job(job_id: str, tier: int, **more: object) -> Job:
    """Return an eight-GPU job that a cap can slow and a pause can stop."""
    plain = Job(
        job_id, tier, full_w=5_000.0, kept_w=600.0, gpus=8.0, family="train", knob=Knob.CAP, floor_frac=0.5, pausable=True
    )  # fmt: skip
    return replace(plain, **more)  # type: ignore[arg-type]


def mixed(n: int = 16, **more: object) -> list[Truth]:
    """Return jobs of all tiers in turn."""
    return [Truth(job(f"j{i}", i % 4, **more)) for i in range(n)]
