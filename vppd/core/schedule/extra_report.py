"""What an answer says beyond powers and energies: reserves held, feeds, grams, green shares, and the causes of its cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from vppd.core.schedule.extra import Extras
from vppd.core.schedule.extra_plan import carbon_g, feed_w, further_costs, reserve_short_w, unserved_wh
from vppd.core.schedule.plan import Plan
from vppd.core.schedule.problem import Problem
from vppd.snapshot import Floats

DIGITS = 6
"""Powers and energies are told to a millionth of a watt: finer is noise."""


def further_report(problem: Problem, extras: Extras, plan: Plan) -> dict[str, Any]:
    """Return the keys that an answer has when the instance asks for more than energy."""
    assets = (*problem.batteries.names, *problem.loads.names)
    held_w = _held_w(problem, extras, plan)
    reserves = {
        reserve.name: {name: listed(row) for name, row in zip(assets, rows, strict=True) if row.any()}
        for reserve, rows in zip(extras.reserves, held_w, strict=True)
    }
    unserved = zip(problem.loads.names, unserved_wh(problem, extras, plan.load_w), strict=True)
    return {
        "costs": costs(problem, extras, plan),
        "peak_w": max(float(plan.import_w.max()), 0.0),
        "carbon_g": None if extras.carbon is None else carbon_g(problem, extras, plan.import_w),
        "reserves": reserves,
        "reserve_shortfall_w": {
            reserve.name: listed(row)
            for reserve, row in zip(extras.reserves, reserve_short_w(extras, held_w), strict=True)
            if reserve.shortfall_cost_per_wh is not None
        },
        "feeds": {feed.tag: listed(feed_w(feed, plan.powers())) for feed in extras.feeds},
        "unserved_wh": {name: float(wh) for name, wh in unserved if wh > 0.0},
        "green": green_shares(problem, extras, plan),
    }


def _held_w(problem: Problem, extras: Extras, plan: Plan) -> Floats:
    assets = len(problem.batteries.names) + len(problem.loads.names)
    return plan.held_w if plan.held_w is not None else np.zeros((len(extras.reserves), assets, problem.steps))


def costs(problem: Problem, extras: Extras, plan: Plan) -> dict[str, float]:
    """Return the plan's cost by cause, in the currency of the prices; they add up to it."""
    further = further_costs(problem, extras, plan.powers(), _held_w(problem, extras, plan))
    wear = problem.batteries.wear_cost_per_wh / 2.0 * np.abs(plan.battery_w).sum(axis=1)
    worn = float(wear.sum()) * problem.step_h
    carbon = 0.0
    if extras.carbon is not None:
        carbon = extras.carbon.cost_per_g * carbon_g(problem, extras, plan.import_w)
    return {"energy": plan.value - worn - carbon - sum(further.values()), "wear": worn, "carbon": carbon} | further


def green_shares(problem: Problem, extras: Extras, plan: Plan) -> dict[str, float | None]:
    """Return what part of the load renewables cover and what part of them is used on site; None of nothing. [0-1]

    Where something is contracted, also how much of it covers import. [Wh]
    """
    green, load_w = extras.green, problem.inflexible_load_w
    used_w = float((plan.renewable_w.sum(axis=0) - np.maximum(-plan.import_w, 0.0)).sum())
    counted_w = float((load_w if green is None else green.counted_w(load_w)).sum() + plan.load_w.sum())
    matched_w = 0.0 if green is None else float(green.matched_w(plan.import_w).sum())
    available_w = float(problem.renewables.available_w.sum())
    found = {
        "share_of_load_frac": (used_w + matched_w) / counted_w if counted_w > 0.0 else None,
        "self_use_frac": used_w / available_w if available_w > 0.0 else None,
    }
    if green is not None and green.contracted_w.any():
        found["contracted_wh"] = matched_w * problem.step_h
    return found


def further_lines(problem: Problem, extras: Extras, plan: Plan) -> list[str]:
    """Return the same in a few lines for people."""
    said = ", ".join(
        f"{name.replace('_', ' ')} {cost:.2f}" for name, cost in costs(problem, extras, plan).items() if cost
    )
    found = [f"of that: {said}"] if said else []
    if extras.carbon is not None:
        found.append(f"carbon in what is bought: {carbon_g(problem, extras, plan.import_w) / 1e3:.1f} kg")
    shares = green_shares(problem, extras, plan)
    if shares["self_use_frac"] is not None and shares["share_of_load_frac"] is not None:
        used, covered = shares["self_use_frac"], shares["share_of_load_frac"]
        found.append(f"renewables: {used:.1%} of what is available is used on site, {covered:.1%} of the load")
    return found


def named_series(names: tuple[str, ...], power_w: Floats) -> dict[str, list[float]]:
    """Return a series by name."""
    return {name: listed(row) for name, row in zip(names, power_w, strict=True)}


def listed(values: Floats) -> list[float]:
    """Return a series as plain numbers, rounded."""
    # Adding 0.0 turns -0.0 into 0.0.
    return [float(value) for value in np.round(values, DIGITS) + 0.0]
