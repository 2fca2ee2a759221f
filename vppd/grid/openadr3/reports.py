"""Which reports OpenADR events ask for, when each is due, and on what. Pure.

One report for each reportDescriptor and due time. Historical reports are due when their last interval has ended, forecasts when their
first begins; with ``frequency`` -1 one report covers a whole round of intervals.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from vppd.grid.openadr3.model import Event, Period, ReportDescriptor
from vppd.grid.openadr3.payloads import Terms, named
from vppd.grid.openadr3.schedule import Note, Scene, Why
from vppd.grid.openadr3.times import BEGINNING
from vppd.grid.openadr3.unroll import defaults, unroll

_NAMED = re.compile(r"-(\d{4}-\d{2}-\d{2}T[\d:.]+Z)$")

POWERS = frozenset(
    {
        "BASELINE", "DEMAND", "LOAD_SHED_DELTA_AVAILABLE", "GENERATION_DELTA_AVAILABLE", "UP_REGULATION_AVAILABLE",
        "DOWN_REGULATION_AVAILABLE", "STORAGE_MAX_CHARGE_POWER", "STORAGE_MAX_DISCHARGE_POWER",
    }
)  # fmt: skip
ENERGIES = frozenset({"USAGE", "USAGE_FORECAST", "STORAGE_USABLE_CAPACITY"})
PLAIN = {"STORAGE_CHARGE_LEVEL": "PERCENT", "OPERATING_STATE": ""}
SUPPORTED = POWERS | ENERGIES | PLAIN.keys()
MOST_AT_ONCE = 96
"""Of reports that have piled up only the newest are sent."""
MOST_INTERVALS = 1_000
"""A report has no more intervals than this, of all its resources together."""
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
    number: int = 0
    """Its place among the descriptors of this payload type: a name is for one report."""


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
    asked: Counter[str] = Counter()
    for descriptor in event.report_descriptors:
        number, asked[descriptor.payload_type] = asked[descriptor.payload_type], asked[descriptor.payload_type] + 1
        if descriptor.payload_type in SUPPORTED:
            for due in _due(event, descriptor, course, seen, since, until):
                yield replace(due, number=number)


def on_what(event: Event, wanted: ReportDescriptor, terms: Terms) -> dict[str, str]:
    """Return what a report is about, each place as they call it with our name for it: what the descriptor, or the event, names of ours."""
    return named(wanted.targets or event.targets, terms)


def unsupported(event: Event, terms: Terms) -> tuple[Note, ...]:
    """Return the reports that are asked for and will not come."""
    found: dict[Note, None] = {}
    for wanted in event.report_descriptors:
        if wanted.payload_type not in SUPPORTED:
            found[Note(event.id, wanted.payload_type, Why.NOT_SUPPORTED, "this site has no such report")] = None
        elif not on_what(event, wanted, terms):
            said = f"none of its targets ({', '.join(wanted.targets or event.targets)[:200]}) is of this site"
            found[Note(event.id, wanted.payload_type, Why.NOT_FOR_US, said)] = None
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Pace:
    """Which intervals each of a number of reports covers."""

    first: int
    step: int
    """From the first interval of a report to that of the next."""
    width: int
    """Intervals in one report."""
    reports: int


def _pace(wanted: ReportDescriptor, course: _Course) -> _Pace:
    first, size = max(wanted.start_interval, 0), len(course.round)
    step = wanted.frequency if wanted.frequency > 0 else max(wanted.num_intervals, 1) if size == 1 else size
    width = min(wanted.num_intervals if wanted.num_intervals > 0 else step, MOST_INTERVALS)
    per_round = max(1, -(-(size - first) // step)) if size > 1 else 1
    reports = -(-max(course.count - first, 0) // step)
    return _Pace(first, step, width, reports if wanted.repeat < 0 else min(reports, wanted.repeat * per_round))


def _due(
    event: Event, wanted: ReportDescriptor, course: _Course, seen: datetime, since: datetime, until: datetime
) -> Iterator[Due]:
    pace = _pace(wanted, course)

    def at(report: int) -> datetime:
        k = pace.first + report * pace.step
        return course.span(min(k + pace.step, course.count) - 1).end if wanted.historical else course.span(k).start

    begin, stop = (bisect_right(range(pace.reports), moment, key=at) for moment in (since, until))
    if not wanted.historical and since <= seen <= until:
        begin = min(begin, max(stop - 1, 0))
    for report in range(max(begin, stop - MOST_AT_ONCE), stop):
        k = pace.first + report * pace.step
        last = min(k + pace.step, course.count)
        ahead = range(k, min(k + pace.width, course.count))
        numbers = range(max(last - pace.width, 0), last) if wanted.historical else ahead
        yield Due(event, wanted, at(report), tuple(course.span(n) for n in numbers))


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
    period = defaults(event, inherited)
    start = min(event.written_at or seen, seen) if period.start == BEGINNING else period.start
    end = period.duration.after(start) if start and period.duration else None
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
