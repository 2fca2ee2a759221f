"""Typed reading of a JSON object: every key is asked for, what nobody asked for is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from vppd.grid.reasons import Defect, Reason
from vppd.grid.strict_json import Json

T = TypeVar("T")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2})")
MAX_TEXT = 256


def uuid4(value: str, name: str) -> str:
    """Return ``value`` in lower case. Raises Defect when it is not a UUIDv4."""
    found = value.lower()
    if not _UUID.fullmatch(found):
        raise Defect(Reason.MALFORMED, f"{name} is not a UUIDv4")
    return found


def instant(value: str, name: str) -> datetime:
    """Return an RFC 3339 time as UTC. Raises Defect when it is none, or has no offset."""
    if not _TIME.fullmatch(value):
        raise Defect(Reason.MALFORMED, f"{name} is not an RFC 3339 time with an offset")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Defect(Reason.MALFORMED, f"{name} is not a time that exists") from error


def stamp(at: datetime) -> str:
    """Return RFC 3339 in UTC with milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Fields:
    """One JSON object being read; ``where`` begins its error sentences."""

    def __init__(self, data: dict[str, Json], where: str = "") -> None:
        self._left, self._where = dict(data), where

    def has(self, name: str) -> bool:
        """Say whether the key is there and not yet read."""
        return name in self._left

    def text(self, name: str, longest: int = MAX_TEXT) -> str:
        """Return a string that is not empty and has no control characters."""
        value = self._take(name, str, "a string")
        if not 0 < len(value) <= longest or not value.isprintable():
            raise self._defect(f"{name} must be 1 to {longest} printable characters")
        return value

    def uuid(self, name: str) -> str:
        """Return a UUIDv4 in lower case."""
        return uuid4(self._take(name, str, "a string"), self._where + name)

    def time(self, name: str) -> datetime:
        """Return an RFC 3339 time as UTC."""
        return instant(self._take(name, str, "a string"), self._where + name)

    def number(self, name: str) -> float:
        """Return a finite number."""
        value = self._take(name, (int, float), "a number")
        if isinstance(value, bool):
            raise self._defect(f"{name} must be a number")
        return float(value)

    def whole(self, name: str, least: int, most: int) -> int:
        """Return a whole number from ``least`` to ``most``."""
        value = self._take(name, int, "a whole number")
        if isinstance(value, bool) or not least <= value <= most:
            raise self._defect(f"{name} must be a whole number from {least} to {most}")
        return value

    def flag(self, name: str) -> bool:
        """Return true or false."""
        return self._take(name, bool, "true or false")

    def word(self, name: str, allowed: tuple[str, ...]) -> str:
        """Return one of the ``allowed`` words."""
        value = self._take(name, str, "a string")
        if value not in allowed:
            raise self._defect(f"{name} must be one of {', '.join(allowed)}")
        return value

    def object(self, name: str) -> Fields:
        """Return an inner object for reading."""
        return Fields(self._take(name, dict, "an object"), f"{self._where}{name}.")

    def objects(self, name: str) -> tuple[Fields, ...]:
        """Return the objects of a list for reading."""
        found = []
        for i, entry in enumerate(self.items(name)):
            if not isinstance(entry, dict):
                raise self._defect(f"{name}[{i}] must be an object")
            found.append(Fields(entry, f"{self._where}{name}[{i}]."))
        return tuple(found)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings."""
        found = []
        for i, entry in enumerate(self.items(name)):
            if not isinstance(entry, str) or not 0 < len(entry) <= MAX_TEXT:
                raise self._defect(f"{name}[{i}] must be a string")
            found.append(entry)
        return tuple(found)

    def items(self, name: str) -> list[Json]:
        """Return a list as it is."""
        return self._take(name, list, "a list")

    def maybe(self, read: Callable[[str], T], name: str) -> T | None:
        """Return ``read(name)``, or None when the key is absent."""
        return read(name) if name in self._left else None

    def null(self, name: str) -> bool:
        """Say whether the value is null, and if so count it as read."""
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return True
        return False

    def done(self) -> None:
        """Refuse keys that nobody asked for: one that is misspelt would otherwise be ignored."""
        if self._left:
            raise self._defect(f"{sorted(self._left)[0][:40]!r} is not a known key")

    def _take(self, name: str, kind: type[T] | tuple[type[T], ...], words: str) -> T:
        if name not in self._left:
            raise self._defect(f"{name} is missing")
        value = self._left.pop(name)
        if not isinstance(value, kind):
            raise self._defect(f"{name} must be {words}")
        return value

    def _defect(self, sentence: str) -> Defect:
        return Defect(Reason.MALFORMED, self._where + sentence)
