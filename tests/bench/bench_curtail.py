"""Time one step of the curtailment planner for many jobs in the middle of an event; one JSON line per case.

Run: ``python -m tests.bench.bench_curtail [runs]``.
"""

from __future__ import annotations

import json
import statistics
import sys
from time import perf_counter

import numpy as np

from tests.core.test_curtail_horizon import CLASSES
from vppd.core.accounts import opened
from vppd.core.curtail import Jobs, State, plan
from vppd.core.curves import Curves, tables
from vppd.core.prospect import Budget

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
    return medians


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 25)
