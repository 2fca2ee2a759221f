"""Telemetry and decision frames in a file of their own: cheap, prunable, and never in the way of an order.

``record`` only puts a frame into memory. A thread writes batches with synchronous=NORMAL; when it cannot, frames are
dropped and counted, and the daemon goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from vppd.errors import Garbled, VppdError
from vppd.ledger.behind import Behind
from vppd.ledger.database import readable, sole_owner, transaction, translated
from vppd.ledger.expendable import opened, put_aside

QUEUE_MAX = 10_000
PAGE = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS frames(
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, mono_s REAL NOT NULL, at_us INTEGER NOT NULL, blob BLOB NOT NULL) STRICT
"""
_INSERT = "INSERT INTO frames(kind, mono_s, at_us, blob) VALUES(?, ?, ?, ?)"
_USED = (
    "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Frame(NamedTuple):
    """One recorded frame."""

    kind: str
    mono_s: float
    """Monotonic time of the frame. [s]"""
    at: datetime
    blob: bytes


@dataclass(frozen=True, slots=True)
class Retention:
    """How much telemetry is kept, and how often it is written."""

    keep_s: float = 7 * 86_400.0
    """Frames older than the newest by more than this are deleted. [s]"""
    max_bytes: int = 1_000_000_000
    """Beyond this much data the oldest frames are deleted."""
    flush_s: float = 0.5
    """Longest time a frame waits in memory. [s]"""


class TelemetryStore:
    """Takes frames at any rate and never raises; open it with ``open_telemetry``."""

    def __init__(self, path: Path, retention: Retention) -> None:
        self.fault = ""
        """Why the last write failed; empty when it succeeded."""
        self._path, self._retention = path, retention
        self._db: apsw.Connection | None = None
        self._behind = Behind("vppd-telemetry", self._write, self._end, most=QUEUE_MAX, every_s=retention.flush_s)
        self._behind.start()

    @property
    def dropped(self) -> int:
        """Frames lost since the start, because the queue was full or the disk failed."""
        return self._behind.dropped

    def record(self, kind: str, mono_s: float, at: datetime, blob: bytes) -> None:
        """Take a frame; when the queue is full the oldest one gives way."""
        self._behind.put(Frame(kind, mono_s, at, blob))

    async def flush(self) -> None:
        """Return when every frame taken so far has been written or dropped."""
        await self._behind.flush()

    async def close(self) -> None:
        """Write what waits, if the disk takes it, and end the thread."""
        await self._behind.close()

    def _end(self) -> None:
        if self._db is not None:
            self._db.close()

    def _write(self, batch: deque[Frame]) -> None:
        try:
            self._db = self._db or opened(self._path, _SCHEMA)
            with translated(self._path):
                self._commit(self._db, batch)
            self.fault = ""
        except VppdError as error:
            self.fault = str(error)
            if isinstance(error, Garbled) and self._db is not None:
                self._db.close()
                self._db = None
                put_aside(self._path)
            self._behind.give_up(batch)

    def _commit(self, db: apsw.Connection, batch: deque[Frame]) -> None:
        rows = [(frame.kind, frame.mono_s, _microseconds(frame.at), frame.blob) for frame in batch]
        with transaction(db):
            self._prune(db, rows[-1][2])
            db.executemany(_INSERT, rows)

    def _prune(self, db: apsw.Connection, newest_us: int) -> None:
        """Delete what is too old, or the oldest tenth when there is too much; the file reuses the room."""
        oldest_us = newest_us - round(self._retention.keep_s * 1e6)
        db.execute(
            "DELETE FROM frames WHERE id < coalesce((SELECT id FROM frames WHERE at_us >= ? ORDER BY id LIMIT 1),"
            " (SELECT max(id) + 1 FROM frames))",
            (oldest_us,),
        )
        used: list[tuple[Any, ...]] = db.execute(_USED).fetchall()
        if used[0][0] > self._retention.max_bytes:
            db.execute("DELETE FROM frames WHERE id <= (SELECT min(id) + (max(id) - min(id) + 9) / 10 FROM frames)")


@asynccontextmanager
async def open_telemetry(path: Path, retention: Retention | None = None) -> AsyncIterator[TelemetryStore]:
    """Take frames for ``path``; a disk that does not take them only sets ``fault``.

    A damaged file is put aside as ``*.damaged`` and a new one begun. Raises ConfigError when somebody else writes it.
    """
    with sole_owner(path):
        store = TelemetryStore(path, retention or Retention())
        try:
            yield store
        finally:
            await store.close()


def frames(path: Path) -> Iterator[Frame]:
    """Yield the recorded frames in order of recording. Raises ConfigError when there is no file, Garbled."""
    with closing(readable(path)) as db:
        after = 0
        while True:
            with translated(path):
                rows: list[tuple[Any, ...]] = db.execute(
                    "SELECT id, kind, mono_s, at_us, blob FROM frames WHERE id > ? ORDER BY id LIMIT ?", (after, PAGE)
                ).fetchall()
            for _, kind, mono_s, at_us, blob in rows:
                yield Frame(kind, mono_s, _EPOCH + at_us * _MICROSECOND, blob)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND
