"""Whatever a server says: nothing gets through but orders, tariffs, notes and reports - a crash would end the daemon."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.grid.test_openadr3_reports import Table
from vppd.config.openadr import OpenAdrConfig
from vppd.errors import DeviceError
from vppd.grid.openadr3.changes import reconcile
from vppd.grid.openadr3.doorbell import settings_of
from vppd.grid.openadr3.model import Event, Program
from vppd.grid.openadr3.orders import Book, plan
from vppd.grid.openadr3.payloads import Terms
from vppd.grid.openadr3.reading import read_all
from vppd.grid.openadr3.report_form import report_body
from vppd.grid.openadr3.reports import SUPPORTED, due_reports, on_what, unsupported
from vppd.grid.openadr3.tariffs import tariff_series
from vppd.grid.site import Grant, Site
from vppd.model import Order, OrderKind

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
TERMS = Terms(
    "vtn",
    Site("dc1", "agent", ("main-a",)),
    (Grant("*", frozenset(OrderKind), 1e9),),
    simple_w=(1e3, 2e3, 3e3),
    emergency_limit_w=1e5,
    fallback_limit_w=2e5,
)
KINDS = (
    "DISPATCH_SETPOINT",
    "DISPATCH_SETPOINT_RELATIVE",
    "IMPORT_CAPACITY_LIMIT",
    "IMPORT_CAPACITY_SUBSCRIPTION",
    "SIMPLE",
    "ALERT_GRID_EMERGENCY",
    "PRICE",
    "GHG",
    "CURVE",
)
WORDS = (
    "", "0001-01-01", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-03-02T12:00:00+14:00", "2026-03-02 11:59:59",
    "2026-02-30T00:00:00Z", "P9999Y", "P1M", "PT0S", "-PT1H", "PT0.001S", "PT1H", "P", "PT15M", "KW", "MW", "main-a", "dc1", "p",
    "e", "USAGE", "LOAD_SHED_DELTA_AVAILABLE", "x" * 300, "\x00", "\ud800",
)  # fmt: skip
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.sampled_from((10**400, -(10**400), 2**63)), st.floats(), st.sampled_from(WORDS), st.sampled_from(KINDS),
    st.just([]), st.just({}), st.lists(st.one_of(st.floats(), st.sampled_from(WORDS)), max_size=4),
)  # fmt: skip
ONES = Table({(kind, name): 1.0 for kind in SUPPORTED - {"OPERATING_STATE"} for name in ("dc1", "main-a")})
PERIOD = {"start": "2026-03-02T11:00:00Z", "duration": "PT1H", "randomizeStart": "PT5M"}
EVENT: dict[str, Any] = {
    "id": "e",
    "programID": "p",
    "priority": 1,
    "duration": "P1D",
    "targets": ["main-a"],
    "createdDateTime": "2026-03-02T10:00:00Z",
    "intervalPeriod": PERIOD,
    "payloadDescriptors": [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "KW"}],
    "reportDescriptors": [
        {"payloadType": "USAGE", "frequency": 1, "repeat": -1, "numIntervals": 2, "historical": True}
    ],
    "intervals": [
        {"id": 0, "intervalPeriod": PERIOD, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [100.0, 200.0]}]},
        {"id": 1, "payloads": [{"type": "SIMPLE", "values": [2]}]},
    ],
}


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every part of a JSON value."""
    found = [here] if here else []
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [path for key, inner in entries for path in paths(inner, (*here, key))]


@st.composite
def events(draw: st.DrawFn) -> list[Any]:
    """Draw a few events, each with some parts replaced by something else."""
    found = []
    for k in range(draw(st.integers(1, 4))):
        event: Any = json.loads(json.dumps(EVENT)) | {"id": f"e-{k}"}
        for _ in range(draw(st.integers(0, 4))):
            *outer, last = draw(st.sampled_from(paths(event)))
            place = event
            for key in outer:
                place = place[key]
            place[last] = draw(JUNK)
        found.append(event)
    return found


def priced(*values: Any, kind: str = "IMPORT_CAPACITY_LIMIT", **more: Any) -> list[Any]:
    """Return one event of these values."""
    slot = {"id": 0, "payloads": [{"type": kind, "values": list(values)}]}
    return [EVENT | {"intervals": [slot]} | more]


@given(events(), st.booleans(), st.integers(-400, 400))
@example(priced(10**400), False, 0)
@example(priced(10**400, kind="SIMPLE"), False, 0)
@example(priced(10**400, kind="PRICE"), False, 0)
@example([*priced(1.0, priority=10**400), *priced(2.0)], False, 0)
@example([EVENT | {"intervals": [], "intervalPeriod": {"start": "9999-12-31T23:00:00Z", "duration": "PT1H"}}], True, 0)
@settings(max_examples=300, deadline=None)
def test_no_event_gets_through_as_a_crash(raw: list[Any], lost: bool, days: int) -> None:
    """Events of any shape lead to orders within what is granted, or to a note; never to anything else."""
    at = AT + timedelta(days=days)
    programs, _ = read_all(Program, [{"id": "p", "programName": "dispatch", "intervalPeriod": PERIOD}])
    found, unread = read_all(Event, raw)
    book = Book(programs, found, unread, {event.id: at for event in found}, lost)
    asked = plan(book, TERMS, at, "dc1")
    for order in asked.orders:
        assert order.power_w is not None
        assert math.isfinite(order.power_w)
        assert 0.0 <= order.power_w <= 1e9
        assert order.resource in ("dc1", "main-a")
        assert Order.from_body(json.loads(json.dumps(order.to_body()))) == order
    changes = reconcile(asked.orders, (), "vtn", at)
    assert reconcile(asked.orders, changes.orders, "vtn", at).orders == ()
    tariff_series(asked.tariffs, at, 900.0, 4, "EUR")
    for event in found:
        unsupported(event, TERMS)
        for due in due_reports(event, None, at, at - timedelta(hours=1), at, "dc1"):
            json.dumps(report_body(due, "vppd", on_what(event, due.descriptor, TERMS), ONES))


@given(
    st.recursive(
        JUNK, lambda inner: st.dictionaries(st.sampled_from(("MQTT", "URIS", "authentication", "method")), inner)
    )
)
@settings(max_examples=200, deadline=None)
def test_no_notifier_gets_through_as_a_crash(said: Any) -> None:
    """Whatever is said of a notifier leads to an address or to a reason."""
    config = OpenAdrConfig.model_validate({"url": "https://v.test", "client_id": "x", "client_secret_file": "s"})
    for notifier in (said if isinstance(said, dict) else {}, {"MQTT": {"URIS": [said], "authentication": said}}):
        with suppress(DeviceError):
            assert settings_of(notifier, config, "vppd", lambda: "").tls is not None
