"""The limits as they were, on disk before the first is changed, so that any later process can put them back."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters._redfish_limits import Prior
from vppd.errors import ConfigError, Refused

_FORMAT = 1


@dataclass(slots=True)
class Kept:
    """One node that we have touched."""

    priors: tuple[Prior, ...]
    """Its limits as they were before."""
    old_cap_w: float | None
    """The cap these made. [W]"""
    cap_w: float | None = None
    """The cap it was given last. [W]"""
    full_w: float | None = None
    """What it drew before it was touched. [W]"""


@dataclass(slots=True)
class Books:
    """All that is on disk."""

    kept: dict[str, Kept] = field(default_factory=dict)
    budget_w: float | None = None
    """What the asset was told to keep to. [W]"""
    lease_s: float = 0.0


class Journal:
    """The file: every write replaces it whole, and whoever waits for one shares it. One process at a time."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError when another process has it, Refused when it cannot be read."""
        self._path = path
        self._lock_file = _locked(path)
        try:
            self.books = _read(path)
        except Refused:
            os.close(self._lock_file)
            raise
        # One thread: a write whose caller was cancelled still lands before the next one.
        self._writer = ThreadPoolExecutor(1, "redfish-journal")
        self._turn = asyncio.Lock()
        self._wanted = self._written = 0
        self.writes = 0

    async def save(self) -> None:
        """Return once the books, as they are now, are on disk. Raises Refused."""
        self._wanted += 1
        mine = self._wanted
        async with self._turn:
            if self._written >= mine:
                return
            up_to, text = self._wanted, _text(self.books)
            self.writes += 1
            try:
                await asyncio.get_running_loop().run_in_executor(self._writer, _replace, self._path, text)
            except OSError as error:
                raise Refused(f"the journal {self._path} cannot be written: {error.strerror}") from error
            self._written = up_to

    def close(self) -> None:
        """Wait for the last write and let other processes have the file."""
        self._writer.shutdown()
        os.close(self._lock_file)


def _locked(path: Path) -> int:
    """Return an open lock beside the journal. Raises ConfigError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"the journal {path} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise ConfigError(f"the journal {path} is in use: each set of BMCs needs one of its own") from error
    return file


def _read(path: Path) -> Books:
    if not path.exists():
        return Books()
    try:
        return _books(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # To go on would take our own caps for the limits that were there before.
        raise Refused(
            f"the journal {path} cannot be read ({error}): look at the limits by hand, then remove it"
        ) from error


def _books(body: dict[str, Any]) -> Books:
    if body["format"] != _FORMAT:
        raise ValueError(f"format {body['format']} is not {_FORMAT}")
    kept = {str(name): _kept(entry) for name, entry in body["kept"].items()}
    return Books(kept, body["budget_w"], float(body["lease_s"]))


def _kept(body: dict[str, Any]) -> Kept:
    priors = tuple(Prior.from_body(prior) for prior in body["priors"])
    return Kept(priors, body["old_cap_w"], body["cap_w"], body["full_w"])


def _text(books: Books) -> str:
    kept = {
        name: {
            "priors": [prior.to_body() for prior in entry.priors],
            "old_cap_w": entry.old_cap_w,
            "cap_w": entry.cap_w,
            "full_w": entry.full_w,
        }
        for name, entry in books.kept.items()
    }
    body = {"format": _FORMAT, "budget_w": books.budget_w, "lease_s": books.lease_s, "kept": kept}
    return json.dumps(body, separators=(",", ":"))


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
