"""Which orders bear on one asset, and for how long. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from vppd.core.state import Demand
from vppd.snapshot import Plant


def bearing(asset: int, demands: Sequence[Demand], plant: Plant) -> tuple[Demand, ...]:
    """Return the demands on the asset itself and on the nodes it hangs on, the most important first."""
    above, node = set(), int(plant.node[asset])
    while node >= 0:
        above.add(node)
        node = int(plant.parent[node])
    found = [d for d in demands if d.asset == asset or d.node in above]
    return tuple(sorted(found, key=lambda d: -d.order.priority))


def left_s(demands: Sequence[Demand], at: datetime) -> float:
    """Return how long the last of these demands goes on, inf when it has no end, 0 without any. [s]"""
    ends = [d.order.interval.end for d in demands]
    return max((math.inf if end is None else max((end - at).total_seconds(), 0.0) for end in ends), default=0.0)
