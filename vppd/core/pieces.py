"""What exclusion bands leave of each asset's range."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vppd.core.allocate import ROUNDING_FRAC, Curves
from vppd.core.intervals import Intervals
from vppd.snapshot import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """The closed pieces of the ranges of g assets with bands, up to p each, ascending; unused places hold inf."""

    asset: Ints
    """(g,) ascending."""
    lower_w: Floats
    """(g, p) [W]"""
    upper_w: Floats
    """(g, p) [W]"""
    edge_w: Floats
    """(g, k + 1) the ends of the segments of the cost curve. [W]"""

    def hull(self) -> tuple[Floats, Floats]:
        """Return the least and the most power of each asset. [W]"""
        return self.lower_w[:, 0], np.where(np.isinf(self.upper_w), -np.inf, self.upper_w).max(axis=1)

    def barred(self, power_w: Floats) -> Bools:
        """Say which assets would be inside a band, those at its edge but for rounding not counted."""
        noise_w = ROUNDING_FRAC / 10 * np.abs(self.edge_w).max(axis=1)
        off_w = np.maximum(self.lower_w - power_w[:, None], power_w[:, None] - self.upper_w).min(axis=1)
        return np.asarray(off_w > noise_w)

    def around(self, power_w: Floats) -> tuple[Floats, Floats]:
        """Return the edges of the band that each power is in. [W]"""
        below_w = np.where(self.upper_w <= power_w[:, None], self.upper_w, -np.inf).max(axis=1)
        above_w = np.where(self.lower_w >= power_w[:, None], self.lower_w, np.inf).min(axis=1)
        return below_w, above_w

    def nearest(self, power_w: Floats) -> tuple[Floats, Floats]:
        """Return the ends of the piece nearest to each power. [W]"""
        off_w = np.maximum(self.lower_w - power_w[:, None], power_w[:, None] - self.upper_w)
        rows, best = np.arange(len(self.asset)), np.argmin(off_w, axis=1)
        return self.lower_w[rows, best], self.upper_w[rows, best]

    def widest_band(self) -> tuple[Floats, Floats]:
        """Return the edges of each asset's widest band, its hull if it has none. [W]"""
        used = np.isfinite(self.lower_w[:, 1:])
        band_w = np.full(used.shape, -np.inf)
        np.subtract(self.lower_w[:, 1:], self.upper_w[:, :-1], out=band_w, where=used)
        rows, widest = np.arange(len(self.asset)), np.argmax(band_w, axis=1)
        low_w, high_w = self.hull()
        some = used[rows, widest]
        return (
            np.where(some, self.upper_w[rows, widest], low_w),
            np.where(some, self.lower_w[rows, widest + 1], high_w),
        )

    def of(self, g: int) -> Intervals:
        """Return the pieces of one asset."""
        used = np.isfinite(self.lower_w[g])
        return Intervals(self.lower_w[g, used], self.upper_w[g, used])

    def windowed(self, curves: Curves, lower_w: Floats, upper_w: Floats) -> Curves:
        """Return the curves with the assets with bands narrowed to [lower, upper]. [W]"""
        edge_w = np.clip(self.edge_w, lower_w[:, None], upper_w[:, None])
        least_w, width_w = curves.lower_w.copy(), curves.width_w.copy()
        least_w[self.asset] = edge_w[:, 0]
        width_w[self.asset] = np.diff(edge_w, axis=1)
        return replace(curves, lower_w=least_w, width_w=width_w)


def bridged(curves: Curves, pieces: Pieces) -> tuple[Curves, Pieces]:
    """Return the curves, from the hull's least power on, with the mean cost of each band all through it.

    No convex curve comes closer to the true cost in the pieces, and none has its least inside a band.
    """
    low_w, high_w = (x[:, None] for x in pieces.hull())
    ends_w = (pieces.edge_w, pieces.lower_w, pieces.upper_w)
    edge_w = np.sort(np.concatenate([np.clip(x, low_w, high_w) for x in ends_w], axis=1), axis=1)
    width_w, middle_w = np.diff(edge_w, axis=1), (edge_w[:, 1:] + edge_w[:, :-1]) / 2
    place = np.sum(middle_w[:, :, None] >= pieces.edge_w[:, None, 1:-1], axis=2)
    cost_per_wh = np.take_along_axis(curves.cost_per_wh[pieces.asset], place, axis=1)
    band = np.sum(middle_w[:, :, None] > pieces.upper_w[:, None, :], axis=2)
    inside = middle_w < np.take_along_axis(pieces.lower_w, band, axis=1)
    for b in range(1, pieces.lower_w.shape[1]):
        here = inside & (band == b)
        part_w = np.where(here, width_w, 0.0)
        mean = (part_w * cost_per_wh).sum(axis=1) / np.maximum(part_w.sum(axis=1), np.finfo(np.float64).tiny)
        cost_per_wh = np.where(here, mean[:, None], cost_per_wh)
    more = ((0, 0), (0, width_w.shape[1] - curves.width_w.shape[1]))
    whole = Curves(
        curves.node, curves.lower_w.copy(), np.pad(curves.width_w, more), np.pad(curves.cost_per_wh, more, "edge")
    )
    whole.lower_w[pieces.asset], whole.width_w[pieces.asset] = edge_w[:, 0], width_w
    whole.cost_per_wh[pieces.asset] = np.maximum.accumulate(cost_per_wh, axis=1)
    return whole, replace(pieces, edge_w=edge_w)


def cut(curves: Curves, gap_asset: Ints, gap_lower_w: Floats, gap_upper_w: Floats) -> Pieces:
    """Return the pieces that the open bands leave; an asset of which they leave nothing is not among them."""
    order = np.lexsort((gap_lower_w, gap_asset))
    asset, first, count = np.unique(gap_asset[order], return_index=True, return_counts=True)
    row = np.repeat(np.arange(len(asset)), count)
    place = np.arange(len(order)) - first[row]
    below_w, above_w = np.full((2, len(asset), int(count.max(initial=0)) + 1), np.inf)
    below_w[row, place] = gap_lower_w[order]
    above_w[row, place] = gap_upper_w[order]
    edge_w = curves.lower_w[asset, None] + np.pad(np.cumsum(curves.width_w[asset], axis=1), ((0, 0), (1, 0)))
    least_w, most_w = edge_w[:, :1], edge_w[:, -1:]
    covered_w = np.maximum.accumulate(above_w, axis=1)[:, :-1]
    lower_w = np.concatenate((least_w, np.maximum(covered_w, least_w)), axis=1)
    upper_w = np.minimum(below_w, most_w)
    valid = lower_w <= upper_w
    lower_w, upper_w = (np.sort(np.where(valid, x, np.inf), axis=1) for x in (lower_w, upper_w))
    some = valid.any(axis=1)
    return Pieces(asset[some].astype(np.int64), lower_w[some], upper_w[some], edge_w[some])
