"""The inflexible load behind a meter that was not read in the same moment as the clusters behind it.

When power moves, the one that is read first shows it alone: a job that has ended looks like inflexible load that is
gone, jobs that come back look like more of it. What meter and assets showed in the last three cycles bounds the load:
it lies between the least of the meter less the most of the assets, and the most of the meter less the least of the
assets. Within these bounds the load that is believed stays where it was; when all stand still they close upon it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vppd.snapshot import Bools, Floats, Plant

LONGEST_HOLD_S = 10.0
"""Without readings that can be held against each other the load is kept for so long, then goes by the newest ones. [s]"""
_DRIFT_FRAC = 0.01
"""Part of the difference to the newest readings believed in each cycle: power that swings for ever never closes the bounds. [0-1]"""


@dataclass(frozen=True, slots=True, eq=False)
class Recent:
    """What one cycle hands to the next; there is none until readings have differed in time."""

    base_w: Floats
    """(m,) inflexible power of each node as far as it is sure. [W]"""
    settled_s: Floats
    """(m,) when that was last held against readings. [s]"""
    power_w: Floats
    """(n,) believed powers one cycle before those of the state. [W]"""
    read_s: Floats
    """(n,) when the powers of the state were read. [s]"""
    earlier_s: Floats
    """(n,) when ``power_w`` was. [s]"""


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """What is known in this cycle; shapes as in Plant, ``base_w`` and ``handed_w`` per node."""

    mono_s: float
    read_s: Floats
    """When each asset was read. [s]"""
    power_w: Floats
    """Believed powers, NaN for none. [W]"""
    last_w: Floats
    """Those of the last cycle. [W]"""
    target_w: Floats
    """Last setpoints, NaN where none. [W]"""
    available_w: Floats
    """What each would draw if nobody held it back. [W]"""
    usable: Bools
    base_w: Floats
    """What the newest readings say, NaN where a meter has never been read. [W]"""
    before_w: Floats
    """What was believed in the last cycle. [W]"""
    handed_w: Floats
    """By how much it changes because assets came into play or were taken out. [W]"""


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """The inflexible power of each node itself, shapes (m,)."""

    base_w: Floats
    """For budgets: as far as it is sure, and all that the newest reading of the meter shows beyond what assets may draw by now. [W]"""
    unheld_w: Floats
    """For baselines: as far as it is sure, but no more than that reading leaves room for. [W]"""
    recent: Recent | None


@dataclass(frozen=True, slots=True, eq=False)
class _Span:
    """What hangs on each node: its bounds in the last cycles, and when it was read; shapes (m,), filled up to the root."""

    least_w: Floats
    most_w: Floats
    bottom_w: Floats
    """The least it can be by now: what is told to draw less may already do so. [W]"""
    top_w: Floats
    """The most, likewise. [W]"""
    oldest_s: Floats
    """The oldest of its newest readings, inf for none. [s]"""
    earliest_s: Floats
    """The newest of its readings two cycles ago, -inf for none. [s]"""
    slow: Bools
    """Clusters are among it."""


def settle(heard: Heard, recent: Recent | None, plant: Plant) -> Settled:
    """Return the inflexible load by what was read in the last three cycles; where all was read at once, as it is read."""
    slow = heard.usable & ~plant.fast
    if recent is None and not _is_apart(heard, slow, plant):
        return Settled(heard.base_w, heard.base_w, None)
    if recent is None:
        unread_s = np.full(len(slow), -np.inf)
        recent = Recent(
            heard.before_w, np.full(len(heard.base_w), heard.mono_s), heard.last_w, unread_s, unread_s
        )  # fmt: skip
    sure_w, settled_s, span = _sweep(heard, recent, slow, plant)
    judged = (plant.meter >= 0) & span.slow & np.isfinite(sure_w)
    meter_w = np.where(judged, heard.power_w[plant.meter], np.nan)
    return Settled(
        np.fmax(sure_w, meter_w - span.top_w),
        np.fmin(sure_w, meter_w - span.bottom_w),
        Recent(sure_w, settled_s, heard.last_w, heard.read_s, recent.read_s),
    )


def _is_apart(heard: Heard, slow: Bools, plant: Plant) -> bool:
    """Say whether meters and clusters were read at different times."""
    read_s = np.concatenate((heard.read_s[slow], heard.read_s[plant.meter[plant.meter >= 0]]))
    return bool(slow.any() and (read_s != read_s[0]).any())


def _sweep(heard: Heard, recent: Recent, slow: Bools, plant: Plant) -> tuple[Floats, Floats, _Span]:
    """Return (load as far as it is sure, when it was held against readings, spans) of every node, from leaves to root."""
    least_w = np.fmin(np.fmin(heard.power_w, heard.last_w), recent.power_w)
    most_w = np.fmax(np.fmax(heard.power_w, heard.last_w), recent.power_w)
    span = _own(heard, recent, slow, least_w, most_w, plant)
    sure_w, settled_s = heard.base_w.copy(), recent.settled_s.copy()
    before_w = recent.base_w + heard.handed_w
    for i in range(len(sure_w) - 1, -1, -1):
        k = int(plant.meter[i])
        read = k >= 0 and bool(np.isfinite(heard.power_w[k]))
        if k >= 0 and span.slow[i] and np.isfinite(before_w[i]):
            overlap = span.oldest_s[i] >= recent.earlier_s[k] and heard.read_s[k] >= span.earliest_s[i]
            if read and overlap:
                low_w, high_w = least_w[k] - span.most_w[i], most_w[k] - span.least_w[i]
                sure_w[i], settled_s[i] = _within(before_w[i], heard.base_w[i], low_w, high_w), heard.mono_s
            elif not read or heard.mono_s - settled_s[i] <= LONGEST_HOLD_S:
                sure_w[i] = before_w[i]
        if i and read:
            times_s = float(heard.read_s[k]), float(recent.earlier_s[k])
            _hand_up(span, i, plant, (float(least_w[k]), float(most_w[k])), times_s)
        elif i:
            own_w = float(np.nan_to_num(sure_w[i]))
            bounds_w = float(span.least_w[i]) + own_w, float(span.most_w[i]) + own_w
            _hand_up(span, i, plant, bounds_w, (float(span.oldest_s[i]), float(span.earliest_s[i])))
    return sure_w, settled_s, span


def _hand_up(span: _Span, i: int, plant: Plant, bounds_w: tuple[float, float], times_s: tuple[float, float]) -> None:
    """Add what hangs on a node to the one above it. [W, s]"""
    up = int(plant.parent[i])
    span.bottom_w[up] += bounds_w[0] - (span.least_w[i] - span.bottom_w[i])
    span.top_w[up] += bounds_w[1] + (span.top_w[i] - span.most_w[i])
    span.least_w[up] += bounds_w[0]
    span.most_w[up] += bounds_w[1]
    span.oldest_s[up] = min(span.oldest_s[up], times_s[0])
    span.earliest_s[up] = max(span.earliest_s[up], times_s[1])
    span.slow[up] |= span.slow[i]


def _own(heard: Heard, recent: Recent, slow: Bools, least_w: Floats, most_w: Floats, plant: Plant) -> _Span:
    """Return the span of the assets on each node itself."""
    m = len(plant.nodes)

    def on_node(value_w: Floats) -> Floats:
        usable_w = np.where(heard.usable, value_w, 0.0)
        return np.asarray(np.bincount(plant.node, weights=usable_w, minlength=m), dtype=np.float64)

    oldest_s, earliest_s = np.full(m, np.inf), np.full(m, -np.inf)
    np.minimum.at(oldest_s, plant.node[slow], heard.read_s[slow])
    np.maximum.at(earliest_s, plant.node[slow], recent.earlier_s[slow])
    told_w = np.where(slow, np.fmin(heard.target_w, heard.available_w), heard.target_w)
    return _Span(
        on_node(least_w), on_node(most_w), on_node(np.fmin(least_w, heard.target_w)), on_node(np.fmax(most_w, told_w)),
        oldest_s, earliest_s, np.isfinite(oldest_s),
    )  # fmt: skip


def _within(before_w: float, newest_w: float, low_w: float, high_w: float) -> float:
    """Return the load nearest to what was believed, within its bounds; it drifts slowly to what the newest readings say. [W]"""
    kept_w = min(max(before_w, low_w), high_w)
    return kept_w + _DRIFT_FRAC * (min(max(newest_w, low_w), high_w) - kept_w)
