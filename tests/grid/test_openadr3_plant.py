"""OpenADR events on a plant in a table: what the core makes of our orders and releases."""

from __future__ import annotations

from typing import Any

from vppd.grid.openadr3.changes import reconcile
from vppd.grid.openadr3.model import Event, Program
from vppd.grid.openadr3.orders import Book, plan
from vppd.grid.openadr3.payloads import Terms
from vppd.grid.openadr3.reading import read
from vppd.grid.site import Grant, Site
from vppd.model import OrderKind
from vppd.testing.cycles import START, World

TERMS = Terms("vtn", Site("dc1", "agent", ("main-a", "main-b")), (Grant("*", frozenset(OrderKind), 1e8),))
PROGRAM = read(Program, {"id": "p", "programName": "limits"})


def _limit(power: float, **more: Any) -> Event:
    raw = {
        "id": "e",
        "programID": "p",
        "targets": ["main-a"],
        "payloadDescriptors": [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "KW"}],
        "intervalPeriod": {"start": START.isoformat(), "duration": "PT1H"},
        "intervals": [{"id": 0, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [power]}]}],
    }
    return read(Event, raw | more)


def _follow(world: World, *events: Event) -> None:
    """Carry out what the events in hand ask, as the daemon would, and let a cycle pass."""
    wanted = plan(Book((PROGRAM,), events), TERMS, world.at, "seed").orders
    changes = reconcile(wanted, world.orders, "vtn", world.at)
    world.orders.extend((*changes.releases, *changes.orders))
    world.step(1)


def _bounds_w(world: World) -> list[list[float]]:
    return [[d.order.power_w or 0.0 for d in decision.demands] for decision in world.history]


def test_a_changed_limit_is_replaced_without_a_gap() -> None:
    """From one cycle to the next the new limit holds in place of the old one; never both, never none."""
    world = World()
    _follow(world, _limit(400))
    for _ in range(3):
        _follow(world, _limit(400))
    _follow(world, _limit(300))
    _follow(world, _limit(300))
    assert _bounds_w(world)[1:] == [[400e3]] * 3 + [[300e3]] * 2
    assert len(world.orders) == 1


def test_a_deleted_event_lets_go_of_its_own_order_alone() -> None:
    """Deleting one of two events ends its order and its release with it, and leaves the other in force."""
    world = World()
    other = _limit(350, id="other", targets=["main-b"])
    _follow(world, _limit(400), other)
    _follow(world, _limit(400), other)
    _follow(world, other)
    _follow(world, other)
    assert _bounds_w(world)[-1] == [350e3]
    assert [o.group for o in world.orders] == ["other"]


def test_the_meter_follows_an_event() -> None:
    """With both halls running the feed comes down to the event's limit, and back up when the event is deleted."""
    world = World()
    event = _limit(300)
    for _ in range(60):
        _follow(world, event)
    held_w = float(world.history[-1].node_power_w[world.plant.nodes.index("main-a")])
    for _ in range(60):
        _follow(world)
    free_w = float(world.history[-1].node_power_w[world.plant.nodes.index("main-a")])
    assert held_w <= 300e3 < free_w


def test_a_change_upwards_draws_more() -> None:
    """A relative dispatch of +50 kW has storage charge until the feed draws 50 kW above its baseline, and the event's end takes that back."""
    world, kind = World(), "DISPATCH_SETPOINT_RELATIVE"
    slots = [{"id": 0, "payloads": [{"type": kind, "values": [50]}]}]
    event = _limit(0, payloadDescriptors=[{"payloadType": kind, "units": "KW"}], intervals=slots)
    _follow(world)
    node = world.plant.nodes.index("main-a")
    before_w = float(world.history[-1].node_power_w[node])
    for _ in range(30):
        _follow(world, event)
    assert world.orders[0].kind is OrderKind.INCREASE
    assert float(world.history[-1].node_power_w[node]) >= before_w + 50e3
    for _ in range(30):
        _follow(world)
    assert abs(float(world.history[-1].node_power_w[node]) - before_w) < 1e3
