"""Energy and room that storage keeps for what was sold: what slow assets can give now, they give instead. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np

from vppd.core.aggregate import Image, is_storage
from vppd.core.economics import EASE_S
from vppd.core.failsafe import SOC_MARGIN_FRAC
from vppd.core.headroom import members, sustained_s
from vppd.core.state import Demand
from vppd.model import Obligation, Order, OrderKind
from vppd.snapshot import Bools, Floats, Plant, Snapshot

AHEAD = timedelta(hours=24)
"""What is sold for a later time than this does not count yet."""
_LESS, _MORE = ("up", "symmetric"), ("down", "symmetric")


@dataclass(frozen=True, slots=True)
class _Ready:
    """What is kept ready of an award and not being delivered."""

    resource: str
    power_w: float
    start: datetime
    end: datetime
    sustain_s: float
    """For how long it can be asked for, unless its interval ends before. [s]"""


@dataclass(frozen=True, slots=True)
class _Means:
    """What stands behind what is sold at a resource."""

    shed_w: float
    """What its clusters could shed. [W]"""
    asked_w: float
    """What orders of now want of that. [W]"""
    charge_w: float
    free_from: datetime
    """When the orders of now are over and storage may be charged."""
    spare_wh: float


def kept_ready(obligations: Sequence[Obligation], at: datetime) -> tuple[Obligation, ...] | None:
    """Return what a decision at ``at`` must know of what was sold: what is kept ready, now or soon; None for nothing."""
    found = tuple(
        o for o in obligations if o.dispatch == "order" and not o.is_over(at) and o.interval.start <= at + AHEAD
    )
    return found or None


def promised_wh(snapshot: Snapshot, image: Image, plant: Plant, demands: Sequence[Demand]) -> Floats:
    """Return what each storage keeps of its energy, at its terminals, for what was sold, (n,). [Wh]

    For reductions that have not begun all of theirs; for awards that are kept ready what each needs when it is called: its power
    for as long as it can be asked for, less what an order of it asks for already. What clusters could shed of it is taken off,
    and what can be charged before; storage shares the rest by what it has. It bounds the steady split alone: an order of now that
    nothing else can carry is carried by storage all the same.
    """
    none: Floats = np.zeros(len(plant.asset_ids))
    later = sorted((o for o in snapshot.orders if _is_later(o, snapshot.at)), key=lambda o: o.interval.start)
    ready = list(_ready(snapshot, _LESS, demands)) if demands else []  # nothing of now can take it away
    if not later and not ready:
        return none
    storage = is_storage(plant) & image.usable
    spare_frac = np.nan_to_num(np.maximum(image.soc_frac - plant.reserve_frac - SOC_MARGIN_FRAC, 0.0))
    spare_wh = np.where(storage, spare_frac * np.nan_to_num(plant.capacity_wh) * plant.efficiency_frac, 0.0)
    kept_wh = none
    for inside in _places(ready, plant):
        means = _means(snapshot, image, plant, demands, inside, float(np.where(inside, spare_wh, 0.0).sum()))
        within = _within({*(o.resource for o in later), *(r.resource for r in ready)}, inside, plant)
        need_wh = _need_wh(
            [o for o in later if o.resource in within], [r for r in ready if r.resource in within], means
        )
        left_wh = np.where(inside, spare_wh - kept_wh, 0.0)
        total_wh, more_wh = float(left_wh.sum()), need_wh - float(kept_wh[inside].sum())
        if total_wh > 0.0 and more_wh > 0.0:
            kept_wh = kept_wh + left_wh * min(more_wh / total_wh, 1.0)
    return np.asarray(kept_wh)


def spared(rest_w: Floats, snapshot: Snapshot, image: Image, plant: Plant) -> Floats:
    """Return what storage prefers at rest (n,), without the recharge that would fill room that was sold. [W]

    Room is kept for increases that have not begun, and for awards kept ready to draw more, by all storage of a resource alike.
    """
    if not (rest_w > 0.0).any():
        return rest_w
    later = [o for o in snapshot.orders if _is_later(o, snapshot.at, OrderKind.INCREASE)]
    ready = list(_ready(snapshot, _MORE, ()))
    if not later and not ready:
        return rest_w
    storage = is_storage(plant) & image.usable
    room_frac = np.where(image.soc_stale, 0.0, np.nan_to_num(np.maximum(1.0 - image.soc_frac, 0.0)))
    room_wh = np.where(storage, room_frac * np.nan_to_num(plant.capacity_wh) / plant.efficiency_frac, 0.0)
    need_wh = sum((o.power_w or 0.0) * _hours(o.interval.start, o.interval.end or o.interval.start) for o in later)
    need_wh += max((_standing_wh(called, start, 0.0) for start, _, _, called in _spans((), ready)), default=0.0)
    inside = np.zeros(len(rest_w), dtype=np.bool_)
    for resource in {*(o.resource for o in later), *(r.resource for r in ready)}:
        inside |= _inside(resource, plant)
    total_wh = float(room_wh[inside].sum())
    kept_wh = np.where(inside, room_wh * min(need_wh / total_wh, 1.0), 0.0) if total_wh > 0.0 else 0.0
    return np.minimum(rest_w, np.where(inside, (room_wh - kept_wh) / (EASE_S / 3600.0), np.inf))


def _is_later(order: Order, at: datetime, kind: OrderKind = OrderKind.REDUCE) -> bool:
    is_sold = order.kind is kind and bool(order.product) and order.interval.end is not None
    return is_sold and at < order.interval.start <= at + AHEAD


def _ready(snapshot: Snapshot, directions: Sequence[str], demands: Sequence[Demand]) -> Iterator[_Ready]:
    """Yield what is kept ready on one side; running orders of its product fill one award after another.

    What a signal asks for is not taken off: it is back at once, and asks for as much again.
    """
    called_w: dict[tuple[str, ...], float] = {}
    for demand in demands:
        order = demand.order
        if order.kind is OrderKind.REDUCE:
            key = (order.product, order.resource, order.issuer, "up")
            called_w[key] = called_w.get(key, 0.0) + (order.power_w or 0.0)
    for sold in snapshot.sold or ():
        if sold.direction not in directions or sold.is_over(snapshot.at):
            continue
        key, power_w = (sold.product, sold.resource, sold.issuer, sold.direction), sold.power_w
        if sold.interval.contains(snapshot.at):
            filled_w = min(called_w.get(key, 0.0), power_w)
            called_w[key], power_w = called_w.get(key, 0.0) - filled_w, power_w - filled_w
        start, end = max(sold.interval.start, snapshot.at), sold.interval.end or snapshot.at + AHEAD
        if power_w > 0.0:
            yield _Ready(sold.resource, power_w, start, end, sustained_s(sold, start))


def _places(ready: Sequence[_Ready], plant: Plant) -> list[Bools]:
    """Return the assets (n,) of each resource of which something is kept ready, and of the whole plant, the largest last."""
    whole = np.ones(len(plant.asset_ids), dtype=np.bool_)
    inner = [_inside(resource, plant) for resource in sorted({r.resource for r in ready} - {plant.nodes[0]})]
    return [*sorted(inner, key=lambda inside: int(inside.sum())), whole]


def _inside(resource: str, plant: Plant) -> Bools:
    """Return the assets of a resource, (n,): none, when it is no longer configured."""
    if resource in plant.nodes or resource in plant.asset_ids:
        return members(resource, plant)
    return np.zeros(len(plant.asset_ids), dtype=np.bool_)


def _within(resources: Set[str], inside: Bools, plant: Plant) -> Set[str]:
    """Return the resources that are a part of those assets; of the whole plant all are."""
    if inside.all():
        return resources
    masks = {resource: _inside(resource, plant) for resource in resources}
    return {resource for resource, mine in masks.items() if mine.any() and not (mine & ~inside).any()}


def _means(
    snapshot: Snapshot, image: Image, plant: Plant, demands: Sequence[Demand], inside: Bools, spare_wh: float
) -> _Means:
    """Return what stands behind what is sold of those assets; orders of now are carried by others as far as those can."""
    storage = is_storage(plant) & image.usable & inside
    all_shed_w, shed_w = _shed_w(snapshot, image, plant, True), _shed_w(snapshot, image, plant, inside)
    within = _within({d.order.resource for d in demands}, inside, plant)
    own_w = _asked_w([d for d in demands if d.order.resource in within], image)
    asked_w = max(_asked_w(demands, image) - (all_shed_w - shed_w), own_w)
    return _Means(shed_w, asked_w, _charge_w(storage, plant), _free_from(snapshot.at, demands), spare_wh)


def _asked_w(demands: Sequence[Demand], image: Image) -> float:
    """Return what orders of now want less than would be drawn: reductions that were sold add up, others are bounds. [W, >= 0]"""
    sold_w = other_w = 0.0
    for d in demands:
        if d.order.product and d.order.kind in (OrderKind.REDUCE, OrderKind.INCREASE):
            sold_w += (d.order.power_w or 0.0) * (1.0 if d.order.kind is OrderKind.REDUCE else -1.0)
        elif d.node >= 0 and np.isfinite(d.steady_upper_w):
            other_w = max(other_w, float(image.baseline_w[d.node]) - d.steady_upper_w)
    return max(sold_w, other_w, 0.0)


def _free_from(at: datetime, demands: Sequence[Demand]) -> datetime:
    """Return when the orders of now are over and storage may be charged."""
    return max([at, *(d.order.interval.end for d in demands if d.order.interval.end is not None)])


def _need_wh(later: Sequence[Order], ready: Sequence[_Ready], means: _Means) -> float:
    """Return the energy that must be left when the orders of now end; no more than what is spare now comes back. [Wh]

    What is sold to be delivered uses energy up; what is kept ready needs it to be there, at every moment of its interval.
    """
    need_wh = most_wh = 0.0
    free_from = means.free_from
    until = _charged_by(later, means)
    ready = [r for r in ready if r.start < until]
    for start, end, power_w, called in _spans(later, ready):
        idle_h = max((start - free_from).total_seconds(), 0.0) / 3600.0
        need_wh = max(need_wh - idle_h * means.charge_w, -means.spare_wh)
        busy_w = power_w + (means.asked_w if start < means.free_from else 0.0)
        most_wh = max(most_wh, need_wh + _standing_wh(called, start, max(means.shed_w - busy_w, 0.0)))
        free_from = max(free_from, start)
        if power_w > 0.0:
            need_wh += max(power_w - means.shed_w, 0.0) * (end - start).total_seconds() / 3600.0
            most_wh = max(most_wh, need_wh)
            free_from = max(free_from, end)
    return most_wh


def _charged_by(later: Sequence[Order], means: _Means) -> datetime:
    """Return by when all that orders take can be charged again: what is kept ready from then on needs nothing to be left now."""
    busy_until = max([means.free_from, *(o.interval.end for o in later if o.interval.end is not None)])
    return busy_until + timedelta(hours=min(means.spare_wh / max(means.charge_w, 1e-9), AHEAD / timedelta(hours=1)))


def _standing_wh(ready: Sequence[_Ready], at: datetime, shed_w: float) -> float:
    """Return the energy that must be stored for all that is ready at a moment to be called, beside what is shed of it. [Wh]"""
    calls = sorted(((min(r.sustain_s, (r.end - at).total_seconds()), r.power_w) for r in ready), reverse=True)
    found_ws = power_w = 0.0
    for (lasts_s, called_w), (shorter_s, _) in pairwise([*calls, (0.0, 0.0)]):
        power_w += called_w
        found_ws += max(power_w - shed_w, 0.0) * (lasts_s - shorter_s)
    return found_ws / 3600.0


def _spans(
    later: Sequence[Order], ready: Sequence[_Ready]
) -> Iterator[tuple[datetime, datetime, float, Sequence[_Ready]]]:
    """Yield the spans between the edges of orders and awards, with the orders' power [W] and what is ready; not the empty ones."""
    edges = {*(order.interval.start for order in later), *(o.interval.end for o in later if o.interval.end is not None)}
    for r in ready:  # the last moment at which all of it may still be called is an edge, too
        edges |= {r.start, r.end, max(r.end - timedelta(seconds=r.sustain_s), r.start)}
    ordered = sorted(edges)
    power_w, called = [0.0] * len(ordered), [list[_Ready]() for _ in ordered]
    for order in later:
        for k in _between(ordered, order.interval.start, order.interval.end):
            power_w[k] += order.power_w or 0.0
    for r in ready:
        for k in _between(ordered, r.start, r.end):
            called[k].append(r)
    for k, (start, end) in enumerate(pairwise(ordered)):
        if power_w[k] > 0.0 or called[k]:
            yield start, end, power_w[k], called[k]


def _between(edges: Sequence[datetime], start: datetime, end: datetime | None) -> range:
    """Return the places of the edges from ``start`` on and before ``end``."""
    return range(bisect_left(edges, start), len(edges) if end is None else bisect_left(edges, end))


def _shed_w(snapshot: Snapshot, image: Image, plant: Plant, inside: Bools | bool) -> float:
    """Return what clusters could shed now, all together. [W]"""
    slow = image.usable & ~plant.fast & (image.available_w > 0.0) & inside
    shed_w = np.minimum(snapshot.readings.tier_shed_w[:, 1:].sum(axis=1), np.maximum(image.available_w, 0.0))
    return float(np.where(slow, shed_w, 0.0).sum())


def _charge_w(storage: Bools, plant: Plant) -> float:
    """Return the power at which storage refills, as it counts at the terminals when it is given back. [W]"""
    return float(np.where(storage, plant.rated_upper_w * plant.efficiency_frac**2, 0.0).sum())


def _hours(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds() / 3600.0
