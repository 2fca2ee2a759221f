"""What the history file knows, for whoever forecasts: another process may read while the daemon writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from vppd.core.forecast.outlook import LEAST_COVERED_FRAC
from vppd.errors import Garbled
from vppd.ledger.database import readable, translated
from vppd.ledger.history import (
    DAY_STEPS,
    EPOCH,
    ISSUE_STEP_S,
    SERIES_BITS,
    STEP_S,
    Issue,
    microseconds,
    row_of,
    slot_of,
)
from vppd.snapshot import Floats

_NEWEST = (
    "SELECT feed, series, issued_us, start_us, step_s, levels, vals FROM issues"
    " WHERE feed = ? AND series = ? AND slot <= ? AND issued_us <= ? ORDER BY slot DESC LIMIT 1"
)
"""By the slot, which is in the key: a back-test asks this hundreds of times of thousands of issues."""


class HistoryReader:
    """One look into a history file; open it with ``reading``. Methods raise Unreachable or Garbled."""

    def __init__(self, db: apsw.Connection, path: Path) -> None:
        self._db, self._path = db, path
        with translated(path):
            self._ids = dict(self._rows("SELECT name, id FROM series"))

    @property
    def names(self) -> tuple[str, ...]:
        """Return every series of which anything was ever measured."""
        return tuple(sorted(self._ids))

    def array(self, name: str, start: datetime, step_s: float, steps: int) -> Floats:
        """Return the means over ``steps`` steps from ``start`` on, (steps,); NaN where less than half of one was measured.

        Raises ValueError unless steps are whole numbers of 5 minutes on the grid of the day (UTC).
        """
        per, first = _parts(start, step_s)
        means = self._means(name, first, steps * per).reshape(steps, per)
        known = np.isfinite(means)
        count = known.sum(axis=1)
        enough = (count >= LEAST_COVERED_FRAC * per) & (count > 0)
        return np.asarray(np.where(enough, np.where(known, means, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan))

    def first_day(self) -> datetime | None:
        """Return the beginning of the oldest day (UTC) on which anything was measured."""
        with translated(self._path):
            row = self._rows("SELECT min(id) FROM days")[0][0]
        return None if row is None else EPOCH + timedelta(days=row >> SERIES_BITS)

    def newest_issue(self, feed: str, series: str, until: datetime) -> Issue | None:
        """Return the last thing that a feed had said of a series by ``until``; it may once have been about another one."""
        us = microseconds(until)
        with translated(self._path):
            rows = self._rows(_NEWEST, (feed, series, us // round(ISSUE_STEP_S * 1e6), us))
        return self._issue(*rows[0]) if rows else None

    def _means(self, name: str, first: int, count: int) -> Floats:
        """Return ``count`` 5-minute means from step number ``first`` on."""
        number = self._ids.get(name)
        day, last = first // DAY_STEPS, (first + count - 1) // DAY_STEPS
        found = np.full((last - day + 1, DAY_STEPS), np.nan)
        if number is not None:
            keys = [(row_of(k, number),) for k in range(day, last + 1)]
            with translated(self._path):
                for key, means in self._db.executemany("SELECT id, means FROM days WHERE id = ?", keys):
                    found[(key >> SERIES_BITS) - day] = _floats(means, self._path, DAY_STEPS)
        skip = first - day * DAY_STEPS
        return found.reshape(-1)[skip : skip + count]

    def _issue(
        self, feed: str, series: str, issued_us: int, start_us: int, step_s: float, levels: bytes, values: bytes
    ) -> Issue:
        tau = tuple(_floats(levels, self._path).tolist())
        rows = _floats(values, self._path).reshape(len(tau) or 1, -1)
        return Issue(feed, series, _moment(issued_us), _moment(start_us), step_s, tau, rows)

    def _rows(self, sql: str, bound: Sequence[Any] = ()) -> list[Any]:
        return list(self._db.execute(sql, bound))


@contextmanager
def reading(path: Path) -> Iterator[HistoryReader]:
    """Look into a history file. Raises ConfigError when there is none, Unreachable or Garbled."""
    with closing(readable(path)) as db:
        yield HistoryReader(db, path)


def _parts(start: datetime, step_s: float) -> tuple[int, int]:
    """Return how many 5-minute steps make one step, and the number of the first."""
    per, first = round(step_s / STEP_S), slot_of(start)
    if per < 1 or per * STEP_S != step_s or EPOCH + timedelta(seconds=STEP_S) * first != start:
        raise ValueError(f"steps of {step_s:g} s from {start.isoformat()} on are not whole numbers of {STEP_S:g} s")
    return per, first


def _floats(blob: bytes, path: Path, count: int | None = None) -> Floats:
    if len(blob) % 8 or (count is not None and len(blob) != 8 * count):
        raise Garbled(f"{path}: a row has {len(blob)} bytes")
    return np.frombuffer(blob, dtype=np.float64)


def _moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)
