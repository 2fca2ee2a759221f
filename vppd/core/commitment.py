"""Second stage of the split: assets that cannot run everywhere (exclusion bands), and jobs that are on or off.

The split without bands is kept when it lands in none. Otherwise a plan that meets every limit which can be met
(``reach``) is found first, and a branch-and-bound search, with the exact split as its bound, makes it cheaper for as
long as its budget of splits lasts.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace

import numpy as np

from vppd.core.allocate import Allocation, Curves, allocate, cost_per_h, settled
from vppd.core.pieces import Pieces, bridged, cut
from vppd.core.reach import plan
from vppd.snapshot import Floats, Ints

EFFORT = 300_000
"""Default work of the search, in segments times splits: some tens of milliseconds."""
_OVERHEAD = 4_000
"""What a split costs besides its segments, in segments."""
MOST_IN_PLAY = 256
"""So many assets with bands are planned together; of more, those least costly to move."""
_COST_FRAC = 1e-12
"""A gain below this part of the cost of everything is rounding."""


def commit(
    parent: Ints,
    node_lower_w: Floats,
    node_upper_w: Floats,
    curves: Curves,
    gap_asset: Ints,
    gap_lower_w: Floats,
    gap_upper_w: Floats,
    effort: int = EFFORT,
) -> Allocation:
    """Return the split of ``allocate`` with no asset inside one of its open bands (gap_lower, gap_upper). [W]

    Several bands of one asset may overlap. An asset whose whole range lies inside bands has nowhere to go: its bands
    are ignored, its range holds. Limits that some choice of pieces meets are met; others are missed by as little as
    possible, a child's limit before its ancestor's as in ``allocate``, and of two equal misses the lower power is
    taken. This is exact for up to MOST_IN_PLAY assets with bands while no node has more than reach.MOST_INTERVALS
    separate attainable intervals. Beyond that a single target is still met exactly where an asset without bands can
    absorb one step; what is missed otherwise is small, and said.

    Cost is least when the search ends within ``effort`` (segments times splits); otherwise it is that of the best plan
    found. The same input gives the same output, and no step depends on how long it takes.
    """
    free = allocate(parent, node_lower_w, node_upper_w, curves)
    at_w = free.power_w[gap_asset]
    if not np.any((at_w > gap_lower_w) & (at_w < gap_upper_w)):
        return free
    pieces = cut(curves, gap_asset, gap_lower_w, gap_upper_w)
    if not pieces.barred(free.power_w[pieces.asset]).any():
        return _snapped(parent, node_lower_w, node_upper_w, curves, pieces, free.power_w)
    power_w = _choose(parent, node_lower_w, node_upper_w, curves, pieces, effort)
    return _snapped(parent, node_lower_w, node_upper_w, curves, pieces, power_w)


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """Node limits, and curves that bridge the bands, with and without ties."""

    parent: Ints
    lower_w: Floats
    upper_w: Floats
    curves: Curves
    ranked: Curves
    """Costs replaced by their rank, so that no two are equal: a shared tie would put many assets into bands."""
    pieces: Pieces

    def split(self, lower_w: Floats, upper_w: Floats) -> Allocation:
        """Return the cheapest split with the assets with bands within [lower, upper]. [W]"""
        return allocate(self.parent, self.lower_w, self.upper_w, self.pieces.windowed(self.ranked, lower_w, upper_w))


def _choose(
    parent: Ints, node_lower_w: Floats, node_upper_w: Floats, curves: Curves, pieces: Pieces, effort: int
) -> Floats:
    """Return powers of all assets, those with bands inside their pieces. [W]"""
    whole, over = bridged(curves, pieces)
    problem = _Problem(parent, node_lower_w, node_upper_w, whole, _ranked(whole), over)
    relaxed = problem.split(*over.hull())
    at_w = relaxed.power_w[over.asset]
    barred = over.barred(at_w)
    held = over.nearest(np.where(barred, over.around(at_w)[0], at_w))
    if barred.any():
        play = _in_play(whole, over, np.flatnonzero(barred))
        found = plan(parent, node_lower_w, node_upper_w, over.windowed(whole, *held), over, play, relaxed)
        problem = replace(problem, lower_w=found.lower_w, upper_w=found.upper_w)
        held = over.nearest(np.where(np.isnan(found.power_w), held[0], found.power_w))
        held = _cheaper(problem, held, effort) or held
    return allocate(parent, problem.lower_w, problem.upper_w, pieces.windowed(curves, *held)).power_w


def _cheaper(problem: _Problem, held: tuple[Floats, Floats], effort: int) -> tuple[Floats, Floats] | None:
    """Return pieces that cost less than those held, None where the search finds none. [W]"""
    splits = effort // (_OVERHEAD + int(np.count_nonzero(problem.curves.width_w)))
    if splits < 4:
        return None
    best_per_h = cost_per_h(problem.curves, problem.split(*held).power_w)
    return _Search(problem, best_per_h).run(splits)


def _ranked(curves: Curves) -> Curves:
    """Return the curves with costs replaced by their rank, zero where it was; equal costs rank by place."""
    used = np.flatnonzero(curves.width_w.ravel() > 0)
    cost = curves.cost_per_wh.ravel()[used]
    rank, whole = np.empty(len(cost)), np.zeros(curves.cost_per_wh.size)
    rank[np.argsort(cost, kind="stable")] = np.arange(len(cost)) + 0.5 - np.count_nonzero(cost < 0)
    whole[used] = rank
    return replace(curves, cost_per_wh=whole.reshape(curves.cost_per_wh.shape))


def _in_play(curves: Curves, pieces: Pieces, barred: Ints) -> Ints:
    """Return the assets to plan, the barred ones and others that are cheap to move, the costliest to move last."""
    low_w, high_w = pieces.widest_band()
    at = pieces.asset
    rows = Curves(curves.node[at], curves.lower_w[at], curves.width_w[at], curves.cost_per_wh[at])
    step_per_h = _cost_each_per_h(rows, high_w) - _cost_each_per_h(rows, low_w)
    price_per_wh = np.median(step_per_h[barred] / np.maximum(high_w - low_w, np.finfo(np.float64).tiny)[barred])
    regret_per_h = np.abs(step_per_h - price_per_wh * (high_w - low_w))
    regret_per_h[barred] = -1.0
    return np.argsort(regret_per_h, kind="stable")[: min(max(MOST_IN_PLAY, len(barred)), 4 * MOST_IN_PLAY)]


def _cost_each_per_h(rows: Curves, power_w: Floats) -> Floats:
    before_w = np.cumsum(rows.width_w, axis=1) - rows.width_w
    filled_w = np.clip((power_w - rows.lower_w)[:, None] - before_w, 0.0, rows.width_w)
    return np.asarray((filled_w * rows.cost_per_wh).sum(axis=1), dtype=np.float64)


def _snapped(
    parent: Ints, node_lower_w: Floats, node_upper_w: Floats, curves: Curves, pieces: Pieces, power_w: Floats
) -> Allocation:
    """Return the Allocation of these powers, moved out of bands by what is only rounding."""
    power_w = power_w.copy()
    power_w[pieces.asset] = np.clip(power_w[pieces.asset], *pieces.nearest(power_w[pieces.asset]))
    return settled(parent, node_lower_w, node_upper_w, curves, power_w)


@dataclass(order=True, slots=True)
class _Branch:
    """Assets with bands narrowed to [lower, upper], with the least cost that may hide there."""

    bound_per_h: float
    serial: int
    lower_w: Floats = field(compare=False)
    upper_w: Floats = field(compare=False)
    power_w: Floats = field(compare=False)


class _Search:
    """Branch and bound over the pieces: from the most promising branch straight down, then from the next one."""

    def __init__(self, problem: _Problem, best_per_h: float) -> None:
        self._problem, self._best_per_h = problem, best_per_h
        curves = problem.curves
        self._noise_per_h = _COST_FRAC * float(np.sum(curves.width_w * np.abs(curves.cost_per_wh)))
        self._best: tuple[Floats, Floats] | None = None
        self._splits = 0

    def run(self, splits: int) -> tuple[Floats, Floats] | None:
        """Return pieces that cost less than the best known, None if there are none or the budget ends first."""
        kinds = _kinds(self._problem)
        waiting = self._look(*self._problem.pieces.hull())
        while waiting and self._splits + 2 <= splits:
            branch = heapq.heappop(waiting)
            if branch.bound_per_h >= self._best_per_h - self._noise_per_h:
                break
            down: _Branch | None = branch
            while down is not None and self._splits + 2 <= splits:
                found = sorted(self._part(down, kinds))
                down = found[0] if found else None
                for other in found[1:]:
                    heapq.heappush(waiting, other)
        return self._best

    def _look(self, lower_w: Floats, upper_w: Floats) -> list[_Branch]:
        """Return the branch if something cheaper may hide there; take its split as the best if it is in no band."""
        problem, pieces = self._problem, self._problem.pieces
        self._splits += 1
        split = problem.split(lower_w, upper_w)
        cost = cost_per_h(problem.curves, split.power_w)
        if split.shortfall_w.any() or cost >= self._best_per_h - self._noise_per_h:
            return []
        power_w = split.power_w[pieces.asset]
        if pieces.barred(power_w).any():
            return [_Branch(cost, self._splits, lower_w, upper_w, power_w)]
        self._best_per_h, self._best = cost, pieces.nearest(power_w)
        return []

    def _part(self, branch: _Branch, kinds: Ints) -> list[_Branch]:
        """Return what is below and above the widest band hit; of twins an earlier one never has less power."""
        pieces = self._problem.pieces
        edge_w = pieces.around(branch.power_w)
        g = int(np.argmax(np.where(pieces.barred(branch.power_w), edge_w[1] - edge_w[0], -np.inf)))
        twins = np.flatnonzero(kinds == kinds[g])
        below_w, above_w = branch.upper_w.copy(), branch.lower_w.copy()
        below_w[twins[twins >= g]] = np.minimum(below_w[twins[twins >= g]], edge_w[0][g])
        above_w[twins[twins <= g]] = np.maximum(above_w[twins[twins <= g]], edge_w[1][g])
        sides = ((branch.lower_w, below_w), (above_w, branch.upper_w))
        return [inner for side in sides if np.all(side[0] <= side[1]) for inner in self._look(*side)]


def _kinds(problem: _Problem) -> Ints:
    """Return a number per asset with bands, equal for assets that nothing tells apart."""
    curves, pieces = problem.curves, problem.pieces
    asset = pieces.asset
    rows = np.concatenate(
        (curves.node[asset, None], pieces.edge_w, curves.cost_per_wh[asset], pieces.lower_w, pieces.upper_w), axis=1
    )
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
