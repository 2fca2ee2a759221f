"""A site with PV and a cluster whose patient jobs may wait, in virtual time: with and without a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from vppd.config.load import Config
from vppd.config.planning import PlanningConfig
from vppd.core.curtail.accounts import TOLERANCE_FRAC
from vppd.core.curtail.curves import PRIOR_SHAPE
from vppd.core.cycle import decide
from vppd.core.forecast.outlook import Outlook
from vppd.core.state import Command, State
from vppd.planning.plan.planner import Planner
from vppd.planning.plan.worker import answered
from vppd.plant import plant_of
from vppd.runtime.clock import FakeClock
from vppd.runtime.curtailer import Curtailer, Terms
from vppd.snapshot import Floats, Health, Readings, Snapshot
from vppd.workload import Job, Knob, Workload

START = datetime(2026, 6, 1, 18, tzinfo=UTC)
CYCLE_S = 300.0
STEP_S = 900.0
WINDOW_S = 12 * 3600.0
OFFICES_W = 50e3
PV_W = 600e3
FLOOR_FRAC = 0.5
IDLE_W = 20e3
JOB_W, JOB_S = 30e3, 4 * 3600.0
EVERY_S = 3600.0


def config() -> Config:
    """Return a feed with PV and one cluster."""
    return Config.model_validate(
        {
            "site": {
                "id": "dc1", "agent_id": "a", "import_max_w": 1.5e6, "export_max_w": 1e6, "cycle_s": 60.0,
                "lease_s": 3600.0, "ramp_up_w_per_s": 50e3,
            },
            "feeds": [{"tag": "main", "meter": "poi", "import_max_w": 1.5e6, "export_max_w": 1e6}],
            "assets": [
                {"id": "poi", "kind": "meter", "feed": "main", "adapter": "x", "stale_after_s": 1000.0},
                {"id": "pv", "kind": "pv", "feed": "main", "adapter": "x", "rated_w": PV_W, "stale_after_s": 1000.0},
                {"id": "hall", "kind": "cluster", "feed": "main", "adapter": "x", "rated_w": 800e3, "stale_after_s": 1000.0},
            ],
        }
    )  # fmt: skip


@dataclass
class Running:
    """A job under way."""

    job: Job
    left_s: float
    """Work that is left, at full speed. [s]"""
    arrived: datetime
    lost: list[tuple[float, float]] = field(default_factory=list)
    """(end of the cycle [s], uncapped seconds lost in it)."""


class GreenDay:
    """Plays the site cycle by cycle; ``series`` collects what the next run may take for its forecast."""

    def __init__(self, outlook: Mapping[str, Outlook] | None = None) -> None:
        self.plant = plant_of(config())
        self.clock = FakeClock(START, 1000.0)
        self.curtailer = Curtailer("hall", Terms(window_s=WINDOW_S, restore_s=60.0), self.clock.mono_s)
        self.planner: Planner | None = None
        if outlook is not None:
            terms = PlanningConfig(price_import_per_mwh=80.0, time_limit_s=5.0)
            self.planner = Planner(
                terms, STEP_S, self.plant, lambda: outlook, lambda _: (), self.clock, solve=self._solve
            )
        self.jobs: dict[str, Running] = {}
        self.done: list[Running] = []
        self.readings = Readings.blank(3)
        self.state = State.first(self.plant)
        self.pv_w = self.hall_w = 0.0
        self.import_w: list[float] = []
        self.generated_w: list[float] = []
        self.drawn_w: list[float] = []
        self.free_w: list[float] = []
        self.shed_w: list[tuple[float, ...]] = []
        self.problems = 0
        self._came = 0
        for name, tier in (("chat", 0), ("tuning", 1)):
            self.jobs[name] = Running(_job(name, tier, 100e3), np.inf, START)

    async def play(self, hours: float) -> None:
        """Let so much time pass; a new plan every half hour."""
        for k in range(int(hours * 3600.0 / CYCLE_S)):
            if self.planner is not None and k and k % 6 == 1:
                await self.planner.round()
            self._arrivals(k * CYCLE_S)
            self._cycle()

    def self_use_frac(self, hours: float) -> float:
        """Return which part of the generation of the first hours was used on site. [0-1]"""
        cycles = int(hours * 3600.0 / CYCLE_S)
        exported_w = np.maximum(-np.array(self.import_w[:cycles]), 0.0)
        return 1.0 - float(exported_w.sum()) / float(np.sum(self.generated_w[:cycles]))

    def violations(self) -> list[str]:
        """Return jobs that lost more in some window than their tier accepts, counted job by job from what they really did."""
        found = []
        for running in [*self.done, *self.jobs.values()]:
            allowed_s = TOLERANCE_FRAC[running.job.tier] * WINDOW_S
            ends_s = np.array([end_s for end_s, _ in running.lost])
            lost_s = np.array([lost for _, lost in running.lost])
            worst_s = max((float(lost_s[(ends_s > e - WINDOW_S) & (ends_s <= e)].sum()) for e in ends_s), default=0.0)
            if worst_s > allowed_s * 1.001 + 1.0:
                found.append(f"{running.job.id} lost {worst_s:.0f} s of {allowed_s:.0f} s")
        return found

    async def _solve(self, _module: str, document: Mapping[str, Any], _limit_s: float) -> Any:
        self.problems += 1
        return answered(document)

    def _arrivals(self, at_s: float) -> None:
        if at_s >= self._came * EVERY_S:
            name = f"train-{self._came}"
            self.jobs[name] = Running(_job(name, 3, JOB_W), JOB_S, self.clock.now())
            self._came += 1

    def _workload(self) -> Workload:
        jobs = tuple(r.job for r in self.jobs.values())
        return Workload(jobs, IDLE_W, IDLE_W + sum(_drawn_w(job) for job in jobs))

    def _cycle(self) -> None:
        workload = self._workload()
        shed_w = self.curtailer.shed_w(workload)
        hour = (self.clock.now().hour + self.clock.now().minute / 60.0 - 6.0) / 12.0 * np.pi
        self.pv_w = -PV_W * max(float(np.sin(hour)), 0.0)
        self.hall_w = workload.power_w
        r = self.readings
        r.power_w[:] = (OFFICES_W + self.pv_w + self.hall_w, self.pv_w, self.hall_w)
        r.available_w[:] = (np.nan, self.pv_w, workload.full_w)
        r.tier_shed_w[2] = shed_w
        r.mono_s[:], r.online[:] = self.clock.mono_s(), True
        now = self.clock.now()
        preferred_w = self.planner.preferred_w(now) if self.planner is not None else None
        snapshot = Snapshot(now, self.clock.mono_s(), r.copy(), health=Health(ready=True), preferred_w=preferred_w)
        decision = decide(snapshot, self.state, self.plant)
        self.state = decision.state
        if self.planner is not None:
            self.planner.take(snapshot, decision)
        self._log(workload, shed_w)
        held = decision.command[2] == Command.SETPOINT
        self._apply(float(decision.target_w[2]) if held else None, workload)
        self._work()
        self.clock.advance(CYCLE_S)

    def _log(self, workload: Workload, shed_w: tuple[float, ...]) -> None:
        self.import_w.append(float(self.readings.power_w[0]))
        self.generated_w.append(-self.pv_w)
        self.drawn_w.append(self.hall_w)
        self.free_w.append(workload.full_w)
        self.shed_w.append(shed_w)

    def _apply(self, budget_w: float | None, workload: Workload) -> None:
        level_frac: Mapping[str, float] = {}
        paused: frozenset[str] = frozenset()
        if budget_w is None:
            self.curtailer.let_go()
        else:
            told = self.curtailer.plan(workload, budget_w, self.clock.mono_s())
            level_frac, paused = told.level_frac, told.paused
        for name, running in self.jobs.items():
            running.job = _set(running.job, level_frac.get(name, 1.0), paused=name in paused)

    def _work(self) -> None:
        end_s = self.clock.mono_s() + CYCLE_S
        for name, running in list(self.jobs.items()):
            speed = _speed(running.job)
            if speed < 1.0:
                running.lost.append((end_s, (1.0 - speed) * CYCLE_S))
            running.left_s -= speed * CYCLE_S
            if running.left_s <= 0.0:
                self.done.append(self.jobs.pop(name))

    def forecasts(self) -> dict[str, Floats]:
        """Return what this run saw, as quarter-hourly means from its start: the forecast of a run that holds nothing."""

        def means(values: Any) -> Floats:
            rows = np.asarray(values, dtype=np.float64)
            size = len(rows) // 3 * 3
            return np.asarray(rows[:size].reshape(-1, 3).mean(axis=1))

        tiers = np.array(self.shed_w)
        return {
            "load/main": np.full(len(means(self.free_w)), OFFICES_W),
            "generation/pv": means(self.generated_w),
            "compute/hall": means(self.free_w),
            **{f"compute/hall/tier{k}": means(tiers[:, k]) for k in (1, 2, 3)},
        }


def _job(name: str, tier: int, power_w: float) -> Job:
    return Job(
        name, tier, power_w, kept_w=0.1 * power_w, gpus=8.0, knob=Knob.CAP, floor_frac=FLOOR_FRAC, pausable=tier == 3,
        family="training",
    )  # fmt: skip


def _set(job: Job, level_frac: float, *, paused: bool) -> Job:
    return replace(job, level_frac=level_frac, paused=paused)


def _drawn_w(job: Job) -> float:
    return job.kept_w if job.paused else job.full_w * job.level_frac


def _speed(job: Job) -> float:
    """Return the throughput of a job as a part of full speed: the family of curves that the planner begins with. [0-1]"""
    a, b = PRIOR_SHAPE
    return 0.0 if job.paused else float(1.0 - a * (1.0 - job.level_frac) ** b)
