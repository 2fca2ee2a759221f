"""What was measured, as 5-minute means, and what feeds said would come: small, restart-safe, and never in the way of an order.

``record`` and ``issue`` only put something into memory. A thread writes with synchronous=NORMAL; what it cannot write waits, for a
day at most. One row holds a day (UTC) of one series.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import numpy as np
import structlog

from vppd.errors import Garbled, VppdError
from vppd.ledger.behind import Behind
from vppd.ledger.database import sole_owner, transaction, translated
from vppd.ledger.expendable import opened, put_aside
from vppd.snapshot import Floats

STEP_S = 300.0
"""What is measured is kept as means over so long. [s]"""
DAY_STEPS = 288
ISSUE_STEP_S = 900.0
"""Of what a feed said within so long, the newest is kept. [s]"""
ISSUES_KEPT_S = 30 * 86_400.0
"""What feeds said is kept no longer than this: their error is that of the last three weeks. [s]"""
WAITING_MAX = 2 * DAY_STEPS
"""So many writes may wait for a disk that does not take them."""
SERIES_BITS = 20
SCHEMA = """
CREATE TABLE IF NOT EXISTS series(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS days(id INTEGER PRIMARY KEY, means BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS issues(
    feed TEXT NOT NULL, slot INTEGER NOT NULL, series TEXT NOT NULL, issued_us INTEGER NOT NULL, start_us INTEGER NOT NULL,
    step_s REAL NOT NULL, levels BLOB NOT NULL, vals BLOB NOT NULL, PRIMARY KEY(feed, slot)) STRICT;
"""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class Issue:
    """What a feed said at one time; without levels it is one value for each step."""

    feed: str
    series: str
    issued_at: datetime
    start: datetime
    step_s: float
    levels: tuple[float, ...]
    values: Floats
    """(q, h) by level, or (1, h) without; NaN is not said. [units of the series]"""


@dataclass(frozen=True, slots=True, eq=False)
class _Means:
    slot: int
    """Number of the step since 1970."""
    names: Sequence[str]
    means: Floats


@dataclass(slots=True)
class _Book:
    """The open file and the numbers of the series in it."""

    db: apsw.Connection
    ids: dict[str, int] = field(default_factory=dict)


class History:
    """Takes means and issues and never raises; open it with ``open_history``."""

    def __init__(self, path: Path, keep_days: float) -> None:
        self.path = path
        self.fault = ""
        """Why the last write failed; empty when it succeeded."""
        self._keep_s = keep_days * 86_400.0
        self._book: _Book | None = None
        self._behind: Behind[_Means | Issue] = Behind("vppd-history", self._write, self._end, most=WAITING_MAX)
        self._behind.start(lambda: self._write(deque()))  # whoever reads finds a file, empty or not

    @property
    def dropped(self) -> int:
        """Writes lost because the disk took none for too long."""
        return self._behind.dropped

    def record(self, start: datetime, names: Sequence[str], means: Floats) -> None:
        """Take the means of the 5-minute step that begins at ``start``, (s,); NaN was not measured and changes nothing."""
        self._behind.put(_Means(slot_of(start), names, means))

    def issue(self, issue: Issue) -> None:
        """Take what a feed said."""
        self._behind.put(issue)

    async def flush(self) -> None:
        """Return when everything taken so far has been written, or could not be."""
        await self._behind.flush()

    async def close(self) -> None:
        """Write what waits, if the disk takes it, and end the thread."""
        await self._behind.close()

    def _end(self) -> None:
        if self._book is not None:
            self._book.db.close()

    def _write(self, batch: deque[_Means | Issue]) -> None:
        """Write a batch; what the disk does not take waits for the next time."""
        try:
            self._book = self._book or _Book(opened(self.path, SCHEMA))
            with translated(self.path):
                _commit(self._book, batch, self._keep_s)
            self._tell("")
        except VppdError as error:
            self._tell(str(error))
            if self._book is not None:
                self._book.db.close()
                self._book = None
            if isinstance(error, Garbled):
                put_aside(self.path)
            self._behind.put_back(batch)

    def _tell(self, fault: str) -> None:
        if bool(fault) != bool(self.fault):
            log.warning("history_not_written", reason=fault) if fault else log.info("history_written_again")
        self.fault = fault


@asynccontextmanager
async def open_history(path: Path, keep_days: float = 100.0) -> AsyncIterator[History]:
    """Keep history in ``path``; a disk that does not take it only sets ``fault``.

    A damaged file is put aside as ``*.damaged`` and a new one begun. Raises ConfigError when somebody else writes it.
    """
    with sole_owner(path):
        history = History(path, keep_days)
        try:
            yield history
        finally:
            await history.close()


def slot_of(at: datetime) -> int:
    """Return the number of the 5-minute step that ``at`` lies in, since 1970."""
    return (at - EPOCH) // timedelta(seconds=STEP_S)


def row_of(day: int, series: int) -> int:
    """Return the key of a day of a series: old days lie together, which makes them easy to delete."""
    return day << SERIES_BITS | series


def _commit(book: _Book, batch: Sequence[_Means | Issue] | deque[_Means | Issue], keep_s: float) -> None:
    db = book.db
    try:
        with transaction(db):
            for what in batch:
                if isinstance(what, Issue):
                    _write_issue(db, what)
                else:
                    _write_means(book, what)
            newest = max((what.slot for what in batch if isinstance(what, _Means)), default=None)
            if newest is not None:
                _prune(db, newest, keep_s)
    except apsw.Error:
        book.ids.clear()
        raise


def _write_means(book: _Book, what: _Means) -> None:
    day, place = divmod(what.slot, DAY_STEPS)
    for name, mean in zip(what.names, what.means.tolist(), strict=True):
        if mean == mean:  # not NaN
            row = row_of(day, _series(book, name))
            known = book.db.execute("SELECT means FROM days WHERE id = ?", (row,)).fetchone()
            means = np.frombuffer(known[0]).copy() if known else np.full(DAY_STEPS, np.nan)
            means[place] = mean
            book.db.execute("INSERT OR REPLACE INTO days(id, means) VALUES(?, ?)", (row, means.tobytes()))


def _series(book: _Book, name: str) -> int:
    if name not in book.ids:
        book.db.execute("INSERT OR IGNORE INTO series(name) VALUES(?)", (name,))
        row = book.db.execute("SELECT id FROM series WHERE name = ?", (name,)).fetchone()
        assert row is not None
        book.ids[name] = row[0]
    return book.ids[name]


def _write_issue(db: apsw.Connection, issue: Issue) -> None:
    us = microseconds(issue.issued_at)
    db.execute(
        "INSERT OR REPLACE INTO issues(feed, slot, series, issued_us, start_us, step_s, levels, vals)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
        (
            issue.feed, us // round(ISSUE_STEP_S * 1e6), issue.series, us, microseconds(issue.start), issue.step_s,
            np.asarray(issue.levels, dtype=np.float64).tobytes(), np.ascontiguousarray(issue.values).tobytes(),
        ),
    )  # fmt: skip


def _prune(db: apsw.Connection, newest: int, keep_s: float) -> None:
    oldest = newest - round(keep_s / STEP_S)
    db.execute("DELETE FROM days WHERE id < ?", (row_of(oldest // DAY_STEPS, 0),))
    said = newest - round(min(keep_s, ISSUES_KEPT_S) / STEP_S)
    db.execute("DELETE FROM issues WHERE slot < ?", (said * round(STEP_S) // round(ISSUE_STEP_S),))


def microseconds(at: datetime) -> int:
    """Return whole microseconds since 1970."""
    return (at - EPOCH) // timedelta(microseconds=1)
