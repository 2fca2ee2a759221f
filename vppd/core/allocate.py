"""Exact least-cost split of power over assets under a tree of limits.

The merged marginal-cost curve of a node is the list of its assets' segments in order of cost. Its lower limit makes the
cheapest part compulsory, its upper limit makes the dearest part impossible; the rest is offered to the parent. One pass
from the leaves to the roots therefore decides every segment: no iteration, no tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from vppd.snapshot import Bools, Floats, Ints

ROUNDING_FRAC = 1e-12
"""A shortfall below this part of the power that hangs under the node is rounding, not shortfall."""

_MOST_BINS = 256
"""Segments are binned by cost, so that only the bin in which a node's amount runs out has to be sorted."""
_CELLS = 256
"""Equal steps of cost per bin, from which the bins are put together."""


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Convex piecewise-linear cost of n assets in k segments each."""

    node: Ints
    """(n,) node each asset hangs on, leaf or not."""
    lower_w: Floats
    """(n,) least power. [W, + = consumption]"""
    width_w: Floats
    """(n, k) widths >= 0; the most power is the least plus their sum. [W]"""
    cost_per_wh: Floats
    """(n, k) marginal cost, non-decreasing along k; negative where more power is wanted. [1/Wh]"""


@dataclass(frozen=True, slots=True, eq=False)
class Allocation:
    """A split, and what it does not meet."""

    power_w: Floats
    """(n,) [W, + = consumption]"""
    node_power_w: Floats
    """(m,) sum of all assets below the node. [W]"""
    shortfall_w: Floats
    """(m,) signed: > 0 is above the node's upper limit by so much, < 0 is below its lower limit. [W]"""


@dataclass(frozen=True, slots=True, eq=False)
class _Segments:
    """The parts of curves that are still open, all non-empty; ``node`` climbs the tree level by level."""

    asset: NDArray[np.int32]
    node: NDArray[np.int32]
    bin: NDArray[np.uint8]
    """Rank of the cost, coarsely: a lower bin is a lower cost, and equal costs are in one bin."""
    bins: int
    cost_per_wh: Floats
    free_w: Floats

    def keep(self, index: Ints) -> _Segments:
        return _Segments(
            self.asset[index], self.node[index], self.bin[index], self.bins, self.cost_per_wh[index], self.free_w[index]
        )


def allocate(parent: Ints, node_lower_w: Floats, node_upper_w: Floats, curves: Curves) -> Allocation:
    """Return the cheapest powers with lower <= sum of the subtree <= upper at every node. [W]

    ``parent`` (m,): parent[i] < i, -1 for a root. Limits (m,) may be infinite; a target is lower == upper. Widths and
    least powers are finite.

    An asset's own range always holds. Where limits cannot all be met, nodes are served from the leaves to the roots:
    each takes the point of its attainable range - what its assets and its already served children leave - that is
    nearest to its limits, so a child's limit beats an ancestor's, and the violated node says by how much in
    ``shortfall_w``. Where a node's lower limit exceeds its upper, the upper one holds.

    Without limits an asset takes the power where its marginal cost crosses zero, the least one if the cost is zero
    there. Segments of equal cost that compete for the same limit share it in proportion to what each has left to offer.
    """
    tree = levels(parent)
    first_w, last_w, start_w, top_w = ranges(parent, tree, node_lower_w, node_upper_w, curves)
    segments = _open(curves, len(parent))
    power_w = curves.lower_w.astype(np.float64)
    for nodes in reversed(tree):
        cut = nodes[top_w[nodes] < last_w[nodes]]
        if len(cut):
            segments = _truncate(segments, _slots(cut, parent), top_w[cut] - first_w[cut])
        forced = nodes[start_w[nodes] > first_w[nodes]]
        if len(forced):
            least_w = np.where(start_w[forced] < top_w[forced], start_w[forced] - first_w[forced], np.inf)
            segments = _compel(segments, _slots(forced, parent), least_w, power_w)
        segments = _climb(segments, nodes, parent)
    wanted = segments.keep(np.flatnonzero(segments.cost_per_wh < 0))
    power_w += sum_by(wanted.asset, wanted.free_w, len(power_w))
    return settled(parent, node_lower_w, node_upper_w, curves, power_w)


def settled(parent: Ints, node_lower_w: Floats, node_upper_w: Floats, curves: Curves, power_w: Floats) -> Allocation:
    """Return the Allocation that these powers are, shortfalls below rounding counted as none."""
    tree, m = levels(parent), len(parent)
    node_power_w = sum_up(parent, tree, sum_by(curves.node, power_w, m))
    noise_w = rounding(parent, tree, curves)
    over_w, under_w = node_power_w - node_upper_w, node_lower_w - node_power_w
    shortfall_w = np.where(over_w > noise_w, over_w, np.where(under_w > noise_w, -under_w, 0.0))
    return Allocation(power_w, node_power_w, shortfall_w)


def rounding(parent: Ints, tree: list[Ints], curves: Curves) -> Floats:
    """Return for every node the power that is only rounding. [W]"""
    size_w = np.abs(curves.lower_w) + curves.width_w.sum(axis=1)
    return ROUNDING_FRAC * sum_up(parent, tree, sum_by(curves.node, size_w, len(parent)))


def cost_per_h(curves: Curves, power_w: Floats) -> float:
    """Return what the powers cost, counted from the least power. [1/h]"""
    before_w = np.cumsum(curves.width_w, axis=1) - curves.width_w
    filled_w = np.clip((power_w - curves.lower_w)[:, None] - before_w, 0.0, curves.width_w)
    return float(np.sum(filled_w * curves.cost_per_wh))


def sum_by(index: NDArray[np.integer], value_w: Floats, size: int) -> Floats:
    """Return the sums of the values with index 0, 1, ... size - 1. [W]"""
    return np.asarray(np.bincount(index, value_w, minlength=size), dtype=np.float64)


def levels(parent: Ints) -> list[Ints]:
    """Return the nodes of the tree by depth, roots first."""
    depth, above = np.zeros(len(parent), dtype=np.int64), parent
    while (inner := above >= 0).any():
        depth += inner
        above = np.where(inner, parent[above], -1)
    order = np.argsort(depth, kind="stable")
    return np.split(order, np.cumsum(np.bincount(depth))[:-1])


def ranges(
    parent: Ints, tree: list[Ints], node_lower_w: Floats, node_upper_w: Floats, curves: Curves
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return each node's least and most power before its own limits, and the same with them. [W]

    Before its own limits a node has what its assets can do and what its children are left with.
    """
    m = len(parent)
    first_w = sum_by(curves.node, curves.lower_w, m)
    last_w = first_w + sum_by(curves.node, curves.width_w.sum(axis=1), m)
    start_w, top_w = first_w.copy(), last_w.copy()
    for nodes in reversed(tree):
        least_w, most_w = first_w[nodes], last_w[nodes]
        upper_w = np.clip(node_upper_w[nodes], least_w, most_w)
        lower_w = np.minimum(np.clip(node_lower_w[nodes], least_w, most_w), upper_w)
        start_w[nodes], top_w[nodes] = lower_w, upper_w
        if parent[nodes[0]] >= 0:
            np.add.at(first_w, parent[nodes], lower_w)
            np.add.at(last_w, parent[nodes], upper_w)
    return first_w, last_w, start_w, top_w


def sum_up(parent: Ints, tree: list[Ints], own_w: Floats) -> Floats:
    """Return for every node the sum over its subtree. [W]"""
    total_w = own_w.astype(np.float64)
    for nodes in reversed(tree[1:]):
        np.add.at(total_w, parent[nodes], total_w[nodes])
    return total_w


def _open(curves: Curves, m: int) -> _Segments:
    width_w = curves.width_w.ravel()
    index = np.flatnonzero(width_w > 0)
    asset = (index // curves.width_w.shape[1]).astype(np.int32)
    cost_per_wh = curves.cost_per_wh.ravel()[index]
    bins = max(min(len(index) // m, isqrt(len(index)), _MOST_BINS), 1)
    node = curves.node.astype(np.int32)[asset]
    return _Segments(asset, node, _bin(cost_per_wh, bins), bins, cost_per_wh, width_w[index])


def _bin(cost_per_wh: Floats, bins: int) -> NDArray[np.uint8]:
    """Return the bin of each cost; the bins are about equally full unless the costs are very unevenly spread."""
    low, high = float(cost_per_wh.min(initial=np.inf)), float(cost_per_wh.max(initial=-np.inf))
    cells = bins * _CELLS
    step_per_wh = (high - low) / (cells - 1) if high > low else 0.0
    if bins == 1 or step_per_wh <= np.finfo(np.float64).tiny:
        return np.zeros(len(cost_per_wh), dtype=np.uint8)
    cell: Ints = ((cost_per_wh - low) / step_per_wh).astype(np.int64)
    before = np.cumsum(np.bincount(cell, minlength=cells)) - 1
    return np.asarray(before * bins // len(cell), dtype=np.uint8)[cell]


def _slots(nodes: Ints, parent: Ints) -> Ints:
    """Return for every node of the tree its place in ``nodes``, -1 for none."""
    slot = np.full(len(parent), -1)
    slot[nodes] = np.arange(len(nodes))
    return slot


def _climb(segments: _Segments, nodes: Ints, parent: Ints) -> _Segments:
    if parent[nodes[0]] < 0:
        return segments
    up = np.arange(len(parent), dtype=np.int32)
    up[nodes] = parent[nodes]
    return replace(segments, node=up[segments.node])


def _truncate(segments: _Segments, slots: Ints, room_w: Floats) -> _Segments:
    """Return what is still open when each node with a slot keeps only the cheapest ``room_w`` of its segments."""
    index, share = _cheapest(segments, slots, room_w)
    free_w = segments.free_w.copy()
    free_w[index] *= share
    return replace(segments, free_w=free_w).keep(np.flatnonzero(free_w))


def _compel(segments: _Segments, slots: Ints, least_w: Floats, power_w: Floats) -> _Segments:
    """Book the cheapest ``least_w`` of each node with a slot on ``power_w`` and return what is still open."""
    index, share = _cheapest(segments, slots, least_w)
    free_w = segments.free_w.copy()
    booked_w = free_w[index] * share
    power_w += sum_by(segments.asset[index], booked_w, len(power_w))
    free_w[index] -= booked_w
    return replace(segments, free_w=free_w).keep(np.flatnonzero(free_w))


def _cheapest(segments: _Segments, slots: Ints, amount_w: Floats) -> tuple[Ints, Floats]:
    """Return the segments under nodes with a slot, and the share of each in its node's cheapest ``amount_w``. [0-1]"""
    group = slots[segments.node]
    index = np.flatnonzero(group >= 0)
    if np.isinf(amount_w).all():
        return index, np.ones(len(index))
    group, found = group[index], segments.keep(index)
    price_per_wh, tied_frac = _prices(found, group, amount_w)
    price_per_wh = price_per_wh[group]
    share = (found.cost_per_wh < price_per_wh).astype(np.float64)
    tied = np.flatnonzero(found.cost_per_wh == price_per_wh)
    share[tied] = tied_frac[group[tied]]
    return index, share


def _prices(segments: _Segments, group: Ints, amount_w: Floats) -> tuple[Floats, Floats]:
    """Return the cost at which each group's amount runs out, and the share taken of what costs just that. [1/Wh, 0-1]

    All sums are taken group by group: a small node does not suffer from the rounding of a large sum.
    """
    groups, bins = np.arange(len(amount_w)), segments.bins
    weight_w = sum_by(group * bins + segments.bin, segments.free_w, len(groups) * bins)
    filled_w = np.cumsum(weight_w.reshape(-1, bins), axis=1)
    bin_ = np.sum(filled_w < amount_w[:, None], axis=1)
    left_w = amount_w - np.where(bin_ > 0, filled_w[groups, bin_ - 1], 0.0)
    last = np.flatnonzero(segments.bin == bin_[group])
    last = last[np.lexsort((segments.cost_per_wh[last], group[last]))]
    return _run_out(group[last], segments.cost_per_wh[last], segments.free_w[last], left_w, bin_ < bins)


def _run_out(group: Ints, cost_per_wh: Floats, free_w: Floats, amount_w: Floats, ends: Bools) -> tuple[Floats, Floats]:
    """Return _prices from segments sorted by group and cost, in which each amount that ``ends`` runs out."""
    count = np.bincount(group, minlength=len(amount_w))
    stop = np.cumsum(count)
    total_w = np.concatenate(([0.0], np.cumsum(free_w)))
    place = np.clip(np.searchsorted(total_w[1:], total_w[stop - count] + amount_w), stop - count, stop - 1)
    price_per_wh = np.where(ends, -np.inf, np.inf)
    some = np.flatnonzero(ends & (count > 0))
    price_per_wh[some] = cost_per_wh[place[some]]
    at = price_per_wh[group]
    tied_w = sum_by(group, free_w * (cost_per_wh == at), len(amount_w))
    left_w = amount_w - sum_by(group, free_w * (cost_per_wh < at), len(amount_w))
    return price_per_wh, np.clip(np.divide(left_w, tied_w, out=np.zeros(len(count)), where=tied_w > 0), 0.0, 1.0)
