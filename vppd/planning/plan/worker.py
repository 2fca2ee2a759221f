"""Solves one problem of the planner in a process of its own: ``python -m vppd.planning.plan.worker`` with JSON in and out.

Where there is no schedule that keeps everything, it answers with the one that gives up the least: rules before work that would never
run, and that before power that has been sold. What had to give is named in ``conflicts``; limits themselves are the control loop's and
never at stake.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from vppd.core.schedule.problem import Problem, parse
from vppd.core.schedule.report import report
from vppd.core.schedule.solve import Answer, Status, solve
from vppd.errors import ConfigError
from vppd.runtime.clock import SystemClock

UNSERVED_COST_PER_WH = 0.01
"""In a plan that cannot keep everything: a Wh of work that never runs. [1/Wh]"""
RULE_COST_PER_WH = 0.001
"""In such a plan: a Wh short of a green rule that has no price of its own. [1/Wh]"""
SOLD_COST_PER_WH = 0.1
"""In such a plan: a W that was sold and is not kept, for an hour. [1/Wh]"""
SLACK_W = 1.0


def answered(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to a problem, of a relaxed one where it contradicts itself. Raises ConfigError."""
    problem, answer = _solved(document)
    if answer.status is not Status.INFEASIBLE:
        return report(problem, answer)
    less, second = _solved(relaxed(document))
    return report(less, second) | {"conflicts": list(answer.conflicts)}


def relaxed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the problem with a price on what can contradict: always solvable, by rest, curtailment and work that never runs."""
    found = dict(document)
    if "green" in document:
        found["green"] = {"shortfall_cost_per_wh": RULE_COST_PER_WH} | dict(document["green"])
    if "reserves" in document:
        found["reserves"] = [{**sold, "shortfall_cost_per_wh": SOLD_COST_PER_WH} for sold in document["reserves"]]
    found["flexible_loads"] = [
        {**load, "min_w": 0.0, "curtail_cost_per_wh": UNSERVED_COST_PER_WH} for load in document["flexible_loads"]
    ]
    forced = {r["name"]: np.asarray(r["available_w"]) for r in document["renewables"] if not r["curtailable"]}
    steps = len(document["price_import_per_wh"])
    found["site"] = _roomy(document["site"], np.asarray(document["inflexible_load_w"]), list(forced.values()), steps)
    found["feeds"] = [
        _roomy(
            feed,
            np.asarray(feed.get("inflexible_load_w", np.zeros(steps))),
            [power_w for name, power_w in forced.items() if name in feed["members"]],
            steps,
        )
        for feed in document.get("feeds", [])
    ]
    return found


def _roomy(limits: Mapping[str, Any], load_w: Any, forced_w: list[Any], steps: int) -> dict[str, Any]:
    """Return limits that nobody who decides could break: what is drawn and given anyway is within them."""
    net_w = load_w - sum(forced_w, np.zeros(steps))
    found = dict(limits)
    found["import_max_w"] = max(float(limits["import_max_w"]), float(net_w.max()) + SLACK_W)
    if "export_max_w" in limits:
        found["export_max_w"] = max(float(limits["export_max_w"]), float(-net_w.min()) + SLACK_W)
    return found


def _solved(document: Mapping[str, Any]) -> tuple[Problem, Answer]:
    problem = parse(document)
    return problem, solve(problem, SystemClock().mono_s)


def main() -> None:
    """Answer the problem on standard input on standard output; exit status 2 and the reason when it makes no sense."""
    try:
        sys.stdout.write(json.dumps(answered(json.load(sys.stdin)), allow_nan=False))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
