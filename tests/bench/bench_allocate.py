"""Time the exact split, beside a general LP solver on the same instance; one JSON line per case.

Run: ``python -m tests.bench.bench_allocate [runs]``.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter

import highspy
import numpy as np

from vppd.core.allocate import Curves, allocate
from vppd.core.commitment import commit
from vppd.snapshot import Floats, Ints

SEGMENTS, SITES, FEEDS = 4, 10, 200
BUDGET_MS = {1_000: 1.5, 100_000: 70.0}


def instance(n: int) -> tuple[Ints, Floats, Floats, Curves]:
    """Return a portfolio of 10 sites and 200 feeds with binding limits at every level and a target at the top."""
    rng = np.random.default_rng(7)
    parent = np.concatenate(([-1], np.zeros(SITES), 1 + np.arange(FEEDS) % SITES)).astype(np.int64)
    node = 1 + SITES + rng.integers(0, FEEDS, n)
    curves = Curves(
        node=node,
        lower_w=rng.uniform(-5e3, 0.0, n),
        width_w=rng.uniform(0.0, 5e3, (n, SEGMENTS)),
        cost_per_wh=np.sort(rng.uniform(-1.0, 1.0, (n, SEGMENTS)), axis=1),
    )
    m = len(parent)
    free = allocate(parent, np.full(m, -np.inf), np.full(m, np.inf), curves).node_power_w
    upper_w = free * rng.uniform(0.9, 1.2, m)
    lower_w = np.where(rng.random(m) < 0.3, free * 0.85, -np.inf)
    lower_w[0] = upper_w[0] = free[0] * 0.7
    return parent, np.minimum(lower_w, upper_w), upper_w, curves


def median_ms(run: Callable[[], object], runs: int) -> float:
    """Return the median time of one call. [ms]"""
    run()
    took = []
    for _ in range(runs):
        begin = perf_counter()
        run()
        took.append(perf_counter() - begin)
    return statistics.median(took) * 1e3


def lp_ms(parent: Ints, lower_w: Floats, upper_w: Floats, curves: Curves, runs: int) -> float:
    """Return the median time HiGHS takes for the ready model, building it not counted. [ms]"""
    n, k = curves.width_w.shape
    inner = np.flatnonzero(parent >= 0)
    base_w = np.bincount(curves.node, curves.lower_w, minlength=len(parent))
    own = [np.flatnonzero(curves.node == v) for v in range(len(parent))]
    rows = [np.concatenate([own[v] * k + j for j in range(k)]).astype(np.int32) for v in range(len(parent))]
    took = []
    for _ in range(runs):
        solver = highspy.Highs()  # type: ignore[no-untyped-call]
        solver.setOptionValue("output_flag", False)
        solver.addVars(n * k, np.zeros(n * k), curves.width_w.ravel())
        solver.changeColsCost(n * k, np.arange(n * k, dtype=np.int32), curves.cost_per_wh.ravel())
        solver.addVars(len(parent), lower_w, upper_w)
        for v in range(len(parent)):
            below = n * k + inner[parent[inner] == v].astype(np.int32)
            at = np.concatenate((rows[v], below, [n * k + v])).astype(np.int32)
            value = np.concatenate((np.ones(len(at) - 1), [-1.0]))
            solver.addRow(-base_w[v], -base_w[v], len(at), at, value)
        begin = perf_counter()
        solver.run()
        took.append(perf_counter() - begin)
        assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return statistics.median(took) * 1e3


def banded(n: int) -> tuple[Ints, Floats, Floats, Curves, Ints, Floats, Floats]:
    """Return the same portfolio with every second asset on or off: the second stage has to plan and search."""
    parent, lower_w, upper_w, curves = instance(n)
    asset = np.arange(0, n, 2)
    curves.lower_w[asset] = 0.0
    return parent, lower_w, upper_w, curves, asset, np.zeros(len(asset)), curves.width_w[asset].sum(axis=1)


def say(case: str, n: int, ms: float, **more: float) -> None:
    """Print one result."""
    print(
        json.dumps(
            {"bench": "allocate", "case": case, "assets": n, "segments": SEGMENTS, "median_ms": round(ms, 3), **more}
        )
    )


def main(runs: int) -> None:
    """Print the cases."""
    for n, budget_ms in BUDGET_MS.items():
        args = instance(n)
        ms = median_ms(partial(allocate, *args), runs)
        say("allocate", n, ms, limit_median_ms=budget_ms)
        if n <= 1_000:
            general_ms = lp_ms(*args, runs=min(runs, 5))
            say("highs", n, general_ms, ratio=round(general_ms / ms, 1))
        say("commit, half of them on or off", n, median_ms(partial(commit, *banded(n)), min(runs, 5)))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 25)
