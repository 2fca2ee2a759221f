"""Orders that name a single asset."""

from __future__ import annotations

import numpy as np
import pytest

from vppd.core.state import Command, Reason
from vppd.model import OrderKind
from vppd.testing.cycles import World


@pytest.mark.parametrize("power_w", [-40e3, 25e3])
def test_a_battery_follows_a_setpoint_of_its_own(power_w: float) -> None:
    """A setpoint for one battery is carried out by that battery alone, and released with the order."""
    world = World()
    world.soc_frac[world.index("ups-a")] = world.soc_frac[world.index("bess-b")] = 0.6
    world.step(3)
    order = world.order(OrderKind.SETPOINT, "bess-b", power_w, for_s=None)
    decision = world.step(3)
    asset = world.index("bess-b")
    assert decision.command[asset] == Command.SETPOINT
    assert decision.target_w[asset] == world.power_w[asset] == power_w
    assert decision.reason[asset] == Reason.ORDER
    assert decision.reason[world.index("ups-a")] == Reason.RECHARGE
    assert world.state.progress[order.order_id].delivery.worst_over_w == 0.0
    world.order(OrderKind.RELEASE, order.order_id)
    assert world.step().reason[asset] != Reason.ORDER


def test_a_full_battery_follows_a_setpoint_of_its_own() -> None:
    """Storage that would rest is held by its own order, and given back to itself when it ends."""
    world = World()
    world.step(3)
    order = world.order(OrderKind.SETPOINT, "bess-b", -40e3, for_s=None)
    asset = world.index("bess-b")
    decision = world.step(2)
    assert (decision.command[asset], decision.target_w[asset]) == (Command.SETPOINT, -40e3)
    assert decision.command[world.index("ups-a")] == Command.RELEASE
    world.order(OrderKind.RELEASE, order.order_id)
    world.soc_frac[asset] = 0.9
    assert world.step().command[asset] == Command.RELEASE


def test_a_setpoint_missed_on_either_side_is_not_kept() -> None:
    """Delivery of a setpoint is judged both ways: drawing less than ordered is no obedience either."""
    world = World()
    world.step(3)
    order = world.order(OrderKind.SETPOINT, "bess-b", 25e3, for_s=None)
    world.soc_frac[world.index("bess-b")] = 1.0
    world.readings.upper_w[world.index("bess-b")] = 0.0
    world.step(15)
    assert world.state.progress[order.order_id].delivery.kept_frac == 0.0


@pytest.mark.parametrize("limit_w", [250e3, 350e3], ids=["binding", "with room"])
def test_a_hall_keeps_a_limit_of_its_own(limit_w: float) -> None:
    """A limit on one hall is its budget, also where the hall draws less at the moment."""
    world = World()
    world.step(3)
    world.order(OrderKind.LIMIT, "hall-a", limit_w, for_s=None)
    decision = world.step(20)
    hall = world.index("hall-a")
    assert decision.command[hall] == Command.SETPOINT
    assert decision.target_w[hall] <= limit_w
    assert world.power_w[hall] <= limit_w
    assert decision.command[world.index("hall-b")] == Command.RELEASE


def test_a_plant_held_back_by_name_generates_no_more() -> None:
    """A setpoint on a PV plant holds back that plant."""
    world = World()
    pv = world.index("pv-b")
    world.available_w[pv] = world.power_w[pv] = -100e3
    world.step(3)
    world.order(OrderKind.SETPOINT, "pv-b", -30e3, for_s=None)
    decision = world.step(3)
    assert (decision.command[pv], decision.target_w[pv]) == (Command.SETPOINT, -30e3)
    assert np.isclose(world.power_w[pv], -30e3)


@pytest.mark.parametrize("kind", [OrderKind.SETPOINT, OrderKind.INCREASE])
def test_an_order_for_one_battery_does_not_break_the_limit_of_its_feed(kind: OrderKind) -> None:
    """The battery charges as far as its feed has room, and the feed is not above its limit for it."""
    world = World()
    world.run_jobs("hall-b", (350e3, 0.0, 0.0, 0.0))
    world.soc_frac[world.index("bess-b")] = 0.5
    world.step(3)
    world.order(kind, "bess-b", 250e3, for_s=None)
    for _ in range(20):
        world.step()
        assert world.meter_w("main-b") <= 600e3
    assert world.power_w[world.index("bess-b")] == pytest.approx(100e3)
