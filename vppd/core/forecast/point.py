"""Single-valued forecasts of a series on a fixed grid: persistence, similar day, seasonal with on-line bias correction. Pure.

A series is (t,), NaN where nothing was measured; a method sees what is known at its origin and returns the next steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vppd.snapshot import Floats, Ints

DAY_S = 86_400.0
SIMILAR_DAYS = 5
"""So many days of the same kind are averaged."""
MEMORY_DAYS = 10.0
"""Weight of a day in the seasonal profile halves after so many days of its kind, give or take."""
BIAS_S = 7_200.0
"""The error seen last fades out over this time. [s]"""
BIAS_WINDOW_S = 1_800.0
"""The error seen last is that of this long. [s]"""


@dataclass(frozen=True, slots=True)
class Grid:
    """The time grid of a series."""

    step_s: float
    kind_of_day: tuple[int, ...] = (0, 0, 0, 0, 0, 1, 1)
    """Days that are alike have the same number, from the day of the series' first value on, for ever in this order."""

    @property
    def day(self) -> int:
        """Return the steps of a day. Raises ValueError when the step does not divide it."""
        steps = round(DAY_S / self.step_s)
        if steps < 1 or abs(steps * self.step_s - DAY_S) > 1e-6 * DAY_S:
            raise ValueError(f"a step of {self.step_s:g} s does not divide a day")
        return steps

    def kinds(self, first: int, n: int) -> Ints:
        """Return the kind of day of n steps from step ``first`` on, (n,)."""
        days = (first + np.arange(n)) // self.day
        return np.asarray(self.kind_of_day, dtype=np.int64)[days % len(self.kind_of_day)]


Method = Callable[[Floats, int, Grid], Floats]
"""(history (t,), steps ahead, grid) -> (steps,); NaN where it has nothing to say. Step 0 of the history begins day 0."""


def persistence(history: Floats, steps: int, grid: Grid) -> Floats:
    """Return the last value that is known, for ever."""
    known = np.flatnonzero(np.isfinite(history[-grid.day :]))
    last = history[-grid.day :][known[-1]] if len(known) else np.nan
    return np.full(steps, last)


def similar_day(history: Floats, steps: int, grid: Grid) -> Floats:
    """Return the mean of the same time on the last days of the same kind, and of any kind where there is none."""
    past, slots, kinds = _days(history, grid, len(history), steps)
    alike = _recent_mean(past, slots, kinds, grid, same_kind=True)
    return np.where(np.isfinite(alike), alike, _recent_mean(past, slots, kinds, grid, same_kind=False))


def seasonal(history: Floats, steps: int, grid: Grid) -> Floats:
    """Return the decaying profile of the time of day and kind of day, shifted by the error it made last, which fades."""
    window = max(1, round(BIAS_WINDOW_S / grid.step_s))
    recent = history[-window:]
    before = history[: len(history) - len(recent)]
    profile = _profile(before, len(recent) + steps, grid)
    error = recent - profile[: len(recent)]
    bias = float(np.nanmean(error)) if np.isfinite(error).any() else 0.0
    fade = np.exp(-(np.arange(steps) + 1.0) * grid.step_s / BIAS_S)
    return np.asarray(profile[len(recent) :] + bias * fade)


METHODS: dict[str, Method] = {"persistence": persistence, "similar-day": similar_day, "seasonal": seasonal}


def _days(history: Floats, grid: Grid, first: int, steps: int) -> tuple[Floats, Ints, Ints]:
    """Return past days as rows (d, day), and time of day and kind of day of the steps to come."""
    day = grid.day
    whole = -(-len(history) // day)
    padded = np.full(whole * day, np.nan)
    padded[: len(history)] = history
    ahead = first + np.arange(steps)
    return padded.reshape(whole, day), ahead % day, grid.kinds(first, steps)


def _recent_mean(past: Floats, slots: Ints, kinds: Ints, grid: Grid, *, same_kind: bool) -> Floats:
    found = np.full(len(slots), np.nan)
    day_kinds = grid.kinds(0, len(past) * grid.day)[:: grid.day]
    for kind in np.unique(kinds):
        rows = past[day_kinds == kind] if same_kind else past
        where = kinds == kind
        found[where] = _mean_of_last(rows, SIMILAR_DAYS)[slots[where]]
    return found


def _mean_of_last(rows: Floats, n: int) -> Floats:
    """Return the mean of the last n finite values of each column, (day,)."""
    if not len(rows):
        return np.full(rows.shape[1], np.nan)
    finite = np.isfinite(rows)
    later = np.cumsum(finite[::-1], axis=0)[::-1] - finite
    used = finite & (later < n)
    return _weighted(rows, used.astype(np.float64))


def _profile(history: Floats, steps: int, grid: Grid) -> Floats:
    past, slots, kinds = _days(history, grid, len(history), steps)
    found = np.full(steps, np.nan)
    day_kinds = grid.kinds(0, len(past) * grid.day)[:: grid.day]
    anyway = _decaying(past)
    for kind in np.unique(kinds):
        own = _decaying(past[day_kinds == kind])
        where = kinds == kind
        found[where] = np.where(np.isfinite(own), own, anyway)[slots[where]]
    return found


def _decaying(rows: Floats) -> Floats:
    if not len(rows):
        return np.full(rows.shape[1], np.nan)
    age = np.arange(len(rows))[::-1]
    return _weighted(rows, np.isfinite(rows) * 0.5 ** (age / MEMORY_DAYS * 2.0)[:, None])


def _weighted(rows: Floats, weight: Floats) -> Floats:
    total = weight.sum(axis=0)
    values = np.where(weight > 0.0, rows, 0.0)
    return np.asarray(np.where(total > 0.0, (values * weight).sum(axis=0) / np.where(total > 0.0, total, 1.0), np.nan))
