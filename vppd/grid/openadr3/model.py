"""OpenADR 3.1 objects as frozen values: strict about what is acted on, tolerant about the rest.

Keys are in snake_case, as ``openadr3_reading`` makes them; unknown keys are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from vppd.grid.openadr3.times import Duration, parse_duration, parse_extent, parse_time

MOST_INTERVALS = 10_000


def _parse_stamp(value: Any, info: ValidationInfo) -> datetime | None:
    """Return when an object was written; a stamp that makes no sense, or has no zone, is no reason to drop the object."""
    naive = (info.context or {}).get("naive") or UTC
    try:
        return _At.model_validate({"at": value}, context={"naive": naive}).at
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
