"""Forecasts, plant and what is owed -> the problem that ``vppd schedule`` solves. Pure.

What nobody forecasts is named and held at what is measured now; what is not known at all is left out of the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from vppd.config.planning import PlanningConfig
from vppd.core.aggregate import is_storage
from vppd.core.failsafe import Severity
from vppd.core.forecast.outlook import Outlook
from vppd.errors import Unreachable
from vppd.model import TIERS, Kind, Obligation
from vppd.planning.plan.bounds import limits, reserves, total
from vppd.planning.plan.deferral import SECONDS, Chunk, Key, Owed, chunks
from vppd.planning.plan.known import Known, Moment, Parts
from vppd.snapshot import KINDS, Bools, Floats, Plant

WH_PER_MWH = 1e6
G_PER_T = 1e6
SOON_FRAC = 1e-3
"""Of equal prices a later one counts as higher, by this part over the horizon: storage charges soon and gives late. [0-1]"""
GENERATES = (Kind.PV, Kind.WIND)


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """A problem, and what its names stand for."""

    document: dict[str, Any]
    start: datetime
    step_s: float
    steps: int
    batteries: tuple[int, ...]
    sources: tuple[int, ...]
    clusters: tuple[int, ...]
    fixed_w: Mapping[int, Floats]
    """By cluster: (h,) what may not wait. [W]"""
    demand_w: Mapping[int, Floats]
    """By cluster: (h,) what the forecast says it would draw. [W]"""
    chunks: tuple[Chunk, ...]
    missing: tuple[str, ...]
    """What there was no forecast for, and what was done about it."""
    price_import_per_wh: Floats
    """(h,) as foreseen."""
    contracted_w: Floats
    """(h,) what contracted renewables are expected to produce, as far as a green rule asks. [W]"""

    @property
    def step_h(self) -> float:
        """Return the length of a step. [h]"""
        return self.step_s / SECONDS


def assemble(
    moment: Moment, plant: Plant, outlook: Mapping[str, Outlook], obligations: Sequence[Obligation],
    owed: Mapping[Key, Owed], terms: PlanningConfig, step_s: float,
) -> Assembled:  # fmt: skip
    """Return the problem from the step that ``moment`` lies in. Raises Unreachable when too little is known for a plan."""
    at = moment.snapshot.at
    start = at - timedelta(seconds=at.timestamp() % step_s)
    known = Known(moment, plant, outlook, terms, start, step_s, int(terms.horizon_h * SECONDS // step_s))
    parts = Parts()
    document: dict[str, Any] = _prices(known)
    price_import_per_wh = document["price_import_per_wh"]
    parts.own_w = _inflexible(known)
    document["batteries"] = _batteries(known, parts)
    document["renewables"] = _sources(known, parts)
    waits_w = {i: _cluster(known, parts, i) for i in map(int, np.flatnonzero(_of(plant, Kind.CLUSTER)))}
    document["flexible_loads"] = _works(known, parts, waits_w, owed)
    document |= limits(known, parts)
    document["reserves"] = reserves(known, parts, obligations)
    document["inflexible_load_w"] = total((*parts.own_w.values(), *parts.fixed_w.values()), known.steps)
    document |= _sooner(document, known.steps)
    document |= {"step_s": step_s, "time_limit_s": terms.time_limit_s, "mip_gap": terms.gap_frac}
    return Assembled(
        document=_plain(document, known.steps),
        start=start,
        step_s=step_s,
        steps=known.steps,
        batteries=tuple(parts.stored),
        sources=tuple(parts.generating),
        clusters=tuple(parts.computing),
        fixed_w={i: w[: known.steps] for i, w in parts.fixed_w.items()},
        demand_w={i: w[: known.steps] for i, w in parts.demand_w.items()},
        chunks=tuple(parts.chunks),
        missing=tuple(known.missing),
        price_import_per_wh=price_import_per_wh[: known.steps],
        contracted_w=np.asarray(document.get("green", {}).get("contracted_w", np.zeros(known.steps)))[: known.steps],
    )


def _prices(known: Known) -> dict[str, Any]:
    """Return prices and carbon; constants where no forecast says otherwise."""
    terms, found = known.terms, {}
    for way, constant in (("import", terms.price_import_per_mwh), ("export", terms.price_export_per_mwh)):
        said = known.series(f"price/{way}")
        found[f"price_{way}_per_wh"] = np.full(known.steps, constant / WH_PER_MWH) if said is None else said
    if terms.carbon_cost_per_t <= 0.0:
        return found
    carbon = known.series("carbon")
    if carbon is None:
        known.missing.append("carbon: no forecast, so it has no cost in this plan")
        return found
    return found | {
        "carbon_g_per_wh": np.maximum(carbon, 0.0),
        "carbon_cost_per_g": np.float64(terms.carbon_cost_per_t / G_PER_T),
    }


def _sooner(document: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Return the prices with a slight slope, so that ties are settled alike in plan after plan, and energy is kept for long."""
    bought, sold = document["price_import_per_wh"][:steps], document["price_export_per_wh"][:steps]
    later = SOON_FRAC * float(np.abs(bought).mean()) * np.arange(steps) / steps
    return {"price_import_per_wh": bought + later, "price_export_per_wh": sold - later}


def _inflexible(known: Known) -> dict[int, Floats]:
    """Return each node's load without its clusters and generation; what is not forecast is held at what is measured now. [W]"""
    plant, state = known.plant, known.moment.decision.state
    apart = _of(plant, Kind.CLUSTER, *GENERATES) & ~state.counted  # these are in the meter's remainder
    apart_w = np.where(apart, np.nan_to_num(state.power_w), 0.0)
    now_w = state.base_w - np.bincount(plant.node, weights=apart_w, minlength=len(plant.nodes))
    found: dict[int, Floats] = {}
    for node, tag in enumerate(plant.nodes):
        said_w = known.series(f"load/{tag}")
        if said_w is None and node:
            if not np.isfinite(now_w[node]):
                raise Unreachable(f"there is no forecast of load/{tag}, and its meter has not been read yet")
            known.missing.append(f"load/{tag}: no forecast, so it is held at {now_w[node] / 1e3:.1f} kW")
        found[node] = np.full(known.steps, float(np.nan_to_num(now_w[node]))) if said_w is None else said_w
    return found


def _batteries(known: Known, parts: Parts) -> list[dict[str, Any]]:
    """Return the storage that can be used and stands above its reserve."""
    rows = []
    for i in map(int, np.flatnonzero(is_storage(known.plant) & known.plant.controllable)):
        row = _battery(known, i)
        if row is not None:
            rows.append(row)
            parts.stored.append(i)
    return rows


def _battery(known: Known, i: int) -> dict[str, Any] | None:
    plant, r, decision = known.plant, known.moment.snapshot.readings, known.moment.decision
    name, capacity_wh, soc_frac = plant.asset_ids[i], float(plant.capacity_wh[i]), float(decision.state.soc_frac[i])
    if not decision.state.counted[i] or not np.isfinite(soc_frac) or decision.severity[i] >= Severity.PROTECT:
        known.missing.append(f"{name}: not to be counted on now, so it is left out")
        return None
    began_wh = known.moment.stored_wh
    stored_wh = soc_frac * capacity_wh
    if began_wh is not None and np.isfinite(began_wh[i]):
        stored_wh = float(began_wh[i])
    reserve_wh = min(float(plant.reserve_frac[i]) + known.terms.reserve_margin_frac, 1.0) * capacity_wh
    if stored_wh < reserve_wh:
        known.missing.append(f"{name}: below its reserve and margin, so it recharges by itself")
        return None
    declared_w = (float(np.nan_to_num(r.lower_w[i], nan=-np.inf)), float(np.nan_to_num(r.upper_w[i], nan=np.inf)))
    return {
        "name": name,
        "energy_wh": capacity_wh,
        "reserve_wh": reserve_wh,
        "initial_wh": min(stored_wh, capacity_wh),
        "final_min_wh": max(min(stored_wh, float(plant.soc_target_frac[i]) * capacity_wh), reserve_wh),
        "charge_max_w": max(min(float(plant.rated_upper_w[i]), declared_w[1]), 0.0),
        "discharge_max_w": max(-max(float(plant.rated_lower_w[i]), declared_w[0]), 0.0),
        "efficiency_charge": float(plant.efficiency_frac[i]),
        "efficiency_discharge": float(plant.efficiency_frac[i]),
        "wear_cost_per_wh": float(plant.wear_cost_per_wh[i]),
    }


def _sources(known: Known, parts: Parts) -> list[dict[str, Any]]:
    """Return PV and wind; only what is ours to hold may be curtailed."""
    rows, plant = [], known.plant
    for i in map(int, np.flatnonzero(_of(plant, *GENERATES))):
        name = plant.asset_ids[i]
        found_w = known.series(f"generation/{name}")
        if found_w is None:
            known.missing.append(f"generation/{name}: no forecast, so it is not counted on")
            continue
        usable = bool(plant.controllable[i] and known.moment.decision.state.counted[i])
        rows.append({"name": name, "available_w": np.maximum(found_w, 0.0), "curtailable": usable})
        parts.generating.append(i)
    return rows


def _cluster(known: Known, parts: Parts, i: int) -> dict[int, Floats]:
    """Note what a cluster draws, and return what of it may wait, by tier. [W]"""
    name, r, state = known.plant.asset_ids[i], known.moment.snapshot.readings, known.moment.decision.state
    parts.computing.append(i)
    demand_w = known.series(f"compute/{name}")
    if demand_w is None:
        said_w = float(r.available_w[i] if np.isfinite(r.available_w[i]) else np.nan_to_num(r.power_w[i]))
        known.missing.append(f"compute/{name}: no forecast, so it is held at {said_w / 1e3:.1f} kW and nothing waits")
        parts.fixed_w[i] = parts.demand_w[i] = np.full(known.steps, max(said_w, 0.0))
        return {}
    left_w = demand_w = np.maximum(demand_w, 0.0)
    waits_w: dict[int, Floats] = {}
    other_w = np.zeros(len(demand_w))
    ours = bool(known.plant.controllable[i] and state.counted[i])
    for tier in range(TIERS - 1, 0, -1) if ours else ():
        shed_w = known.series(f"compute/{name}/tier{tier}")
        if shed_w is None:
            continue
        size = min(len(shed_w), len(left_w))
        shed_w = np.clip(shed_w[:size], 0.0, left_w[:size])
        if known.terms.defer_h[tier] > 0.0:
            waits_w[tier], left_w = shed_w, left_w[:size] - shed_w
        else:
            other_w = other_w[:size] + shed_w
    parts.fixed_w[i], parts.demand_w[i], parts.shed_w[i] = left_w, demand_w, other_w
    return waits_w


def _works(
    known: Known, parts: Parts, waits_w: Mapping[int, Mapping[int, Floats]], owed: Mapping[Key, Owed]
) -> list[dict[str, Any]]:
    """Return the work that may wait as flexible loads with their deadlines."""
    rows = []
    for i, by_tier_w in waits_w.items():
        name, terms = known.plant.asset_ids[i], known.terms
        cut_w = {tier: w[: known.steps] for tier, w in by_tier_w.items()}
        for chunk in chunks(name, cut_w, owed, terms.defer_h, known.start, known.step_s):
            tier = chunk.key.tier
            rows.append(
                {
                    "name": chunk.key.name,
                    "min_w": 0.0,
                    "max_w": chunk.max_w,
                    "energy_wh": chunk.energy_wh(known.step_h),
                    "first_step": chunk.first,
                    "last_step": chunk.last,
                    "delay_cost_per_wh_h": float(known.plant.tier_cost_per_wh[i, tier]) / max(terms.defer_h[tier], 1.0),
                }
            )
            parts.add(chunk)
    return rows


def _of(plant: Plant, *kinds: Kind) -> Bools:
    return np.isin(plant.kind, np.array([KINDS.index(kind) for kind in kinds], dtype=np.int64))


def _plain(value: Any, steps: int) -> Any:
    """Return plain JSON values, with every series cut to the horizon."""
    match value:
        case np.ndarray():
            return [float(x) for x in value[:steps]]
        case np.generic():
            return value.item()
        case dict():
            return {key: _plain(inner, steps) for key, inner in value.items()}
        case list():
            return [_plain(inner, steps) for inner in value]
    return value
