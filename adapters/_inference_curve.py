"""How a latency grows with the load of a replica, learnt while serving. Pure.

A server with continuous batching takes longer for each step the more requests run in it: with d tokens per second asked of
a replica, one step takes L = L0 / (1 - d / D), so that its speed 1 / L falls in a straight line towards zero at the
greatest throughput D. (Time per step is linear in the batch: ML.ENERGY leaderboard v3; the rest is Little's law.) That line is
what is fitted, through averages in bins of load, and always taken for steeper than it looks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

BIN_FRAC = 0.1
"""Width of a bin of load."""
MOST_WEIGHT = 20
"""A bin forgets what is older than about so many looks with that load."""
LEAST_SPAN_FRAC = 1.25
"""Loads that differ less than this tell nothing about the slope."""
LEAST_BINS = 3
PRIOR_USE_FRAC = 0.6
"""Nothing learnt: the load now counts as this part of what a replica can do at most."""
LEAST_USE_FRAC = 0.25
"""However flat it looks: the load now is at least this part of it."""
STEEPER_FRAC = 1.25
"""The slope is taken for so many times what was measured."""
REACH_FRAC = 2.0
"""No word about loads beyond this many times the greatest one seen."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Averages over the looks with about the same load."""

    load_per_s: float
    """Tokens per second and replica."""
    speed_per_s: float
    """One over the latency."""
    weight: int


@dataclass(frozen=True, slots=True)
class Curve:
    """What is known of one latency of one service."""

    bins: Mapping[int, Bin] = field(default_factory=dict)

    @property
    def most_per_s(self) -> float:
        """Return the greatest load seen. [tokens/s per replica]"""
        return max((one.load_per_s for one in self.bins.values()), default=0.0)

    def proven_per_s(self, latency_s: float) -> float:
        """Return the greatest load up to which no load seen went with a greater latency than this. [tokens/s per replica]"""
        best_per_s = 0.0
        for _, one in sorted(self.bins.items()):
            if one.speed_per_s * latency_s < 1.0:
                break
            best_per_s = one.load_per_s
        return best_per_s


def learnt(curve: Curve, load_per_s: float, latency_s: float) -> Curve:
    """Return the curve with one look more: this load [tokens/s per replica] went with this latency [s]."""
    if load_per_s <= 0.0 or latency_s <= 0.0 or math.isinf(latency_s):
        return curve
    index = math.floor(math.log(load_per_s) / math.log1p(BIN_FRAC))
    old = curve.bins.get(index, Bin(load_per_s, 1.0 / latency_s, 0))
    weight = min(old.weight + 1, MOST_WEIGHT)
    new = Bin(
        old.load_per_s + (load_per_s - old.load_per_s) / weight,
        old.speed_per_s + (1.0 / latency_s - old.speed_per_s) / weight,
        weight,
    )
    return replace(curve, bins={**curve.bins, index: new})


def expected_s(curve: Curve, load_per_s: float, latency_s: float, then_per_s: float) -> float:
    """Return the latency at another load, from what it is now: infinite where that load is too much or unheard of. [s]

    Raising ``then_per_s`` never lowers the answer.
    """
    if then_per_s > REACH_FRAC * max(curve.most_per_s, load_per_s):
        return math.inf
    speed_per_s = 1.0 / latency_s
    if math.isinf(latency_s) or load_per_s <= 0.0:
        return latency_s
    speed_per_s += _slope(curve, load_per_s, speed_per_s, is_more=then_per_s > load_per_s) * (then_per_s - load_per_s)
    return 1.0 / speed_per_s if speed_per_s > 0.0 else math.inf


def _slope(curve: Curve, load_per_s: float, speed_per_s: float, *, is_more: bool) -> float:
    """Return by how much the speed changes with each token per second more, never above 0, cautious for either way."""
    own = speed_per_s / load_per_s
    loads = [one.load_per_s for one in curve.bins.values()]
    if len(loads) < LEAST_BINS or max(loads) < LEAST_SPAN_FRAC * min(loads):
        return -own * (PRIOR_USE_FRAC if is_more else LEAST_USE_FRAC)
    weights = [one.weight for one in curve.bins.values()]
    speeds = [one.speed_per_s for one in curve.bins.values()]
    total = sum(weights)
    middle_per_s = sum(w * x for w, x in zip(weights, loads, strict=True)) / total
    spread = sum(w * (x - middle_per_s) ** 2 for w, x in zip(weights, loads, strict=True))
    fitted = sum(w * (x - middle_per_s) * y for w, x, y in zip(weights, loads, speeds, strict=True)) / spread
    if is_more:
        return min(STEEPER_FRAC * fitted, -LEAST_USE_FRAC * own)
    return min(fitted / STEEPER_FRAC, 0.0)
