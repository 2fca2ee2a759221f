"""Orders -> what is demanded of which node or asset now, and how each order moves through its life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from vppd.core.aggregate import Image
from vppd.core.economics import PutOff
from vppd.core.state import Demand, Phase, Progress, State, Transition
from vppd.model import Order, OrderKind, Signal
from vppd.snapshot import Plant, Snapshot

SIGNAL_SILENT_AFTER_S = 10.0
"""A regulation signal older than this counts as 0: back to the base point. [s]"""
_ADDING_UP = (OrderKind.REDUCE, OrderKind.INCREASE, OrderKind.REGULATION)
"""Kinds that count from the baseline: of products, they add up on the same power."""


@dataclass(frozen=True, slots=True)
class Obligations:
    """What the orders ask now."""

    demands: tuple[Demand, ...]
    progress: Mapping[str, Progress]
    transitions: tuple[Transition, ...]
    beside_w: Mapping[str, float]
    """By order: what other sold orders take off the same power, negative where they add to it; orders without any are left out. [W]"""


@dataclass(frozen=True, slots=True)
class _Beside:
    """What other sold orders do to the power that an order is about."""

    now_w: float = 0.0
    """Taken off now. [W, < 0 is added]"""
    steady_w: float = 0.0
    """The same without fast signals. [W]"""
    meets: bool = False
    """One of them bounds the very same power from the other side: both bounds meet in one point, with no margin between."""


def obligations(snapshot: Snapshot, state: State, plant: Plant, image: Image, *, released: bool) -> Obligations:
    """Return the demands of all orders that are active now; ``released`` (by failsafe or operator) aborts them all."""
    progress = dict(state.progress)
    transitions: list[Transition] = []
    ended = _endings(snapshot, progress, released=released)
    active: list[Order] = []
    for order in snapshot.orders:
        known = progress.get(order.order_id)
        step = _step(order, known, ended.get(order.order_id), snapshot.at, plant, image, state)
        if step is not None:
            progress[order.order_id] = step.progress
            transitions.append(step)
        now = progress.get(order.order_id)
        if now is not None and now.phase is Phase.ACTIVE and order.kind is not OrderKind.RELEASE:
            active.append(order)
    kept = {o.order_id: progress[o.order_id] for o in snapshot.orders if o.order_id in progress}
    beside = _beside(active, snapshot, plant)
    demands = tuple(
        _demand(order, kept[order.order_id], beside.get(order.order_id, _Beside()), snapshot, plant) for order in active
    )
    return Obligations(demands, kept, tuple(transitions), {k: b.now_w for k, b in beside.items() if b.now_w})


def taken_beside_w(orders: Sequence[Order], snapshot: Snapshot, plant: Plant) -> dict[str, float]:
    """Return by order what the others among these, all in force, take off the same power; what they do not touch is left out. [W]

    What was sold twice over is owed twice over: orders of products add up with their signs, also those of what is beneath the
    resource. Without this the larger of two awards at one time would be delivered, and accounted for, as both.
    """
    return {k: b.now_w for k, b in _beside(orders, snapshot, plant).items() if b.now_w}


def _beside(active: Sequence[Order], snapshot: Snapshot, plant: Plant) -> dict[str, _Beside]:
    sold = [o for o in active if o.product and o.kind in _ADDING_UP]
    if len(sold) < 2:
        return {}
    place = {o.order_id: locate(o.resource, plant) for o in sold}
    found: dict[str, _Beside] = {}
    for order in sold:
        own = place[order.order_id]
        others = [o for o in sold if o is not order and _is_within(place[o.order_id], own, plant)]
        found[order.order_id] = _Beside(
            now_w=float(sum(_takes_w(o, _signal(o, snapshot.signals, snapshot.mono_s)) for o in others)),
            steady_w=float(sum(_takes_w(o, 0.0) for o in others)),
            meets=any(o.kind is not order.kind and place[o.order_id] == own for o in others),
        )
    return found


def _takes_w(order: Order, signal: float) -> float:
    """Return what an order takes off the baseline. [W, < 0 is added]"""
    power_w = order.power_w or 0.0
    match order.kind:
        case OrderKind.REDUCE:
            return power_w
        case OrderKind.INCREASE:
            return -power_w
        case OrderKind.REGULATION:
            return -signal * power_w
        case _:
            return 0.0


def _is_within(inner: tuple[int, int], place: tuple[int, int], plant: Plant) -> bool:
    """Say whether a (node, asset) is the ``place`` or beneath it."""
    node, asset = inner
    if place[1] >= 0:
        return asset == place[1]
    node = int(plant.node[asset]) if asset >= 0 else node
    while node >= 0 and node != place[0]:
        node = int(plant.parent[node])
    return node >= 0


def _step(
    order: Order, known: Progress | None, ending: tuple[Phase, str] | None, at: datetime, plant: Plant, image: Image,
    state: State,
) -> Transition | None:  # fmt: skip
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
    start_w, baseline_w = _measured(order, plant, image, state)
    return Transition(order, Progress(Phase.ACTIVE, at, start_w, baseline_w), "in force")


def _measured(order: Order, plant: Plant, image: Image, state: State) -> tuple[float, float]:
    """Return the present power and the power without us, of what the order is about. [W]

    Of an increase, what the plan puts off is not in it: without the order it would not be drawn now.
    """
    node, asset = locate(order.resource, plant)
    put_off = PutOff.of(state, image, plant) if order.kind is OrderKind.INCREASE else None
    if asset >= 0:
        put_off_w = float(put_off.asset_w[asset]) if put_off else 0.0
        return float(np.nan_to_num(image.power_w[asset])), float(image.available_w[asset]) - put_off_w
    put_off_w = float(put_off.node_w[node]) if put_off else 0.0
    return float(image.node_power_w[node]), float(image.baseline_w[node]) - put_off_w


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


def _demand(order: Order, progress: Progress, beside: _Beside, snapshot: Snapshot, plant: Plant) -> Demand:
    node, asset = locate(order.resource, plant)
    margin_frac = 0.0 if beside.meets else plant.margin_frac
    signal = _signal(order, snapshot.signals, snapshot.mono_s)
    lower_w, upper_w = _bounds(order, progress.baseline_w - beside.now_w, signal, margin_frac)
    steady = _bounds(order, progress.baseline_w - beside.steady_w, 0.0, margin_frac)
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
    """Return how fast the order may be approached; more power never comes faster than the site's ramp. [W/s]"""
    raises = order.kind is OrderKind.INCREASE
    if order.ramp_s is None:
        return plant.ramp_up_w_per_s if raises else plant.ramp_down_w_per_s
    lower_w, upper_w = bounds_w
    way_w = max(progress.start_w - upper_w, lower_w - progress.start_w, 0.0)
    own_w_per_s = way_w / max(order.ramp_s, plant.cycle_s)
    if not raises:
        return own_w_per_s
    return min(own_w_per_s, plant.ramp_up_w_per_s) if own_w_per_s > 0.0 else plant.ramp_up_w_per_s


def bound_in_force(demand: Demand, baseline_w: float) -> float:
    """Return the power the order's delivery is judged against; ``baseline_w`` is what the orders beside it leave. [W]"""
    match demand.order.kind:
        case OrderKind.LIMIT:
            return demand.order.power_w or 0.0
        case OrderKind.INCREASE:
            return baseline_w + (demand.order.power_w or 0.0)
        case _:
            return demand.upper_w
