"""Which reports OpenADR events ask for, when each is due, and how it looks. Pure.

One report for each reportDescriptor and due time. Historical reports are due when their last interval has ended, forecasts when their
first begins; with ``frequency`` -1 one report covers a whole round of intervals. A value that is not known is told as MISSING.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vppd.grid.fields import stamp
from vppd.grid.openadr3_model import Event, Period, ReportDescriptor
from vppd.grid.openadr3_schedule import Note, Scene, Why
from vppd.grid.openadr3_times import BEGINNING
from vppd.grid.openadr3_unroll import unroll
from vppd.model import Interval

_NAMED = re.compile(r"-(\d{4}-\d{2}-\d{2}T[\d:.]+Z)$")

Figures = Callable[[str, Interval], float | str | None]
"""Payload type and time -> what we have to say: W, Wh, a fraction or a word; None when it is not known."""

POWER, ENERGY = {"W": 1.0, "KW": 1e3, "MW": 1e6}, {"WH": 1.0, "KWH": 1e3, "MWH": 1e6}
POWERS = frozenset(
    {"BASELINE", "DEMAND", "LOAD_SHED_DELTA_AVAILABLE", "STORAGE_MAX_CHARGE_POWER", "STORAGE_MAX_DISCHARGE_POWER"}
)
ENERGIES = frozenset({"USAGE", "STORAGE_USABLE_CAPACITY"})
PLAIN = {"STORAGE_CHARGE_LEVEL": "PERCENT", "OPERATING_STATE": ""}
SUPPORTED = POWERS | ENERGIES | PLAIN.keys()
AGGREGATED = "AGGREGATED_REPORT"
MOST_AT_ONCE = 96
"""Of reports that have piled up only the newest are sent."""
MOST_INTERVALS = 1_000
"""A report has no more intervals than this."""
ENDLESS = 1 << 40
LONG = timedelta(days=3_600_000)


@dataclass(frozen=True, slots=True)
class Span:
    """One interval to report on."""

    id: int
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Due:
    """A report to send."""

    event: Event
    descriptor: ReportDescriptor
    at: datetime
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class _Course:
    """The intervals of an event, repeated: number k is number k modulo the round, one or more rounds later."""

    round: tuple[Span, ...]
    count: int

    def span(self, k: int) -> Span:
        turn, i = divmod(k, len(self.round))
        first = self.round[i]
        try:
            by = turn * (self.round[-1].end - self.round[0].start)
            return Span(first.id if len(self.round) > 1 else k, first.start + by, first.end + by)
        except OverflowError:
            return Span(
                k, datetime.max.replace(tzinfo=first.start.tzinfo), datetime.max.replace(tzinfo=first.end.tzinfo)
            )


class Courses:
    """The intervals of events, worked out once for each event as it stands."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Event, Period | None, datetime, str, _Course | None]] = {}

    def of(self, event: Event, inherited: Period | None, seen: datetime, seed: str) -> _Course | None:
        """Return the intervals of an event with their repetitions; None when they never end or say nothing."""
        known = self._known.get(event.id)
        if known is None or known[0] is not event or known[1:4] != (inherited, seen, seed):
            known = self._known[event.id] = (event, inherited, seen, seed, _course(event, inherited, seen, seed))
        return known[4]

    def keep(self, event_ids: Collection[str]) -> None:
        """Forget all other events."""
        self._known = {event_id: known for event_id, known in self._known.items() if event_id in event_ids}


def due_reports(
    event: Event,
    inherited: Period | None,
    seen: datetime,
    since: datetime,
    until: datetime,
    seed: str,
    courses: Courses | None = None,
) -> Iterator[Due]:
    """Yield the reports that have become due after ``since`` and not after ``until``, the newest of them if there are many.

    ``seen`` is when the event was first seen: a forecast that was due before is still told once, to a late joiner's server.
    """
    course = (courses or Courses()).of(event, inherited, seen, seed)
    if course is None:
        return
    for descriptor in event.report_descriptors:
        if descriptor.payload_type in SUPPORTED:
            yield from _due(event, descriptor, course, seen, since, until)


def unsupported(event: Event) -> tuple[Note, ...]:
    """Return the reports that are asked for and will not come."""
    said = "this site has no such report"
    asked = dict.fromkeys(d.payload_type for d in event.report_descriptors if d.payload_type not in SUPPORTED)
    return tuple(Note(event.id, payload_type, Why.NOT_SUPPORTED, said) for payload_type in asked)


def _due(
    event: Event, wanted: ReportDescriptor, course: _Course, seen: datetime, since: datetime, until: datetime
) -> Iterator[Due]:
    first, size = max(wanted.start_interval, 0), len(course.round)
    step = wanted.frequency if wanted.frequency > 0 else max(wanted.num_intervals, 1) if size == 1 else size
    width = min(wanted.num_intervals if wanted.num_intervals > 0 else step, MOST_INTERVALS)
    per_round = max(1, -(-(size - first) // step)) if size > 1 else 1
    chunks = -(-max(course.count - first, 0) // step)
    if wanted.repeat >= 0:
        chunks = min(chunks, wanted.repeat * per_round)

    def at(chunk: int) -> datetime:
        k = first + chunk * step
        return course.span(min(k + step, course.count) - 1).end if wanted.historical else course.span(k).start

    begin, stop = bisect_right(range(chunks), since, key=at), bisect_right(range(chunks), until, key=at)
    if not wanted.historical and since <= seen <= until:
        begin = min(begin, max(stop - 1, 0))
    for chunk in range(max(begin, stop - MOST_AT_ONCE), stop):
        k = first + chunk * step
        last = min(k + step, course.count)
        numbers = range(max(last - width, 0), last) if wanted.historical else range(k, min(k + width, course.count))
        yield Due(event, wanted, at(chunk), tuple(course.span(n) for n in numbers))


def _course(event: Event, inherited: Period | None, seen: datetime, seed: str) -> _Course | None:
    """Return the intervals of an event with their repetitions; without intervals its own period is the round."""
    if not event.intervals:
        return _implied(event, inherited, seen)
    bare = event.model_copy(update={"duration": None})
    pieces, _ = unroll(bare, inherited, Scene(BEGINNING, seed, {event.id: seen}, LONG))
    by_slot: dict[int, Span] = {}
    for piece in pieces:
        if piece.end is None:
            return None
        known = by_slot.get(piece.slot)
        start, end = (min(known.start, piece.start), max(known.end, piece.end)) if known else (piece.start, piece.end)
        by_slot[piece.slot] = Span(piece.slot, start, end)
    found = tuple(sorted(by_slot.values(), key=lambda span: span.start))
    return _Course(found, _count(event, found)) if found else None


def _count(event: Event, round_: tuple[Span, ...]) -> int:
    if event.duration is None:
        return len(round_)
    until = event.duration.after(round_[0].start)
    if until is None:
        return ENDLESS
    length = round_[-1].end - round_[0].start
    turns, rest = divmod(until - round_[0].start, length)
    return turns * len(round_) + sum(span.start - round_[0].start < rest for span in round_)


def _implied(event: Event, inherited: Period | None, seen: datetime) -> _Course | None:
    period, inherited = event.interval_period or Period(), inherited or Period()
    start, duration = period.start or inherited.start, period.duration or inherited.duration
    if start == BEGINNING:
        start = min(event.written_at or seen, seen)
    end = duration.after(start) if start and duration else None
    if start is None or end is None or end <= start:
        return None
    span = (Span(0, start, end),)
    return _Course(span, ENDLESS if event.duration is None else _count(event, span))


def due_at(report_name: str) -> datetime | None:
    """Return when a report of ours was due, by its name; None when it is not one of ours."""
    found = _NAMED.search(report_name)
    try:
        return datetime.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def report_body(due: Due, client_name: str, resource: str, figures: Figures) -> dict[str, Any]:
    """Return the report as the server wants it."""
    wanted = due.descriptor
    units = wanted.units or _units(wanted.payload_type)
    reading = wanted.reading_type or ("" if wanted.historical else "FORECAST")
    descriptor = {"objectType": "REPORT_PAYLOAD_DESCRIPTOR", "payloadType": wanted.payload_type}
    descriptor |= ({"units": units} if units else {}) | ({"readingType": reading} if reading else {})
    return {
        "eventID": due.event.id,
        "clientName": client_name,
        "reportName": f"{due.event.id}-{wanted.payload_type}-{stamp(due.at)}",
        "payloadDescriptors": [descriptor],
        "resources": [
            {
                "resourceName": AGGREGATED if wanted.aggregate else resource,
                "intervals": [_told(span, wanted.payload_type, units, figures) for span in due.spans],
            }
        ],
    }


def _units(payload_type: str) -> str:
    return "KW" if payload_type in POWERS else "KWH" if payload_type in ENERGIES else PLAIN[payload_type]


def _told(span: Span, payload_type: str, units: str, figures: Figures) -> dict[str, Any]:
    value = _converted(figures(payload_type, Interval(span.start, span.end)), payload_type, units, span)
    payload: Mapping[str, Any] = {"type": payload_type, "values": [value]}
    if value is None:
        payload = {"type": "DATA_QUALITY", "values": ["MISSING"]}
    seconds = (span.end - span.start).total_seconds()
    period = {"start": stamp(span.start), "duration": f"PT{seconds:.6f}".rstrip("0").rstrip(".") + "S"}
    return {"id": span.id, "intervalPeriod": period, "payloads": [payload]}


def _converted(value: float | str | None, payload_type: str, units: str, span: Span) -> float | str | None:
    """Return the value in the units asked for; a power asked for as energy is over the span. None: these units are not ours."""
    if value is None or isinstance(value, str) or payload_type in PLAIN:
        return value
    hours = (span.end - span.start) / timedelta(hours=1)
    if payload_type in POWERS:
        return value / POWER[units] if units in POWER else value * hours / ENERGY[units] if units in ENERGY else None
    return value / ENERGY[units] if units in ENERGY else value / hours / POWER[units] if units in POWER else None
