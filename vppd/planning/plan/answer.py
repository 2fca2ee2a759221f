"""The solver's answer in terms of the plant: a timetable, what of each cluster waits, and what the loop is to prefer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from vppd.core.timetable import Timetable
from vppd.planning.plan.assemble import Assembled
from vppd.planning.plan.deferral import Chunk, waiting_w
from vppd.snapshot import Floats, Plant, Readings

IDLE_W = 1.0
"""Storage that moves no more than this over the whole horizon is not used. [W]"""
HELD_FRAC = 0.01
"""A plan that leaves less than this part of a rating waiting, or curtails less, holds nobody. [0-1]"""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A timetable and what it was made from."""

    timetable: Timetable
    assembled: Assembled
    chunks: tuple[tuple[Chunk, Floats], ...]
    """Work that may wait, with the power it gets, (h,). [W]"""
    waiting_w: Floats
    """(n, h) what a cluster would draw beyond its budget if nothing waited, NaN for others. [W]"""
    curtailed_w: Floats
    """(n, h) what a source could give beyond its plan, NaN for others. [W]"""
    solve_s: float
    gap_frac: float | None


def plan_of(assembled: Assembled, answer: Mapping[str, Any], made_at: datetime, plant: Plant) -> Plan:
    """Return the plan that a solver's answer comes to."""
    h, n = assembled.steps, len(plant.asset_ids)
    power_w, energy_wh, waits_w, curtailed_w = (np.full((n, h), np.nan) for _ in range(4))
    for i in assembled.batteries:
        row = answer["batteries"][plant.asset_ids[i]]
        if np.abs(row["power_w"]).max() >= IDLE_W:  # storage that the plan has no use for rests as without a plan
            power_w[i] = row["power_w"]
        energy_wh[i] = row["energy_wh"]
    given, import_w = _given(assembled, answer, plant)
    for i, (given_w, available_w) in given.items():
        power_w[i], curtailed_w[i] = -given_w, available_w - given_w
    found = tuple((c, np.asarray(answer["flexible_loads"][c.key.name])) for c in assembled.chunks)
    for i in assembled.clusters:
        power_w[i], waits_w[i] = assembled.fixed_w[i], 0.0
        for chunk, run_w in found:
            if chunk.key.asset == plant.asset_ids[i]:
                power_w[i] += run_w
                waits_w[i] += waiting_w(chunk, run_w, assembled.step_h)
    timetable = Timetable(
        made_at=made_at,
        start=assembled.start,
        step_s=assembled.step_s,
        status=str(answer["status"]),
        asset_ids=plant.asset_ids,
        power_w=power_w,
        energy_wh=energy_wh,
        import_w=import_w,
        renewable_w=np.sum([given_w for given_w, _ in given.values()], axis=0) if given else np.zeros(h),
        cost=float(answer["cost"]),
        conflicts=tuple(answer["conflicts"]),
    )
    return Plan(timetable, assembled, found, waits_w, curtailed_w, float(answer["solve_s"]), answer["gap"])


def _given(
    assembled: Assembled, answer: Mapping[str, Any], plant: Plant
) -> tuple[dict[int, tuple[Floats, Floats]], Floats]:
    """Return what each source gives and could give, and the site's import, with nothing curtailed that costs less to export. [W]

    To the solver a Wh that nobody pays for is worth nothing, exported or not; holding a source back has a cost of its own.
    """
    document, found = assembled.document, {}
    import_w = np.array(answer["import_w"], dtype=np.float64)
    feed_w = {tag: np.array(w, dtype=np.float64) for tag, w in answer["feeds"].items()}
    export_max_w = {feed["tag"]: feed["export_max_w"] for feed in document["feeds"] if "export_max_w" in feed}
    price = np.asarray(document["price_export_per_wh"])
    for i, entry in zip(assembled.sources, document["renewables"], strict=True):
        name, available_w = plant.asset_ids[i], np.asarray(entry["available_w"])
        given_w = np.array(answer["renewables"][name], dtype=np.float64)
        above = [feed["tag"] for feed in document["feeds"] if name in feed["members"] and feed["tag"] in export_max_w]
        room_w = import_w + document["site"]["export_max_w"]
        for tag in above:
            room_w = np.minimum(room_w, feed_w[tag] + export_max_w[tag])
        more_w = np.where(
            price > -plant.wear_cost_per_wh[i], np.clip(available_w - given_w, 0.0, np.maximum(room_w, 0.0)), 0.0
        )
        import_w -= more_w
        for tag in above:
            feed_w[tag] -= more_w
        found[i] = (given_w + more_w, available_w)
    return found, import_w


def wishes(plan: Plan, at: datetime, readings: Readings, defers: tuple[bool, ...], plant: Plant) -> Floats | None:
    """Return what the plan wishes of each asset at a moment, (n,), NaN for nothing; None when it is over. [W]

    A cluster is held by what the plan lets wait, and never because a forecast of its demand was too low; ``defers`` says by tier
    whose work may wait at all. A source is held where the plan curtails it.
    """
    step = plan.timetable.step_at(at)
    if step is None:
        return None
    planned_w, waits_w, curtailed_w = (
        plan.timetable.power_w[:, step],
        plan.waiting_w[:, step],
        plan.curtailed_w[:, step],
    )
    rating_w = np.maximum(np.abs(plant.rated_lower_w), np.abs(plant.rated_upper_w))
    cluster, source = np.isfinite(waits_w), np.isfinite(curtailed_w)
    said_w = np.where(np.isfinite(readings.available_w), readings.available_w, planned_w)
    may_w = readings.tier_shed_w @ np.array(defers, dtype=np.float64)
    budget_w = np.maximum(planned_w, said_w - np.minimum(waits_w, may_w))
    found_w = np.where(cluster, np.where(waits_w > HELD_FRAC * rating_w, budget_w, np.nan), planned_w)
    return np.where(source & ~(curtailed_w > HELD_FRAC * rating_w), np.nan, found_w)
