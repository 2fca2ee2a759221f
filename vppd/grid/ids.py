"""Where ids come from: chance in the daemon, a seed in tests and replays."""

from __future__ import annotations

import random
import secrets
from typing import Protocol
from uuid import UUID


class Ids(Protocol):
    """A source of ids."""

    def uuid(self) -> str:
        """Return a new UUIDv4."""
        ...

    def hexes(self, length: int) -> str:
        """Return that many hexadecimal digits, not all of them 0."""
        ...


class RandomIds:
    """Ids nobody can foretell."""

    def uuid(self) -> str:
        """Return a new UUIDv4."""
        return str(UUID(bytes=secrets.token_bytes(16), version=4))

    def hexes(self, length: int) -> str:
        """Return that many hexadecimal digits, not all of them 0."""
        return _hexes(secrets.randbits(4 * length), length)


class SeededIds:
    """The same ids for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - for tests and replays, not for secrets

    def uuid(self) -> str:
        """Return a new UUIDv4."""
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def hexes(self, length: int) -> str:
        """Return that many hexadecimal digits, not all of them 0."""
        return _hexes(self._random.getrandbits(4 * length), length)


def _hexes(value: int, length: int) -> str:
    return f"{value or 1:0{length}x}"
