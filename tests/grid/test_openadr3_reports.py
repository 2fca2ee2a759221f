"""Reports that OpenADR events ask for: when they are due, what they cover, and their units."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vppd.grid.openadr3.model import Event, Report
from vppd.grid.openadr3.payloads import Terms
from vppd.grid.openadr3.reading import read
from vppd.grid.openadr3.report_form import report_body
from vppd.grid.openadr3.reports import MOST_AT_ONCE, due_at, due_reports, on_what, unsupported
from vppd.grid.openadr3.schedule import Why
from vppd.grid.site import Site
from vppd.model import Interval

AT = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
PAST = AT - timedelta(days=365)
TERMS = Terms("vtn", Site("site-1", "agent", ("main-a", "main-b"), ("ups-1",)), (), {"f-7": "main-a"})


@dataclass
class Table:
    """Figures in a table; main-a and main-b lie within the site, ups-1 within main-a."""

    values: dict[tuple[str, str], float | str | None]
    asked: list[tuple[str, str, Interval]] = field(default_factory=list)

    def __call__(self, payload_type: str, name: str, interval: Interval) -> float | str | None:
        """Return the value of this type and place."""
        self.asked.append((payload_type, name, interval))
        return self.values.get((payload_type, name))

    def watch(self, names: Collection[str]) -> None:
        """Take no notice."""

    def outermost(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return what lies in no other of them."""
        above = {"main-a": {"site-1"}, "main-b": {"site-1"}, "ups-1": {"main-a", "site-1"}}
        found = list(names)
        return tuple(name for name in found if not above.get(name, set()) & set(found))


def _event(count: int = 3, *, wanted: dict[str, Any], **more: Any) -> Event:
    raw: dict[str, Any] = {
        "id": "e",
        "programID": "p",
        "intervalPeriod": {"start": "2026-03-02T00:00:00Z", "duration": "PT1H"},
        "intervals": [{"id": 10 + i, "payloads": [{"type": "PRICE", "values": [i]}]} for i in range(count)],
        "reportDescriptors": [wanted],
    }
    return read(Event, raw | more)


def _due(
    event: Event, since: datetime, until: datetime, seen: datetime = PAST
) -> list[tuple[float, list[tuple[int, float]]]]:
    """Return (due, [(interval id, start)]) in hours from AT."""
    found = due_reports(event, None, seen, since, until, "seed")
    return [((d.at - AT) / HOUR, [(s.id, (s.start - AT) / HOUR) for s in d.spans]) for d in found]


def test_one_report_on_all_intervals() -> None:
    """By default one report covers all intervals and is due when the last has ended, and once."""
    event = _event(wanted={"payloadType": "USAGE"})
    assert _due(event, AT, AT + 3 * HOUR - HOUR / 60) == []
    assert _due(event, AT, AT + 3 * HOUR) == [(3, [(10, 0), (11, 1), (12, 2)])]
    assert _due(event, AT + 3 * HOUR, AT + 90 * HOUR) == []


def test_a_report_after_each_interval() -> None:
    """Frequency 1 reports on each interval when it has ended, with the interval's own id."""
    event = _event(wanted={"payloadType": "USAGE", "frequency": 1})
    assert _due(event, AT, AT + 2 * HOUR) == [(1, [(10, 0)]), (2, [(11, 1)])]


def test_looping_intervals_are_reported_round_after_round() -> None:
    """A repeated schedule is reported for ever when that is asked, years after it began as well as at once."""
    wanted = {"payloadType": "USAGE", "frequency": 3, "repeat": -1}
    event = _event(wanted=wanted, duration="P9999Y")
    assert _due(event, AT + 2 * HOUR, AT + 6 * HOUR) == [
        (3, [(10, 0), (11, 1), (12, 2)]),
        (6, [(10, 3), (11, 4), (12, 5)]),
    ]
    late = AT + timedelta(days=3650)
    assert len(_due(event, late, late + 3 * HOUR)) == 1
    assert _due(_event(wanted=wanted | {"repeat": 1}, duration="P9999Y"), AT + 3 * HOUR, late) == []


def test_a_capability_forecast() -> None:
    """An event without intervals asks for a rolling forecast: 48 hours ahead, every hour, for ever."""
    wanted = {
        "payloadType": "LOAD_SHED_DELTA_AVAILABLE",
        "startInterval": 0,
        "numIntervals": 48,
        "historical": False,
        "frequency": 1,
        "repeat": -1,
    }
    event = _event(wanted=wanted, intervals=[])
    ((at, spans),) = _due(event, AT + 4.5 * HOUR, AT + 5 * HOUR)
    assert (at, len(spans), spans[0], spans[-1]) == (5, 48, (5, 5), (52, 52))
    assert _due(event, AT - HOUR, AT - HOUR / 2) == []
    joined = AT + 7.5 * HOUR
    assert [at for at, _ in _due(event, joined, joined, seen=joined)] == [7]


def test_what_has_piled_up_is_bounded() -> None:
    """After a long absence only the newest reports are sent."""
    event = _event(wanted={"payloadType": "USAGE", "frequency": 1, "repeat": -1}, duration="P9999Y")
    found = _due(event, AT, AT + 1000 * HOUR)
    assert (len(found), found[-1][0]) == (MOST_AT_ONCE, 1000)


def test_reports_we_do_not_have() -> None:
    """A report that this site cannot give is named, and none is sent."""
    event = _event(wanted={"payloadType": "READING", "units": "VOLTS"})
    assert _due(event, AT, AT + 90 * HOUR) == []
    assert [(n.payload_type, n.why) for n in unsupported(event, TERMS)] == [("READING", Why.NOT_SUPPORTED)]


@pytest.mark.parametrize(
    ("kind", "units", "known", "told"),
    [
        ("USAGE", None, 1500.0, 1.5),
        ("USAGE", "KW", 1500.0, 3.0),
        ("DEMAND", None, 1500.0, 1.5),
        ("BASELINE", "KWH", 1500.0, 0.75),
        ("BASELINE", "KW", -1500.0, -1.5),
        ("LOAD_SHED_DELTA_AVAILABLE", "MW", 2e6, 2.0),
        ("STORAGE_USABLE_CAPACITY", None, 2e6, 2000.0),
        ("STORAGE_MAX_DISCHARGE_POWER", None, 5e5, 500.0),
        ("STORAGE_MAX_CHARGE_POWER", None, 4e5, 400.0),
        ("STORAGE_CHARGE_LEVEL", None, 0.5, 0.5),
        ("OPERATING_STATE", None, "NORMAL", "NORMAL"),
        ("USAGE", "CELSIUS", 1.0, None),
        ("USAGE", None, None, None),
    ],
)
def test_values_and_units(kind: str, units: str | None, known: float | str | None, told: float | str | None) -> None:
    """Values go out in the units asked for; what is not known, or has no such unit, is told as missing and never as 0."""
    event = _event(1, wanted={"payloadType": kind, "units": units}, intervalPeriod={"start": "2026-03-02T00:00:00Z", "duration": "PT30M"})  # fmt: skip
    (due,) = due_reports(event, None, PAST, AT, AT + HOUR, "seed")
    figures = Table({(kind, "site-1"): known})
    body = report_body(due, "vppd", {"site-1": "site-1"}, figures)
    report = read(Report, body | {"id": "r"})
    assert (report.event_id, report.client_name, report.resources[0].resource_name) == ("e", "vppd", "site-1")
    (slot,) = report.resources[0].intervals
    (payload,) = slot.payloads
    assert (payload.type, payload.values) == ((kind, (told,)) if told is not None else ("DATA_QUALITY", ("MISSING",)))
    assert figures.asked == [(kind, "site-1", Interval(AT, AT + HOUR / 2))]
    assert body["resources"][0]["intervals"][0]["intervalPeriod"] == {
        "start": "2026-03-02T00:00:00.000Z",
        "duration": "PT1800S",
    }
    assert body["payloadDescriptors"][0]["objectType"] == "REPORT_PAYLOAD_DESCRIPTOR"


def _resources(table: Table, *, places: dict[str, str], **wanted: Any) -> dict[str, Any]:
    """Return what one report of an hour says, by the name of the resource."""
    (due,) = due_reports(_event(1, wanted=wanted), None, PAST, AT, AT + HOUR, "seed")
    body = report_body(due, "vppd", places, table)
    return {r["resourceName"]: r["intervals"][0]["payloads"][0]["values"][0] for r in body["resources"]}


@pytest.mark.parametrize(
    ("targets", "event_targets", "wanted"),
    [
        ([], [], {"site-1": "site-1"}),
        (["f-7", "ups-1"], [], {"f-7": "main-a", "ups-1": "ups-1"}),
        ([], ["main-b"], {"main-b": "main-b"}),
        (["main-a"], ["main-b"], {"main-a": "main-a"}),
        (["main-a", "somebody-else"], [], {"main-a": "main-a"}),
        (["somebody-else"], [], {}),
    ],
)
def test_on_what_a_report_is(targets: list[str], event_targets: list[str], wanted: dict[str, str]) -> None:
    """The descriptor's targets go before the event's; without any the whole site is meant, and what is not ours is left out."""
    event = _event(wanted={"payloadType": "DEMAND", "targets": targets}, targets=event_targets)
    assert on_what(event, event.report_descriptors[0], TERMS) == wanted
    assert [note.why for note in unsupported(event, TERMS)] == ([] if wanted else [Why.NOT_FOR_US])


def test_every_resource_for_itself_or_all_in_one() -> None:
    """Without ``aggregate`` each resource is told under the name it was asked by; with it all of them together, nothing counted twice."""
    table = Table({("DEMAND", "main-a"): 2e6, ("DEMAND", "ups-1"): 0.5e6, ("DEMAND", "main-b"): 1e6})
    places = {"f-7": "main-a", "ups-1": "ups-1", "main-b": "main-b"}
    assert _resources(table, places=places, payloadType="DEMAND") == {"f-7": 2e3, "ups-1": 500.0, "main-b": 1e3}
    assert _resources(table, places=places, payloadType="DEMAND", aggregate=True) == {"AGGREGATED_REPORT": 3e3}
    del table.values["DEMAND", "main-b"]
    assert _resources(table, places=places, payloadType="DEMAND", aggregate=True) == {"AGGREGATED_REPORT": "MISSING"}


def test_levels_and_states_together() -> None:
    """The level of two stores is that of their energy, the state of two feeds the graver one, and a feed without storage adds none."""
    places = {"main-a": "main-a", "main-b": "main-b"}
    table = Table(
        {
            ("STORAGE_CHARGE_LEVEL", "main-a"): 0.5, ("STORAGE_CHARGE_LEVEL", "main-b"): 1.0,
            ("STORAGE_USABLE_CAPACITY", "main-a"): 3e6, ("STORAGE_USABLE_CAPACITY", "main-b"): 1e6,
            ("OPERATING_STATE", "main-a"): "NORMAL", ("OPERATING_STATE", "main-b"): "RUNNING_CURTAILED",
            ("STORAGE_MAX_CHARGE_POWER", "main-a"): 4e5,
        }
    )  # fmt: skip
    together = {"AGGREGATED_REPORT": 0.625}
    assert _resources(table, places=places, payloadType="STORAGE_CHARGE_LEVEL", aggregate=True) == together
    graver = {"AGGREGATED_REPORT": "RUNNING_CURTAILED"}
    assert _resources(table, places=places, payloadType="OPERATING_STATE", aggregate=True) == graver
    charge = {"AGGREGATED_REPORT": 400.0}
    assert _resources(table, places=places, payloadType="STORAGE_MAX_CHARGE_POWER", aggregate=True) == charge


def test_two_reports_of_one_kind_have_two_names() -> None:
    """A feed and the site, asked for by two descriptors of one type, are two reports: the second is not taken for the first."""
    raw: list[dict[str, Any]] = [{"payloadType": "DEMAND"}, {"payloadType": "DEMAND", "targets": ["main-a"]}]
    event = _event(1, wanted=raw[0], reportDescriptors=raw)
    table = Table({("DEMAND", "site-1"): 1.0})
    found = due_reports(event, None, PAST, AT, AT + HOUR, "seed")
    names = [report_body(due, "vppd", {"site-1": "site-1"}, table)["reportName"] for due in found]
    assert len(set(names)) == 2
    assert {due_at(name) for name in names} == {AT + HOUR}
