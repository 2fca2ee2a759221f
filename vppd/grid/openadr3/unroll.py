"""OpenADR events -> what is said for which time: pure, and the same for the same events, seed and time.

Rules of the User Guide (7.1, 7.3) and, where it leaves things open, ours: a start of 0001-01-01 counts from when the server wrote the
event last (from when we first saw it, if that was earlier), so that a restart does not carry it out again - but from no time at which we
knew it not to be there yet, as with a server whose stamps have no zone and are not UTC.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from vppd.grid.openadr3.model import Event, Payload, Period, Slot
from vppd.grid.openadr3.schedule import MANY_VALUED, MOST_PIECES, NEVER, Note, Piece, Scene, Why
from vppd.grid.openadr3.times import BEGINNING, Duration

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


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
    index = 0
    for slot, start, end in _spans(event, inherited, scene):
        for payload in slot.payloads:
            for values, begin, until in _parts(payload, start, end):
                yield Piece(event, slot.id, index, payload.type, values, begin, until)
                index += 1
                if index > MOST_PIECES:
                    raise _Unusable(Why.TOO_MANY, f"it comes to more than {MOST_PIECES} pieces")


def _spans(event: Event, inherited: Period | None, scene: Scene) -> Iterator[tuple[Slot, datetime, datetime | None]]:
    """Yield the intervals with their start and end, each following the one before and all shifted by chance. Raises _Unusable."""
    default, shift = defaults(event, inherited), timedelta()
    first = event.intervals[0].interval_period or Period()
    follows, extent = _first(default.start or first.start, event, scene), default.randomize_start
    for i, slot in enumerate(event.intervals):
        own = slot.interval_period or Period()
        extent = own.randomize_start or extent
        if extent is not None:
            shift, extent = _draw(extent, f"{scene.seed}/{event.id}/{i}"), None
        start, follows = _placed(slot, own, follows, default)
        yield slot, _moved(start, shift) or start, _moved(follows, shift)


def _placed(slot: Slot, own: Period, follows: datetime | None, default: Period) -> tuple[datetime, datetime | None]:
    """Return start and end of an interval, None for no end. Raises _Unusable."""
    duration = own.duration or default.duration
    if duration is None:
        raise _Unusable(Why.BAD_INTERVAL, f"interval {slot.id} has no duration")
    start = follows if own.start in (None, BEGINNING) else own.start
    if start is None:
        raise _Unusable(Why.BAD_INTERVAL, f"interval {slot.id} has no start, or follows one that never ends")
    return start, duration.after(start)


def defaults(event: Event, inherited: Period | None) -> Period:
    """Return what holds for intervals that leave something open; a program's random shift is not the event's."""
    period, inherited = event.interval_period or Period(), inherited or Period()
    found = {"start": period.start or inherited.start, "duration": period.duration or inherited.duration}
    return period.model_copy(update=found)


def _first(start: datetime | None, event: Event, scene: Scene) -> datetime | None:
    if start != BEGINNING:
        return start
    seen = scene.seen.get(event.id, scene.at)
    written = min(event.written_at or seen, seen)
    return max(written, scene.absent.get(event.id, written))


def _draw(extent: Duration, key: str) -> timedelta:
    """Return a shift of at most ``extent`` either way, all equally likely, the same for the same key."""
    most = (extent.after(_EPOCH) or _EPOCH) - _EPOCH
    return most * random.Random(key).uniform(-1.0, 1.0)  # noqa: S311 - spreads starts, guards nothing


def _moved(at: datetime | None, by: timedelta) -> datetime | None:
    if at is None:
        return None
    try:
        return at + by
    except OverflowError:
        return None


def _parts(
    payload: Payload, start: datetime, end: datetime | None
) -> list[tuple[tuple[Any, ...], datetime, datetime | None]]:
    """Return the span as it is, or as one equal part for each value. Raises _Unusable."""
    values, count = payload.values, len(payload.values)
    if count <= 1 or payload.type in MANY_VALUED:
        return [(values, start, end)]
    if end is None:
        raise _Unusable(Why.BAD_INTERVAL, f"{count} values of {payload.type} cannot share an interval without an end")
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
    if event.duration is None or last >= limit:
        yield from _turn(round_, timedelta(), limit)
    else:
        yield from _turns(round_, (first, last), limit, scene)


def _turns(round_: Sequence[Piece], whole: tuple[datetime, datetime], limit: datetime, scene: Scene) -> Iterator[Piece]:
    """Yield the round again and again, from the one under way to the limit or the horizon. Raises _Unusable."""
    first, length = whole[0], whole[1] - whole[0]
    turn, count = max(0, (scene.at - first) // length), 0
    while (begin := _moved(first, turn * length)) is not None and begin < min(limit, scene.at + scene.horizon):
        yield from _turn(round_, turn * length, limit)
        turn, count = turn + 1, count + len(round_)
        if count > MOST_PIECES:
            raise _Unusable(Why.TOO_MANY, f"repeated, it comes to more than {MOST_PIECES} pieces")
    if not count:  # all of it is over, or none of it near: that there is something must be seen
        yield replace(round_[0], start=first, end=_end(limit))


def _turn(round_: Sequence[Piece], by: timedelta, limit: datetime) -> Iterator[Piece]:
    """Yield the round so much later, cut at the limit."""
    for piece in round_:
        start, end = _moved(piece.start, by), _moved(piece.end, by) or NEVER
        if start is not None and start < limit:
            yield replace(piece, start=start, end=_end(min(end, limit)))


def _end(at: datetime) -> datetime | None:
    return None if at == NEVER else at
