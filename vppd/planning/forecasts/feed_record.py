"""A feed as a method of forecasting: what it had said at each origin, and how that turned out. Pure but for the file it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np

from vppd.core.forecast.outlook import MEDIAN_FRAC, resampled
from vppd.core.forecast.point import Grid
from vppd.core.forecast.quantiles import Forecast, ahead_of, held_back, scored
from vppd.ledger.history import Issue
from vppd.ledger.history_reader import HistoryReader
from vppd.planning.forecasts.round import Round
from vppd.snapshot import Floats, Ints


class SaidBefore:
    """What one feed said of a series, by origin."""

    def __init__(self, reader: HistoryReader, feed: str, series: str, stale_after_s: float, whole: Round) -> None:
        self._reader, self._feed, self._series, self._round = reader, feed, series, whole
        self._stale_after = timedelta(seconds=stale_after_s)
        self._known: dict[int, Issue | None] = {}

    @property
    def now(self) -> Issue | None:
        """Return what it says now, None when it is stale or has said nothing."""
        return self._by(self._round.t)

    def silence(self) -> str:
        """Return why it is not used."""
        newest = self._reader.newest_issue(self._feed, self._series, self._round.now)
        if newest is None:
            return f"feed {self._feed!r} has said nothing yet"
        if self._round.now - newest.issued_at > self._stale_after:
            at, limit_s = newest.issued_at.isoformat(timespec="seconds"), self._stale_after.total_seconds()
            return f"feed {self._feed!r} is stale: what it said at {at} is more than {limit_s:g} s old"
        return f"feed {self._feed!r} says nothing of the time to come"

    def method(self, history: Floats, origins: Ints, steps: int, grid: Grid) -> Floats:
        """Return what the feed expected at each origin, (o, steps): its median, or its only value."""
        return np.stack([self._expected(origin, steps) for origin in origins.tolist()])

    def _expected(self, origin: int, steps: int) -> Floats:
        issue = self._by(origin)
        if issue is None:
            return np.full(steps, np.nan)
        rows = self._on_grid(issue, origin, steps)
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
    origins = held_back(whole.t, whole.grid, whole.trial)
    blank = np.full((len(whole.levels), whole.steps), np.nan)
    rows = [said.quantiles(origin) for origin in origins.tolist()]
    values = np.stack([blank, *(blank if row is None else row for row in rows)], axis=1)[:, 1:]
    score, trials = scored(whole.levels, values, ahead_of(history, origins, whole.steps), len(origins))
    if found.score.known and (not score.known or found.score.pinball < score.pinball):
        return found
    return replace(found, values=now, score=score, trials=trials)
