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


class Shortfalls:
    """Remembers what has been told of each order; what does not last is not told."""

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}

    def news(self, decision: Decision, snapshot: Snapshot) -> Iterator[Short]:
        """Yield what is to be told after this cycle."""
        tracks = {}
        for demand in decision.demands:
            order, missing_w = demand.order, _missing_w(demand, decision, snapshot)
            worth_w = WORTH_FRAC * (order.power_w or 0.0)
            missing_w = missing_w if missing_w > worth_w else 0.0
            track = self._tracks.get(order.order_id, _Track(0.0, np.inf))
            differs = abs(missing_w - track.told_w) > worth_w
            track = replace(track, other_s=min(track.other_s, snapshot.mono_s) if differs else np.inf)
            if snapshot.mono_s - track.other_s >= WINDOW_S:
                track = _Track(missing_w, np.inf)
                yield Short(order, missing_w)
            tracks[order.order_id] = track
        self._tracks = tracks


def _missing_w(demand: Demand, decision: Decision, snapshot: Snapshot) -> float:
    """Return what the setpoints of now leave undelivered, as far as the ramp has got. [W]"""
    if demand.order.kind is OrderKind.INCREASE:
        return _missing_above_w(demand, decision, snapshot)
    if demand.asset >= 0:
        return 0.0
    shortfall_w = float(decision.shortfall_w[demand.node])
    both = demand.order.kind in (OrderKind.SETPOINT, OrderKind.REGULATION)
    return abs(shortfall_w) if both else max(shortfall_w, 0.0)


def _missing_above_w(demand: Demand, decision: Decision, snapshot: Snapshot) -> float:
    """Return the same of an increase, what limits take away from it included. [W]"""
    known, lower_w = decision.state.progress[demand.order.order_id], decision.state.named_lower_w
    ramp_w = known.start_w + demand.rate_w_per_s * (snapshot.at - known.since).total_seconds()
    if demand.asset < 0:
        ramped_w, drawn_w = float(decision.state.lower_w[demand.node]), float(decision.node_planned_w[demand.node])
    else:
        ramped_w = -np.inf if lower_w is None else float(lower_w[demand.asset])
        drawn_w = float(np.nan_to_num(decision.state.power_w[demand.asset]))
    return max(min(demand.lower_w, max(ramped_w, ramp_w)) - drawn_w, 0.0)
