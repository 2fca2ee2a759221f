"""Single-valued forecasts of a series on a fixed grid: persistence, similar day, seasonal with on-line bias correction. Pure.

A series is (t,), NaN where nothing was measured. A method is asked for many origins at once, as a back-test needs them: at each it
sees what is known before that step, and returns the next steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from vppd.snapshot import Bools, Floats, Ints

DAY_S = 86_400.0
SIMILAR_DAYS = 5
"""So many days of the same kind are averaged."""
MEMORY_DAYS = 10.0
"""Weight of a day in the seasonal profile falls to a quarter after so many days of its kind."""
BIAS_S = 7_200.0
"""The error seen last fades out over this time. [s]"""
BIAS_WINDOW_S = 1_800.0
"""The error seen last is that of this long. [s]"""


@dataclass(frozen=True, slots=True)
class Grid:
    """The time grid of a series: steps of equal length, and what the clock on the wall says of them."""

    step_s: float
    kind_of_day: tuple[int, ...] = (0, 0, 0, 0, 0, 1, 1)
    """Days that are alike have the same number, from the day of the series' first value on, for ever in this order."""
    clock: tuple[tuple[int, int], ...] = ()
    """Changes of the clock: (step, how many steps the clock is ahead of that of step 0 from there on), in order of time."""

    sunny: bool = False
    """It comes of the sun: where there has never been anything at some time of day, there will be nothing."""

    @property
    def day(self) -> int:
        """Return the steps of a day. Raises ValueError when the step does not divide it."""
        steps = round(DAY_S / self.step_s)
        if steps < 1 or abs(steps * self.step_s - DAY_S) > 1e-6 * DAY_S:
            raise ValueError(f"a step of {self.step_s:g} s does not divide a day")
        return steps

    def wall(self, first: int, n: int) -> Ints:
        """Return n steps from step ``first`` on as the clock counts them, (n,): one is left out or comes twice where it changes."""
        steps = first + np.arange(n)
        if not self.clock:
            return np.asarray(steps)
        begins, ahead = np.asarray(self.clock, dtype=np.int64).T
        return np.asarray(steps + np.concatenate([[0], ahead])[np.searchsorted(begins, steps, side="right")])

    def kinds(self, first: int, n: int) -> Ints:
        """Return the kind of day of n steps from step ``first`` on, (n,)."""
        return np.asarray(self.kind_of_day, dtype=np.int64)[self.wall(first, n) // self.day % len(self.kind_of_day)]


Method = Callable[[Floats, Ints, int, Grid], Floats]
"""(history (t,), origins (o,) in [0, t], steps ahead, grid) -> (o, steps); NaN where it has nothing to say.

At an origin only the history before it is known. Step 0 of the history begins day 0.
"""


def persistence(history: Floats, origins: Ints, steps: int, grid: Grid) -> Floats:
    """Return the last value that is known, for ever; none when it is more than a day old."""
    known = np.concatenate([[-1], np.where(np.isfinite(history), np.arange(len(history)), -1)])
    last = np.maximum.accumulate(known)[origins]
    fresh = (last >= 0) & (last >= origins - grid.day)
    values = np.append(history, np.nan)[np.where(fresh, last, len(history))]
    return np.repeat(values[:, None], steps, axis=1)


def similar_day(history: Floats, origins: Ints, steps: int, grid: Grid) -> Floats:
    """Return the mean of the same time on the last days of the same kind, and of any kind where there is none."""
    return _looked_up(_last_means, history, origins, steps, grid)


def seasonal(history: Floats, origins: Ints, steps: int, grid: Grid) -> Floats:
    """Return the decaying profile of the time of day and kind of day, shifted by the error it made last, which fades."""
    window = min(max(1, round(BIAS_WINDOW_S / grid.step_s)), int(origins.min(initial=len(history))))
    profile = _looked_up(_decaying, history, origins - window, window + steps, grid)
    error = history[(origins - window)[:, None] + np.arange(window)] - profile[:, :window]
    seen = np.isfinite(error)
    bias = np.where(seen, error, 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    fade = np.exp(-(np.arange(steps) + 1.0) * grid.step_s / BIAS_S)
    ahead = profile[:, window:]
    late = np.where(ahead == 0.0, 0.0, fade) if grid.sunny else fade  # a cloudless evening says nothing of the night
    return np.asarray(ahead + bias[:, None] * late)


METHODS: dict[str, Method] = {"persistence": persistence, "similar-day": similar_day, "seasonal": seasonal}

Profiles = Callable[[Floats, Bools], Iterator[Floats]]
"""(days (d, day), those that count (d,)) -> for each day what was known of the times of day at its end, (day,)."""


def _looked_up(profiles: Profiles, history: Floats, origins: Ints, steps: int, grid: Grid) -> Floats:
    """Return for each origin the profiles of the days to come, of times that had passed today with today in them, (o, steps)."""
    whole = grid.wall(0, len(history) + steps)
    of_day, slot = whole // grid.day, whole % grid.day
    rows = _by_day(history, whole[: len(history)], grid.day)
    kinds, kind = np.unique(np.asarray(grid.kind_of_day), return_inverse=True)
    kind = kind[np.arange(int(whole.max(initial=0)) // grid.day + 1) % len(grid.kind_of_day)]
    tables = _tables(profiles, rows, kind[: len(rows)], len(kinds))
    ahead = origins[:, None] + np.arange(steps)
    known = np.minimum(of_day[origins][:, None] + (slot[ahead] < slot[origins][:, None]), len(rows))
    return np.asarray(tables[kind[of_day[ahead]], known, slot[ahead]])


def _by_day(history: Floats, wall: Ints, day: int) -> Floats:
    """Return the days of the clock as rows (d, day): an hour that is left out is missing, of one that comes twice the first counts."""
    steps = -(-(int(wall.max(initial=-1)) + 1) // day) * day
    found = np.full(steps, np.nan)
    first = np.diff(np.maximum.accumulate(wall), prepend=-1) > 0
    found[wall[first]] = history[first]
    return found.reshape(-1, day)


def _tables(profiles: Profiles, rows: Floats, kind: Ints, kinds: int) -> Floats:
    """Return what the first i days say of each kind of day, (kinds, d + 1, day); days of any kind where there are none of it."""
    unknown = np.full((1, rows.shape[1]), np.nan)
    anyway = np.concatenate([unknown, *(row[None, :] for row in profiles(rows, np.full(len(rows), True)))])
    if kinds == 1:
        return np.asarray(anyway[None])
    own = np.stack([np.concatenate([unknown, *(x[None, :] for x in profiles(rows, kind == k))]) for k in range(kinds)])
    return np.where(np.isfinite(own), own, anyway)


def _last_means(rows: Floats, counts: Bools) -> Iterator[Floats]:
    """Yield the means of the last values that are known of each time of day."""
    last = np.full((SIMILAR_DAYS, rows.shape[1]), np.nan)
    found = last[0]
    for row, counted in zip(rows, counts.tolist(), strict=True):
        if counted:
            last = np.where(np.isfinite(row), np.concatenate([row[None, :], last[:-1]]), last)
            known = np.isfinite(last)
            n = known.sum(axis=0)
            found = np.where(n > 0, np.where(known, last, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)
        yield found


def _decaying(rows: Floats, counts: Bools) -> Iterator[Floats]:
    """Yield means in which each day counts less than the one after it."""
    keep = 0.5 ** (2.0 / MEMORY_DAYS)
    total, weight = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for row, counted in zip(rows, counts.tolist(), strict=True):
        if counted:
            known = np.isfinite(row)
            total, weight = keep * total + np.where(known, row, 0.0), keep * weight + known
        yield np.where(weight > 0.0, total / np.where(weight > 0.0, weight, 1.0), np.nan)
