"""What OpenADR events say for which time, which of them wins, and what holds without the server. Pure.

Rules of the User Guide (7.1, 7.9, 8.10.1) and, where it leaves things open, ours: at equal priority the event written last wins, then
the greater id, then the later interval.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from vppd.grid.openadr3.model import Event

NEVER = datetime.max.replace(tzinfo=UTC)
MOST_PIECES = 10_000
"""An event that comes to more pieces within the horizon is refused; so are those after events that do together."""
MANY_VALUED = frozenset({"CURVE", "OLS", "DISPATCH_INSTRUCTION", "CONTROL_SETPOINT"})
"""Payload types whose values belong together; those of all others follow one another."""
IMPORT_LIMIT = "IMPORT_CAPACITY_LIMIT"
LIMITS = frozenset({IMPORT_LIMIT, "EXPORT_CAPACITY_LIMIT"})
SUBSCRIPTION = "IMPORT_CAPACITY_SUBSCRIPTION"


class Why(StrEnum):
    """Why a signal is not applied, or not as it stands."""

    UNREADABLE = "unreadable"
    UNKNOWN_PROGRAM = "unknown_program"
    BAD_INTERVAL = "bad_interval"
    TOO_MANY = "too_many"
    CANCELLED = "cancelled"
    OVER = "over"
    LATER = "later"
    OVERRULED = "overruled"
    DISCARDED = "discarded"
    STANDBY = "standby"
    FALLBACK = "fallback"
    NOT_FOR_US = "not_for_us"
    NOT_SUPPORTED = "not_supported"
    NOT_ENABLED = "not_enabled"
    MISSING_UNITS = "missing_units"
    BAD_UNITS = "bad_units"
    BAD_VALUE = "bad_value"
    NOTHING_ASKED = "nothing_asked"
    UNAUTHORISED = "unauthorised"
    HELD = "held"
    ECONOMICS = "economics"


@dataclass(frozen=True, slots=True)
class Note:
    """What an operator is told about a signal that is not applied as it stands."""

    event_id: str
    payload_type: str
    why: Why
    sentence: str


@dataclass(frozen=True, slots=True)
class Piece:
    """One payload in force over one span of time."""

    event: Event = field(repr=False)
    slot: int
    """The interval's own id, for reports."""
    index: int
    """Its place among the pieces of one round."""
    payload_type: str
    values: tuple[Any, ...]
    start: datetime
    end: datetime | None
    """None: for ever."""

    @property
    def until(self) -> datetime:
        """Return the end, the end of time when there is none."""
        return self.end or NEVER


@dataclass(frozen=True, slots=True)
class Scene:
    """Against what events are read."""

    at: datetime
    seed: str
    """Names this site: each draws its own random starts, and the same ones again."""
    seen: Mapping[str, datetime] = field(default_factory=dict)
    """When each event was first seen."""
    horizon: timedelta = timedelta(days=2)
    """Pieces that start later are left for later."""
    absent: Mapping[str, datetime] = field(default_factory=dict)
    """When each event was known not to be there yet: a server's clock that is behind does not make it older than that."""


def standing(event: Event) -> tuple[float, float, tuple[int, ...]]:
    """Return a key by which what wins comes first: lower priority number, none last; written last; greater id."""
    number = math.inf if event.priority is None else float(event.priority)
    written_s = event.written_at.timestamp() if event.written_at else -math.inf
    return number, -written_s, (*(-ord(c) for c in event.id), 1)


def rank(piece: Piece) -> tuple[float, float, tuple[int, ...], int]:
    """Return a key by which what wins comes first: the better standing, then the later interval."""
    return *standing(piece.event), -piece.index


def settle(pieces: Iterable[Piece], subject: Callable[[Piece], Hashable]) -> tuple[tuple[Piece, ...], tuple[Note, ...]]:
    """Return what remains of each piece after better-ranked ones about the same subject, in order of time, and who lost to whom."""
    claims: dict[Hashable, list[Piece]] = {}
    notes: dict[tuple[str, str, str], Note] = {}
    for piece in sorted(pieces, key=rank):
        claimed = claims.setdefault(subject(piece), [])
        free, winners = _free(piece, claimed)
        for winner in winners:
            if winner.event.id != piece.event.id:
                note = Note(piece.event.id, piece.payload_type, Why.OVERRULED, _lost(piece, winner))
                notes.setdefault((piece.event.id, piece.payload_type, winner.event.id), note)
        for part in free:
            claimed.insert(bisect_left(claimed, part.start, key=lambda p: p.start), part)
    found = sorted((p for claimed in claims.values() for p in claimed), key=lambda p: (p.start, rank(p)))
    return tuple(found), tuple(notes.values())


def _free(piece: Piece, claimed: Sequence[Piece]) -> tuple[list[Piece], list[Piece]]:
    """Return what is left of ``piece`` between the claimed spans, and whose spans it ran into."""
    i = max(0, bisect_left(claimed, piece.start, key=lambda p: p.start) - 1)
    free, winners, start = [], [], piece.start
    for other in claimed[i:]:
        if other.start >= piece.until:
            break
        if other.until <= start:
            continue
        winners.append(other)
        if other.start > start:
            free.append(replace(piece, start=start, end=other.start))
        start = other.until
    if start < piece.until:
        free.append(replace(piece, start=start))
    return free, winners


def _lost(piece: Piece, winner: Piece) -> str:
    mine, theirs = piece.event.priority, winner.event.priority
    if mine == theirs:
        return f"event {winner.event.id} has the same priority and was written later"
    return f"event {winner.event.id} has priority {theirs}, this one {'none' if mine is None else mine}"


def fall_back(
    limits: Sequence[Piece], subscriptions: Sequence[Piece], at: datetime, *, lost: bool
) -> tuple[tuple[Piece, ...], tuple[Note, ...]]:
    """Return what of the subscription is in force: with the server lost, from when the scheduled limits have run out.

    Both are settled and about one resource. While the server answers, the subscription only stands by.
    """
    if not lost:
        said = "kept for when the server cannot be reached and the schedule of limits has run out"
        return (), tuple(Note(p.event.id, p.payload_type, Why.STANDBY, said) for p in subscriptions)
    out_at = max((p.until for p in limits), default=at)
    rest = tuple(replace(p, start=max(p.start, out_at)) for p in subscriptions if p.until > out_at)
    said = f"in force from {max(out_at, at).isoformat()}: the server cannot be reached"
    return rest, tuple(Note(p.event.id, p.payload_type, Why.FALLBACK, said) for p in rest)
