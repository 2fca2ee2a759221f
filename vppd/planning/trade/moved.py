"""What orders that were sold have moved at the meters, shared out once: no watt is credited to two of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from vppd.core.aggregate import Image
from vppd.core.headroom import LONGEST_S
from vppd.core.state import Decision, Demand, Phase
from vppd.model import Order, OrderKind
from vppd.snapshot import Floats, Plant

_ABOUT_THE_BASELINE = (OrderKind.REDUCE, OrderKind.INCREASE, OrderKind.REGULATION)


@dataclass(frozen=True, slots=True)
class Move:
    """What a running order of a product asks for now, and its part of what its meter shows; + = more consumption."""

    order: Order
    place: int
    asked_w: float
    done_w: float
    """Between 0 and ``asked_w``. [W]"""
    left_s: float
    """For so long the order lasts. [s]"""


def place_of(resource: str, plant: Plant) -> int | None:
    """Return where a resource stands: nodes by their index, assets after the nodes; None when it is not configured."""
    if resource in plant.nodes:
        return plant.nodes.index(resource)
    return len(plant.nodes) + plant.asset_ids.index(resource) if resource in plant.asset_ids else None


def path_of(place: int, plant: Plant) -> tuple[int, ...]:
    """Return a place and the nodes above it, the root last."""
    found = [place]
    while (above := _above(found[-1], plant)) >= 0:
        found.append(above)
    return tuple(found)


def moves(decision: Decision, image: Image, plant: Plant, at: datetime) -> tuple[Move, ...]:
    """Return what running orders of products have moved at ``at``, in the order of their receipt.

    A resource is judged at its own meter: what has been moved beneath it is taken off first, what is asked of it in the other
    direction at the same time counts as moved, and under shortfall the order that was received first has its part first.
    Orders that nobody bought, and those of a resource that has not been measured, are left out.
    """
    power_w = np.concatenate((image.node_power_w, image.power_w))
    asks = list(_asks(decision, len(plant.nodes), power_w))
    beneath_w = np.zeros(len(power_w))
    found: dict[str, Move] = {}
    for place in sorted({place for _, place, _ in asks}, key=lambda place: -len(path_of(place, plant))):
        here = [(demand, asked_w) for demand, at_place, asked_w in asks if at_place == place]
        moved_w = float(power_w[place] - beneath_w[place])
        for (demand, asked_w), done_w in zip(here, _shares(here, moved_w, decision), strict=True):
            found[demand.order.order_id] = Move(demand.order, place, asked_w, done_w, _left_s(demand.order, at))
            for node in path_of(place, plant):
                beneath_w[node] += done_w
    return tuple(found[demand.order.order_id] for demand, _, _ in asks)


def reference_w(moved: Sequence[Move], image: Image, plant: Plant) -> Floats:
    """Return the power of every node and then every asset less what orders have moved there, NaN for none. [W]"""
    found_w = np.concatenate((image.node_power_w, image.power_w))
    for move in moved:
        for place in path_of(move.place, plant):
            found_w[place] -= move.done_w
    return found_w


def _asks(decision: Decision, nodes: int, power_w: Floats) -> Iterator[tuple[Demand, int, float]]:
    """Yield the running orders of products with their place and what they ask for. [W, + = more consumption]"""
    for demand in decision.demands:
        order = demand.order
        progress = decision.state.progress.get(order.order_id)
        if not order.product or order.kind not in _ABOUT_THE_BASELINE:
            continue
        if progress is None or progress.phase is not Phase.ACTIVE:
            continue
        place = demand.node if demand.asset < 0 else nodes + demand.asset
        if np.isfinite(power_w[place]):
            yield demand, place, _asked_w(demand)


def _asked_w(demand: Demand) -> float:
    """Return how far an order wants its resource to be from what it would draw. [W, + = more consumption]"""
    if demand.order.kind is OrderKind.REGULATION:
        return demand.upper_w - demand.steady_upper_w  # what the signal makes of the capacity now
    power_w = demand.order.power_w or 0.0
    return power_w if demand.order.kind is OrderKind.INCREASE else -power_w


def _shares(here: Sequence[tuple[Demand, float]], power_w: float, decision: Decision) -> Iterator[float]:
    """Yield each order's part of what has been moved at one place, by the ``power_w`` left there by those beneath. [W]"""
    more_w = sum(max(asked_w, 0.0) for _, asked_w in here)
    less_w = sum(max(-asked_w, 0.0) for _, asked_w in here)
    taken_more_w = taken_less_w = 0.0
    for demand, asked_w in here:
        off_w = power_w - decision.state.progress[demand.order.order_id].baseline_w
        if asked_w > 0.0:
            done_w = min(max(off_w + less_w - taken_more_w, 0.0), asked_w)
            taken_more_w += done_w
            yield done_w
        else:
            done_w = min(max(more_w - off_w - taken_less_w, 0.0), -asked_w)
            taken_less_w += done_w
            yield -done_w


def _left_s(order: Order, at: datetime) -> float:
    end = order.interval.end
    return LONGEST_S if end is None else max((end - at).total_seconds(), 0.0)


def _above(place: int, plant: Plant) -> int:
    nodes = len(plant.nodes)
    return int(plant.parent[place]) if place < nodes else int(plant.node[place - nodes])
