"""OpenADR events -> what is said for which time: pure, and the same for the same events, seed and time.

Rules of the User Guide (7.1, 7.3, 7.9, 8.10.1) and, where it leaves things open, ours:
a start of 0001-01-01 counts from when the server wrote the event last (from when we first saw it, if that was earlier), so that a
restart does not carry it out again; at equal priority the event written last wins, then the greater id, then the later interval.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any

from vppd.grid.openadr3_model import BEGINNING, Duration, Event, Period

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


class _Unusable(Exception):
    """The event cannot be placed in time."""

    def __init__(self, why: Why, sentence: str) -> None:
        self.why, self.sentence = why, sentence


def unroll(event: Event, inherited: Period | None, scene: Scene) -> tuple[tuple[Piece, ...], tuple[Note, ...]]:
    """Return the pieces of an event that are not over and start within the horizon, and what there is to say of it.

    ``inherited`` is the program's own period, for what the event leaves open. An event without intervals has no pieces.
    """
    if not event.intervals:
        return (), ()
    try:
        round_ = list(_round(event, inherited, scene))
        pieces = [p for p in _repeated(event, round_, scene) if p.until > scene.at and p.until > p.start]
    except _Unusable as unusable:
        return (), (Note(event.id, _types(event), unusable.why, unusable.sentence),)
    if not pieces:
        return (), (Note(event.id, _types(event), Why.OVER, "all its intervals have passed"),)
    near = tuple(p for p in pieces if p.start < scene.at + scene.horizon)
    if not near:
        said = f"starts at {pieces[0].start.isoformat()}"
        return (), (Note(event.id, _types(event), Why.LATER, said),)
    return near, ()


def _types(event: Event) -> str:
    return " ".join(dict.fromkeys(p.type for slot in event.intervals for p in slot.payloads))


def _round(event: Event, inherited: Period | None, scene: Scene) -> Iterator[Piece]:
    """Yield the pieces of one pass through the intervals. Raises _Unusable."""
    period, inherited = event.interval_period or Period(), inherited or Period()
    shift, index = timedelta(), 0
    follows: datetime | None = _first(period.start or inherited.start, event, scene)
    for i, slot in enumerate(event.intervals):
        own = slot.interval_period or Period()
        duration = own.duration or period.duration or inherited.duration
        if duration is None:
            raise _Unusable(Why.BAD_INTERVAL, f"interval {slot.id} has no duration")
        extent = own.randomize_start or (period.randomize_start if i == 0 else None)
        if extent is not None:
            shift = _draw(extent, f"{scene.seed}/{event.id}/{i}")
        start = follows if own.start in (None, BEGINNING) else own.start
        if start is None and i == 0 and own.start == BEGINNING:
            start = _first(BEGINNING, event, scene)
        if start is None:
            raise _Unusable(Why.BAD_INTERVAL, f"interval {slot.id} has no start, or follows one that never ends")
        follows = duration.after(start)
        for payload in slot.payloads:
            for values, begin, end in _parts(
                payload.type, payload.values, _moved(start, shift), _moved(follows, shift)
            ):
                yield Piece(event, slot.id, index, payload.type, values, begin or start, end)
                index += 1
                if index > MOST_PIECES:
                    raise _Unusable(Why.TOO_MANY, f"it comes to more than {MOST_PIECES} pieces")


def _first(start: datetime | None, event: Event, scene: Scene) -> datetime | None:
    if start != BEGINNING:
        return start
    seen = scene.seen.get(event.id, scene.at)
    return min(event.written_at or seen, seen)


def _draw(extent: Duration, key: str) -> timedelta:
    """Return a shift of at most ``extent`` either way, all equally likely, the same for the same key."""
    most = (extent.after(_EPOCH) or _EPOCH) - _EPOCH
    return most * random.Random(key).uniform(-1.0, 1.0)  # noqa: S311 - spreads starts, guards nothing


_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def _moved(at: datetime | None, by: timedelta) -> datetime | None:
    if at is None:
        return None
    try:
        return at + by
    except OverflowError:
        return None


def _parts(
    payload_type: str, values: tuple[Any, ...], start: datetime | None, end: datetime | None
) -> list[tuple[tuple[Any, ...], datetime | None, datetime | None]]:
    """Return the span as it is, or as one equal part for each value. Raises _Unusable."""
    count = len(values)
    if count <= 1 or payload_type in MANY_VALUED or start is None:
        return [(values, start, end)]
    if end is None:
        raise _Unusable(Why.BAD_INTERVAL, f"{count} values of {payload_type} cannot share an interval without an end")
    edges = [start + (end - start) * (k / count) for k in range(count)] + [end]
    return [((value,), begin, until) for value, (begin, until) in zip(values, pairwise(edges), strict=True)]


def _repeated(event: Event, round_: Sequence[Piece], scene: Scene) -> Iterator[Piece]:
    """Yield the pieces, cut or repeated to the event's own duration. Raises _Unusable."""
    if not round_:
        raise _Unusable(Why.BAD_INTERVAL, "its intervals say nothing")
    first, last = min(p.start for p in round_), max(p.until for p in round_)
    limit = NEVER if event.duration is None else event.duration.after(first) or NEVER
    if limit <= first or last <= first:
        raise _Unusable(Why.CANCELLED, "it has no duration, which is how an event is called off")
    if event.duration is None or limit <= last or last == NEVER:
        yield from (replace(p, end=_end(min(p.until, limit))) for p in round_ if p.start < limit)
        return
    length = last - first
    turn, count = max(0, (scene.at - first) // length), 0
    while (begin := _moved(first, turn * length)) is not None and begin < min(limit, scene.at + scene.horizon):
        for piece in round_:
            start, end = _moved(piece.start, turn * length), _moved(piece.end, turn * length)
            if start is not None and start < limit:
                yield replace(piece, start=start, end=_end(min(end or NEVER, limit)))
        turn, count = turn + 1, count + len(round_)
        if count > MOST_PIECES:
            raise _Unusable(Why.TOO_MANY, f"repeated, it comes to more than {MOST_PIECES} pieces")
    if not count:
        yield replace(round_[0], start=first, end=_end(limit))


def _end(at: datetime) -> datetime | None:
    return None if at == NEVER else at


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
