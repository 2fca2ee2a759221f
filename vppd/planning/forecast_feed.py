"""A feed as a method of forecasting: what it had said at each origin, and how that turned out. Pure but for the file it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from vppd.core.forecast.outlook import MEDIAN_FRAC, resampled
from vppd.core.forecast.point import Grid
from vppd.core.forecast.quantiles import Forecast, Score, Trial, held_back, pinball
from vppd.ledger.history import Issue
from vppd.ledger.history_reader import HistoryReader
from vppd.snapshot import Floats


@dataclass(frozen=True, slots=True)
class Round:
    """The grid that all series of one round share: step ``t`` is under way."""

    now: datetime
    first: datetime
    """Beginning of the history."""
    grid: Grid
    t: int
    """Steps of the history."""
    steps: int
    """Steps ahead."""
    levels: tuple[float, ...]
    trial: Trial = field(default_factory=Trial)

    def at(self, origin: int) -> datetime:
        """Return the moment of an origin; that of the newest is now."""
        return self.now if origin >= self.t else self.start_of(origin)

    def start_of(self, origin: int) -> datetime:
        """Return the beginning of a step of the history, or of one ahead."""
        return self.first + timedelta(seconds=origin * self.grid.step_s)


class SaidBefore:
    """What one feed said of a series, by origin."""

    def __init__(self, reader: HistoryReader, feed: str, series: str, stale_after_s: float, whole: Round) -> None:
        self._reader, self._feed, self._series, self._round = reader, feed, series, whole
        self._stale_after = timedelta(seconds=stale_after_s)
        self._known: dict[int, Issue | None] = {}

    @property
    def newest(self) -> Issue | None:
        """Return what it said last, however long ago."""
        return self._reader.newest_issue(self._feed, self._series, self._round.now)

    def method(self, history: Floats, steps: int, grid: Grid) -> Floats:
        """Return what the feed expected at the end of ``history``, (steps,): its median, or its only value."""
        issue = self._by(len(history))
        if issue is None:
            return np.full(steps, np.nan)
        rows = self._on_grid(issue, len(history), steps)
        return np.asarray(at_levels(issue.levels, rows, (MEDIAN_FRAC,))[0] if issue.levels else rows[0])

    def quantiles(self, origin: int) -> Floats | None:
        """Return the feed's own quantiles (q, h) at an origin, None where it gave none."""
        issue = self._by(origin)
        if issue is None or not issue.levels:
            return None
        return at_levels(issue.levels, self._on_grid(issue, origin, self._round.steps), self._round.levels)

    def _by(self, origin: int) -> Issue | None:
        """Return what was known at an origin, and not stale then."""
        if origin not in self._known:
            at = self._round.at(origin)
            issue = self._reader.newest_issue(self._feed, self._series, at)
            fresh = issue is not None and at - issue.issued_at <= self._stale_after
            self._known[origin] = issue if fresh else None
        return self._known[origin]

    def _on_grid(self, issue: Issue, origin: int, steps: int) -> Floats:
        start = self._round.start_of(origin)
        return resampled(issue.values, issue.start, issue.step_s, start, self._round.grid.step_s, steps)


def at_levels(levels: Sequence[float], rows: Floats, wanted: Sequence[float]) -> Floats:
    """Return rows (q, h) at other levels: between two in proportion, beyond the outermost no further than these."""
    known = np.asarray(levels)
    place = np.interp(wanted, known, np.arange(len(known)))
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, len(known) - 1)
    part = (place - below)[:, None]
    return np.asarray(np.where(part > 0.0, (1.0 - part) * rows[below] + part * rows[above], rows[below]))


def own_quantiles(said: SaidBefore, history: Floats, found: Forecast, whole: Round) -> Forecast:
    """Return ``found`` with the feed's own quantiles where these did better than quantiles of its past errors, or nothing is known."""
    now = said.quantiles(whole.t)
    if now is None:
        return found
    values, truth = [], []
    for origin in held_back(whole.t, whole.steps, whole.grid, whole.trial).tolist():
        rows, real = said.quantiles(origin), history[origin : origin + whole.steps]
        if rows is not None:
            values.append(rows[:, : len(real)])
            truth.append(real)
    score = _scored(whole.levels, values, truth)
    if found.score.known and (not score.known or found.score.pinball < score.pinball):
        return found
    return Forecast(found.method, found.step_s, found.levels, now, score, found.paths)


def _scored(levels: tuple[float, ...], values: Sequence[Floats], truth: Sequence[Floats]) -> Score:
    rows = np.concatenate(values, axis=1) if values else np.zeros((len(levels), 0))
    real = np.concatenate(truth) if truth else np.zeros(0)
    sure = np.isfinite(real) & np.isfinite(rows).all(axis=0)
    if not sure.any():
        return Score(np.inf, np.full(len(levels), np.nan), 0)
    rows, real = rows[:, sure], real[sure]
    return Score(pinball(levels, rows, real), (real[None, :] <= rows).mean(axis=1), int(sure.sum()))
