"""Sets of powers as sorted, disjoint, closed intervals: sums, overlaps, nearest points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vppd.snapshot import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """A non-empty union of closed intervals, ascending; a point is an interval of no width."""

    lower_w: Floats
    upper_w: Floats

    def __len__(self) -> int:
        return len(self.lower_w)

    def nearest(self, power_w: float) -> float:
        """Return the point of the set nearest to ``power_w``, the lower of two. [W]"""
        points_w = np.clip(power_w, self.lower_w, self.upper_w)
        return float(points_w[np.argmin(np.abs(points_w - power_w))])

    def shifted(self, by_w: float) -> Intervals:
        """Return the set moved by ``by_w``."""
        return Intervals(self.lower_w + by_w, self.upper_w + by_w)

    def mirrored(self) -> Intervals:
        """Return the set of the negative powers."""
        return Intervals(-self.upper_w[::-1], -self.lower_w[::-1])


def interval(lower_w: float, upper_w: float) -> Intervals:
    """Return one interval."""
    return Intervals(np.array([lower_w]), np.array([upper_w]))


def united(lower_w: Floats, upper_w: Floats, slack_w: float) -> Intervals:
    """Return the union of intervals in any order; those closer than ``slack_w`` become one."""
    order = np.argsort(lower_w, kind="stable")
    lower_w, upper_w = lower_w[order], np.maximum.accumulate(upper_w[order])
    first = np.flatnonzero(np.concatenate(([True], lower_w[1:] > upper_w[:-1] + slack_w)))
    last = np.concatenate((first[1:] - 1, [len(lower_w) - 1]))
    return Intervals(lower_w[first], upper_w[last])


def total(a: Intervals, b: Intervals, slack_w: float) -> Intervals:
    """Return every sum of a point of ``a`` and a point of ``b``."""
    lower_w = (b.lower_w[:, None] + a.lower_w).ravel()
    upper_w = (b.upper_w[:, None] + a.upper_w).ravel()
    return united(lower_w, upper_w, slack_w)


def overlap(a: Intervals, b: Intervals, slack_w: float) -> Intervals | None:
    """Return the points of ``a`` that are in ``b`` or within ``slack_w`` of it, None if there are none."""
    parts = [*_starts_within(a, b, slack_w), *_starts_within(b, a, slack_w)]
    lower_w, upper_w = np.concatenate(parts[::2]), np.concatenate(parts[1::2])
    if not len(lower_w):
        return None
    found = united(lower_w, np.maximum(lower_w, upper_w), 0.0)
    return found


def _starts_within(a: Intervals, b: Intervals, slack_w: float) -> tuple[Floats, Floats]:
    """Return the overlaps that begin with the beginning of an interval of ``a``."""
    host = np.clip(np.searchsorted(b.lower_w, a.lower_w + slack_w, side="right") - 1, 0, None)
    inside = (b.lower_w[host] - slack_w <= a.lower_w) & (a.lower_w <= b.upper_w[host] + slack_w)
    return a.lower_w[inside], np.minimum(a.upper_w, b.upper_w[host])[inside]


def thinned(a: Intervals, most: int, around_w: float) -> Intervals:
    """Return at most ``most`` intervals of ``a``: half those nearest to ``around_w``, half evenly spread."""
    if len(a) <= most:
        return a
    distance_w = np.maximum(a.lower_w - around_w, around_w - a.upper_w)
    near = np.argpartition(distance_w, most // 2)[: most // 2]
    spread = _spread(a.lower_w, most - most // 2)
    index = np.union1d(near, spread)
    return Intervals(a.lower_w[index], a.upper_w[index])


def _spread(lower_w: Floats, count: int) -> Ints:
    marks_w = np.linspace(lower_w[0], lower_w[-1], count)
    return np.asarray(np.searchsorted(lower_w, marks_w), dtype=np.int64)
