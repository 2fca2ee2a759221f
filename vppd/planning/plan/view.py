"""The plan beside what was measured, as plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from vppd.planning.plan.answer import Plan
from vppd.planning.plan.deferral import Ledger
from vppd.planning.plan.tally import Step
from vppd.snapshot import KINDS, Floats, Plant

SHOWN_PAST = timedelta(hours=24)


def plan_view(plan: Plan | None, past: Sequence[Step], ledger: Ledger, plant: Plant, now: datetime) -> dict[str, Any]:
    """Return the last day and the plan, one row per step, and what waits."""
    steps = [_past(step, plant) for step in past if step.start >= now - SHOWN_PAST]
    found: dict[str, Any] = {
        "made_at": None,
        "status": "none",
        "step_s": None,
        "cost": None,
        "gap": None,
        "solve_s": None,
        "missing": [],
        "conflicts": [],
    }
    if plan is not None:
        table = plan.timetable
        steps += _ahead(plan, plant, after=past[-1].start if past else None)
        found = {
            "made_at": table.made_at.isoformat(),
            "status": table.status,
            "step_s": table.step_s,
            "cost": round(table.cost, 4),
            "gap": plan.gap_frac,
            "solve_s": plan.solve_s,
            "missing": list(plan.assembled.missing),
            "conflicts": list(table.conflicts),
        }
    waiting = [
        {
            "asset": key.asset,
            "tier": key.tier,
            "until": key.until.isoformat(),
            "energy_wh": round(owed.energy_wh, 1),
        }
        for key, owed in sorted(ledger.owed.items(), key=lambda item: (item[0].until, item[0].asset))
    ]
    deferred = {"waiting": waiting, "deferred_wh": round(ledger.deferred_wh, 1), "late_wh": round(ledger.late_wh, 1)}
    assets = [
        {"id": name, "kind": KINDS[plant.kind[i]].value}
        for i, name in enumerate(plant.asset_ids)
        if plan is not None and np.isfinite(plan.timetable.power_w[i]).any()
    ]
    return found | deferred | {"assets": assets, "steps": steps}


def _past(step: Step, plant: Plant) -> dict[str, Any]:
    """Return a step that is over: planned and measured."""
    planned = step.planned
    return {
        "start": step.start.isoformat(),
        "price_per_mwh": None if planned is None else _number(planned.price_per_wh * 1e6),
        "import_w": None if planned is None else _number(planned.import_w),
        "renewable_w": None if planned is None else _number(planned.renewable_w),
        "measured_import_w": _number(step.import_w),
        "measured_renewable_w": _number(step.renewable_w),
        "planned_w": {} if planned is None else _known(plant, planned.power_w),
        "measured_w": _known(plant, step.power_w),
    }


def _ahead(plan: Plan, plant: Plant, after: datetime | None) -> list[dict[str, Any]]:
    """Return the steps of the plan that are not over."""
    table = plan.timetable
    return [
        {
            "start": start.isoformat(),
            "price_per_mwh": _number(plan.assembled.price_import_per_wh[k] * 1e6),
            "import_w": _number(table.import_w[k]),
            "renewable_w": _number(table.renewable_w[k]),
            "measured_import_w": None,
            "measured_renewable_w": None,
            "planned_w": _known(plant, table.power_w[:, k]),
            "stored_wh": _known(plant, table.energy_wh[:, k]),
            "measured_w": {},
        }
        for k, start in enumerate(table.starts())
        if after is None or start > after
    ]


def _known(plant: Plant, power_w: Floats) -> dict[str, float]:
    rows = zip(plant.asset_ids, power_w.tolist(), strict=True)
    return {name: round(value, 1) for name, value in rows if value == value}


def _number(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None
