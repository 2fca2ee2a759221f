"""Energy that storage keeps for reductions that were sold for later: what slow assets can give now, they give instead. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np

from vppd.core.aggregate import Image, is_storage
from vppd.core.failsafe import SOC_MARGIN_FRAC
from vppd.core.state import Demand
from vppd.model import Order, OrderKind
from vppd.snapshot import Bools, Floats, Plant, Snapshot

AHEAD = timedelta(hours=24)
"""What is sold for a later time than this does not count yet."""


def promised_wh(snapshot: Snapshot, image: Image, plant: Plant, demands: Sequence[Demand]) -> Floats:
    """Return what each storage keeps of its energy, at its terminals, for sold reductions that have not begun, (n,). [Wh]

    What clusters could shed of them now is taken off, and what can be charged between them; storage shares the rest by what it
    has. It bounds the steady split alone: an order of now that nothing else can carry is carried by storage all the same.
    """
    none: Floats = np.zeros(len(plant.asset_ids))
    later = sorted((o for o in snapshot.orders if _is_later(o, snapshot.at)), key=lambda o: o.interval.start)
    if not later:
        return none
    storage = is_storage(plant) & image.usable
    spare_frac = np.nan_to_num(np.maximum(image.soc_frac - plant.reserve_frac - SOC_MARGIN_FRAC, 0.0))
    spare_wh = np.where(storage, spare_frac * np.nan_to_num(plant.capacity_wh) * plant.efficiency_frac, 0.0)
    total_wh = float(spare_wh.sum())
    if total_wh <= 0.0:
        return none
    shed_w, charge_w = _shed_w(snapshot, image, plant), _charge_w(storage, plant)
    need_wh = _need_wh(later, _free_from(snapshot.at, demands), shed_w, charge_w, total_wh)
    return np.asarray(spare_wh * min(need_wh / total_wh, 1.0))


def _is_later(order: Order, at: datetime) -> bool:
    is_sold = order.kind is OrderKind.REDUCE and bool(order.product) and order.interval.end is not None
    return is_sold and at < order.interval.start <= at + AHEAD


def _free_from(at: datetime, demands: Sequence[Demand]) -> datetime:
    """Return when the orders of now are over and storage may be charged."""
    return max([at, *(d.order.interval.end for d in demands if d.order.interval.end is not None)])


def _need_wh(later: Sequence[Order], free_from: datetime, shed_w: float, charge_w: float, spare_wh: float) -> float:
    """Return the energy that must be left when the orders of now end; no more than what is spare now comes back. [Wh]"""
    need_wh = most_wh = 0.0
    for start, end, power_w in _spans(later):
        idle_h = max((start - free_from).total_seconds(), 0.0) / 3600.0
        need_wh = max(need_wh - idle_h * charge_w, -spare_wh)
        need_wh += max(power_w - shed_w, 0.0) * (end - start).total_seconds() / 3600.0
        most_wh = max(most_wh, need_wh)
        free_from = max(free_from, end)
    return most_wh


def _spans(later: Sequence[Order]) -> list[tuple[datetime, datetime, float]]:
    """Return the spans between the edges of the orders, with the power of those that run in them. [W]"""
    ends = [order.interval.end for order in later if order.interval.end is not None]
    edges = sorted({*(order.interval.start for order in later), *ends})
    found = []
    for start, end in pairwise(edges):
        power_w = sum(order.power_w or 0.0 for order in later if order.interval.contains(start))
        if power_w > 0.0:
            found.append((start, end, power_w))
    return found


def _shed_w(snapshot: Snapshot, image: Image, plant: Plant) -> float:
    """Return what clusters could shed now, all together. [W]"""
    slow = image.usable & ~plant.fast & (image.available_w > 0.0)
    shed_w = np.minimum(snapshot.readings.tier_shed_w[:, 1:].sum(axis=1), np.maximum(image.available_w, 0.0))
    return float(np.where(slow, shed_w, 0.0).sum())


def _charge_w(storage: Bools, plant: Plant) -> float:
    """Return the power at which storage refills, as it counts at the terminals when it is given back. [W]"""
    return float(np.where(storage, plant.rated_upper_w * plant.efficiency_frac**2, 0.0).sum())
