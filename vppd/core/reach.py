"""Which powers a tree of limits can really have when some assets cannot run everywhere, and how to get there.

Bottom-up, each node's attainable set is the sum of its assets' and children's sets, cut to its limits; where nothing is
left, the attainable point nearest to the limits. Top-down, each node's power is split into points of those sets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isqrt

import numpy as np

from vppd.core.allocate import Allocation, Curves, levels, ranges, rounding, sum_by, sum_up
from vppd.core.intervals import Intervals, interval, overlap, thinned, total
from vppd.core.pieces import Pieces
from vppd.snapshot import Bools, Floats, Ints

MOST_INTERVALS = 4096
"""Sums are exact up to this many separate intervals at a node; beyond, only so many of them are followed."""
_MOST_SUMS = 1 << 14
"""Two sets are thinned before they are added up when they would give more intervals than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Powers that meet all limits as well as they can be met, and the limits moved to what can be met."""

    power_w: Floats
    """(g,) of the assets with bands, each in one of its pieces. [W]"""
    lower_w: Floats
    """(m,) node limits, lowered where out of reach. [W]"""
    upper_w: Floats
    """(m,) node limits, raised where out of reach. [W]"""


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One summand of a node: a child or an asset in play."""

    index: int
    is_child: bool
    wish_w: float
    points: Intervals


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    """A busy node, one with an asset in play below: its summands and its attainable sets."""

    parts: list[_Part]
    before: list[Intervals]
    """What can be had without the part at the same place and all later ones."""
    points: Intervals
    noise_w: float


def plan(
    parent: Ints,
    node_lower_w: Floats,
    node_upper_w: Floats,
    curves: Curves,
    pieces: Pieces,
    play: Ints,
    wish: Allocation,
) -> Plan:
    """Return powers near ``wish`` that meet all limits if any choice of pieces does. [W]

    ``play`` names the places in ``pieces`` that may move, those that should move least last; the other assets stay
    within ``curves``. Limits out of reach are met as nearly as possible, children before parents.
    """
    tree = levels(parent)
    moving, still = pieces.asset[play], np.ones(len(curves.node), dtype=np.bool_)
    still[moving] = False
    rest = Curves(curves.node[still], curves.lower_w[still], curves.width_w[still], curves.cost_per_wh[still])
    busy = sum_up(parent, tree, sum_by(curves.node[moving], np.ones(len(moving)), len(parent))) > 0
    _, _, start_w, top_w = ranges(parent, tree, node_lower_w, node_upper_w, rest)
    base_lower_w, base_upper_w = _base(parent, rest, ~busy, start_w, top_w)
    noise_w = rounding(parent, tree, pieces.windowed(curves, *pieces.hull())) / 10
    parts: dict[int, list[_Part]] = {int(v): [] for v in np.flatnonzero(busy)}
    for g, asset in zip(play.tolist(), moving.tolist(), strict=True):
        parts[int(curves.node[asset])].append(_Part(g, False, float(wish.power_w[asset]), pieces.of(g)))
    nodes: dict[int, _Node] = {}
    for v in sorted(parts, reverse=True):
        start = interval(float(base_lower_w[v]), float(base_upper_w[v]))
        before = _sums(start, parts[v], float(wish.node_power_w[v]), float(noise_w[v]))
        points = _within(before[-1], float(node_lower_w[v]), float(node_upper_w[v]), float(noise_w[v]))
        nodes[v] = _Node(parts[v], before, points, float(noise_w[v]))
        start_w[v], top_w[v] = points.lower_w[0], points.upper_w[-1]
        if parent[v] >= 0:
            wish_w = points.nearest(float(wish.node_power_w[v]))
            parts[int(parent[v])].insert(0, _Part(v, True, wish_w, points))
    lower_w, upper_w = np.minimum(np.minimum(node_lower_w, node_upper_w), top_w), np.maximum(node_upper_w, start_w)
    return Plan(_split(nodes, parent, wish, len(pieces.asset)), lower_w, upper_w)


def _base(parent: Ints, rest: Curves, calm: Bools, start_w: Floats, top_w: Floats) -> tuple[Floats, Floats]:
    """Return for every node the range of what is not in play: its own assets and its calm children. [W]"""
    m, inner = len(parent), np.flatnonzero(calm & (parent >= 0))
    most_w = rest.lower_w + rest.width_w.sum(axis=1)
    return (
        sum_by(rest.node, rest.lower_w, m) + sum_by(parent[inner], start_w[inner], m),
        sum_by(rest.node, most_w, m) + sum_by(parent[inner], top_w[inner], m),
    )


def _sums(start: Intervals, parts: list[_Part], wish_w: float, noise_w: float) -> list[Intervals]:
    """Return what can be had of ``start`` and the first 0, 1, ... all parts. [W]"""
    around_w = wish_w - sum(part.wish_w for part in parts)
    sums = [start]
    for part in parts:
        a, b = sums[-1], part.points
        if len(a) * len(b) > _MOST_SUMS:
            a = thinned(a, max(isqrt(_MOST_SUMS), _MOST_SUMS // len(b)), around_w)
            b = thinned(b, _MOST_SUMS // len(a), part.wish_w)
        around_w += part.wish_w
        sums.append(thinned(total(a, b, noise_w), MOST_INTERVALS, around_w))
    return sums


def _within(points: Intervals, lower_w: float, upper_w: float, noise_w: float) -> Intervals:
    """Return the points between the limits, or the one nearest to them."""
    lower_w = min(lower_w, upper_w)
    found = overlap(points, interval(lower_w, upper_w), noise_w)
    if found is not None:
        return found
    missed_w = np.maximum(lower_w - points.upper_w, points.lower_w - upper_w)
    k = int(np.argmax(missed_w <= missed_w.min() + noise_w))
    nearest_w = float(points.upper_w[k] if points.upper_w[k] < lower_w else points.lower_w[k])
    return interval(nearest_w, nearest_w)


def _split(nodes: dict[int, _Node], parent: Ints, wish: Allocation, size: int) -> Floats:
    """Return the power of each asset in play, NaN for others, from the roots down. [W]"""
    power_w = np.full(size, np.nan)
    given_w = {v: node.points.nearest(float(wish.node_power_w[v])) for v, node in nodes.items() if parent[v] < 0}
    for v in sorted(nodes):
        for part, part_w in _shares(nodes[v], given_w[v]):
            if part.is_child:
                given_w[part.index] = part_w
            else:
                power_w[part.index] = part_w
    return power_w


def _shares(node: _Node, power_w: float) -> Iterable[tuple[_Part, float]]:
    """Yield each part with its power, the last first: a later part gets its wish before an earlier one. [W]"""
    for part, before in zip(reversed(node.parts), reversed(node.before[:-1]), strict=True):
        found = overlap(part.points, before.mirrored().shifted(power_w), 2 * node.noise_w)
        part_w = (found or part.points).nearest(part.wish_w)
        yield part, part_w
        power_w = before.nearest(power_w - part_w)
