"""Time one step of the curtailment planner for many jobs in the middle of an event; one JSON line per case.

``curtail`` is the planner on columns, ``curtailer`` the whole of it, from an adapter's jobs to levels by name: a new plan
(``anew``), the plan of before that still does (``held``), and what could be shed (``shed``).

Run: ``python -m tests.bench.bench_curtail [runs]``.
"""

from __future__ import annotations

import json
import statistics
import sys
from time import perf_counter, thread_time

import numpy as np

from tests.core.test_curtail_horizon import CLASSES
from tests.runtime.plannable_cluster import Truth
from vppd.core.curtail.accounts import opened
from vppd.core.curtail.curves import Curves, tables
from vppd.core.curtail.plan import Jobs, State, plan
from vppd.core.curtail.prospect import Budget
from vppd.runtime.curtailer import LONGEST_STEP_S, Curtailer, Terms
from vppd.workload import Curtailment, Job, Knob, Workload

BUDGET_MS = 50.0
STEP_S, STEPS, WINDOW_S = 60.0, 240, 10_800.0


def instance(n: int) -> tuple[Curves, Jobs, State]:
    """Return jobs of all classes and tiers, half an hour into an event that has cost each a little."""
    rng = np.random.default_rng(7)
    nothing, never = np.zeros(n), np.full(n, np.inf)
    jobs = Jobs(
        curve=rng.integers(0, 3, n),
        gpus=rng.integers(1, 65, n).astype(np.float64),
        tier=rng.integers(0, 4, n),
        weight=np.ones(n),
        watt_factor=rng.uniform(0.9, 1.1, n),
        pausable=rng.random(n) < 0.7,
        restart_s=np.full(n, 300.0),
        checkpoint_s=nothing,
        least_run_s=nothing,
        least_pause_s=nothing,
        most_pause_s=never,
        slack_s=never,
    )
    accounts = opened(n, WINDOW_S, 0.0)
    for k in range(30):
        accounts = accounts.charged((k + 1) * STEP_S, rng.uniform(0.0, 0.2, n) * jobs.tier / 3.0)
    paused = jobs.pausable & (jobs.tier == 3) & (rng.random(n) < 0.1)
    return tables(CLASSES), jobs, State(accounts, paused, np.where(paused, 0.0, -np.inf), np.where(paused, 300.0, 0.0))


def step_ms(n: int, part: float, runs: int) -> tuple[float, float, int]:
    """Return median and greatest time of a plan, and how many jobs it pauses. [ms]"""
    curves, jobs, state = instance(n)
    uncapped_w = float((jobs.gpus * jobs.watt_factor) @ curves.power_w[jobs.curve, -1])
    ends_s = 30 * STEP_S + np.arange(1, STEPS + 1, dtype=np.float64) * STEP_S
    most_w = np.where(np.arange(STEPS) < STEPS - 60, (1.0 - part) * uncapped_w, np.inf)
    budget = Budget(ends_s, most_w, np.zeros(STEPS, dtype=np.bool_))
    found = plan(curves, jobs, state, budget, 30 * STEP_S)
    took = []
    for _ in range(runs):
        begin = perf_counter()
        plan(curves, jobs, state, budget, 30 * STEP_S)
        took.append((perf_counter() - begin) * 1e3)
    return statistics.median(took), max(took), int(found.paused.sum())


class Bench:
    """A planner and its jobs, a quarter of an hour into an event."""

    def __init__(self, n: int, part: float) -> None:
        rng = np.random.default_rng(7)
        self.now_s, self.n = 0.0, n
        self.planner = Curtailer("hall", Terms(), lambda: self.now_s)
        self.truths = [Truth(_job(i, rng)) for i in range(n)]
        self.full_w = sum(truth.job.full_w for truth in self.truths)
        self.budget_w = (1.0 - part) * self.full_w
        for _ in range(15):
            self.plan(self.look())
            self.now_s += STEP_S

    def look(self) -> Workload:
        """Return new values, as an adapter makes them at every look."""
        jobs = tuple(truth.read_back() for truth in self.truths)
        return Workload(jobs, 0.0, sum(truth.power_w for truth in self.truths))

    def plan(self, workload: Workload) -> Curtailment:
        """Plan and carry out."""
        answer = self.planner.plan(workload, self.budget_w, self.now_s)
        for truth in self.truths:
            truth.hear(answer.level_frac.get(truth.job.id, 1.0), truth.job.id in answer.paused)
        return answer

    def timed(self, runs: int) -> dict[str, float]:
        """Return the median times, of the processor: it is one thread. [ms]"""
        took: dict[str, list[float]] = {"anew": [], "held": [], "shed": []}
        for _ in range(runs):
            self.now_s += LONGEST_STEP_S + 1.0
            for what in ("anew", "held"):
                workload = self.look()
                begin = thread_time()
                answer = self.planner.plan(workload, self.budget_w, self.now_s)
                took[what].append((thread_time() - begin) * 1e3)
                for truth in self.truths:
                    truth.hear(answer.level_frac.get(truth.job.id, 1.0), truth.job.id in answer.paused)
                self.now_s += 1.0
            workload = self.look()
            begin = thread_time()
            self.planner.shed_w(workload)
            took["shed"].append((thread_time() - begin) * 1e3)
        return {what: statistics.median(each) for what, each in took.items()}


def _job(i: int, rng: np.random.Generator) -> Job:
    gpus = float(rng.integers(1, 65))
    return Job(
        f"job-{i}", int(rng.integers(0, 4)), full_w=gpus * float(rng.uniform(300.0, 600.0)), kept_w=gpus * 60.0, gpus=gpus,
        family=str(rng.integers(0, 3)), knob=Knob.CAP, floor_frac=0.5, pausable=bool(rng.random() < 0.7), restart_s=300.0,
    )  # fmt: skip


def test_curtail_step_is_short() -> None:
    """Ten thousand jobs are planned within the budget, whether caps do it, or pauses too, or all is not enough."""
    assert all(ms <= BUDGET_MS for ms in main(15))


def main(runs: int) -> list[float]:
    """Print the cases and return the medians. [ms]"""
    medians = []
    for n in (1_000, 10_000):
        for part in (0.1, 0.25, 0.35, 0.5):
            median_ms, most_ms, paused = step_ms(n, part, runs)
            medians.append(median_ms)
            case = {"case": "curtail", "jobs": n, "cut_frac": part, "paused": paused}
            print(
                json.dumps(
                    {**case, "median_ms": round(median_ms, 1), "most_ms": round(most_ms, 1), "budget_ms": BUDGET_MS}
                )
            )
    for n in (1_000, 10_000):
        for part in (0.1, 0.35):
            bench = Bench(n, part)
            found = bench.timed(max(runs // 3, 3))
            medians += found.values()
            case = {"case": "curtailer", "jobs": n, "cut_frac": part}
            print(json.dumps({**case, **{f"{k}_ms": round(v, 1) for k, v in found.items()}, "budget_ms": BUDGET_MS}))
    return medians


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 25)
