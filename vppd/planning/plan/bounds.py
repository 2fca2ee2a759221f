"""Limits, billing, green rules and sold power as parts of the planner's problem. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from vppd.core.bidding.lots import SIDES, SYMMETRIC
from vppd.core.headroom import members, sustained_s
from vppd.model import Interval, Obligation, OrderKind
from vppd.planning.plan.deferral import SECONDS
from vppd.planning.plan.green_rule import green_rule
from vppd.planning.plan.known import Known, Parts
from vppd.snapshot import Bools, Floats

LONGEST_SUSTAIN_H = 4.0
"""Energy for sold power is kept for no longer than this at once. [h]"""


def limits(known: Known, parts: Parts) -> dict[str, Any]:
    """Return the limits of the site, its feeds and its clusters, and what the billing and green rules ask."""
    plant, terms = known.plant, known.terms
    found: dict[str, Any] = {"site": _range(known, 0)}
    found["feeds"] = [_feed(known, parts, node) for node in range(1, len(plant.nodes))]
    found["feeds"] += [_hall(known, parts, i) for i in parts.computing if parts.works_of(plant.asset_ids[i])]
    found["feeds"] += _ordered(known, parts)
    if terms.demand_charge_per_w > 0.0:
        billed_w = max(terms.billed_peak_w, known.moment.peak_w)
        found["demand_charge"] = {"cost_per_w": terms.demand_charge_per_w, "billed_peak_w": billed_w}
    if terms.green_load_frac is not None or terms.green_self_use_frac is not None:
        found["green"] = green_rule(known, parts, known.moment.green)
    return found


def reserves(known: Known, parts: Parts, obligations: Sequence[Obligation]) -> list[dict[str, Any]]:
    """Return what is sold within the horizon, less what is sure beside the plan; what is sold both ways is a reserve each way."""
    rows = []
    for o in sorted(obligations, key=lambda o: (o.interval.start, o.award_id)):
        if o.resource in (*known.plant.nodes, *known.plant.asset_ids):
            rows += [
                _reserve(known, parts, o, side) for side in (SIDES if o.direction == SYMMETRIC else (o.direction,))
            ]
        else:
            known.missing.append(f"award {o.award_id}: its resource {o.resource} is no longer configured")
    return [row for row in rows if row is not None]


def total(series: Iterable[Floats], steps: int) -> Floats:
    """Return the sum of series over the horizon, (steps,)."""
    found = np.zeros(steps)
    for values in series:
        found += values[:steps]
    return found


def _range(known: Known, node: int) -> dict[str, Any]:
    """Return a node's limits with the margin kept free. [W]"""
    part = 1.0 - known.plant.margin_frac
    return {
        "import_max_w": max(float(known.plant.node_upper_w[node]) * part, 0.0),
        "export_max_w": max(-float(known.plant.node_lower_w[node]) * part, 0.0),
    }


def _ordered(known: Known, parts: Parts) -> list[dict[str, Any]]:
    """Return the limits that orders set while they last, those in force and those to come."""
    plant, decision = known.plant, known.moment.decision
    asked = {d.order.order_id: (d.order, d.node, d.steady_upper_w) for d in decision.demands if d.node >= 0}
    for order in known.moment.snapshot.orders:
        if order.kind is OrderKind.LIMIT and order.resource in plant.nodes and order.order_id not in asked:
            limit_w = order.power_w or 0.0
            asked[order.order_id] = (order, plant.nodes.index(order.resource), limit_w)
    rows = []
    for order, node, limit_w in asked.values():
        runs = _during(known, order.interval)
        if not np.isfinite(limit_w) or not runs.any():
            continue
        # The form knows one limit for all steps: what is to be left free is drawn by nobody while the order lasts.
        row = _feed(known, parts, node)
        free_w = np.where(runs, max(row["import_max_w"] - limit_w, 0.0), 0.0)
        del row["export_max_w"]
        rows.append(row | {"tag": f"order {order.order_id}", "inflexible_load_w": row["inflexible_load_w"] + free_w})
    return rows


def _during(known: Known, interval: Interval) -> Bools:
    """Say which steps an interval touches, (steps,)."""
    step, begins = timedelta(seconds=known.step_s), known.starts()
    runs = [b + step > interval.start and (interval.end is None or b < interval.end) for b in begins]
    return np.array(runs, dtype=np.bool_)


def _feed(known: Known, parts: Parts, node: int) -> dict[str, Any]:
    plant, steps = known.plant, known.steps
    inside = members(plant.nodes[node], plant)
    names = [plant.asset_ids[i] for i in (*parts.stored, *parts.generating) if inside[i]]
    own_w = total((w for k, w in parts.own_w.items() if _is_below(known, k, node)), steps)
    own_w += total((parts.fixed_w[i] for i in parts.computing if inside[i]), steps)
    return {
        "tag": plant.nodes[node],
        "members": names + _works(known, parts, inside),
        "inflexible_load_w": own_w,
    } | _range(known, node)


def _hall(known: Known, parts: Parts, i: int) -> dict[str, Any]:
    """Return a cluster's rating as a limit: what has waited runs beside what has not."""
    name, fixed_w = known.plant.asset_ids[i], parts.fixed_w[i][: known.steps]
    most_w = max(float(known.plant.rated_upper_w[i]), float(parts.demand_w[i].max(initial=0.0)))
    tag = f"cluster {name}"
    return {"tag": tag, "import_max_w": most_w, "members": parts.works_of(name), "inflexible_load_w": fixed_w}


def _reserve(known: Known, parts: Parts, o: Obligation, side: str) -> dict[str, Any] | None:
    plant = known.plant
    inside = members(o.resource, plant)
    sure_w = _shed(known, parts, inside) if side == "up" else _held_back(known, parts, inside)
    power_w = np.where(_during(known, o.interval), np.maximum(o.power_w - sure_w, 0.0), 0.0)
    if not power_w.any():
        return None
    names = [plant.asset_ids[i] for i in parts.stored if inside[i]]
    # A signal is counted from what clusters would draw without the plan: that work which waited runs now is no part of it.
    names += _works(known, parts, inside) if side == "up" or o.direction != SYMMETRIC else []
    named = f"award {o.award_id}" + (f" ({side})" if o.direction == SYMMETRIC else "")
    if not names:
        known.missing.append(f"{named}: nothing that is planned could deliver it")
        return None
    hours = min(sustained_s(o, max(known.moment.snapshot.at, o.interval.start)) / SECONDS, LONGEST_SUSTAIN_H)
    return {"name": named, "direction": side, "power_w": power_w, "sustain_h": hours, "resources": names}


def _shed(known: Known, parts: Parts, inside: Bools) -> Floats:
    """Return what clusters can shed that does not wait. [W]"""
    return total((w for i, w in parts.shed_w.items() if inside[i]), known.steps)


def _held_back(known: Known, parts: Parts, inside: Bools) -> Floats:
    """Return what generation gives at least, and can be held back. [W]"""
    found_w, counted = np.zeros(known.steps), known.moment.decision.state.counted
    for i in parts.generating:
        said = known.outlook[f"generation/{known.plant.asset_ids[i]}"]
        if inside[i] and known.plant.controllable[i] and counted[i]:
            low_w = said.over(known.start, known.step_s, known.steps, min(said.forecast.levels))
            found_w += np.maximum(np.nan_to_num(low_w), 0.0)
    return found_w


def _works(known: Known, parts: Parts, inside: Bools) -> list[str]:
    return [name for i in parts.computing if inside[i] for name in parts.works_of(known.plant.asset_ids[i])]


def _is_below(known: Known, k: int, node: int) -> bool:
    while k > node:
        k = int(known.plant.parent[k])
    return k == node
