"""OpenADR 3.1 objects as frozen values: strict about what is acted on, tolerant about how it is spelt.

Keys may be camelCase, as the specification has them, or snake_case, as the reference server publishes them over MQTT; null counts
as absent and unknown keys are ignored. A time without a zone is read as UTC, or refused where ``NaiveTimes.REFUSE`` is asked for.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from vppd.config.openadr import NaiveTimes
from vppd.errors import Garbled

BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
"""A start of 0001-01-01: now, or right after the interval before."""
ENDLESS_YEARS = 1000
"""A duration of so many years or more means for ever; the specification writes P9999Y."""
MOST_DEEP = 12
MOST_INTERVALS = 10_000

_DURATION = re.compile(
    r"(-?)P(?=\d|T\d)(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?"
)
_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?)([Zz]|[+-]\d{2}:?\d{2})?)?")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Duration:
    """An ISO 8601 duration of zero or more; months are the calendar's."""

    months: int = 0
    rest: timedelta = timedelta()

    @property
    def is_endless(self) -> bool:
        """Say whether it means for ever."""
        return self.months >= 12 * ENDLESS_YEARS

    @property
    def is_zero(self) -> bool:
        """Say whether it is no time at all."""
        return self.months == 0 and not self.rest

    def after(self, at: datetime) -> datetime | None:
        """Return the time so much later than ``at``; None when that is never."""
        if self.is_endless:
            return None
        years, month = divmod(at.month - 1 + self.months, 12)
        try:
            day = min(at.day, calendar.monthrange(at.year + years, month + 1)[1])
            return at.replace(year=at.year + years, month=month + 1, day=day) + self.rest
        except (ValueError, OverflowError):
            return None


def parse_duration(value: Any) -> Duration:
    """Return an ISO 8601 duration. Raises ValueError when it is none, or is negative."""
    if isinstance(value, Duration):
        return value
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) and len(value) <= 64 else None
    if found is None:
        raise ValueError(f"{str(value)[:40]!r} is not an ISO 8601 duration")
    years, months, weeks, days, hours, minutes = (int(part or 0) for part in found.groups()[1:7])
    try:
        rest = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=float(found[8] or 0))
    except OverflowError:
        return Duration(months=12 * ENDLESS_YEARS)
    duration = Duration(12 * years + months, rest)
    if found[1] and not duration.is_zero:
        raise ValueError(f"the duration {value!r} is negative")
    return duration


def parse_extent(value: Any) -> Duration:
    """Return the size of a duration whatever its sign, as ``randomizeStart`` wants it. Raises ValueError."""
    return parse_duration(value.strip().removeprefix("-") if isinstance(value, str) else value)


def parse_time(value: Any, info: ValidationInfo) -> datetime:
    """Return a time as UTC. Raises ValueError when it is none, or is naive where that is refused."""
    if isinstance(value, datetime):
        return value
    found = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{str(value)[:40]!r} is not an RFC 3339 time")
    day, clock, zone = found.groups()
    if day == "0001-01-01":
        return BEGINNING
    if zone is None and (info.context or {}).get("naive") is NaiveTimes.REFUSE:
        raise ValueError(f"{value!r} has no time zone")
    said = f"{day}T{clock or '00:00:00'}{(zone or '+00:00').upper()}"
    try:
        return datetime.fromisoformat(said).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{value!r} is not a time that exists") from error


def _parse_stamp(value: Any) -> datetime | None:
    """Return when an object was written; a stamp that makes no sense is no reason to drop the object."""
    try:
        return _At.model_validate({"at": value}).at
    except ValidationError:
        return None


def _flat_targets(value: Any) -> Any:
    """Return targets as plain strings; before 3.1 they were lists of {type, values}."""
    if not isinstance(value, list | tuple):
        return value
    found: list[Any] = []
    for entry in value:
        found.extend(entry.get("values", ()) if isinstance(entry, Mapping) else (entry,))
    return tuple(found)


def _words(value: Any) -> Any:
    return value.strip().upper() if isinstance(value, str) else value


def _no_fewer(value: Duration | None) -> Duration | None:
    if value is not None and value.is_endless:
        raise ValueError("a start cannot be shifted for ever")
    return value


Word = Annotated[str, BeforeValidator(_words), Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(max_length=256)]
Id = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9_-]+$")]
Targets = Annotated[tuple[Text, ...], BeforeValidator(_flat_targets)]
Span = Annotated[Duration, BeforeValidator(parse_duration)]
Time = Annotated[datetime, BeforeValidator(parse_time)]
Stamp = Annotated[datetime | None, BeforeValidator(_parse_stamp)]
Whole = Annotated[int, Field(strict=True, ge=-(1 << 63), lt=1 << 63)]


class Read(BaseModel):
    """Something read from the server: frozen, unknown keys ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _At(Read):
    at: Time


class Period(Read):
    """``intervalPeriod``."""

    start: Time | None = None
    duration: Span | None = None
    randomize_start: Annotated[Annotated[Duration, BeforeValidator(parse_extent)] | None, AfterValidator(_no_fewer)] = (
        None
    )


class Payload(Read):
    """One ``valuesMap`` of an interval."""

    type: Word
    values: Annotated[tuple[Any, ...], Field(max_length=MOST_INTERVALS)] = ()


class Slot(Read):
    """One entry of ``intervals``."""

    id: Whole = 0
    interval_period: Period | None = None
    payloads: tuple[Payload, ...] = ()


class Descriptor(Read):
    """``payloadDescriptor`` of an event or a report."""

    payload_type: Word
    units: Word | None = None
    currency: Text | None = None
    reading_type: Word | None = None


class ReportDescriptor(Read):
    """``reportDescriptor``: what the server wants to be told."""

    payload_type: Word
    reading_type: Word | None = None
    units: Word | None = None
    targets: Targets = ()
    aggregate: bool = False
    start_interval: Whole = -1
    num_intervals: Whole = -1
    historical: bool = True
    frequency: Whole = -1
    repeat: Whole = 1
    report_intervals: Word = "INTERVALS"


class Stored(Read):
    """What every stored object has."""

    id: Id
    created_date_time: Stamp = None
    modification_date_time: Stamp = None

    @property
    def written_at(self) -> datetime | None:
        """Return when the object was written last, by the server's clock."""
        return self.modification_date_time or self.created_date_time


class Program(Stored):
    """A program."""

    program_name: Text
    interval_period: Period | None = None
    payload_descriptors: tuple[Descriptor, ...] = ()
    targets: Targets = ()


class Event(Stored):
    """An event."""

    program_id: Id
    event_name: Text = ""
    duration: Span | None = None
    priority: Annotated[Whole, Field(ge=0)] | None = None
    targets: Targets = ()
    report_descriptors: tuple[ReportDescriptor, ...] = ()
    payload_descriptors: tuple[Descriptor, ...] = ()
    interval_period: Period | None = None
    intervals: Annotated[tuple[Slot, ...], Field(max_length=MOST_INTERVALS)] = ()


class Resource(Read):
    """What a report says of one resource."""

    resource_name: Text
    interval_period: Period | None = None
    intervals: tuple[Slot, ...] = ()


class Report(Stored):
    """A report as the server has it."""

    event_id: Id
    client_name: Text
    report_name: Text = ""
    payload_descriptors: tuple[Descriptor, ...] = ()
    resources: tuple[Resource, ...] = ()


class Operation(Read):
    """What a subscription is about."""

    objects: tuple[Word, ...] = ()
    operations: tuple[Word, ...] = ()
    callback_url: Text = ""


class Subscription(Stored):
    """A webhook subscription."""

    client_name: Text
    program_id: Id | None = None
    object_operations: tuple[Operation, ...] = ()
    targets: Targets = ()


class Notification(Read):
    """What the notifier says; only that it spoke is believed, the objects are fetched."""

    object_type: Word
    operation: Word
    object: dict[str, Any] = Field(default_factory=dict)


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


def read(kind: type[R], raw: Any, naive: NaiveTimes = NaiveTimes.UTC) -> R:
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

    def __init__(self, kind: type[R], naive: NaiveTimes = NaiveTimes.UTC) -> None:
        self._kind, self._naive = kind, naive
        self._known: dict[str, tuple[Any, R]] = {}

    def read_all(self, raw: Any) -> tuple[tuple[R, ...], tuple[Unread, ...]]:
        """Return the objects of a list and those that make no sense: one of these must not hide the others.

        Raises Garbled when it is no list.
        """
        if not isinstance(raw, list):
            raise Garbled(f"the answer is no list of {self._kind.__name__.lower()}s")
        known, found, unread = {}, list[R](), list[Unread]()
        for entry in raw:
            said = entry if isinstance(entry, dict) else {}
            object_id = str(said.get("id", ""))
            before = self._known.get(object_id)
            try:
                one = before[1] if before is not None and before[0] == entry else read(self._kind, entry, self._naive)
            except Garbled as error:
                name = said.get("eventName") or said.get("programName") or said.get("event_name") or ""
                unread.append(Unread(object_id[:128], str(name)[:128], str(error)))
            else:
                known[object_id] = (entry, one)
                found.append(one)
        self._known = known
        return tuple(found), tuple(unread)


def read_all(kind: type[R], raw: Any, naive: NaiveTimes = NaiveTimes.UTC) -> tuple[tuple[R, ...], tuple[Unread, ...]]:
    """Return the objects of one list as ``Reading`` does. Raises Garbled when it is no list."""
    return Reading(kind, naive).read_all(raw)
