"""Time the schedule beside the textbook program on the same instances, both by HiGHS; one JSON line per case.

Run: ``python -m tests.bench.bench_schedule [limit_s]``. With prices above zero the textbook program is linear. Else it
has a binary per battery and step and one per step for the side of the grid; it is given the same gap, and ``limit_s``
at most (15 s unless told); where it finds nothing in that, no cost of it is printed. Its columns are written out one for each battery and step, ours take copies together.
"""

from __future__ import annotations

import json
import statistics
import sys
from time import perf_counter
from typing import Any

import highspy
import numpy as np

from tests.core.schedule_instances import Json, day, floors, rich_day
from tests.core.schedule_oracle import breaches, textbook
from vppd.core.schedule.problem import parse
from vppd.core.schedule.report import report
from vppd.core.schedule.solve import solve
from vppd.core.schedule.solver import load_solver

RUNS = 3
CASES: dict[str, tuple[Json, float]] = {
    "50 batteries, 25 loads, PV": (day(50, 25), 0.3),
    "the same, all different": (day(50, 25, mixed=1), 0.3),
    "negative prices": (day(50, 25, negative=True), 3.0),
    "negative prices, all different": (day(50, 25, negative=True, mixed=1), 3.0),
    "10 batteries, 5 PV, 5 loads with floors, negative prices": (floors(convex=True), 15.0),
    "the same, selling dearer than buying": (floors(convex=False), 15.0),
    "50 batteries, 25 loads, PV, every optional key": (rich_day(50, 25), 10.0),
    "the same at negative prices": (rich_day(50, 25, negative=True), 10.0),
}
"""Instances and what a solve may take. [s]"""
APART = 1e-3
"""How much dearer than the reference's best our schedule may be, as part of it."""


def case(name: str, problem: Json, budget_s: float, limit_s: float) -> dict[str, Any]:
    """Return our figures and the textbook program's on one instance."""
    instance = parse(problem)
    answers = [report(instance, solve(instance, perf_counter)) for _ in range(RUNS)]
    answer, took_s = answers[0], statistics.median(a["solve_s"] for a in answers)
    assert not breaches(problem, answer)
    begin = perf_counter()
    rewarded = not {"reserves", "green"}.isdisjoint(problem)
    whole = rewarded or min(problem["price_import_per_wh"] + problem["price_export_per_wh"]) < 0.0
    solver = textbook(problem, limit_s, problem["mip_gap"], whole=whole)
    built_s = perf_counter() - begin
    begin = perf_counter()
    solver.run()
    reference_s = perf_counter() - begin
    cost = solver.getInfo().objective_function_value
    found = {
        "bench": "schedule",
        "case": name,
        "solve_s": round(took_s, 3),
        "limit_solve_s": budget_s,
        "optimal": int(answer["status"] == "optimal"),
        "cost": round(answer["cost"], 3),
        "gap": round(answer["gap"], 6),
        "reference_whole": int(whole),
        "reference_solved": int(solver.getModelStatus() == highspy.HighsModelStatus.kOptimal),
        "reference_s": round(reference_s, 3),
        "reference_build_s": round(built_s, 3),
        "times_faster": round(reference_s / took_s, 1),
    }
    if np.isfinite(cost):
        apart = (answer["cost"] - cost) / abs(cost)
        found |= {"reference_cost": round(cost, 3), "cost_apart": round(apart, 6), "limit_cost_apart": APART}
    return found


def main(limit_s: float = 15.0) -> None:
    """Print the cases."""
    load_solver()
    for name, (problem, budget_s) in CASES.items():
        print(json.dumps(case(name, problem, budget_s, limit_s)), flush=True)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
