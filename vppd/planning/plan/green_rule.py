"""The green rule as a part of the planner's problem: what is asked of the horizon, given the period so far. Pure."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

from vppd.core.forecast.outlook import MEDIAN_FRAC
from vppd.planning.plan.green_account import GreenAccount
from vppd.planning.plan.known import Known, Parts
from vppd.snapshot import Floats

_LENGTH_H = {"hour": 1.0, "day": 24.0, "month": 31 * 24.0, "year": 366 * 24.0}


def green_rule(known: Known, parts: Parts, account: GreenAccount | None) -> dict[str, Any]:
    """Return the rule as ``vppd schedule`` reads it: windows by the calendar, and what the first one holds already.

    Of a period that lasts beyond the horizon, what is in hand or owed is spread over the time that is left: a dark January is not
    made good in a day.
    """
    terms, steps = known.terms, known.steps
    rules = {"share_of_load_frac": terms.green_load_frac, "self_use_frac": terms.green_self_use_frac}
    found: dict[str, Any] = {key: value for key, value in rules.items() if value is not None}
    found["window_steps"] = max(min(int(_LENGTH_H[terms.green_period] / known.step_h), steps), 1)
    if terms.green_shortfall_cost_per_mwh is not None:
        found["shortfall_cost_per_wh"] = terms.green_shortfall_cost_per_mwh / 1e6
    if account is not None:
        left_s = max((account.end - known.start).total_seconds(), known.step_s)
        found["first_window_steps"] = max(min(ceil(left_s / known.step_s - 1e-9), found["window_steps"]), 1)
        part = min(steps * known.step_s / left_s, 1.0)
        names = ("used_wh", "contracted_wh", "available_wh", "load_wh")
        found["before"] = {name: part * max(getattr(account, name), 0.0) for name in names}
    if terms.green_of == "compute":
        found["counted_load_w"] = sum((parts.fixed_w[i][:steps] for i in parts.computing), np.zeros(steps))
    contracted_w = contracts_w(known)
    return found | ({"contracted_w": contracted_w} if contracted_w.any() else {})


def contracts_w(known: Known) -> Floats:
    """Return what all contracts are expected to produce, (steps,); an hour of which nobody knows counts as nothing. [W]"""
    total_w = np.zeros(known.steps)
    for name in known.terms.contracts:
        found = known.outlook.get(f"contract/{name}")
        if found is None:
            known.missing.append(f"contract/{name}: no forecast, so nothing of it is counted")
            continue
        level = min(found.forecast.levels, key=lambda tau: abs(tau - MEDIAN_FRAC))
        total_w += np.maximum(np.nan_to_num(found.over(known.start, known.step_s, known.steps, level)), 0.0)
    return total_w
