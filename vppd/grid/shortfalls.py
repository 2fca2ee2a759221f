"""Orders that are in force and cannot be delivered as they stand: told when it begins, when it changes, and when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from vppd.core.settle import WINDOW_S
from vppd.core.state import Decision, Demand
from vppd.model import Order, OrderKind
from vppd.snapshot import Snapshot

WORTH_FRAC = 0.02
"""A shortfall below this part of the ordered power is none, nor is a change of one. [0-1]"""


@dataclass(frozen=True, slots=True)
class Short:
    """What cannot be delivered of one order."""

    order: Order
    missing_w: float
    """0: it can be delivered again. [W, >= 0]"""


@dataclass(frozen=True, slots=True)
class _Track:
    told_w: float
    other_s: float
    """Since when it has been another than was told, inf while it is not. [s]"""
    lower_w: float = -np.inf
    """The lower bound in force in the last cycle. [W]"""


class Shortfalls:
    """Remembers what has been told of each order; what does not last is not told."""

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}

    def news(self, decision: Decision, snapshot: Snapshot) -> Iterator[Short]:
        """Yield what is to be told after this cycle."""
        tracks = {}
        for demand in decision.demands:
            order, lower_w = demand.order, _lower_w(demand, decision)
            track = self._tracks.get(order.order_id, _Track(0.0, np.inf))
            worth_w = WORTH_FRAC * (order.power_w or 0.0)
            missing_w = _missing_w(demand, decision, lower_w, rising=lower_w > track.lower_w)
            missing_w = missing_w if missing_w > worth_w else 0.0
            differs = abs(missing_w - track.told_w) > worth_w
            other_s = min(track.other_s, snapshot.mono_s) if differs else np.inf
            track = replace(track, other_s=other_s, lower_w=lower_w)
            if snapshot.mono_s - other_s >= WINDOW_S:
                track = _Track(missing_w, np.inf, lower_w)
                yield Short(order, missing_w)
            tracks[order.order_id] = track
        self._tracks = tracks


def _lower_w(demand: Demand, decision: Decision) -> float:
    """Return the lower bound in force on what the order is about, -inf for none. [W]"""
    named_w = decision.state.named_lower_w
    if demand.asset >= 0:
        return -np.inf if named_w is None else float(named_w[demand.asset])
    return float(decision.state.lower_w[demand.node])


def _missing_w(demand: Demand, decision: Decision, lower_w: float, *, rising: bool) -> float:
    """Return what the setpoints of now leave undelivered, as far as the ramp has got. [W]"""
    node, asset = demand.node, demand.asset
    if demand.order.kind is OrderKind.INCREASE:
        drawn_w = float(np.nan_to_num(decision.state.power_w[asset]) if asset >= 0 else decision.node_planned_w[node])
        # A bound that rises is on its way; one that a limit holds down is not.
        return max((min(lower_w, demand.lower_w) if rising else demand.lower_w) - drawn_w, 0.0)
    if asset >= 0:
        return 0.0
    both = demand.order.kind in (OrderKind.SETPOINT, OrderKind.REGULATION)
    shortfall_w = float(decision.shortfall_w[node])
    return abs(shortfall_w) if both else max(shortfall_w, 0.0)
