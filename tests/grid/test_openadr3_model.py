"""OpenADR objects: read as an independent implementation reads them, in both spellings."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from vppd.errors import Garbled
from vppd.grid.openadr3.model import Event, Notification, Program, Report, Subscription
from vppd.grid.openadr3.reading import Reading, read, read_all, snake_keys
from vppd.grid.openadr3.times import BEGINNING, Duration, parse_duration

ORACLE: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "openadr3_oracle.json").read_text())
"""What the package openadr3 made of the same objects; its key ``_made`` says how."""


@pytest.mark.parametrize("case", ORACLE["events"], ids=lambda case: case["raw"]["id"])
def test_events_as_the_oracle_reads_them(case: dict[str, Any]) -> None:
    """An event has the ids, priority, units and payloads that the other implementation sees."""
    event, wanted = read(Event, case["raw"]), case["read"]
    assert (event.id, event.program_id, event.event_name) == (wanted["id"], wanted["program_id"], wanted["event_name"])
    assert event.priority == wanted["priority"]
    assert event.written_at == datetime.fromisoformat(wanted["written_at"])
    assert list(event.targets) == wanted["targets"]
    assert [d.units for d in event.payload_descriptors] == wanted["units"]
    assert [[[p.type, list(p.values)] for p in slot.payloads] for slot in event.intervals] == wanted["payloads"]


@pytest.mark.parametrize("case", ORACLE["notifications"], ids=["snake_case", "camelCase"])
def test_notifications_in_both_spellings(case: dict[str, Any]) -> None:
    """A notification is understood in the spelling of the specification and in that of the reference server."""
    said, wanted = read(Notification, case["raw"]), case["read"]
    event = read(Event, said.object)
    assert (said.object_type, said.operation, event.id) == (wanted["object_type"], wanted["operation"], wanted["id"])
    assert event.program_id == wanted["program_id"]
    assert event.interval_period is not None
    assert event.interval_period.start == datetime.fromisoformat(wanted["start"])
    assert event.written_at == datetime.fromisoformat(wanted["written_at"])
    assert event.intervals[0].payloads[0].values == (wanted["value"],)


def test_the_other_objects_as_the_oracle_reads_them() -> None:
    """Programs, reports and subscriptions are read as the other implementation reads them."""
    program, wanted = read(Program, ORACLE["program"]["raw"]), ORACLE["program"]["read"]
    assert (program.id, program.program_name, list(program.targets)) == (
        wanted["id"], wanted["program_name"], wanted["targets"]
    )  # fmt: skip
    report, wanted = read(Report, ORACLE["report"]["raw"]), ORACLE["report"]["read"]
    assert (report.event_id, report.client_name) == (wanted["event_id"], wanted["client_name"])
    assert report.resources[0].resource_name == wanted["resource"]
    assert report.resources[0].intervals[0].payloads[0].values == (wanted["value"],)
    subscription, wanted = read(Subscription, ORACLE["subscription"]["raw"]), ORACLE["subscription"]["read"]
    assert (subscription.client_name, subscription.program_id) == (wanted["client_name"], wanted["program_id"])
    assert list(subscription.object_operations[0].operations) == wanted["operations"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("PT1H", timedelta(hours=1)),
        ("PT0S", timedelta()),
        ("P1DT2H3M4.5S", timedelta(days=1, hours=2, minutes=3, seconds=4.5)),
        ("P2W", timedelta(weeks=2)),
        ("-PT0S", timedelta()),
    ],
)
def test_durations(text: str, wanted: timedelta) -> None:
    """ISO 8601 durations are as long as they say."""
    assert parse_duration(text) == Duration(0, wanted)


@pytest.mark.parametrize("text", ["", "P", "PT", "1H", "PT1H ago", "-PT1H", "PT-1H", 3600, None])
def test_what_is_no_duration(text: object) -> None:
    """A negative duration, and what is none, is refused."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_for_ever() -> None:
    """P9999Y never ends, and a time beyond the calendar is never reached either."""
    at = datetime(2026, 3, 1, tzinfo=UTC)
    assert parse_duration("P9999Y").is_endless
    assert parse_duration("P9999Y").after(at) is None
    assert Duration(0, timedelta(days=900_000_000)).after(at) is None
    assert parse_duration("P999999999W").after(at) is None


def test_months_end_where_the_month_does() -> None:
    """A month after 31 January is the last day of February."""
    assert parse_duration("P1M").after(datetime(2026, 1, 31, tzinfo=UTC)) == datetime(2026, 2, 28, tzinfo=UTC)
    assert parse_duration("P1M").after(datetime(2026, 12, 31, tzinfo=UTC)) == datetime(2027, 1, 31, tzinfo=UTC)


def _event(**more: Any) -> dict[str, Any]:
    return {"id": "e-1", "programID": "p-1", **more}


def test_the_beginning_of_time() -> None:
    """0001-01-01 is the beginning in every spelling of it."""
    for said in ("0001-01-01", "0001-01-01T00:00:00", "0001-01-01T00:00:00Z", "0001-01-01 00:00:00"):
        event = read(Event, _event(intervalPeriod={"start": said, "duration": "P9999Y"}))
        assert event.interval_period is not None
        assert event.interval_period.start == BEGINNING


def test_naive_times() -> None:
    """A start without a zone is UTC, of another zone, or refused, as agreed; a stamp without one never stands in the way."""
    raw = _event(createdDateTime="2026-03-01 08:00:00", intervalPeriod={"start": "2026-03-02 00:00:00"})
    event = read(Event, raw)
    assert event.interval_period is not None
    assert event.interval_period.start == datetime(2026, 3, 2, tzinfo=UTC)
    assert event.written_at == datetime(2026, 3, 1, 8, tzinfo=UTC)
    with pytest.raises(Garbled, match="no time zone"):
        read(Event, raw, None)
    theirs = read(Event, raw, ZoneInfo("America/New_York"))
    assert theirs.interval_period is not None
    assert theirs.interval_period.start == datetime(2026, 3, 2, 5, tzinfo=UTC)
    assert theirs.written_at == datetime(2026, 3, 1, 13, tzinfo=UTC)
    del raw["intervalPeriod"]
    assert read(Event, raw, None).written_at == datetime(2026, 3, 1, 8, tzinfo=UTC)


def test_nulls_old_targets_and_unknown_keys() -> None:
    """Null counts as absent, targets of 3.0 are understood, and keys of a later version do no harm."""
    event = read(
        Event,
        _event(priority=None, intervals=None, targets=[{"type": "VEN_NAME", "values": ["a", "b"]}], novelty={"x": 1}),
    )
    assert (event.priority, event.intervals, event.targets) == (None, (), ("a", "b"))


@pytest.mark.parametrize(
    "raw",
    [
        {"id": "e-1"},
        _event(priority=-1),
        _event(priority="high"),
        _event(priority=True),
        _event(duration="-PT1H"),
        _event(intervals=[{"id": 0, "payloads": [{"values": [1]}]}]),
        _event(intervalPeriod={"start": "tomorrow"}),
        _event(intervalPeriod={"start": "2026-02-30T00:00:00Z"}),
        _event(intervalPeriod={"randomizeStart": "P9999Y"}),
        {"id": "../../vens", "programID": "p-1"},
        ["e-1"],
        "e-1",
    ],
)
def test_what_makes_no_sense_is_refused(raw: object) -> None:
    """An object that could be misunderstood is refused, never guessed at."""
    with pytest.raises(Garbled):
        read(Event, raw)


def test_one_bad_object_does_not_hide_the_others() -> None:
    """A list gives the good objects, and names the bad ones with what is wrong."""
    good, bad = read_all(Event, [_event(), _event(eventName="odd", duration="soon"), 7])
    assert [event.id for event in good] == ["e-1"]
    assert [(unread.id, unread.name) for unread in bad] == [("e-1", "odd"), ("", "")]
    assert "duration" in bad[0].sentence
    with pytest.raises(Garbled, match="no list"):
        read_all(Event, {"error": "x"})


def test_nesting_beyond_reason() -> None:
    """Deep nesting is refused before anything else looks at it."""
    deep: Any = 1
    for _ in range(50):
        deep = [deep]
    with pytest.raises(Garbled, match="deeply"):
        snake_keys({"values": deep})


def test_what_has_not_changed_is_the_same_object() -> None:
    """Read again, an object that is said as before is the very same one; one that is said otherwise, or is back, is read anew."""
    reading = Reading(Event)
    (first, other), _ = reading.read_all([_event(), _event(id="e-2")])
    (again, changed), _ = reading.read_all([_event(), _event(id="e-2", priority=7)])
    assert again is first
    assert (changed is not other, changed.priority) == (True, 7)
    reading.read_all([])
    (back,), _ = reading.read_all([_event()])
    assert (back is not first, back == first) == (True, True)
