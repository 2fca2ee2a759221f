"""Answer random instances and judge every answer by the textbook program: one JSON line.

Run: ``python -m tests.bench.bench_schedule_random [COUNT] [SEED]``, 200 unless told; 10000 take about ten minutes. Half of the
instances use the optional keys. ``late``: past the time limit. ``broken``: a constraint that is not kept, a cost that is
told wrong, dearer than 0.1 % above the textbook program, a bound above it, or infeasible where there is a schedule.
``unexplained``: infeasible without naming what conflicts.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from time import perf_counter

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.core.schedule_instances import Json, random_instance, rich_instance
from tests.core.schedule_oracle import best_cost, breaches, cost_of
from vppd.core.schedule.problem import parse
from vppd.core.schedule.report import report
from vppd.core.schedule.solve import UNPROVEN, solve
from vppd.core.schedule.solver import load_solver

COUNT = 200
GAP_FRAC, NEAR_FRAC, NEAR = 1e-3, 1e-5, 1e-6
REFERENCE_S = 20.0


def wrong_with(problem: Json, answer: Json) -> Iterator[str]:
    """Yield what is wrong with an answer."""
    reference = best_cost(problem, limit_s=REFERENCE_S)
    if answer["status"] == "infeasible":
        if reference is not None:
            yield "infeasible, but there is a schedule"
        return
    yield from breaches(problem, answer)
    if reference is None:
        yield "a schedule where there is none"
        return
    cost, bound = reference
    if abs(cost_of(problem, answer) - answer["cost"]) > NEAR + NEAR_FRAC * abs(cost):
        yield "told a wrong cost"
    # One whose search was cut short may be dearer, by no more than it says.
    allowed = max(GAP_FRAC, answer["gap"] if answer["status"] == "incumbent" else 0.0)
    if answer["status"] != "heuristic" and answer["cost"] > cost + allowed * abs(answer["cost"]) + NEAR:
        yield f"costs {answer['cost']}, the textbook program's plan {cost}"
    if answer["cost"] < bound - NEAR_FRAC * abs(cost) - NEAR:
        yield f"costs {answer['cost']}, below the bound {bound}"
    if answer["bound"] is not None and answer["bound"] > cost + NEAR_FRAC * abs(cost) + NEAR:
        yield f"bound {answer['bound']} above the cost {cost}"


def measure(count: int, start: int) -> dict[str, float]:
    """Return how many instances were answered how, and the longest time to an answer. [s]"""
    load_solver()
    found: Counter[str] = Counter()
    worst_s = 0.0

    @seed(start)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(random_instance(), rich_instance()))
    def each(problem: Json) -> None:
        nonlocal worst_s
        if found["instances"] >= count:
            return
        instance = parse(problem)
        began_s = perf_counter()
        answer = report(instance, solve(instance, perf_counter))
        took_s = perf_counter() - began_s
        worst_s = max(worst_s, took_s)
        wrong = list(wrong_with(problem, answer))
        unexplained = answer["status"] == "infeasible" and answer["conflicts"] in ([], [UNPROVEN])
        found.update(["instances", answer["status"]])
        found.update({"late": took_s > problem["time_limit_s"], "broken": bool(wrong), "unexplained": unexplained})
        if wrong or unexplained:
            print(json.dumps({"wrong": wrong, "answer": answer, "problem": problem}), file=sys.stderr, flush=True)

    each()
    kinds = ("instances", "optimal", "incumbent", "heuristic", "infeasible", "broken", "late", "unexplained")
    return {kind: found[kind] for kind in kinds} | {"worst_s": round(worst_s, 3)}


def main(count: int = COUNT, start: int = 1) -> None:
    """Print the figures; none may be broken, late or unexplained."""
    found = measure(count, start)
    limits = {f"limit_{kind}": 0 for kind in ("broken", "late", "unexplained")}
    print(json.dumps({"bench": "schedule_random"} | found | limits), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
