"""The ledger: one writer thread, one SQLite file, every acknowledged event on disk before ``append`` returns.

Callers that wait at the same moment share a commit, so the disk's sync time bounds latency, not throughput.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

import apsw

from vppd.errors import ConfigError, DeviceError, Refused, Unreachable
from vppd.ledger.chain import link, record_of
from vppd.ledger.database import readable, sole_owner, translated, writable
from vppd.ledger.reader import Head, LedgerReader, last_link
from vppd.model import Event, Recorded

SCHEMA_VERSION = 1
APPLICATION_ID = 0x76707064
"""``vppd`` in ASCII: what ``file`` shows of a ledger."""
GROUP = 1_000
"""Most calls that share one commit."""
WAITING_MAX = 20_000
"""More calls than this waiting for a commit means that the disk does not answer."""
FULL = 2
"""What SQLite calls synchronous=FULL."""

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS events(
    id INTEGER PRIMARY KEY, stream TEXT NOT NULL, key TEXT UNIQUE, record BLOB NOT NULL, hash BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS events_of_stream ON events(stream, id);
CREATE TRIGGER IF NOT EXISTS events_stay BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'ledger events are never deleted'); END;
CREATE TRIGGER IF NOT EXISTS events_are_fixed BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'ledger events are never changed'); END;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""


@dataclass(frozen=True, slots=True)
class _Row:
    """An event in the form in which it is stored."""

    stream: str
    key: str | None
    record: bytes


@dataclass(slots=True, eq=False)
class _Job:
    """One call of ``append``: all of its rows or none."""

    rows: tuple[_Row, ...]
    done: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    error: Exception | None = None


class SqliteLedger:
    """``vppd.ports.Ledger`` in one SQLite file; open it with ``open_ledger``."""

    def __init__(self, writer: _Writer, reader: LedgerReader) -> None:
        self._writer, self._reader = writer, reader

    async def append(self, *events: Event) -> None:
        """Return once all events are on disk, all or none.

        A cancelled caller's events are still written, once. Raises Refused when a key is taken, Unreachable (retry)
        or Garbled (corrupt: stop).
        """
        if not events:
            return
        rows = tuple(_Row(event.stream, event.key or None, record_of(event)) for event in events)
        job = _Job(rows, asyncio.get_running_loop().create_future())
        self._writer.submit(job)
        await job.done

    def events(self, stream: str = "", after: int = 0) -> Iterator[Recorded]:
        """Yield recorded events in order, of one stream or of all. Raises Garbled when the chain is broken."""
        return self._reader.events(stream, after)

    def head(self) -> Head:
        """Return the number and hash of the last event."""
        return self._reader.head()

    def verify(self, known: Head | None = None) -> Head:
        """Check the whole file and return its head. Raises Garbled."""
        return self._reader.verify(known)


@asynccontextmanager
async def open_ledger(path: Path) -> AsyncIterator[SqliteLedger]:
    """Open or create the ledger; on leaving, everything that was appended is on disk.

    Raises ConfigError when somebody else writes it or a newer vppd made it, Unreachable or Garbled.
    """
    with sole_owner(path), closing(writable(path, "full")) as db:
        _prepare(db, path)
        with closing(readable(path)) as source:
            writer = _Writer(db, path)
            try:
                yield SqliteLedger(writer, LedgerReader(source, path))
            finally:
                await writer.close()


def _prepare(db: apsw.Connection, path: Path) -> None:
    """Create the tables of a new file; refuse one that is not ours. Raises ConfigError, Unreachable or Garbled."""
    with translated(path):
        version, owner = db.pragma("user_version"), db.pragma("application_id")
        if version > SCHEMA_VERSION or owner not in (0, APPLICATION_ID):
            raise ConfigError(f"{path} was made by another program or a newer vppd (version {version})")
        if version < SCHEMA_VERSION:
            db.execute("BEGIN IMMEDIATE;" + _SCHEMA + "COMMIT")
        if db.pragma("synchronous") != FULL or db.pragma("journal_mode") != "wal":
            raise ConfigError(f"{path}: this file system takes no durable writes (WAL, synchronous=FULL)")


class _Writer:
    """The only thread that writes; it takes all that waits and commits it at once."""

    def __init__(self, db: apsw.Connection, path: Path) -> None:
        self._db, self._path = db, path
        self._waiting: SimpleQueue[_Job | None] = SimpleQueue()
        self._head: tuple[int, bytes] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="vppd-ledger")
        self._thread.start()

    def submit(self, job: _Job) -> None:
        """Hand a job to the thread. Raises Unreachable when far too many wait."""
        if self._closed:
            raise RuntimeError("the ledger is closed")
        if self._waiting.qsize() >= WAITING_MAX:
            raise Unreachable(f"{self._path}: the disk does not keep up, {WAITING_MAX} calls wait for it")
        self._waiting.put(job)

    async def close(self) -> None:
        """Write what waits, then end the thread."""
        self._closed = True
        self._waiting.put(None)
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        finally:
            self._thread.join()

    def _run(self) -> None:
        jobs: list[_Job] = []
        try:
            while jobs := self._take():
                self._write(jobs)
                _settle(jobs)
        finally:
            self._closed = True
            self._abandon(jobs)

    def _take(self) -> list[_Job]:
        """Return all jobs that wait, at least one; none when the ledger closes."""
        jobs: list[_Job] = []
        job = self._waiting.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == GROUP:
                return jobs
            try:
                job = self._waiting.get_nowait()
            except Empty:
                return jobs
        if jobs:
            self._waiting.put(None)
        return jobs

    def _write(self, jobs: list[_Job]) -> None:
        """Commit the jobs together; an error of the disk is the answer to each of them."""
        try:
            with translated(self._path):
                self._commit(jobs)
        except DeviceError as error:
            for job in jobs:
                job.error = type(error)(*error.args)

    def _commit(self, jobs: list[_Job]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            head = self._head or last_link(self._db)
            for job in jobs:
                head = self._insert(job, head)
            self._db.execute("COMMIT")
        except apsw.Error:
            self._head = None
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._head = head

    def _insert(self, job: _Job, head: tuple[int, bytes]) -> tuple[int, bytes]:
        """Write one job's rows after ``head`` unless a key is taken; return the new head."""
        taken = self._taken(job)
        if taken is not None:
            job.error = Refused(f"the ledger already holds {taken!r}")
            return head
        number, previous = head
        for row in job.rows:
            number, previous = number + 1, link(previous, row.record)
            self._db.execute(
                "INSERT INTO events(id, stream, key, record, hash) VALUES(?, ?, ?, ?, ?)",
                (number, row.stream, row.key, row.record, previous),
            )
        return number, previous

    def _taken(self, job: _Job) -> str | None:
        keys = [row.key for row in job.rows if row.key is not None]
        for i, key in enumerate(keys):
            if key in keys[:i] or self._db.execute("SELECT 1 FROM events WHERE key = ?", (key,)).fetchall():
                return key
        return None

    def _abandon(self, jobs: list[_Job]) -> None:
        """Answer what nobody will write any more: there is something only after an error that is a bug."""
        while not self._waiting.empty():
            job = self._waiting.get_nowait()
            jobs += [job] if job else []
        for job in jobs:
            job.error = RuntimeError("the ledger's writer has ended")
            _settle([job])


def _settle(jobs: list[_Job]) -> None:
    """Wake the callers in their own loop; a loop that has closed has no callers left."""
    with suppress(RuntimeError):
        jobs[0].loop.call_soon_threadsafe(_answer, jobs)


def _answer(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.done.done():
            continue
        if job.error is not None:
            job.done.set_exception(job.error)
        else:
            job.done.set_result(None)
