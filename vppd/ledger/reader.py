"""Reading a ledger, by the daemon itself and by anybody who may read the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from vppd.errors import Garbled
from vppd.ledger.chain import GENESIS, event_of, link
from vppd.ledger.database import readable, translated
from vppd.model import Recorded

PAGE = 500
"""Rows fetched at once: a reader never holds a transaction open between pages."""

_SELECT = """
SELECT e.id, CAST(e.stream AS BLOB), CAST(e.key AS BLOB), e.record, e.hash, p.hash
FROM events AS e LEFT JOIN events AS p ON p.id = e.id - 1
"""
_ALL = _SELECT + "WHERE e.id > :after ORDER BY e.id LIMIT :page"
_OF_STREAM = _SELECT + "WHERE e.stream = :stream AND e.id > :after ORDER BY e.id LIMIT :page"


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: published, it makes a later cut of the ledger visible."""

    id: int
    hash: str


def last_link(db: apsw.Connection) -> tuple[int, bytes]:
    """Return the number and hash of the last event; number 0 of an empty ledger."""
    rows: list[tuple[Any, ...]] = db.execute("SELECT id, hash FROM events ORDER BY id DESC LIMIT 1").fetchall()
    return (rows[0][0], rows[0][1]) if rows else (0, GENESIS)


class LedgerReader:
    """Events of one ledger file, each checked against the chain as it is read."""

    def __init__(self, db: apsw.Connection, path: Path) -> None:
        self._db, self._path = db, path

    def events(self, stream: str = "", after: int = 0) -> Iterator[Recorded]:
        """Yield recorded events in order, of one stream or of all. Raises Garbled when the chain is broken."""
        while True:
            page = self._page(stream, after)
            for row in page:
                yield self._checked(row)
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def head(self) -> Head:
        """Return the number and hash of the last event; number 0 of an empty ledger."""
        with translated(self._path):
            number, digest = last_link(self._db)
        return Head(number, digest.hex())

    def verify(self, known: Head | None = None) -> Head:
        """Check the whole file, every link and every index, and return its head.

        known: a head published earlier, which must still be part of the chain. Raises Garbled.
        """
        self._check_file()
        last = Head(0, GENESIS.hex())
        found = known is None or known == last
        for recorded in self.events():
            last = Head(recorded.id, recorded.hash)
            found = found or last == known
        if not found:
            raise Garbled(f"{self._path}: event {known.id if known else 0} is not the one that was published")
        return last

    def _check_file(self) -> None:
        with translated(self._path):
            findings = self._db.execute("PRAGMA integrity_check(5)").fetchall()
        if findings != [("ok",)]:
            raise Garbled(f"{self._path}: " + "; ".join(str(row[0]) for row in findings))

    def _page(self, stream: str, after: int) -> list[tuple[Any, ...]]:
        query = _OF_STREAM if stream else _ALL
        with translated(self._path):
            return self._db.execute(query, {"after": after, "page": PAGE, "stream": stream}).fetchall()

    def _checked(self, row: tuple[Any, ...]) -> Recorded:
        number, stream, key, record, digest, previous = row
        before = GENESIS if number == 1 else previous
        if before is None or link(before, record) != digest:
            raise Garbled(f"{self._path}: the chain is broken at event {number}")
        event = event_of(record)
        if (event.stream.encode(), event.key.encode()) != (stream, key or b""):
            raise Garbled(f"{self._path}: the index of event {number} does not match its record")
        return Recorded(number, event, digest.hex())


@contextmanager
def read_ledger(path: Path) -> Iterator[LedgerReader]:
    """Open the ledger of a daemon, running or not, for reading. Raises ConfigError when there is none."""
    db = readable(path)
    try:
        yield LedgerReader(db, path)
    finally:
        db.close()
