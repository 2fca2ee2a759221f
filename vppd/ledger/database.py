"""SQLite files: how they are opened, who may own one, and what their errors mean to us."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

from vppd.errors import ConfigError, Garbled, Unreachable

SOUND = (3, 51, 3)
"""Earlier SQLite can corrupt a WAL file when two connections checkpoint at the same moment."""
BUSY_TIMEOUT_MS = 2_000

RETRY = (
    apsw.FullError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.IOError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.PermissionsError,
    apsw.ProtocolError,
    apsw.NoMemError,
)
"""The disk or another process is in the way: the same write may succeed later."""

BROKEN = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError, apsw.MismatchError, apsw.SQLError)
"""The file is not what we wrote: our statements are fixed, so an SQL error means a foreign schema."""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours: Unreachable for retry, Garbled for a file that is not to be trusted."""
    try:
        yield
    except RETRY as error:
        raise Unreachable(f"{path}: {error}") from error
    except BROKEN as error:
        raise Garbled(f"{path}: {error}") from error


@contextmanager
def transaction(db: apsw.Connection) -> Iterator[None]:
    """Commit what is done in the block, all of it or nothing. Raises SQLite's errors."""
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            with suppress(apsw.Error):
                db.execute("ROLLBACK")


def require_sound_sqlite() -> None:
    """Raise ConfigError when the SQLite inside apsw has the WAL-reset bug."""
    version = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")) < SOUND:
        raise ConfigError(f"SQLite {version} can corrupt the ledger: 3.51.3 or newer is needed")


def writable(path: Path, synchronous: str) -> apsw.Connection:
    """Open or create the database for writing, in WAL mode, readable by its owner only.

    Raises ConfigError for a folder that cannot be used, Unreachable or Garbled for a file that cannot.
    """
    require_sound_sqlite()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        _sync_folder(path.parent)
    except PermissionError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    except OSError as error:
        raise Unreachable(f"{path} cannot be opened: {error.strerror}") from error
    with translated(path):
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            db.set_busy_timeout(BUSY_TIMEOUT_MS)
            db.pragma("journal_mode", "wal")
            db.pragma("synchronous", synchronous)
        except apsw.Error:
            db.close()
            raise
    return db


def readable(path: Path) -> apsw.Connection:
    """Open an existing database for reading. Raises ConfigError when there is none, Unreachable or Garbled."""
    require_sound_sqlite()
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file")
    with translated(path):
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        db.set_busy_timeout(BUSY_TIMEOUT_MS)
        db.pragma("query_only", True)
    return db


@contextmanager
def sole_owner(path: Path) -> Iterator[None]:
    """Hold the lock file beside ``path``. Raises ConfigError when another process, or this one, holds it already."""
    name = path.with_name(path.name + ".lock")
    try:
        name.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{name} cannot be opened: {error.strerror}") from error
    try:
        _lock(handle, path)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(handle, 20, 0).decode(errors="replace") or "unknown"
        raise ConfigError(f"{path} is in use by another vppd (process {holder}): there is one writer") from error
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)


def _sync_folder(folder: Path) -> None:
    """Put the entry of a new file on disk: SQLite does so for its WAL, not for the database."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
