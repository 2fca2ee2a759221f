"""Quantile forecasts that know their own error: a single-valued method, the errors it made, and how it did on days held back. Pure.

Quantiles are those of the errors in a rolling back-test, by how far ahead and by time of day (split conformal prediction: Vovk et al.).
The newest origins are held back: what the quantiles would have been without them is scored on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vppd.core.forecast.point import METHODS, Grid, Method
from vppd.snapshot import Bools, Floats, Ints

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
HELD_BACK_FRAC = 0.3
"""This part of the back-test's origins is used for the score alone."""
LEAST_ERRORS = 30
"""With fewer errors of a time of day, those of the times around it are taken too."""
PARTS_OF_DAY = 12
"""Errors are told apart by two hours of the day: what goes wrong at dawn is not what goes wrong at noon."""
LEAD_EDGES_S = (900.0, 3_600.0, 4 * 3_600.0, 12 * 3_600.0, 24 * 3_600.0)
"""Errors are told apart by how far ahead they were made. [s]"""


@dataclass(frozen=True, slots=True)
class Trial:
    """How a forecast is tried on the past."""

    reach_s: float = 21 * 86_400.0
    """So far back it begins. [s]"""
    every_s: float = 2 * 3_600.0
    """From so many origins. [s]"""


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """How a forecast did on days that its quantiles had not seen."""

    pinball: float
    """Mean over levels and values, in the units of the series; smaller is better."""
    coverage: Floats
    """(q,) how often the truth was at or below each level; the level itself is perfect. [0-1]"""
    samples: int

    @property
    def known(self) -> bool:
        """Say whether there was anything to score."""
        return self.samples > 0


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """The losses behind a score, so that two forecasts can be compared where both said something."""

    losses: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    """(o, h) pinball loss by origin held back and step ahead, in the units of the series; NaN where nothing was said or measured."""
    learnt: int = 0
    """Origins whose errors were known before those held back."""


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """Quantiles of the steps to come."""

    method: str
    step_s: float
    levels: tuple[float, ...]
    values: Floats
    """(q, h) in the units of the series, non-decreasing along the levels; NaN where nothing can be said."""
    score: Score
    paths: Floats
    """(i, h) what the steps would be if the errors made at this time on past day i were made again, oldest first; NaN where unknown.

    With histories of one length, step and trial, row i is the same past moment in every series: rows are joint samples.
    """
    trials: Trials = field(default_factory=Trials)

    def at(self, level_frac: float) -> Floats:
        """Return the steps at one level, (h,). Raises KeyError for a level that was not asked for."""
        if level_frac not in self.levels:
            raise KeyError(f"level {level_frac:g} is not among {', '.join(f'{x:g}' for x in self.levels)}")
        return np.asarray(self.values[self.levels.index(level_frac)])


@dataclass(frozen=True, slots=True, eq=False)
class _Errors:
    """What a method got wrong: truth minus forecast, by origin, one row each."""

    point: Floats
    """(o, h) what it said."""
    error: Floats
    """(o, h)"""
    bucket: Ints
    """(o, h) how far ahead and at what time of day."""


def forecast(
    history: Floats,
    steps: int,
    grid: Grid,
    *,
    method: str = "",
    levels: Sequence[float] = LEVELS,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    trial: Trial = Trial(),
    methods: Mapping[str, Method] = METHODS,
) -> Forecast:
    """Return the quantiles of the next ``steps``; without a ``method`` the one with the least back-tested pinball loss.

    ``history`` (t,) begins at the start of a day and ends now. ``methods``: those to choose from, such as what others said at each
    origin. Raises KeyError for an unknown method.
    """
    names = [method] if method else list(methods)
    tried = [_forecast(name, methods[name], history, steps, grid, tuple(levels), bounds, trial) for name in names]
    return min(tried, key=lambda found: (not found.score.known, found.score.pinball))


def pinball(levels: Iterable[float], values: Floats, truth: Floats) -> float:
    """Return the mean quantile loss of (q, n) values, missing ones left out (Koenker and Bassett 1978)."""
    loss = _losses(tuple(levels), values, truth)
    return float(np.nanmean(loss)) if np.isfinite(loss).any() else np.inf


def scored(levels: tuple[float, ...], values: Floats, truth: Floats, learnt: int) -> tuple[Score, Trials]:
    """Return how quantiles (q, o, h) did against what came true (o, h); ``learnt`` as in ``Trials``."""
    losses = _losses(levels, values, truth).mean(axis=0)
    sure = np.isfinite(losses)
    if not sure.any():
        return Score(np.inf, np.full(len(levels), np.nan), 0), Trials(losses, learnt)
    covered = (truth[sure][None, :] <= values[:, sure]).mean(axis=1)
    return Score(float(losses[sure].mean()), covered, int(sure.sum())), Trials(losses, learnt)


def held_back(t: int, grid: Grid, trial: Trial = Trial()) -> Ints:
    """Return the origins on which alone a forecast is scored."""
    origins = _origins(t, grid, trial)
    return origins[_learnt(len(origins)) :]


def ahead_of(history: Floats, origins: Ints, steps: int) -> Floats:
    """Return what came true after each origin, (o, steps); NaN where nobody knows yet."""
    at = origins[:, None] + np.arange(steps)
    return np.where(at < len(history), np.append(history, np.nan)[np.minimum(at, len(history))], np.nan)


def _losses(levels: tuple[float, ...], values: Floats, truth: Floats) -> Floats:
    tau = np.asarray(levels).reshape(-1, *(1,) * truth.ndim)
    miss = truth[None] - values
    return np.asarray(np.maximum(tau * miss, (tau - 1.0) * miss))


def _forecast(
    name: str,
    method: Method,
    history: Floats,
    steps: int,
    grid: Grid,
    levels: tuple[float, ...],
    bounds: tuple[float, float],
    trial: Trial,
) -> Forecast:
    t = len(history)
    origins = _origins(t, grid, trial)
    point = method(history, np.append(origins, t), steps, grid)
    bucket = _bucket(np.append(origins, t), steps, grid)
    errors = _Errors(point[:-1], ahead_of(history, origins, steps) - point[:-1], bucket[:-1])
    score, trials = _score(errors, history, origins, levels, bounds)
    spread = np.nan_to_num(_spread(errors.error, errors.bucket, levels))
    values = _values(point[-1], spread[:, bucket[-1]], bounds)
    paths = np.clip(point[-1] + errors.error[_alike(origins, t, grid, trial)], *bounds)
    return Forecast(name, grid.step_s, levels, values, score, paths, trials)


def _origins(t: int, grid: Grid, trial: Trial) -> Ints:
    """Return the origins of the back-test, each with the truth of at least one step behind it."""
    every = max(1, round(trial.every_s / grid.step_s))
    first = max(grid.day, t - round(trial.reach_s / grid.step_s))
    return np.arange(t - 1, first - 1, -every)[::-1]


def _learnt(origins: int) -> int:
    """Return how many of the origins, the oldest ones, are not held back."""
    return int(np.ceil(origins * (1.0 - HELD_BACK_FRAC)))


def _alike(origins: Ints, t: int, grid: Grid, trial: Trial) -> Bools:
    """Say which origins are at the time of day it is now: what went wrong at night says nothing of noon."""
    apart = np.abs(t - 1 - origins) % grid.day
    return np.asarray(np.minimum(apart, grid.day - apart) * grid.step_s <= 0.5 * trial.every_s)


def _bucket(origins: Ints, steps: int, grid: Grid) -> Ints:
    """Return to which errors each step ahead belongs, (o, h): lead times PARTS_OF_DAY and part of the day."""
    ahead = np.arange(steps)
    lead = np.searchsorted(np.asarray(LEAD_EDGES_S), (ahead + 1) * grid.step_s - 1e-6)
    part = grid.wall(0, int(origins.max()) + steps) % grid.day * PARTS_OF_DAY // grid.day
    return np.asarray(lead * PARTS_OF_DAY + part[origins[:, None] + ahead], dtype=np.int16)


def _values(point: Floats, spread: Floats, bounds: tuple[float, float]) -> Floats:
    return np.asarray(np.clip(np.maximum.accumulate(point[None] + spread, axis=0), *bounds))


def _spread(error: Floats, bucket: Ints, levels: tuple[float, ...]) -> Floats:
    """Return the quantiles of the errors that belong together, (q, buckets); NaN where none has been made."""
    finite = np.isfinite(error)
    belongs, made = bucket[finite], error[finite]
    order = np.argsort(made)
    made = made[order[np.argsort(belongs[order], kind="stable")]]
    count = np.bincount(belongs, minlength=PARTS_OF_DAY * (len(LEAD_EDGES_S) + 1))
    begin = np.cumsum(count) - count
    own = np.flatnonzero(count >= LEAST_ERRORS)
    found = np.full((len(levels), len(count)), np.nan)
    found[:, own] = _quantiles(made, begin[own], count[own], levels)
    for few in np.flatnonzero(count < LEAST_ERRORS).tolist():
        near = _around(few, count)
        pooled = np.sort(np.concatenate([made[begin[k] : begin[k] + count[k]] for k in near]))
        if len(pooled):
            found[:, few] = _quantiles(pooled, np.array([0]), np.array([len(pooled)]), levels)[:, 0]
    return found


def _around(few: int, count: Ints) -> list[int]:
    """Return the buckets of the same lead whose times of day are nearest, as many on both sides as make errors enough."""
    lead, part = divmod(few, PARTS_OF_DAY)
    near = [few]
    for apart in range(1, PARTS_OF_DAY // 2 + 1):
        if count[near].sum() >= LEAST_ERRORS:
            break
        near += {lead * PARTS_OF_DAY + (part + side) % PARTS_OF_DAY for side in (-apart, apart)}
    return near


def _quantiles(ordered: Floats, begin: Ints, count: Ints, levels: tuple[float, ...]) -> Floats:
    """Return quantiles of runs of ordered values, (q, runs), on the safe side: outwards by one place, as conformal prediction asks."""
    tau = np.asarray(levels)[:, None]
    below = np.maximum(np.floor(tau * (count + 1)) - 1, 0)
    above = np.minimum(np.ceil(tau * (count + 1)) - 1, count - 1)
    middle = tau == 0.5
    low = np.where(middle, (count - 1) // 2, np.where(tau < 0.5, below, above)).astype(np.int64)
    high = np.where(middle, count // 2, low)
    return np.asarray(0.5 * (ordered[begin + low] + ordered[begin + high]))


def _score(
    errors: _Errors, history: Floats, origins: Ints, levels: tuple[float, ...], bounds: tuple[float, float]
) -> tuple[Score, Trials]:
    """Return loss and coverage on the origins held back, with quantiles from truths that were known before them."""
    held = _learnt(len(origins))
    if held < 1 or held >= len(origins):
        return Score(np.inf, np.full(len(levels), np.nan), 0), Trials()
    known = _known_before(errors.error[:held], origins[:held], origins[held])
    spread = _spread(known, errors.bucket[:held], levels)
    values = _values(errors.point[held:], spread[:, errors.bucket[held:]], bounds)
    learnt = int(np.isfinite(known).any(axis=1).sum())
    return scored(levels, values, ahead_of(history, origins[held:], errors.point.shape[1]), learnt)


def _known_before(error: Floats, origins: Ints, until: int) -> Floats:
    """Return the errors without those whose truth lies at or after step ``until``: nobody could have known them."""
    at = origins[:, None] + np.arange(error.shape[1])[None, :]
    return np.where(at < until, error, np.nan)
