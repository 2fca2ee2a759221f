"""What carries an increase: work put off, storage up to full, generation held back; and increases of one asset."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.increase_site import RAMP_DOWN_W, RAMP_UP_W, delivered, running, site_w
from vppd.core.state import Command, Reason
from vppd.model import OrderKind


def test_what_costs_nothing_goes_first() -> None:
    """Work put off is let go before the sun is held back or storage charges."""
    world = running(put_off_w=100e3)
    world.order(OrderKind.INCREASE, "dc1", 90e3)
    decision = world.step(60)
    hall, pv = world.index("hall-a"), world.index("pv-b")
    assert world.power_w[hall] >= 338e3
    assert decision.command[pv] == Command.RELEASE
    assert world.power_w[world.index("ups-a")] + world.power_w[world.index("bess-b")] < 15e3


def test_storage_that_charges_for_an_order_is_told_to() -> None:
    """A battery that would rest gets a setpoint and the order as its reason."""
    world = running()
    world.order(OrderKind.INCREASE, "main-b", 100e3)
    decision = world.step(30)
    battery = world.index("bess-b")
    assert decision.command[battery] == Command.SETPOINT
    assert decision.reason[battery] in (Reason.ORDER, Reason.BRIDGE)
    assert decision.target_w[battery] > 80e3
    assert decision.command[world.index("ups-a")] == Command.RELEASE


def test_a_battery_that_fills_eases_and_is_never_overfull() -> None:
    """Near full the setpoint falls, the state of charge never passes 100 %, and the sun is held back instead."""
    world = running()
    world.soc_frac[world.index("bess-b")] = world.soc_frac[world.index("ups-a")] = 0.99
    order = world.order(OrderKind.INCREASE, "dc1", 300e3, for_s=600.0)
    for _ in range(590):
        decision = world.step()
        assert np.nanmax(world.soc_frac) <= 1.0
    assert world.power_w[world.index("pv-b")] > -10e3
    missing_w = world.state.progress[order.order_id].baseline_w + 300e3 - site_w(world)
    assert missing_w > 50e3
    assert decision.shortfall_w[0] == pytest.approx(-missing_w, rel=0.15)


def test_an_increase_of_one_battery_moves_that_battery() -> None:
    """It is charged by the site's ramp, held, and let down again by the ramp; no other asset is touched."""
    world = running()
    battery = world.index("bess-b")
    order = world.order(OrderKind.INCREASE, "bess-b", 150e3, for_s=120.0)
    powers_w = []
    for _ in range(160):
        decision = world.step()
        powers_w.append(float(world.power_w[battery]))
        assert decision.command[world.index("ups-a")] == Command.RELEASE
    steps_w = np.diff([0.0, *powers_w])
    assert max(powers_w) == pytest.approx(150e3, rel=0.011)
    assert steps_w.max() <= 1.001 * RAMP_UP_W
    assert steps_w.min() >= -1.001 * RAMP_DOWN_W
    assert powers_w[-1] == 0.0
    assert decision.command[battery] == Command.RELEASE
    assert world.state.named_lower_w is None
    assert delivered(world, order).added_wh == pytest.approx(150e3 * 120.0 / 3600.0, rel=0.05)


def test_an_increase_of_one_battery_yields_to_its_feed() -> None:
    """The feed's limit stands above an order that names a battery beneath it."""
    world = running()
    world.base_w["main-b"] = 800e3
    world.run_jobs("hall-b", (350e3, 0.0, 0.0, 0.0))
    world.step(5)
    world.order(OrderKind.INCREASE, "bess-b", 250e3)
    powers_w = []
    for _ in range(60):
        world.step()
        powers_w.append(world.meter_w("main-b"))
    assert max(powers_w) <= 1e6
    assert world.power_w[world.index("bess-b")] == pytest.approx(50e3, abs=1e3)


def test_an_increase_of_a_hall_lets_its_put_off_work_go() -> None:
    """The hall draws the ordered power above what the plan had left it, and goes back to that."""
    world = running(put_off_w=100e3)
    world.order(OrderKind.INCREASE, "hall-a", 60e3, for_s=120.0)
    world.step(60)
    assert world.power_w[world.index("hall-a")] == pytest.approx(310e3, rel=0.02)
    world.step(100)
    assert world.power_w[world.index("hall-a")] == pytest.approx(250e3, rel=0.01)


def test_a_wish_to_charge_does_not_fill_storage_before_the_order_is_over() -> None:
    """The plan wants the battery full at once; under an increase it takes no more than it can go on taking."""
    world = running()
    battery = world.index("bess-b")
    world.soc_frac[battery], world.soc_frac[world.index("ups-a")] = 0.97, 1.0
    wish_w = np.full(len(world.plant.asset_ids), np.nan)
    wish_w[battery] = 300e3
    world.preferred_w = wish_w
    world.available_w[world.index("pv-b")] = 0.0
    world.step(5)
    order = world.order(OrderKind.INCREASE, "dc1", 50e3, for_s=900.0)
    world.step(890)
    assert world.state.progress[order.order_id].delivery.kept_frac >= 0.95
    assert world.soc_frac[battery] <= 1.0


def test_a_plant_that_cannot_say_what_it_could_give_is_held_back_without_swinging() -> None:
    """An inverter that knows its sun only while no limit binds is held where it is told, and given back at the end."""
    world = running()
    world.mum.add("pv-b")
    pv, battery = world.index("pv-b"), world.index("bess-b")
    world.soc_frac[battery] = world.soc_frac[world.index("ups-a")] = 1.0
    world.step(3)
    order = world.order(OrderKind.INCREASE, "dc1", 80e3, for_s=120.0)
    world.step(30)
    held_w = []
    for _ in range(60):
        decision = world.step()
        held_w.append(float(world.power_w[pv]))
        assert decision.command[pv] == Command.SETPOINT
    assert np.ptp(held_w) <= 1.0
    assert world.state.progress[order.order_id].delivery.kept_frac == 1.0
    world.step(60)
    assert world.power_w[pv] == -200e3
    assert world.state.unheld_before_w is None
