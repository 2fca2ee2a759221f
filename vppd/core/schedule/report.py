"""A schedule as the JSON document that `vppd schedule --json` prints."""

from __future__ import annotations

import math
from typing import Any

from vppd.core.schedule.extra_report import further_lines, further_report, listed, named_series
from vppd.core.schedule.problem import Problem
from vppd.core.schedule.solve import Answer

Report = dict[str, Any]


def report(problem: Problem, answer: Answer) -> Report:
    """Return the answer as plain values; a number that is not known is None, without a plan the series are empty."""
    plan = answer.plan
    head: Report = {
        "status": answer.status.value,
        "cost": None if plan is None else plan.value,
        "bound": _known(answer.lower),
        "gap": _known(answer.gap_frac),
        "solve_s": round(answer.solve_s, 6),
    }
    series: Report = {"import_w": [], "batteries": {}, "renewables": {}, "flexible_loads": {}}
    if plan is not None:
        stored = zip(problem.batteries.names, plan.battery_w, plan.energy_wh, strict=True)
        series = {
            "import_w": listed(plan.import_w),
            "batteries": {name: {"power_w": listed(power), "energy_wh": listed(wh)} for name, power, wh in stored},
            "renewables": named_series(problem.renewables.names, plan.renewable_w),
            "flexible_loads": named_series(problem.loads.names, plan.load_w),
        }
    further = further_report(problem, problem.extras, plan) if problem.extras is not None and plan is not None else {}
    return head | series | further | {"conflicts": list(answer.conflicts)}


def lines(problem: Problem, answer: Answer) -> list[str]:
    """Return the answer in a few lines for people."""
    if answer.plan is None:
        return ["infeasible: these constraints contradict one another:", *(f"  {name}" for name in answer.conflicts)]
    energy_kwh = float(answer.plan.import_w.sum()) * problem.step_h / 1e3
    peak_kw = float(answer.plan.import_w.max()) / 1e3
    proven = f", at most {answer.gap_frac:.3%} above the optimum" if math.isfinite(answer.gap_frac) else ""
    found = [
        f"{answer.status.value}: costs {answer.plan.value:.2f}{proven}, found in {answer.solve_s:.3f} s",
        f"net import {energy_kwh:.1f} kWh, peak {peak_kw:.1f} kW over {problem.steps} steps",
    ]
    return found if problem.extras is None else found + further_lines(problem, problem.extras, answer.plan)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
