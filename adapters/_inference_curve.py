"""How a latency grows with the load of a replica, learnt while serving. Pure.

A server with continuous batching takes longer for each step the more requests run in it: with d tokens per second asked of
a replica, one step takes L = L0 / (1 - d / D), so that its speed 1 / L falls in a straight line towards zero at the
greatest throughput D. (Time per step is linear in the batch: ML.ENERGY leaderboard v3; the rest is Little's law.) The slope of
that line is what is learnt: a guess to begin with, and what was measured by as much as it is worth (Bayesian regression).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

BIN_FRAC = 0.05
"""Width of a bin of load."""
MOST_WEIGHT = 5.0
"""A bin forgets what is older than about so many windows with that load."""
GUESS_FRAC, DOUBT_FRAC = 0.5, 0.25
"""Before anything is learnt the load now is taken for half of the most that a replica can do, give or take."""
NOISE_FRAC = 0.05
"""Standard deviation of a percentile over one window."""
LEAST_USE_FRAC = 0.1
"""However flat the line looks, the load now is at least this part of the most."""
REACH_FRAC = 2.0
"""No word about loads beyond this many times the greatest one seen."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Averages over the looks with about the same load."""

    load_per_s: float
    """Tokens per second and replica."""
    speed_per_s: float
    """One over the latency."""
    weight: float
    """In independent windows."""
    seen_s: float
    """When it was last added to."""


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

    def felt_s(self, load_per_s: float) -> float:
        """Return the greatest latency seen at loads up to this one, 0 where none was seen. [s]"""
        return max((1.0 / one.speed_per_s for one in self.bins.values() if one.load_per_s <= load_per_s), default=0.0)

    def since(self, begin_s: float) -> Curve:
        """Return the curve without loads that were last seen before then: models and users change."""
        return replace(self, bins={index: one for index, one in self.bins.items() if one.seen_s >= begin_s})


def learnt(curve: Curve, at_s: float, load_per_s: float, latency_s: float, weight: float) -> Curve:
    """Return the curve with one look more: this load [tokens/s per replica] went with this latency [s].

    ``weight`` is the part of a window that is new since the look before.
    """
    if load_per_s <= 0.0 or latency_s <= 0.0 or math.isinf(latency_s):
        return curve
    index = math.floor(math.log(load_per_s) / math.log1p(BIN_FRAC))
    old = curve.bins.get(index, Bin(load_per_s, 1.0 / latency_s, 0.0, at_s))
    total = min(old.weight + weight, MOST_WEIGHT)
    new = Bin(
        old.load_per_s + (load_per_s - old.load_per_s) * weight / total,
        old.speed_per_s + (1.0 / latency_s - old.speed_per_s) * weight / total,
        total,
        at_s,
    )
    return replace(curve, bins={**curve.bins, index: new})


def expected_s(curve: Curve, load_per_s: float, latency_s: float, then_per_s: float) -> float:
    """Return the latency at another load, from what it is now: infinite where that load is too much or unheard of. [s]

    Raising ``then_per_s`` never lowers the answer. Either way it is a cautious one: one standard deviation off the slope that
    is likely, and more for a step that is large.
    """
    if then_per_s > REACH_FRAC * max(curve.most_per_s, load_per_s):
        return math.inf
    if math.isinf(latency_s) or load_per_s <= 0.0:
        return latency_s
    slope, doubt = _slope(curve, load_per_s, 1.0 / latency_s)
    factor = then_per_s / load_per_s
    slope = min(slope - doubt * factor * factor, -LEAST_USE_FRAC) if factor > 1.0 else min(slope + doubt, 0.0)
    left = 1.0 + slope * (factor - 1.0)
    guess_s = latency_s / left if left > 0.0 else math.inf
    return max(guess_s, curve.felt_s(then_per_s)) if factor > 1.0 else guess_s


def doubt_frac(curve: Curve, load_per_s: float, latency_s: float) -> float:
    """Return how little is known of the slope at a load, as a part of not knowing anything. [0-1]"""
    if load_per_s <= 0.0 or latency_s <= 0.0 or math.isinf(latency_s):
        return 1.0
    slope, doubt = _slope(curve, load_per_s, 1.0 / latency_s)
    return min(doubt / DOUBT_FRAC, doubt / max(-slope, doubt) * GUESS_FRAC / DOUBT_FRAC)


def _slope(curve: Curve, load_per_s: float, speed_per_s: float) -> tuple[float, float]:
    """Return how the speed changes with the load, both as parts of what they are now, and how sure that is."""
    sure = 1.0 / DOUBT_FRAC**2
    total = sum(one.weight for one in curve.bins.values())
    if total <= 0.0:
        return -GUESS_FRAC, DOUBT_FRAC
    points = [(one.load_per_s / load_per_s, one.speed_per_s / speed_per_s, one.weight) for one in curve.bins.values()]
    middle = sum(w * x for x, _, w in points) / total
    spread = sum(w * (x - middle) ** 2 for x, _, w in points) / NOISE_FRAC**2
    along = sum(w * (x - middle) * y for x, y, w in points) / NOISE_FRAC**2
    return (along - GUESS_FRAC * sure) / (spread + sure), (spread + sure) ** -0.5
