"""Whether a season sells more than there is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import numpy as np

from vppd.core.bidding.bid import Bid
from vppd.core.bidding.offering import Stock
from vppd.model import Obligation
from vppd.planning.trade.shelf import Steps

WAYS = {"up": ("up", "symmetric"), "down": ("down", "symmetric")}
"""Directions of what is sold that need power of each direction."""


def sold_twice(bids: Sequence[Bid], sold: Sequence[Obligation], stocks: Sequence[Stock], steps: Steps) -> list[str]:
    """Return where more is sold one way in a step than all stocks together give that way in half of all samples."""
    found = []
    for way, directions in WAYS.items():
        there_w = _there_w([stock for stock in stocks if stock.direction == way], steps.count)
        for step in range(steps.count):
            at = steps.start + timedelta(seconds=step * steps.step_s)
            before_w, new_w = _sum_w(sold, directions, at), _sum_w(bids, directions, at)
            if new_w > 0.0 and before_w + new_w > there_w[step] + 1.0:
                found.append(f"{at} {way}: {before_w:.0f} + {new_w:.0f} W of {there_w[step]:.0f} W")
    return found


def _there_w(stocks: Sequence[Stock], count: int) -> list[float]:
    rows = max((len(stock.paths_w) for stock in stocks), default=0)
    paths_w = sum((np.broadcast_to(s.paths_w, (rows, count)) for s in stocks), np.zeros((rows, count)))
    known = [paths_w[np.isfinite(paths_w[:, step]), step] for step in range(count)]
    return [float(np.quantile(column, 0.5)) if len(column) else 0.0 for column in known]


def _sum_w(sold: Iterable[Bid | Obligation], directions: Sequence[str], at: datetime) -> float:
    return sum(one.power_w for one in sold if one.direction in directions and one.interval.contains(at))
