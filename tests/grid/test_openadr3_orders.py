"""From OpenADR events to orders: what each payload asks, what leaves a reason, and what changes when the events do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vppd.config.openadr import Relative
from vppd.grid.openadr3.changes import reconcile
from vppd.grid.openadr3.model import Event, Program
from vppd.grid.openadr3.orders import Book, Plan, plan
from vppd.grid.openadr3.payloads import Terms
from vppd.grid.openadr3.reading import Unread, read
from vppd.grid.openadr3.schedule import Why
from vppd.grid.site import Grant, Site
from vppd.model import Interval, Order, OrderKind, Priority

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SITE = Site("site-1", "agent", ("main-a",), ("ups-1",))
TERMS = Terms("vtn", SITE, (Grant("*", frozenset(OrderKind), 1e8),))
PROGRAM = read(Program, {"id": "p", "programName": "dispatch"})


def event(kind: str, *values: object, **more: Any) -> Event:
    """Return an event of one hour from AT on."""
    raw = {
        "id": "e",
        "programID": "p",
        "modificationDateTime": "2026-03-02T11:00:00Z",
        "payloadDescriptors": [{"payloadType": kind, "units": "KW"}],
        "intervalPeriod": {"start": "2026-03-02T12:00:00Z", "duration": "PT1H"},
        "intervals": [{"id": 0, "payloads": [{"type": kind, "values": list(values)}]}],
    }
    return read(Event, raw | more)


def planned(*events: Event, terms: Terms = TERMS, at: datetime = AT, **book: Any) -> Plan:
    """Return the plan for these events."""
    return plan(Book((PROGRAM,), events, **book), terms, at, "seed")


def only(found: Plan) -> Order:
    """Return the plan's only order."""
    (order,) = found.orders
    return order


def whys(found: Plan) -> set[tuple[str, Why]]:
    """Return what was not applied, and why."""
    return {(note.event_id, note.why) for note in found.notes}


def test_a_dispatch_setpoint() -> None:
    """DISPATCH_SETPOINT 1500 kW is a setpoint of 1.5 MW for the site over its interval, traceable to its event."""
    order = only(planned(event("DISPATCH_SETPOINT", 1500)))
    assert (order.kind, order.resource, order.power_w) == (OrderKind.SETPOINT, "site-1", 1.5e6)
    assert order.interval == Interval(AT, AT + HOUR)
    assert (order.issuer, order.protocol, order.product, order.group) == ("vtn", "openadr3", "dispatch", "e")
    assert order.priority == Priority.AWARD


def test_an_import_limit() -> None:
    """IMPORT_CAPACITY_LIMIT is a grid limit; a dispatch inside it is no conflict: the limit narrows, the setpoint chooses."""
    limit = event("IMPORT_CAPACITY_LIMIT", 2.5, id="l", payloadDescriptors=[{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "MW"}])  # fmt: skip
    found = planned(limit, event("DISPATCH_SETPOINT", 1500))
    assert {(o.kind, o.power_w, o.priority) for o in found.orders} == {
        (OrderKind.LIMIT, 2.5e6, Priority.GRID_LIMIT),
        (OrderKind.SETPOINT, 1.5e6, Priority.AWARD),
    }
    assert not found.notes


@pytest.mark.parametrize(
    ("relative", "value", "kind", "why"),
    [
        (Relative.CHANGE, -300, OrderKind.REDUCE, None),
        (Relative.CHANGE, 300, OrderKind.INCREASE, None),
        (Relative.CHANGE, 0, None, Why.NOTHING_ASKED),
        (Relative.SHED, 300, OrderKind.REDUCE, None),
        (Relative.SHED, -300, None, Why.BAD_VALUE),
    ],
)
def test_the_sign_of_a_relative_dispatch(
    relative: Relative, value: int, kind: OrderKind | None, why: Why | None
) -> None:
    """The sign means what the program says: a change goes either way, an amount to shed has none and is never turned round."""
    found = planned(event("DISPATCH_SETPOINT_RELATIVE", value), terms=replace(TERMS, relative=relative))
    assert [(o.kind, o.power_w) for o in found.orders] == ([(kind, 3e5)] if kind else [])
    assert whys(found) == ({("e", why)} if why else set())


def test_an_increase_needs_a_grant_of_its_own() -> None:
    """Who may order less may not order more: a sign that both sides read differently must not move the meter the wrong way."""
    less = (Grant("*", frozenset({OrderKind.REDUCE, OrderKind.RELEASE}), 1e8),)
    found = planned(event("DISPATCH_SETPOINT_RELATIVE", 300), terms=replace(TERMS, grants=less))
    assert (found.orders, whys(found)) == ((), {("e", Why.UNAUTHORISED)})


@pytest.mark.parametrize(("level", "shed_w"), [(0, None), (1, 1e5), (2, 2e5), (3, 5e5)])
def test_simple_levels(level: int, shed_w: float | None) -> None:
    """The levels of SIMPLE shed what has been configured, level 0 nothing."""
    found = planned(event("SIMPLE", level), terms=replace(TERMS, simple_w=(1e5, 2e5, 5e5)))
    assert [(o.kind, o.power_w) for o in found.orders] == ([(OrderKind.REDUCE, shed_w)] if shed_w else [])


def test_an_emergency() -> None:
    """ALERT_GRID_EMERGENCY limits the import where that is configured, and is told with its text where it is not."""
    alert = event("ALERT_GRID_EMERGENCY", "frequency is falling")
    order = only(planned(alert, terms=replace(TERMS, emergency_limit_w=1e6)))
    assert (order.kind, order.power_w, order.priority) == (OrderKind.LIMIT, 1e6, Priority.GRID_LIMIT)
    (note,) = planned(alert).notes
    assert (note.why, "frequency is falling" in note.sentence) == (Why.NOT_ENABLED, True)


def test_prices_and_carbon_are_handed_on() -> None:
    """Prices and GHG become tariffs, one for each sub-interval and also below zero, and no orders."""
    units = [{"payloadType": "PRICE", "units": "KWH", "currency": "EUR"}]
    export = event("EXPORT_PRICE", 0.05, id="x", payloadDescriptors=[units[0] | {"payloadType": "EXPORT_PRICE"}])
    found = planned(event("PRICE", 0.17, -0.03, payloadDescriptors=units), event("GHG", 350, id="g"), export)
    assert not found.orders
    prices = [t for t in found.tariffs if t.payload_type == "PRICE"]
    assert [(t.value, t.units, t.currency) for t in prices] == [(0.17, "KWH", "EUR"), (-0.03, "KWH", "EUR")]
    assert prices[0].interval.end == prices[1].interval.start == AT + HOUR / 2
    assert [(t.value, t.currency) for t in found.tariffs if t.payload_type == "EXPORT_PRICE"] == [(0.05, "EUR")]
    assert whys(found) == {("e", Why.ECONOMICS), ("g", Why.ECONOMICS), ("x", Why.ECONOMICS)}


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("EXPORT_CAPACITY_LIMIT", 5, Why.NOT_SUPPORTED),
        ("EXPORT_CAPACITY_SUBSCRIPTION", 5, Why.NOT_SUPPORTED),
        ("CONTROL_LEVEL_OFFSET", 1, Why.NOT_SUPPORTED),
        ("OUR_OWN_IDEA", 1, Why.NOT_SUPPORTED),
        ("SIMPLE", 1, Why.NOT_ENABLED),
        ("SIMPLE", 4, Why.BAD_VALUE),
        ("DISPATCH_SETPOINT", "1500", Why.BAD_VALUE),
        ("DISPATCH_SETPOINT", True, Why.BAD_VALUE),
        ("DISPATCH_SETPOINT", float("nan"), Why.BAD_VALUE),
        ("DISPATCH_SETPOINT", -1, Why.BAD_VALUE),
        ("IMPORT_CAPACITY_LIMIT", 1e10, Why.BAD_VALUE),
    ],
)
def test_what_cannot_be_carried_out_says_why(kind: str, value: object, why: Why) -> None:
    """A payload that is not applied leads to no order and to one reason."""
    found = planned(event(kind, value))
    assert (found.orders, whys(found)) == ((), {("e", why)})


def test_missing_and_odd_units() -> None:
    """A power without units is refused unless units are agreed for that case, and kWh are no power; the program's word counts."""
    bare = event("IMPORT_CAPACITY_LIMIT", 5, payloadDescriptors=[])
    assert whys(planned(bare)) == {("e", Why.MISSING_UNITS)}
    assert only(planned(bare, terms=replace(TERMS, assume_units="kW"))).power_w == 5e3
    odd = event(
        "IMPORT_CAPACITY_LIMIT", 5, payloadDescriptors=[{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "KWH"}]
    )
    assert whys(planned(odd)) == {("e", Why.BAD_UNITS)}
    said = [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "kW"}]
    program = read(Program, {"id": "p", "programName": "dispatch", "payloadDescriptors": said})
    assert only(plan(Book((program,), (bare,)), TERMS, AT, "s")).power_w == 5e3


def test_targets() -> None:
    """Targets find the site, a feed or an asset, by our names or by agreed ones; those of others are not for us and say so."""
    terms = replace(TERMS, targets={"group-7": "main-a"})
    assert only(planned(event("SIMPLE", 0, targets=[]) , event("DISPATCH_SETPOINT", 1, id="f", targets=["group-7", "x"]), terms=terms)).resource == "main-a"  # fmt: skip
    assert only(planned(event("DISPATCH_SETPOINT", 1, targets=["ups-1"]))).resource == "ups-1"
    assert whys(planned(event("DISPATCH_SETPOINT", 1, targets=["elsewhere"]))) == {("e", Why.NOT_FOR_US)}


def test_programs_and_unreadable_events() -> None:
    """An event of a program that we are not in, and an object that makes no sense, change nothing and say so."""
    found = planned(event("DISPATCH_SETPOINT", 1, programID="other"), unread=(Unread("bad", "", "duration: no"),))
    assert (found.orders, whys(found)) == ((), {("e", Why.UNKNOWN_PROGRAM), ("bad", Why.UNREADABLE)})


def test_only_what_is_granted() -> None:
    """What nobody granted to the server's operator is not carried out."""
    terms = replace(TERMS, grants=(Grant("site-1", frozenset({OrderKind.LIMIT}), 1e6),))
    assert whys(planned(event("DISPATCH_SETPOINT", 1), terms=terms)) == {("e", Why.UNAUTHORISED)}
    assert whys(planned(event("IMPORT_CAPACITY_LIMIT", 1001), terms=terms)) == {("e", Why.UNAUTHORISED)}
    assert only(planned(event("IMPORT_CAPACITY_LIMIT", 1000), terms=terms)).power_w == 1e6


def test_absolute_and_relative_dispatch_conflict() -> None:
    """Two dispatches of either kind are about the same thing, so that the better one alone is in force."""
    better = event("DISPATCH_SETPOINT_RELATIVE", -10, id="r", priority=1)
    found = planned(event("DISPATCH_SETPOINT", 1500), better)
    assert only(found).kind is OrderKind.REDUCE
    assert whys(found) == {("e", Why.OVERRULED)}


def test_back_to_normal_overrules_and_nonsense_does_not() -> None:
    """SIMPLE 0 of a better priority takes a shed away; an event that cannot be carried out takes nothing away."""
    terms = replace(TERMS, simple_w=(1e5, 2e5, 5e5))
    shed = event("SIMPLE", 2, priority=5)
    assert planned(shed, event("SIMPLE", 0, id="z", priority=0), terms=terms).orders == ()
    found = planned(shed, event("SIMPLE", 9, id="z", priority=0), terms=terms)
    assert only(found).power_w == 2e5
    assert whys(found) == {("z", Why.BAD_VALUE)}


def test_intervals_that_ask_the_same_are_one_order() -> None:
    """A flat stretch of a schedule is one order, so that a reduction keeps its baseline."""
    slots = [
        {"id": i, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [v]}]} for i, v in enumerate([5, 5, 4, 5])
    ]
    found = planned(event("IMPORT_CAPACITY_LIMIT", intervals=slots))
    hours = [((o.interval.start - AT) / HOUR, o.power_w) for o in found.orders]
    assert hours == [(0, 5e3), (2, 4e3), (3, 5e3)]


def test_comms_loss() -> None:
    """With the server lost the limit runs out, then the subscription holds, and where there is none the site's own fallback."""
    subscription = event(
        "IMPORT_CAPACITY_SUBSCRIPTION", 9, id="s", intervalPeriod={"start": "0001-01-01", "duration": "PT5H"}
    )
    limit = event("IMPORT_CAPACITY_LIMIT", 5)
    terms = replace(TERMS, fallback_limit_w=7e3)

    def limits(*events: Event, **more: Any) -> list[tuple[float, float | None, float | None]]:
        orders = planned(*events, terms=terms, **more).orders
        return [((o.interval.start - AT) / HOUR, o.interval.end and (o.interval.end - AT) / HOUR, o.power_w) for o in orders]  # type: ignore[misc]  # fmt: skip

    assert limits(subscription, limit) == [(0, 1, 5e3)]
    assert limits(subscription, limit, lost=True) == [(0, 1, 5e3), (1, 4, 9e3), (4, None, 7e3)]
    assert limits(limit, lost=True) == [(0, 1, 5e3), (1, None, 7e3)]
    assert limits(lost=True) == [(0, None, 7e3)]
    assert ("s", Why.STANDBY) in whys(planned(subscription, limit))
    assert ("s", Why.FALLBACK) in whys(planned(subscription, limit, lost=True))


def test_after_an_outage_of_the_grid() -> None:
    """Limits from before the outage are void, and the subscription holds at once."""
    subscription = event(
        "IMPORT_CAPACITY_SUBSCRIPTION", 9, id="s", intervalPeriod={"start": "0001-01-01", "duration": "P1Y"}
    )
    found = planned(subscription, event("IMPORT_CAPACITY_LIMIT", 50), discarded=True)
    assert (only(found).power_w, only(found).interval.start) == (9e3, AT)
    assert ("e", Why.DISCARDED) in whys(found)


def test_an_open_order_stays() -> None:
    """What is open and still wanted stays as it is, also when the plan now begins later than it did."""
    changes = reconcile(planned(event("IMPORT_CAPACITY_LIMIT", 5)).orders, (), "vtn", AT)
    (opened,) = changes.orders
    assert (changes.releases, opened.received_at, bool(opened.order_id)) == ((), AT, True)
    stored = Order.from_body(opened.to_body())
    later = AT + HOUR / 2
    wanted = planned(event("IMPORT_CAPACITY_LIMIT", 5), at=later).orders
    assert reconcile(wanted, [stored], "vtn", later).orders == ()
    shifted = [replace(wanted[0], interval=Interval(AT + HOUR / 4, AT + HOUR))]
    assert reconcile(shifted, [stored], "vtn", later) == reconcile(wanted, [stored], "vtn", later)
    assert reconcile(shifted, [stored], "vtn", AT).orders != ()


def test_a_deleted_event_is_released() -> None:
    """An event that is gone has its order released, that order alone, and nobody else's."""
    (opened,) = reconcile(planned(event("IMPORT_CAPACITY_LIMIT", 5)).orders, (), "vtn", AT).orders
    others = [replace(opened, order_id="a", issuer="other"), replace(opened, order_id="b", protocol="vpp_v1")]
    (release,) = reconcile((), [*others, opened], "vtn", AT + HOUR / 2).releases
    assert (release.kind, release.resource, release.issuer) == (OrderKind.RELEASE, opened.order_id, "vtn")
    assert release.interval.start == AT + HOUR / 2
    assert reconcile((), [opened], "vtn", AT + HOUR).releases == ()


def test_a_changed_event_is_replaced() -> None:
    """A new power, end or start is a new order with a new id, and the old one is released in the same breath."""
    (opened,) = reconcile(planned(event("IMPORT_CAPACITY_LIMIT", 5)).orders, (), "vtn", AT).orders
    changes = reconcile(planned(event("IMPORT_CAPACITY_LIMIT", 6)).orders, [opened], "vtn", AT)
    assert [r.resource for r in changes.releases] == [opened.order_id]
    assert [o.power_w for o in changes.orders] == [6e3]
    again = reconcile(planned(event("IMPORT_CAPACITY_LIMIT", 5)).orders, (), "vtn", AT + HOUR / 2).orders
    assert again[0].order_id != opened.order_id


def test_nothing_is_added_while_orders_are_held_up() -> None:
    """While the operator has released the plant no event brings an order back; what is gone is released all the same."""
    wanted = planned(event("IMPORT_CAPACITY_LIMIT", 5)).orders
    changes = reconcile(wanted, (), "vtn", AT, hold="the operator has released the plant")
    assert (changes.orders, [n.why for n in changes.notes]) == ((), [Why.HELD])
    (opened,) = reconcile(wanted, (), "vtn", AT).orders
    assert len(reconcile((), [opened], "vtn", AT, hold="held").releases) == 1
    changed = reconcile(planned(event("IMPORT_CAPACITY_LIMIT", 6)).orders, [opened], "vtn", AT, hold="held")
    assert (changed.releases, changed.orders) == ((), ())


def test_many_events_with_many_pieces() -> None:
    """What events come to altogether is bounded: those that win are placed first, and the rest say why they are not."""
    day = {"intervalPeriod": {"start": "2026-03-02T12:00:00Z", "duration": "PT20S"}, "duration": "P30D"}
    crowd = [event("PRICE", k, id=f"e-{k}", priority=k, **day) for k in range(5)]
    first = event("IMPORT_CAPACITY_LIMIT", 700, id="first", priority=0)
    found = planned(*crowd, first)
    assert [order.group for order in found.orders] == ["first"]
    assert {"e-2", "e-3", "e-4"} <= {event_id for event_id, why in whys(found) if why is Why.TOO_MANY}


def test_a_plan_of_a_while_ago_asks_for_nothing_that_is_over() -> None:
    """An order that has ended since the plan was made is not given again."""
    wanted = planned(event("IMPORT_CAPACITY_LIMIT", 700)).orders
    assert len(reconcile(wanted, (), "vtn", AT).orders) == 1
    assert reconcile(wanted, (), "vtn", AT + HOUR).orders == ()
