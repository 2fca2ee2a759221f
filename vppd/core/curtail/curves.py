"""Power and throughput of one GPU under a cap, by class of work: tables, linear between their points.

Inside, a point is told by its depth: the power it saves against uncapped and the throughput it loses. Depth 0 is uncapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from vppd.snapshot import Bools, Floats, Ints

PRIOR_SHAPE = (0.958, 1.358)
"""a and b in t = 1 - a (1 - p)^b; these are of the class of work that suffers most under a cap (A100 cap sweep, pre-training)."""
PRIOR_FLOOR_FRAC = 0.5
"""Below this part of uncapped power throughput collapses: the prior says nothing there."""
_SAME_W = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Tables of c classes with m caps each, caps ascending; shorter tables repeat their greatest cap."""

    cap_w: Floats
    """(c, m) per GPU. [W]"""
    power_w: Floats
    """(c, m) what a busy GPU draws under the cap. [W]"""
    throughput_frac: Floats
    """(c, m) as a part of uncapped. [0-1]"""
    idle_w: Floats
    """(c,) what a GPU draws while its job is paused. [W]"""
    depth: Depth = field(init=False)
    """The same, ordered by depth."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", _depth(self))

    def power_at_w(self, curve: Ints, cap_w: Floats) -> Floats:
        """Return what one GPU draws under a cap, (n,). [W]"""
        return _between(self.cap_w[curve], self.power_w[curve], cap_w)

    def throughput_at_frac(self, curve: Ints, cap_w: Floats) -> Floats:
        """Return the throughput under a cap, (n,). [0-1]"""
        return _between(self.cap_w[curve], self.throughput_frac[curve], cap_w)


@dataclass(frozen=True, slots=True, eq=False)
class Depth:
    """Curves by depth: m points from uncapped to the deepest cap, both figures non-decreasing."""

    cap_w: Floats
    """(c, m) descending. [W]"""
    saved_w: Floats
    """(c, m) against uncapped, never more than is sure. [W]"""
    lost_frac: Floats
    """(c, m) never less than is sure. [0-1]"""
    hull_saved_w: Floats
    """(c, m) corners of the lower convex envelope of loss over saving; unused places repeat the last. [W]"""
    hull_lost_frac: Floats
    """(c, m) [0-1]"""
    real: Bools
    """(c, m - 1) the edge after a corner is the curve itself, not a chord over points that lie above it."""
    pause_saved_w: Floats
    """(c,) saved by a pause. [W]"""

    def saved_within_w(self, curve: Ints, lost_frac: Floats) -> Floats:
        """Return the most that a cap saves at a loss of no more than ``lost_frac``, (n,). [W]"""
        saved_w, lost = self.saved_w[curve], self.lost_frac[curve]
        last = lost.shape[1] - 1
        left = np.clip((lost <= lost_frac[:, None]).sum(axis=1) - 1, 0, last)
        return _step(lost, saved_w, left, np.minimum(left + 1, last), lost_frac)

    def lost_at_frac(self, curve: Ints, saved_w: Floats) -> Floats:
        """Return the throughput lost where a cap saves ``saved_w``, (n,). [0-1]"""
        return self._at(curve, self.lost_frac, saved_w)

    def cap_at_w(self, curve: Ints, saved_w: Floats) -> Floats:
        """Return the greatest cap that saves ``saved_w``, (n,). [W]"""
        return self._at(curve, self.cap_w, saved_w)

    def _at(self, curve: Ints, column: Floats, wanted_w: Floats) -> Floats:
        saved_w = self.saved_w[curve]
        right = np.clip((saved_w < wanted_w[:, None] - _SAME_W).sum(axis=1), 0, saved_w.shape[1] - 1)
        return _step(saved_w, column[curve], np.maximum(right - 1, 0), right, wanted_w)


def tables(rows: Sequence[tuple[Sequence[float], Sequence[float], Sequence[float], float]]) -> Curves:
    """Return curves of (caps [W], powers [W], throughputs [0-1], idle power [W]); caps in any order, all different."""
    m = max(2, *(len(caps) for caps, _, _, _ in rows))
    columns = np.zeros((3, len(rows), m))
    for row, (caps, powers, throughputs, _) in enumerate(rows):
        order = np.argsort(caps)
        order = np.concatenate((order, np.repeat(order[-1:], m - len(order))))
        columns[:, row] = np.asarray((caps, powers, throughputs), dtype=np.float64)[:, order]
    cap_w, power_w, throughput = columns
    return Curves(cap_w, power_w, throughput, np.asarray([idle_w for *_, idle_w in rows], dtype=np.float64))


def prior(
    uncapped_w: Floats,
    limit_w: Floats,
    idle_w: Floats,
    shape: tuple[float, float] = PRIOR_SHAPE,
    least_cap_w: Floats | None = None,
    points: int = 11,
) -> Curves:
    """Return curves t = 1 - a (1 - p)^b from half of the uncapped power on, for classes nothing is known of yet, (c,).

    Below the least cap that a device takes there is nothing. Uncapped is the device's limit: a cap at the mean draw may
    already clip its peaks.
    """
    a, b = shape
    lowest_w = PRIOR_FLOOR_FRAC * uncapped_w
    if least_cap_w is not None:
        lowest_w = np.minimum(np.maximum(lowest_w, least_cap_w), uncapped_w)
    power_w = lowest_w[:, None] + (uncapped_w - lowest_w)[:, None] * np.linspace(0.0, 1.0, points)
    cap_w = np.hstack((power_w, np.maximum(limit_w, uncapped_w)[:, None]))
    power_w = np.hstack((power_w, uncapped_w[:, None]))
    lost = a * np.power(np.maximum(1.0 - power_w / uncapped_w[:, None], 0.0), b)
    return Curves(cap_w, power_w, 1.0 - lost, idle_w)


def _depth(curves: Curves) -> Depth:
    """Return the points by depth: where a table is not monotonic, the saving is understated and the loss overstated."""
    power_w = np.maximum.accumulate(curves.power_w, axis=1)[:, ::-1]
    throughput = np.minimum.accumulate(curves.throughput_frac[:, ::-1], axis=1)
    saved_w = power_w[:, :1] - power_w
    lost = throughput[:, :1] - throughput
    hull = [_envelope(s, lo) for s, lo in zip(saved_w.tolist(), lost.tolist(), strict=True)]
    c, m = saved_w.shape
    corner = np.asarray([h + h[-1:] * (m - len(h)) for h in hull], dtype=np.int64).reshape(c, m)
    return Depth(
        cap_w=curves.cap_w[:, ::-1].copy(),
        saved_w=saved_w,
        lost_frac=lost,
        hull_saved_w=np.take_along_axis(saved_w, corner, axis=1),
        hull_lost_frac=np.take_along_axis(lost, corner, axis=1),
        real=_is_real(saved_w, lost, corner),
        pause_saved_w=power_w[:, 0] - curves.idle_w,
    )


def _envelope(saved_w: list[float], lost: list[float]) -> list[int]:
    """Return the points on the lower convex envelope, starting with the uncapped one."""
    chain: list[int] = []
    for i in range(len(saved_w)):
        if chain and saved_w[i] <= saved_w[chain[-1]] + _SAME_W:
            continue
        while len(chain) > 1:
            k, j = chain[-2], chain[-1]
            if (lost[j] - lost[k]) * (saved_w[i] - saved_w[k]) < (lost[i] - lost[k]) * (saved_w[j] - saved_w[k]):
                break
            chain.pop()
        chain.append(i)
    return chain


def _is_real(saved_w: Floats, lost: Floats, corner: Ints) -> Bools:
    """Return which edges between corners have no point of the curve above them."""
    real = np.ones((corner.shape[0], corner.shape[1] - 1), dtype=np.bool_)
    for row, edges in enumerate(corner.tolist()):
        for k, (a, b) in enumerate(pairwise(edges)):
            inner = range(a + 1, b)
            width_w = saved_w[row, b] - saved_w[row, a]
            rise = lost[row, b] - lost[row, a]
            real[row, k] = all(
                lost[row, i] <= lost[row, a] + rise * (saved_w[row, i] - saved_w[row, a]) / width_w + 1e-12
                for i in inner
            )
    return real


def _between(x: Floats, y: Floats, at: Floats) -> Floats:
    """Return y at ``at`` in tables, (n, m), with x ascending; outside the table its ends."""
    right = np.clip((x < at[:, None]).sum(axis=1), 1, x.shape[1] - 1)
    return _step(x, y, right - 1, right, at)


def _step(x: Floats, y: Floats, left: Ints, right: Ints, at: Floats) -> Floats:
    """Return y between two places of each row, clipped to them."""
    rows = np.arange(len(at))
    x0, x1 = x[rows, left], x[rows, right]
    width = x1 - x0
    part = np.clip((at - x0) / np.where(width > 0.0, width, 1.0), 0.0, 1.0)
    part = np.where(width > 0.0, part, np.where(at >= x1, 1.0, 0.0))
    result: Floats = y[rows, left] * (1.0 - part) + y[rows, right] * part
    return result
