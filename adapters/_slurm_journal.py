"""What was touched, kept in memory and on disk, so that any later process can put everything back."""

from __future__ import annotations

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vppd.errors import Garbled, Refused

TOLERANCE_FRAC = (0.0, 0.10, 0.25, 0.50)
"""Average slow-down that each flex tier accepts."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Touch:
    """One job that is held down: stop, suspend or hold."""

    what: str
    since_s: float
    """Monotonic. [s]"""
    limit_min: int | None = None
    """The time limit it had, when that was extended. [min]"""
    written_min: int | None = None
    """The time limit that we wrote. [min]"""


@dataclass(frozen=True, slots=True)
class Credit:
    """A job's account of slow-down: it fills at the rate its tier accepts and empties as the job is slowed."""

    credit_s: float
    at_s: float
    """Monotonic. [s]"""
    slow_frac: float
    """How much the job is slowed since then: 1 when stopped."""

    def at(self, now_s: float, tier: int, full_s: float) -> float:
        """Return what is left at ``now_s``. [s of full stop]"""
        return min(full_s, self.credit_s + (TOLERANCE_FRAC[tier] - self.slow_frac) * (now_s - self.at_s))


@dataclass(slots=True)
class Held:
    """All that is held down, and the budget it is held down for."""

    budget_w: float | None = None
    lease_s: float = 0.0
    until_s: float = 0.0
    """End of the lease, monotonic. [s]"""
    touched: dict[int, Touch] = field(default_factory=dict)
    credits: dict[int, Credit] = field(default_factory=dict)
    full_w: dict[str, dict[int, float]] = field(default_factory=dict)
    """By touched node: what each job drew there before it was touched. [W]"""
    old_cap_w: dict[str, float | None] = field(default_factory=dict)
    """By capped node: the cap it had before. [W]"""
    cap_w: dict[str, float] = field(default_factory=dict)
    partitions: dict[str, str] = field(default_factory=dict)
    """By partition set DOWN: the state it had."""

    def __bool__(self) -> bool:
        return bool(self.touched or self.old_cap_w or self.partitions)


class Journal:
    """The file; every write replaces it whole."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        # One thread: a write whose caller was cancelled still lands before the next one.
        self._writer = ThreadPoolExecutor(1, "slurm-journal")
        self._boot = _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else ""

    def load(self, now_s: float) -> Held:
        """Return what an earlier process left; times of another boot say nothing, so accounts start empty. Raises Garbled."""
        if self._path is None or not self._path.exists():
            return Held()
        try:
            body = json.loads(self._path.read_text(encoding="utf-8"))
            held = _held(body)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Garbled(f"the journal {self._path} cannot be read: {error}") from error
        if body.get("boot") != self._boot:
            held.until_s = now_s
            held.touched = {i: Touch(t.what, now_s, t.limit_min) for i, t in held.touched.items()}
            held.credits = {i: Credit(0.0, now_s, c.slow_frac) for i, c in held.credits.items()}
        return held

    async def save(self, held: Held, durable: bool = True) -> None:
        """Write the file and, when ``durable``, return only once it is on disk. Raises Refused."""
        if self._path is None:
            return
        text = json.dumps({"format": _FORMAT, "boot": self._boot, **asdict(held)}, separators=(",", ":"))
        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, _replace, self._path, text, durable)
        except OSError as error:
            raise Refused(f"the journal {self._path} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Wait for the last write and end the thread."""
        self._writer.shutdown()


def _replace(path: Path, text: str, durable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    fresh.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _held(body: dict[str, Any]) -> Held:
    if body["format"] != _FORMAT:
        raise ValueError(f"format {body['format']} is not {_FORMAT}")
    return Held(
        budget_w=body["budget_w"],
        lease_s=body["lease_s"],
        until_s=body["until_s"],
        touched={int(i): Touch(**t) for i, t in body["touched"].items()},
        credits={int(i): Credit(**c) for i, c in body["credits"].items()},
        full_w={node: {int(i): w for i, w in of.items()} for node, of in body["full_w"].items()},
        old_cap_w=dict(body["old_cap_w"]),
        cap_w=dict(body["cap_w"]),
        partitions=dict(body["partitions"]),
    )
