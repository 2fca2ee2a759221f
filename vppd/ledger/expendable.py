"""SQLite files whose loss costs memory, not promises: a damaged one is put aside, and a new one begun."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import apsw
import structlog

from vppd.errors import DeviceError, Garbled
from vppd.ledger.database import translated, writable

log = structlog.get_logger()


def opened(path: Path, schema: str) -> apsw.Connection:
    """Return the file open for writing, with its tables, and not synchronised at every commit.

    Raises ConfigError for a folder that cannot be used, Unreachable for a disk that takes nothing.
    """
    try:
        return _prepared(path, schema)
    except Garbled:
        put_aside(path)
        return _prepared(path, schema)


def put_aside(path: Path) -> None:
    """Rename a damaged file to ``*.damaged``, in place of one that lies there already."""
    log.error("file_damaged", file=str(path), put_aside=f"{path}.damaged")
    with suppress(OSError):
        path.replace(path.with_name(path.name + ".damaged"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _prepared(path: Path, schema: str) -> apsw.Connection:
    db = writable(path, "normal")
    try:
        with translated(path):
            db.execute(schema)
    except DeviceError:
        db.close()
        raise
    return db
