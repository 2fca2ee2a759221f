"""Everything we publish fits its schema, is signed by us, and carries on trace and correlation."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.grid.dispatcher import NOW, TRACE, award_data, enforcement_data, event, order_data, signal_data, targets
from tests.grid.plant import key, sender
from tests.grid.schemas import DSX, VPP, check, unsigned, validate
from tests.grid.trade import GATE, a_bid, an_obligation
from tests.support import ROOT, shared
from vppd.grid.award_statement import AwardStatement, award_statement
from vppd.grid.breach import Alert, Severity, Status
from vppd.grid.dsx_agent import FeedState, FeedTarget, PowerEvent, ShedHint, breach_alert, power_state
from vppd.grid.envelope import Context
from vppd.grid.ids import RandomIds
from vppd.grid.offers import offer_message
from vppd.grid.routes import receipt_topic
from vppd.grid.signing import KeyRing, read_jwks
from vppd.grid.vpp_agent import (
    Flexibility,
    Measured,
    OrderState,
    Statement,
    availability,
    flexibility,
    order_status,
    statement,
    telemetry,
)
from vppd.model import Interval, Order, OrderKind, Outbound

CORRELATION = "6b3f6a10-9b1c-4c60-8a54-0d3e9a8f1c11"
ORDER = Order(
    order_id=str(uuid.uuid4()),
    issuer="tso",
    kind=OrderKind.LIMIT,
    resource="main-a",
    interval=Interval(NOW, NOW + timedelta(hours=1)),
    power_w=400e3,
    product="afrr",
    correlation_id=CORRELATION,
    traceparent=TRACE,
    group=str(uuid.uuid4()),
)
INCREASE = replace(ORDER, kind=OrderKind.INCREASE, power_w=100e3)
FEED = FeedState(
    tag="main-a",
    power_minimum_w=100e3,
    power_maximum_w=600e3,
    default_w=600e3,
    targets=(
        FeedTarget(True, 400e3, Interval(NOW), False, CORRELATION),
        FeedTarget(False, 300e3, Interval(NOW + timedelta(hours=1), NOW + timedelta(hours=2)), True, CORRELATION),
    ),
    load_w=410e3,
    in_flight=True,
    event=PowerEvent.START_RAMP_DOWN,
    compliant=False,
    event_start=NOW,
)
ALERT = Alert(
    "main-a",
    Status.ACTIVE,
    Severity.WARNING,
    str(uuid.uuid4()),
    NOW,
    None,
    CORRELATION,
    4e5,
    4.5e5,
    ("SHUTDOWN_NODES",),
)
HINTS = (ShedHint("cluster-1", "node", "suspend", 1), ShedHint("n2", "gpu", "power_cap", 2, 200.0))


def _messages() -> dict[str, Outbound]:
    at, by = NOW, sender()
    return {
        "status": power_state([FEED], at, by, Context(CORRELATION, TRACE)),
        "status of an idle feed": power_state(
            [replace(FEED, targets=(), event=PowerEvent.PERIODIC, event_start=None, load_w=None, compliant=True)],
            at,
            by,
        ),
        "status of an exporting feed": power_state([replace(FEED, load_w=-5e3)], at, by),
        "breach": breach_alert(ALERT, HINTS, at, by),
        "breach resolved": breach_alert(
            replace(ALERT, status=Status.RESOLVED, resolved_at=NOW, actions=()), HINTS, at, by
        ),
        "offer": offer_message(a_bid(), "offered", GATE, at, by),
        "offer with all terms": offer_message(
            a_bid(
                min_w=0.0,
                divisible=False,
                revision=3,
                dispatch="scheduled",
                activation_s=750.0,
                sustain_s=900.0,
                max_duration_s=3600.0,
                resting_s=0.0,
                exclusive_group="evening",
            ),
            "offered",
            GATE,
            at,
            by,
        ),
        "offer withdrawn": offer_message(a_bid(revision=2), "withdrawn", GATE, at, by),
        "award statement": award_statement(AwardStatement(an_obligation(), 0.98, 1.0, 75e3, 74e3, 290e3), at, by),
        "short award statement": award_statement(AwardStatement(an_obligation(price=""), 0.0, 0.0), at, by),
        "order active": order_status(OrderState(ORDER, "active", "in force", 399e3, 0.0), at, by),
        "order scheduled": order_status(OrderState(replace(ORDER, product=""), "scheduled"), at, by),
        "order reduced": order_status(
            OrderState(replace(ORDER, kind=OrderKind.REDUCE), "completed", delivered_w=1e3), at, by
        ),
        "order increased": order_status(OrderState(INCREASE, "completed", delivered_w=1e3), at, by),
        "order released": order_status(
            OrderState(
                replace(ORDER, kind=OrderKind.RELEASE, power_w=None, interval=Interval(NOW), correlation_id=""),
                "aborted",
            ),
            at,
            by,
        ),
        "flexibility": flexibility(
            [Flexibility("dc1", -5e3, -1e5, math.inf, 5e4, 2e4, 900.0), Flexibility("main-a", None, 0.0, 6e5)], at, by
        ),
        "telemetry": telemetry(
            Measured("dc1", 9e5, "valid", limit_w=1e6),
            [Measured("main-a", math.nan, "stale", age_s=12.0)],
            [
                Measured("ups-1", -2e4, "valid", "ups", setpoint_w=-2e4, soc_frac=0.8),
                Measured("x", None, "missing", "pv"),
            ],
            at,
            by,
        ),
        "statement": statement(
            Statement(str(uuid.uuid4()), ORDER, NOW, NOW + timedelta(hours=1), 3.9e5, 5e5, 1.1e5, 4e5, 1.0, 0.99),
            at,
            by,
        ),
        "statement of an increase": statement(
            Statement(
                str(uuid.uuid4()), INCREASE, NOW, NOW + timedelta(hours=1), 6e5, 5e5, compliant_frac=1.0, added_wh=1e5
            ),
            at,
            by,
        ),
    }


MESSAGES = _messages()


@pytest.mark.parametrize("name", list(MESSAGES))
def test_every_message_fits_its_schema(name: str) -> None:
    """Envelope and signed data are as the AsyncAPI file says, formats included."""
    check(MESSAGES[name])


@pytest.mark.parametrize("name", list(MESSAGES))
def test_every_message_is_signed_by_us_and_says_so(name: str) -> None:
    """Our public JWK set verifies it, and the source names our agent."""
    content = json.loads(MESSAGES[name].payload)
    ring = KeyRing(read_jwks("dc1-agent", sender().signer.public_jwks()))
    verified = ring.verify(content["data"], "dc1-agent")
    assert json.loads(verified.payload) == unsigned(content["data"])
    assert content["source"] == "//grid/v1/dsx-flex-agent/dc1-agent"


def test_our_public_keys_hold_no_secret() -> None:
    """The exported set has the parts of a public key alone."""
    jwks = json.loads(json.dumps(sender().signer.public_jwks()))
    assert [set(entry) for entry in jwks["keys"]] == [{"kty", "crv", "x", "y", "kid", "alg", "use"}]


def test_a_message_carries_on_the_trace_with_itself_as_parent() -> None:
    """Trace id and flags stay, the parent is new, the correlation is echoed."""
    content = json.loads(MESSAGES["order active"].payload)
    version, trace, parent, flags = content["traceparent"].split("-")
    assert (version, trace, flags) == ("00", "a" * 32, "01")
    assert parent != "b" * 16
    assert content["correlationid"] == CORRELATION


def test_topics_and_delivery_are_as_agreed() -> None:
    """Retained where a newcomer must know, QoS 0 for telemetry, QoS 2 for breach alerts."""
    seen = {name: (m.topic, m.qos, m.retain) for name, m in MESSAGES.items()}
    assert seen["status"] == ("grid/v1/dsx-flex-agent/dc1-agent/powerstate/status", 1, False)
    assert seen["breach"] == ("grid/v1/dsx-flex-agent/dc1-agent/powerbreach", 2, False)
    assert seen["flexibility"] == ("vpp/v1/dc1/flexibility", 1, True)
    assert seen["offer"] == ("vpp/v1/dc1/bid/offer", 1, False)
    assert seen["award statement"] == ("vpp/v1/dc1/statement", 1, False)
    assert seen["telemetry"] == ("vpp/v1/dc1/telemetry", 0, False)
    assert receipt_topic("dc1", "tso") == "vpp/v1/dc1/issuer/tso/receipt"
    assert availability("dc1", online=False) == Outbound("vpp/v1/dc1/availability", b"offline", 1, True)
    assert availability("dc1", online=True).payload == b"online"


def test_a_resolved_breach_has_no_hints_and_no_actions() -> None:
    """DSX Flex wants shed hints absent and the actions empty at the end of a breach."""
    data = check(MESSAGES["breach resolved"])
    assert "shed_hints" not in data
    assert data["infrastructure_actions"] == []
    assert data["breach"]["resolved_at"]


def test_an_increase_is_told_in_its_own_words() -> None:
    """What was drawn above the baseline is an increase and energy added, never a reduction."""
    status, account = check(MESSAGES["order increased"]), check(MESSAGES["statement of an increase"])
    assert (status["kind"], status["delivered_increase"]["value"]) == ("increase", 1e3)
    assert not {"delivered_power", "delivered_reduction"} & set(status)
    assert (account["added_wh"], "shed_wh" in account) == (1e5, False)


def test_no_power_event_no_start_time() -> None:
    """power_event_start_time is there only while an event is active."""
    idle = check(MESSAGES["status of an idle feed"])["feeds"]["main-a"]
    assert "power_event_start_time" not in idle
    assert check(MESSAGES["status"])["feeds"]["main-a"]["power_event_start_time"] == "2026-03-01T12:00:00.000Z"


def test_export_is_told_as_zero_where_the_format_has_no_sign() -> None:
    """DSX Flex has no negative power."""
    assert check(MESSAGES["status of an exporting feed"])["feeds"]["main-a"]["calculated_load"]["value"] == 0.0


@given(
    load_w=st.floats(-1e9, 1e9),
    limits=st.lists(st.floats(1.0, 1e9), max_size=3),
    event_=st.sampled_from(PowerEvent),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_any_status_fits_its_schema(
    load_w: float, limits: list[float], event_: PowerEvent, flags: tuple[bool, bool]
) -> None:
    """Whatever the plant does, the status is one that DSX Flex knows."""
    found = tuple(FeedTarget(i == 0, w, Interval(NOW), flags[0], str(uuid.uuid4())) for i, w in enumerate(limits))
    feed = replace(FEED, load_w=load_w, targets=found, event=event_, in_flight=flags[0], compliant=flags[1])
    check(power_state([feed, replace(feed, tag="b")], NOW, sender()))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("grid.loadtarget.set.v1", targets()),
        ("grid.powerbreach.enforcement.v1", enforcement_data()),
        ("vpp.order.set.v1", order_data()),
        ("vpp.order.set.v1", order_data(kind="release", power=None)),
        ("vpp.order.set.v1", order_data(kind="release") | {"power": None}),
        ("vpp.regulation.v1", signal_data()),
        ("vpp.regulation.v1", {"signal": -1}),
        ("vpp.bid.award.v1", award_data()),
        ("vpp.bid.award.v1", {k: v for k, v in award_data(revision=2).items() if k != "price"}),
    ],
)
def test_what_we_take_in_tests_is_what_the_schema_allows(kind: str, data: dict[str, Any]) -> None:
    """The dispatcher of the tests speaks by the same files."""
    check(Outbound("", json.dumps(event(kind, key("tso-1").jws(data))).encode()))


@pytest.mark.parametrize(
    "changes", [{"power": None}, {"kind": "release"}, {"priority": 95}, {"seq": -1}, {"order_id": "x"}, {"extra": 1}]
)
def test_our_schema_refuses_what_admission_refuses(changes: dict[str, Any]) -> None:
    """The published file is as strict as the code."""
    with pytest.raises(jsonschema.ValidationError):
        validate(ROOT / "docs" / "asyncapi-vpp-v1.yaml", "OrderSetData", order_data(**changes))


def test_the_schemas_bite() -> None:
    """A wrong format, a missing key and a wrong word are found, so a pass means something."""
    shared("specs", "dsx-flex-1.7.0.yaml")
    content = json.loads(MESSAGES["status"].payload)
    for changes in ({"id": "7"}, {"time": "now"}, {"source": "//x"}):
        with pytest.raises(jsonschema.ValidationError):
            check(Outbound("", json.dumps({**content, **changes}).encode()))


def test_every_kind_of_message_has_a_case() -> None:
    """No published type is left out of these tests."""
    published = {json.loads(m.payload)["type"] for m in MESSAGES.values()} | {"vpp.receipt.v1"}
    taken = {
        "grid.loadtarget.set.v1",
        "grid.powerbreach.enforcement.v1",
        "vpp.order.set.v1",
        "vpp.regulation.v1",
        "vpp.bid.award.v1",
    }
    assert published | taken == set(DSX) | set(VPP)


def test_random_ids_are_version_4() -> None:
    """Ids are UUIDv4 and traces are never all zero."""
    ids = RandomIds()
    assert uuid.UUID(ids.uuid()).version == 4
    assert len(ids.hexes(32)) == 32
