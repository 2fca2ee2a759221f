"""What an OpenADR server says as JSON -> its objects: in either spelling, one bad object never hiding the others.

Keys may be camelCase, as the specification has them, or snake_case, as the reference server publishes them over MQTT; null counts
as absent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from vppd.errors import Garbled
from vppd.grid.openadr3.model import Read

MOST_DEEP = 12

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Unread:
    """An object that makes no sense, and why."""

    id: str
    name: str
    sentence: str


R = TypeVar("R", bound=Read)


def snake_keys(value: Any, depth: int = 0) -> Any:
    """Return JSON with all keys in snake_case and without nulls. Raises Garbled when it is nested beyond reason."""
    if depth > MOST_DEEP:
        raise Garbled("the object is nested too deeply")
    if isinstance(value, list):
        return [snake_keys(entry, depth + 1) for entry in value]
    if not isinstance(value, dict):
        return value
    return {
        _HUMP.sub("_", str(key)).lower(): snake_keys(entry, depth + 1)
        for key, entry in value.items()
        if entry is not None
    }


def read(kind: type[R], raw: Any, naive: tzinfo | None = UTC) -> R:
    """Return one object. Raises Garbled, naming the first thing that is wrong."""
    if not isinstance(raw, dict):
        raise Garbled(f"a {kind.__name__.lower()} must be an object")
    try:
        return kind.model_validate(snake_keys(raw), context={"naive": naive})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Garbled(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error


class Reading(Generic[R]):
    """Reads lists of one kind again and again: an object that is said as before is the same one, at next to no cost."""

    def __init__(self, kind: type[R], naive: tzinfo | None = UTC) -> None:
        self._kind, self._naive = kind, naive
        self._known: dict[str, tuple[Any, R]] = {}

    def read_all(self, raw: Any) -> tuple[tuple[R, ...], tuple[Unread, ...]]:
        """Return the objects of a list and those that make no sense: one of these must not hide the others.

        Raises Garbled when it is no list.
        """
        if not isinstance(raw, list):
            raise Garbled(f"the answer is no list of {self._kind.__name__.lower()}s")
        known, found, unread = dict[str, tuple[Any, R]](), list[R](), list[Unread]()
        for entry in raw:
            object_id = str(entry.get("id", "")) if isinstance(entry, dict) else ""
            try:
                one = self._one(object_id, entry)
            except Garbled as error:
                unread.append(Unread(object_id[:128], _name(entry)[:128], str(error)))
            else:
                known[object_id] = (entry, one)
                found.append(one)
        self._known = known
        return tuple(found), tuple(unread)

    def _one(self, object_id: str, entry: Any) -> R:
        before = self._known.get(object_id)
        if before is not None and before[0] == entry:
            return before[1]
        return read(self._kind, entry, self._naive)


def _name(entry: Any) -> str:
    said = entry if isinstance(entry, dict) else {}
    return str(said.get("eventName") or said.get("programName") or said.get("event_name") or "")


def read_all(kind: type[R], raw: Any, naive: tzinfo | None = UTC) -> tuple[tuple[R, ...], tuple[Unread, ...]]:
    """Return the objects of one list as ``Reading`` does. Raises Garbled when it is no list."""
    return Reading(kind, naive).read_all(raw)
