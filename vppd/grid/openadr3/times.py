"""Durations and times as OpenADR writes them: ISO 8601 with the calendar's months, RFC 3339, and its words for now and for ever.

A time without a zone is of the zone that ``naive`` in the context names, UTC without one, and refused where that is None.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from pydantic import ValidationInfo

BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
"""A start of 0001-01-01: now, or right after the interval before."""
ENDLESS_YEARS = 1000
"""A duration of so many years or more means for ever; the specification writes P9999Y."""

_DURATION = re.compile(
    r"(-?)P(?=\d|T\d)(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?"
)
_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?)([Zz]|[+-]\d{2}:?\d{2})?)?")


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
    duration = _duration(found.groups("0"))
    if found[1] and not duration.is_zero:
        raise ValueError(f"the duration {value!r} is negative")
    return duration


def _duration(parts: tuple[str, ...]) -> Duration:
    """Return the duration of sign, years, months, weeks, days, hours, minutes and seconds; beyond reason it is for ever."""
    years, months, weeks, days, hours, minutes = (int(part) for part in parts[1:7])
    try:
        rest = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=float(parts[7]))
    except OverflowError:
        return Duration(months=12 * ENDLESS_YEARS)
    return Duration(12 * years + months, rest)


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
    day, clock, zone = found[1], found[2] or "00:00:00", found[3]
    if day == "0001-01-01":
        return BEGINNING
    try:
        return _aware(datetime.fromisoformat(f"{day}T{clock}{(zone or '').upper()}"), info).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{value!r} is not a time that exists") from error


def _aware(said: datetime, info: ValidationInfo) -> datetime:
    """Return a time with its zone. Raises ValueError when it has none and that is refused."""
    if said.tzinfo is not None:
        return said
    naive: tzinfo | None = (info.context or {}).get("naive", UTC)
    if naive is None:
        raise ValueError(f"{said.isoformat()} has no time zone")
    return said.replace(tzinfo=naive)
