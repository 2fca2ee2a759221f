"""The newest snapshot and decision as plain JSON values, for people and dashboards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vppd.core.failsafe import RULES, Severity
from vppd.core.state import REASONS, Command, Decision, Phase, Progress, Reason
from vppd.model import Order
from vppd.snapshot import KINDS, Plant, Snapshot

WORTH_SAYING_W = 1.0
"""A shortfall smaller than this is not one. [W]"""


def state_view(plant: Plant, snapshot: Snapshot, decision: Decision) -> dict[str, Any]:
    """Return the whole site: feeds, assets with severity and reason, open orders, and what could not be done."""
    return {
        "site": plant.nodes[0],
        "at": snapshot.at.isoformat(),
        "ready": snapshot.health.ready,
        "severity": Severity(decision.site_severity).name.lower(),
        "causes": list(decision.site_causes),
        "power_w": number(decision.node_power_w[0]),
        "limit_w": number(decision.node_upper_w[0]),
        "least_w": number(decision.state.lower_w[0]),
        "feeds": [_feed(i, plant, decision) for i in range(1, len(plant.nodes))],
        "assets": [_asset(i, plant, snapshot, decision) for i in range(len(plant.asset_ids))],
        "orders": orders_view(snapshot.orders, decision.state.progress),
        "shortfall_w": {
            name: number(decision.shortfall_w[i])
            for i, name in enumerate(plant.nodes)
            if abs(decision.shortfall_w[i]) > WORTH_SAYING_W
        },
        "reasons": {
            asset: REASONS[Reason(decision.reason[i])]
            for i, asset in enumerate(plant.asset_ids)
            if plant.controllable[i]
        },
    }


def orders_view(orders: tuple[Order, ...], progress: Mapping[str, Progress]) -> list[dict[str, Any]]:
    """Return the open orders with their phase and what they have delivered so far."""
    return [_order(order, progress.get(order.order_id)) for order in orders]


def number(value: float) -> float | None:
    """Return a finite number for JSON, None for a missing one."""
    return round(float(value), 3) if np.isfinite(value) else None


def _feed(i: int, plant: Plant, decision: Decision) -> dict[str, Any]:
    return {
        "tag": plant.nodes[i],
        "power_w": number(decision.node_power_w[i]),
        "limit_w": number(decision.node_upper_w[i]),
        "target_w": number(decision.node_wanted_upper_w[i]),
        "least_w": number(decision.state.lower_w[i]),
        "planned_w": number(decision.node_planned_w[i]),
        "import_max_w": number(plant.node_upper_w[i]),
        "shortfall_w": number(decision.shortfall_w[i]),
    }


def _asset(i: int, plant: Plant, snapshot: Snapshot, decision: Decision) -> dict[str, Any]:
    r, age_s = snapshot.readings, snapshot.mono_s - snapshot.readings.mono_s[i]
    row = int(decision.cause[i])
    return {
        "id": plant.asset_ids[i],
        "kind": KINDS[plant.kind[i]].value,
        "feed": plant.nodes[plant.node[i]],
        "power_w": number(r.power_w[i]),
        "available_w": number(r.available_w[i]),
        "soc_frac": number(r.soc_frac[i]),
        "setpoint_w": number(decision.target_w[i]),
        "readback_w": number(r.setpoint_w[i]),
        "command": Command(decision.command[i]).name.lower(),
        "online": bool(r.online[i]),
        "age_s": number(age_s),
        "severity": Severity(decision.severity[i]).name.lower(),
        "cause": RULES[row].condition if row >= 0 else "",
        "reason": REASONS[Reason(decision.reason[i])],
    }


def _order(order: Order, progress: Progress | None) -> dict[str, Any]:
    body = {k: v for k, v in order.to_body().items() if k not in ("group", "traceparent")}
    body["phase"] = (progress.phase if progress else Phase.SCHEDULED).value
    if progress is not None:
        delivery = progress.delivery
        body |= {
            "baseline_w": number(progress.baseline_w),
            "energy_wh": number(delivery.energy_wh),
            "reduced_wh": number(delivery.reduced_wh),
            "added_wh": number(delivery.added_wh),
            "kept_frac": number(delivery.kept_frac),
            "worst_over_w": number(delivery.worst_over_w),
        }
    return body
