"""Instances at random: always an answer in time, every constraint kept, what is infeasible explained."""

from __future__ import annotations

import os
from time import perf_counter

import pytest
from hypothesis import HealthCheck, given, settings

from tests.core.schedule_instances import Json, random_instance, rich_instance
from tests.core.schedule_oracle import best_cost, breaches, cost_of
from vppd.core.schedule.problem import parse
from vppd.core.schedule.report import report
from vppd.core.schedule.solve import solve
from vppd.core.schedule.solver import load_solver

EXAMPLES = int(os.environ.get("VPPD_SCHEDULE_EXAMPLES", "1000"))
"""How many instances to try; 10000 take some three minutes."""
load_solver()


@pytest.mark.timeout(900)
@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(random_instance())
def test_any_instance_is_answered(problem: Json) -> None:
    """The answer is feasible, in time and within 0.1 % of the textbook program's, or names what conflicts."""
    judge(problem)


@pytest.mark.timeout(900)
@settings(max_examples=max(EXAMPLES // 5, 50), deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(rich_instance())
def test_any_instance_with_optional_keys_is_answered(problem: Json) -> None:
    """The same holds with reserves, feeds, a demand charge, carbon, green rules and loads that suffer."""
    judge(problem)


def judge(problem: Json) -> None:
    """Compare an answer with the textbook program's."""
    instance = parse(problem)
    began = perf_counter()
    answer = report(instance, solve(instance, perf_counter))
    assert perf_counter() - began <= problem["time_limit_s"]
    reference = best_cost(problem, limit_s=20.0)
    if answer["status"] == "infeasible":
        assert reference is None
        assert answer["conflicts"]
        assert not any("time_limit_s" in name for name in answer["conflicts"])
        return
    assert reference is not None
    cost, bound = reference
    assert not breaches(problem, answer)
    assert abs(cost_of(problem, answer) - answer["cost"]) <= 1e-9 + 1e-6 * abs(cost)
    assert bound - 1e-5 * abs(cost) - 1e-6 <= answer["cost"] <= cost + 1e-3 * abs(cost) + 1e-6
    assert answer["bound"] <= cost + 1e-5 * abs(cost) + 1e-6


@settings(max_examples=max(EXAMPLES // 10, 50), deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(random_instance())
def test_without_time_no_constraint_is_broken(problem: Json) -> None:
    """With no time at all a plan still keeps every constraint, and only what has no schedule is called infeasible."""
    instance = parse(problem | {"time_limit_s": 1e-6})
    answer = report(instance, solve(instance, perf_counter))
    if answer["status"] != "infeasible":
        assert not breaches(problem, answer)
    else:
        unproven = any("time_limit_s" in name for name in answer["conflicts"])
        assert unproven or best_cost(problem) is None
