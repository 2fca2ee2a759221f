"""What cannot be delivered of an order is told while it is in force, once it lasts, and so is its end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.grid.plant import sender
from tests.grid.schemas import unsigned
from vppd.grid.reporter import Reporter
from vppd.model import OrderKind
from vppd.snapshot import Snapshot
from vppd.testing.cycles import World


def told(world: World, reporter: Reporter, cycles: int) -> list[dict[str, Any]]:
    """Return the order statuses of so many cycles."""
    found = []
    for _ in range(cycles):
        orders, at, mono_s = tuple(world.orders), world.at, world.mono_s
        decision = world.step()
        snapshot = Snapshot(at, mono_s, world.readings.copy(), orders)
        for message in reporter.report(decision, snapshot, world.plant):
            if message.topic.endswith("/order/status"):
                found.append(unsigned(json.loads(message.payload)["data"]))
    return found


def running() -> tuple[World, Reporter]:
    """Return a plant at rest and a reporter."""
    world = World()
    world.step(3)
    return world, Reporter(sender(), (), 1e9, 1e9, lambda _: ())


def test_what_an_increase_lacks_is_told_and_its_end_too() -> None:
    """The battery allows 50 kW for a while; when it allows more the rest is there, and that is told as well."""
    world, reporter = running()
    world.readings.upper_w[world.index("bess-b")] = 50e3
    world.order(OrderKind.INCREASE, "main-b", 100e3)
    active, short = told(world, reporter, 60)
    assert (active["status"], "shortfall" in active) == ("active", False)
    assert short["status"] == "active"
    assert short["detail"] == "less than ordered can be delivered"
    assert short["shortfall"]["value"] == pytest.approx(55.5e3, rel=0.02)
    world.readings.upper_w[world.index("bess-b")] = 250e3
    (well,) = told(world, reporter, 30)
    assert (well["shortfall"]["value"], well["detail"]) == (0.0, "can be delivered again as ordered")
    assert told(world, reporter, 30) == []


def test_what_a_limit_takes_from_an_increase_is_missing() -> None:
    """An order that yields to a limit is short by it."""
    world, reporter = running()
    increase = world.order(OrderKind.INCREASE, "dc1", 150e3)
    world.order(OrderKind.LIMIT, "dc1", 950e3, priority=90)
    found = [s for s in told(world, reporter, 60) if "shortfall" in s]
    assert [s["order_id"] for s in found] == [increase.order_id]
    assert found[0]["shortfall"]["value"] == pytest.approx(150e3 + 0.01 * 1050e3 - 40.5e3, rel=0.02)


def test_what_lasts_no_longer_than_a_ramp_is_not_told() -> None:
    """An order that is only on its way is not short of anything."""
    world, reporter = running()
    world.order(OrderKind.INCREASE, "dc1", 100e3)
    world.order(OrderKind.REDUCE, "main-a", 30e3)
    assert [s for s in told(world, reporter, 90) if "shortfall" in s] == []


def test_what_another_order_hands_back_by_the_ramp_is_not_told() -> None:
    """When a sold reduction ends, the increase beside it is on its way up again and short of nothing."""
    world, reporter = running()
    world.order(OrderKind.INCREASE, "dc1", 50e3, product="down")
    world.order(OrderKind.REDUCE, "dc1", 330e3, product="up", for_s=60.0)
    assert [s for s in told(world, reporter, 120) if "shortfall" in s] == []


def test_a_limit_that_cannot_be_reached_is_told() -> None:
    """Of a limit, what is drawn above it."""
    world, reporter = running()
    world.order(OrderKind.LIMIT, "main-a", 20e3)
    found = [s for s in told(world, reporter, 60) if "shortfall" in s]
    assert found[0]["shortfall"]["value"] == pytest.approx(world.meter_w("main-a") - 20e3, rel=0.1)


def test_one_battery_that_is_full_is_told() -> None:
    """An order that names a battery is short when that battery can take no more."""
    world, reporter = running()
    world.soc_frac[world.index("bess-b")] = 1.0
    world.order(OrderKind.INCREASE, "bess-b", 100e3)
    found = [s for s in told(world, reporter, 40) if "shortfall" in s]
    assert found[0]["shortfall"]["value"] == pytest.approx(101e3, rel=0.02)
