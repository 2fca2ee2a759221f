"""Why an asset does what it does, as plain JSON values: order -> need -> told -> chosen -> measured -> covered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vppd.api.view import number
from vppd.core.curtail.bearing import bearing
from vppd.core.failsafe import RULES, Severity
from vppd.core.state import REASONS, Command, Decision, Demand, Progress, Reason
from vppd.model import OrderKind
from vppd.snapshot import KINDS, Plant, Snapshot

COVERS_W = 1.0
"""An asset that gives less than this covers nothing. [W]"""


def why_view(asset: int, plant: Plant, snapshot: Snapshot, decision: Decision) -> dict[str, Any]:
    """Return the part of the chain that the cycle knows; what was told, chosen and measured is added by who knows it."""
    row = int(decision.cause[asset])
    demands = bearing(asset, decision.demands, plant)
    return {
        "asset": plant.asset_ids[asset],
        "kind": KINDS[plant.kind[asset]].value,
        "feed": plant.nodes[plant.node[asset]],
        "at": snapshot.at.isoformat(),
        "orders": [_order(d, decision.state.progress) for d in demands],
        "needs": [_need(node, plant, decision) for node in _path(int(plant.node[asset]), plant)],
        "wanted": {
            "command": Command(decision.command[asset]).name.lower(),
            "setpoint_w": number(decision.target_w[asset]),
            "reason": REASONS[Reason(decision.reason[asset])],
        },
        "state": {
            "power_w": number(snapshot.readings.power_w[asset]),
            "available_w": number(snapshot.readings.available_w[asset]),
            "sheddable_by_tier_w": [number(shed_w) for shed_w in snapshot.readings.tier_shed_w[asset]],
            "online": bool(snapshot.readings.online[asset]),
            "severity": Severity(decision.severity[asset]).name.lower(),
            "failsafe": RULES[row].condition if row >= 0 else "",
        },
        "told": None,
        "chosen": None,
        "measured": None,
        "covered_by": _covering(asset, plant, snapshot, decision) if demands else [],
    }


def _path(node: int, plant: Plant) -> list[int]:
    found = []
    while node >= 0:
        found.append(node)
        node = int(plant.parent[node])
    return found


def _order(demand: Demand, progress: Mapping[str, Progress]) -> dict[str, Any]:
    order, known = demand.order, progress.get(demand.order.order_id)
    return {
        "order_id": order.order_id,
        "issuer": order.issuer,
        "kind": order.kind.value,
        "resource": order.resource,
        "power_w": order.power_w,
        "most_w": number(demand.upper_w),
        "least_w": number(demand.lower_w),
        "priority": order.priority,
        "start": order.interval.start.isoformat(),
        "end": order.interval.end.isoformat() if order.interval.end else None,
        "since": known.since.isoformat() if known else None,
        "baseline_w": number(known.baseline_w) if known else None,
        "kept_frac": number(known.delivery.kept_frac) if known else None,
    }


def _need(node: int, plant: Plant, decision: Decision) -> dict[str, Any]:
    return {
        "node": plant.nodes[node],
        "power_w": number(decision.node_power_w[node]),
        "target_w": number(decision.node_wanted_upper_w[node]),
        "limit_w": number(decision.node_upper_w[node]),
        "least_target_w": number(max((d.lower_w for d in decision.demands if d.node == node), default=-np.inf)),
        "least_w": number(decision.state.lower_w[node]),
        "planned_w": number(decision.node_planned_w[node]),
        "shortfall_w": number(decision.shortfall_w[node]),
    }


def _covering(asset: int, plant: Plant, snapshot: Snapshot, decision: Decision) -> list[dict[str, Any]]:
    """Return the other assets under the same orders' nodes that give power now, or take what is to be drawn more, the greatest first."""
    path = set(_path(int(plant.node[asset]), plant)[:-1])
    found: Sequence[dict[str, Any]] = [
        {
            "asset": plant.asset_ids[i],
            "setpoint_w": number(decision.target_w[i]),
            "power_w": number(snapshot.readings.power_w[i]),
            "reason": REASONS[Reason(decision.reason[i])],
        }
        for i in range(len(plant.asset_ids))
        if i != asset and int(plant.node[i]) in path and plant.fast[i] and decision.command[i] == Command.SETPOINT
    ]
    raised = any(d.order.kind is OrderKind.INCREASE for d in bearing(asset, decision.demands, plant))
    sign = -1.0 if raised else 1.0
    giving = [e for e in found if e["setpoint_w"] is not None and sign * e["setpoint_w"] < -COVERS_W]
    return sorted(giving, key=lambda entry: sign * float(entry["setpoint_w"]))
