"""Orders to draw more: reached by the site's ramp, kept with storage, generation and work put off, given back without a step."""

from __future__ import annotations

import numpy as np
import pytest

from vppd.config.load import Config
from vppd.config.plant import AssetConfig, FeedConfig, SiteConfig
from vppd.core.settle import Delivery
from vppd.core.state import Command, Phase, Reason
from vppd.model import Kind, Order, OrderKind, Priority, Signal
from vppd.testing.cycles import World

FEEDS = ("main-a", "main-b")
RAMP_UP_W = 20e3
RAMP_DOWN_W = 50e3


def megawatt_site() -> Config:
    """Return a site of 1 MW: 400 kW of storage, 200 kW of PV, two halls."""
    return Config(
        site=SiteConfig(
            id="dc1", agent_id="agent", import_max_w=2e6, export_max_w=1e5, ramp_up_w_per_s=RAMP_UP_W,
            ramp_down_w_per_s=RAMP_DOWN_W,
        ),
        feeds=(
            FeedConfig(tag="main-a", meter="poi-a", import_max_w=1e6),
            FeedConfig(tag="main-b", meter="poi-b", import_max_w=1e6, export_max_w=1e5),
        ),
        assets=(
            AssetConfig(id="poi-a", kind=Kind.METER, feed="main-a", adapter="x"),
            AssetConfig(id="poi-b", kind=Kind.METER, feed="main-b", adapter="x"),
            AssetConfig(
                id="ups-a", kind=Kind.UPS, feed="main-a", adapter="x", capacity_wh=100e3, reserve_frac=0.3,
                rated_charge_w=100e3, rated_discharge_w=200e3,
            ),
            AssetConfig(
                id="bess-b", kind=Kind.BATTERY, feed="main-b", adapter="x", capacity_wh=600e3, reserve_frac=0.1,
                rated_charge_w=300e3, rated_discharge_w=300e3,
            ),
            AssetConfig(id="pv-b", kind=Kind.PV, feed="main-b", adapter="x", rated_w=200e3),
            AssetConfig(id="hall-a", kind=Kind.CLUSTER, feed="main-a", adapter="x", rated_w=500e3),
            AssetConfig(id="hall-b", kind=Kind.CLUSTER, feed="main-b", adapter="x", rated_w=500e3),
        ),
    )  # fmt: skip


def running(*, put_off_w: float = 0.0, delay_s: float = 8.0) -> World:
    """Return that site at rest in sunshine, storage at its resting charge, ``put_off_w`` of hall-a held back by the plan."""
    world = World(config=megawatt_site(), base_w={"main-a": 250e3, "main-b": 300e3}, cluster_delay_s=delay_s)
    for hall in ("hall-a", "hall-b"):
        world.run_jobs(hall, (60e3, 60e3, 100e3, 130e3))
    pv = world.index("pv-b")
    world.available_w[pv] = world.power_w[pv] = -200e3
    for name in ("ups-a", "bess-b"):
        world.soc_frac[world.index(name)] = 0.9
    if put_off_w:
        wish_w = np.full(len(world.plant.asset_ids), np.nan)
        wish_w[world.index("hall-a")] = 350e3 - put_off_w
        world.preferred_w = wish_w
    world.step(20 if put_off_w else 3)
    return world


def site_w(world: World) -> float:
    """Return the true power of the site. [W]"""
    return sum(world.meter_w(feed) for feed in FEEDS)


def seen_w(world: World, cycles: int) -> list[float]:
    """Return the power of the site after each of so many cycles. [W]"""
    found = []
    for _ in range(cycles):
        world.step()
        found.append(site_w(world))
    return found


def delivered(world: World, order: Order) -> Delivery:
    """Return the account of an order that is over."""
    return next(
        t.progress.delivery
        for t in world.transitions
        if t.order.order_id == order.order_id and t.progress.phase is Phase.COMPLETED
    )


def test_an_increase_is_reached_kept_and_given_back() -> None:
    """500 kW more for ten minutes: up by the ramp, within 2 % after it, kept, accounted for, and down without a step."""
    world = running(put_off_w=100e3)
    world.soc_frac[world.index("bess-b")] = 0.5
    world.step(60)
    before_w = site_w(world)
    order = world.order(OrderKind.INCREASE, "dc1", 500e3, for_s=600.0)
    rising_w = seen_w(world, 40)
    baseline_w = world.state.progress[order.order_id].baseline_w
    assert baseline_w == pytest.approx(950e3)  # storage at rest, the sun as it shines, what is put off not drawn
    steady_w = seen_w(world, 558)
    falling_w = seen_w(world, 120)
    assert max(abs(w / (baseline_w + 500e3) - 1.0) for w in steady_w) <= 0.02
    assert min(steady_w) >= baseline_w + 500e3
    steps_w = np.diff([before_w, *rising_w, *steady_w, *falling_w])
    # What clusters land with is on top of the ramp for one cycle, until storage has handed over.
    assert steps_w.max() <= 2.0 * RAMP_UP_W
    assert np.convolve(steps_w, np.ones(10) / 10.0, mode="valid").max() <= 1.15 * RAMP_UP_W
    assert steps_w.min() >= -1.01 * RAMP_DOWN_W
    assert falling_w[-1] == pytest.approx(before_w, rel=0.001)
    account = delivered(world, order)
    assert account.kept_frac >= 0.95
    assert account.added_wh == pytest.approx(500e3 / 6.0, rel=0.05)


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


@pytest.mark.parametrize(("ramp_s", "rate_w"), [(None, 20e3), (1.0, 20e3), (40.0, 5e3)])
def test_the_ramp_of_an_order_makes_it_slower_and_never_faster(ramp_s: float | None, rate_w: float) -> None:
    """More power comes by the order's ramp where that is slower than the site's."""
    world = running()
    order = world.order(OrderKind.INCREASE, "dc1", 200e3, ramp_s=ramp_s)
    steps_w = np.diff(seen_w(world, 60))
    assert steps_w.max() <= 1.1 * rate_w
    assert site_w(world) >= world.state.progress[order.order_id].baseline_w + 200e3


def test_the_limit_of_a_feed_stands_above_an_increase() -> None:
    """Beyond its physical limit a feed does not go, and says what is missing."""
    world = running()
    world.order(OrderKind.INCREASE, "main-a", 600e3)
    powers_w = []
    for _ in range(60):
        decision = world.step()
        powers_w.append(world.meter_w("main-a"))
    assert max(powers_w) <= 1e6
    assert decision.shortfall_w[1] < -200e3


def test_an_increase_of_a_feed_does_not_break_the_limit_of_the_site() -> None:
    """A limit ordered for the site holds, and the feed comes as near to its increase as that leaves."""
    world = running()
    at_rest_w = site_w(world)
    world.order(OrderKind.INCREASE, "main-b", 250e3)
    world.step(40)
    world.order(OrderKind.LIMIT, "dc1", at_rest_w + 30e3, for_s=300.0)
    world.step(60)
    assert max(seen_w(world, 60)) <= 1.001 * (at_rest_w + 30e3)
    assert world.meter_w("main-b") >= 450e3 + 250e3  # main-a makes room for it
    world.order(OrderKind.LIMIT, "dc1", at_rest_w - 300e3)
    world.step(60)
    assert max(seen_w(world, 60)) <= 1.001 * (at_rest_w - 300e3)  # and cannot make more
    decision = world.history[-1]
    assert decision.shortfall_w[0] == 0.0
    assert decision.shortfall_w[2] < -50e3


@pytest.mark.parametrize("priority", [Priority.AWARD, Priority.GRID_LIMIT])
def test_a_limit_wins_over_an_increase_of_the_same_power(priority: Priority) -> None:
    """Of two orders on the site the limit holds, also at one priority; the increase is told as not kept."""
    world = running()
    order = world.order(OrderKind.INCREASE, "dc1", 200e3, for_s=300.0, priority=priority)
    at_rest_w = site_w(world)
    world.order(OrderKind.LIMIT, "dc1", at_rest_w + 50e3, for_s=400.0)
    assert max(seen_w(world, 280)) <= at_rest_w + 50e3
    world.step(30)
    account = delivered(world, order)
    assert account.kept_frac < 0.3
    assert account.added_wh < 60e3 * 300.0 / 3600.0


def test_a_battery_that_fills_eases_and_is_never_overfull() -> None:
    """Near full the setpoint falls, the state of charge never passes 100 %, and the sun is held back instead."""
    world = running()
    world.soc_frac[world.index("bess-b")] = world.soc_frac[world.index("ups-a")] = 0.97
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


def test_orders_sold_in_both_directions_add_up_with_their_signs() -> None:
    """300 kW more and 100 kW less are 200 kW more, and each has its own in its account."""
    world = running()
    baseline_w = site_w(world)
    more = world.order(OrderKind.INCREASE, "dc1", 300e3, product="down", for_s=300.0)
    less = world.order(OrderKind.REDUCE, "dc1", 100e3, product="up", for_s=300.0)
    world.step(60)
    assert site_w(world) == pytest.approx(baseline_w + 200e3, rel=0.002)
    world.step(300)
    assert delivered(world, more).added_wh == pytest.approx(300e3 / 12.0, rel=0.06)
    assert delivered(world, less).reduced_wh == pytest.approx(100e3 / 12.0, rel=0.2)


def test_as_much_more_as_less_is_the_baseline() -> None:
    """Equal orders sold in both directions leave the site where it was."""
    world = running()
    baseline_w = site_w(world)
    world.order(OrderKind.INCREASE, "dc1", 150e3, product="down")
    world.order(OrderKind.REDUCE, "dc1", 150e3, product="up")
    assert seen_w(world, 60)[5:] == pytest.approx([baseline_w] * 55, rel=0.001)


def test_a_signal_that_was_sold_moves_around_what_else_was_sold() -> None:
    """A regulation order of a product has its base where reductions and increases of other products leave it."""
    world = running()
    baseline_w = site_w(world)
    world.order(OrderKind.REDUCE, "dc1", 100e3, product="up")
    world.order(OrderKind.REGULATION, "dc1", 50e3, product="both")
    for signal in (1.0, -0.5):
        for _ in range(30):
            world.signals = [Signal("tso", signal, world.mono_s)]
            world.step()
        assert site_w(world) == pytest.approx(baseline_w - 100e3 + signal * 50e3, rel=0.005)


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
