"""Orders -> what is demanded of which node or asset now, and how each order moves through its life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from vppd.core.aggregate import Image
from vppd.core.state import Demand, Phase, Progress, State, Transition
from vppd.model import Order, OrderKind, Signal
from vppd.snapshot import Plant, Snapshot

SIGNAL_SILENT_AFTER_S = 10.0
"""A regulation signal older than this counts as 0: back to the base point. [s]"""


@dataclass(frozen=True, slots=True)
class Obligations:
    """What the orders ask now."""

    demands: tuple[Demand, ...]
    progress: Mapping[str, Progress]
    transitions: tuple[Transition, ...]
    beside_w: Mapping[str, float]
    """By order: what other sold reductions take off the same power; orders without any are left out. [W]"""


def obligations(snapshot: Snapshot, state: State, plant: Plant, image: Image, *, released: bool) -> Obligations:
    """Return the demands of all orders that are active now; ``released`` (by failsafe or operator) aborts them all."""
    progress = dict(state.progress)
    transitions: list[Transition] = []
    ended = _endings(snapshot, progress, released=released)
    active: list[Order] = []
    for order in snapshot.orders:
        known = progress.get(order.order_id)
        step = _step(order, known, ended.get(order.order_id), snapshot.at, plant, image)
        if step is not None:
            progress[order.order_id] = step.progress
            transitions.append(step)
        now = progress.get(order.order_id)
        if now is not None and now.phase is Phase.ACTIVE and order.kind is not OrderKind.RELEASE:
            active.append(order)
    kept = {o.order_id: progress[o.order_id] for o in snapshot.orders if o.order_id in progress}
    beside_w = {o.order_id: w for o in active if (w := _beside_w(o, active, plant)) > 0.0}
    demands = tuple(
        _demand(order, kept[order.order_id], beside_w.get(order.order_id, 0.0), snapshot, plant) for order in active
    )
    return Obligations(demands, kept, tuple(transitions), beside_w)


def _beside_w(order: Order, active: Sequence[Order], plant: Plant) -> float:
    """Return what other sold reductions take off the power that the order is about. [W]

    What was sold twice over is owed twice over: reductions of products add up, also those of what is beneath the resource.
    Without this the larger of two awards at one time would be delivered, and accounted for, as both.
    """
    if not _is_sold_reduction(order):
        return 0.0
    own = locate(order.resource, plant)
    others = (o for o in active if o is not order and _is_sold_reduction(o) and _is_within(o.resource, own, plant))
    return float(sum(o.power_w or 0.0 for o in others))


def _is_sold_reduction(order: Order) -> bool:
    return order.kind is OrderKind.REDUCE and bool(order.product)


def _is_within(resource: str, place: tuple[int, int], plant: Plant) -> bool:
    """Say whether a resource is the (node, asset) ``place`` or beneath it."""
    node, asset = locate(resource, plant)
    if place[1] >= 0:
        return asset == place[1]
    node = int(plant.node[asset]) if asset >= 0 else node
    while node >= 0 and node != place[0]:
        node = int(plant.parent[node])
    return node >= 0


def _step(
    order: Order, known: Progress | None, ending: tuple[Phase, str] | None, at: datetime, plant: Plant, image: Image
) -> Transition | None:
    """Return the order's move this cycle, or None when it stays where it is."""
    if known is not None and known.phase in (Phase.COMPLETED, Phase.ABORTED):
        return None
    if ending is not None:
        phase, reason = ending
        return Transition(order, replace(known or Progress(phase, at), phase=phase, since=at), reason)
    if not order.interval.contains(at):
        return None if known else Transition(order, Progress(Phase.SCHEDULED, at), "starts later")
    if known is not None and known.phase is Phase.ACTIVE:
        return None
    if not _is_measured(order, plant, image):
        return (
            None
            if known
            else Transition(order, Progress(Phase.SCHEDULED, at), "waits for the first reading of its meter")
        )
    start_w, baseline_w = _measured(order, plant, image)
    return Transition(order, Progress(Phase.ACTIVE, at, start_w, baseline_w), "in force")


def _measured(order: Order, plant: Plant, image: Image) -> tuple[float, float]:
    """Return the present power and the power without us, of what the order is about. [W]"""
    node, asset = locate(order.resource, plant)
    if asset >= 0:
        return float(np.nan_to_num(image.power_w[asset])), float(image.available_w[asset])
    return float(image.node_power_w[node]), float(image.baseline_w[node])


def _is_measured(order: Order, plant: Plant, image: Image) -> bool:
    """Say whether the order's resource has been measured: a baseline taken from nothing would shed everything."""
    node, asset = locate(order.resource, plant)
    return bool(image.fresh[asset] if asset >= 0 else image.node_known[node])


def locate(resource: str, plant: Plant) -> tuple[int, int]:
    """Return (node, asset) of a resource name; the one it is not about is -1. Raises KeyError."""
    if resource in plant.nodes:
        return plant.nodes.index(resource), -1
    if resource in plant.asset_ids:
        return -1, plant.asset_ids.index(resource)
    raise KeyError(resource)


def _endings(snapshot: Snapshot, progress: Mapping[str, Progress], *, released: bool) -> dict[str, tuple[Phase, str]]:
    """Return why each order that ends now does so: replaced, released, run out, or called off by us."""
    ended: dict[str, tuple[Phase, str]] = {}
    for i, order in enumerate(snapshot.orders):
        if released:
            ended[order.order_id] = (Phase.ABORTED, "released by the operator or a failsafe")
            continue
        if order.interval.end is not None and order.interval.end <= snapshot.at:
            ended.setdefault(order.order_id, _run_out(order, progress.get(order.order_id)))
        if order.interval.start <= snapshot.at and order.order_id not in ended:
            ended |= {
                e.order_id: (Phase.COMPLETED, _because(order))
                for e in snapshot.orders[:i]
                if _ends(order, e, snapshot.at)
            }
            if order.kind is OrderKind.RELEASE:
                ended[order.order_id] = (Phase.COMPLETED, "released")
    return ended


def _run_out(order: Order, known: Progress | None) -> tuple[Phase, str]:
    if known is None or known.phase is Phase.SCHEDULED:
        return Phase.ABORTED, "its interval passed while it could not be carried out"
    return Phase.COMPLETED, "its interval has ended"


def _because(order: Order) -> str:
    return f"released by {order.order_id}" if order.kind is OrderKind.RELEASE else f"replaced by {order.order_id}"


def _ends(order: Order, earlier: Order, at: datetime) -> bool:
    """Say whether ``order``, now in force, ends ``earlier``: the latest DSX target of a feed wins, a release frees."""
    if earlier.issuer != order.issuer:
        return False
    if order.kind is OrderKind.RELEASE:
        return _covers(order, earlier)
    same = order.protocol == earlier.protocol == "dsx_flex" and order.resource == earlier.resource
    return same and earlier.interval.start <= at and order.group != earlier.group


def _covers(release: Order, earlier: Order) -> bool:
    if release.protocol == "dsx_flex":
        return earlier.protocol == "dsx_flex" and earlier.resource == release.resource
    return release.resource in ("*", earlier.resource, earlier.order_id)


def _demand(order: Order, progress: Progress, beside_w: float, snapshot: Snapshot, plant: Plant) -> Demand:
    node, asset = locate(order.resource, plant)
    baseline_w = progress.baseline_w - beside_w
    signal = _signal(order, snapshot.signals, snapshot.mono_s)
    lower_w, upper_w = _bounds(order, baseline_w, signal, plant.margin_frac)
    steady = _bounds(order, baseline_w, 0.0, plant.margin_frac)
    return Demand(order, node, asset, lower_w, upper_w, *steady, _rate(order, progress, (lower_w, upper_w), plant))


def _signal(order: Order, signals: tuple[Signal, ...], mono_s: float) -> float:
    """Return the issuer's newest regulation signal, 0 when it has fallen silent. [-1, 1]"""
    fresh = [s.value for s in signals if s.issuer == order.issuer and mono_s - s.mono_s <= SIGNAL_SILENT_AFTER_S]
    return fresh[-1] if fresh else 0.0


def _bounds(order: Order, baseline_w: float, signal: float, margin_frac: float) -> tuple[float, float]:
    """Return the range of power the order leaves. [W]"""
    power_w = order.power_w or 0.0
    match order.kind:
        case OrderKind.LIMIT:
            return -np.inf, power_w - margin_frac * abs(power_w)
        case OrderKind.REDUCE:
            upper_w = baseline_w - power_w
            return -np.inf, upper_w - margin_frac * abs(upper_w)
        case OrderKind.INCREASE:
            lower_w = baseline_w + power_w
            return lower_w + margin_frac * abs(lower_w), np.inf
        case OrderKind.SETPOINT:
            return power_w, power_w
        case OrderKind.REGULATION:
            target_w = baseline_w + signal * power_w
            return target_w, target_w
        case OrderKind.RELEASE:
            return -np.inf, np.inf


def _rate(order: Order, progress: Progress, bounds_w: tuple[float, float], plant: Plant) -> float:
    """Return how fast the order may be approached. [W/s]"""
    if order.ramp_s is None:
        return plant.ramp_down_w_per_s
    lower_w, upper_w = bounds_w
    way_w = max(progress.start_w - upper_w, lower_w - progress.start_w, 0.0)
    return way_w / max(order.ramp_s, plant.cycle_s)


def bound_in_force(demand: Demand) -> float:
    """Return the power the order's delivery is judged against, without our margin. [W]"""
    if demand.order.kind is OrderKind.LIMIT:
        return demand.order.power_w or 0.0
    return demand.upper_w
