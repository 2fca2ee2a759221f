"""Orders to draw more: reached by the site's ramp, kept, given back without a step, and below every limit."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.increase_site import RAMP_DOWN_W, RAMP_UP_W, delivered, running, seen_w, site_w
from vppd.core.state import State
from vppd.model import OrderKind, Priority, Signal
from vppd.runtime.record import Replay, decode, digest, encode, pack
from vppd.snapshot import Snapshot


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


@pytest.mark.parametrize(("ramp_s", "rate_w"), [(None, 20e3), (1.0, 20e3), (40.0, 5e3)])
def test_the_ramp_of_an_order_makes_it_slower_and_never_faster(ramp_s: float | None, rate_w: float) -> None:
    """More power comes by the order's ramp where that is slower than the site's."""
    world = running()
    before_w = site_w(world)
    order = world.order(OrderKind.INCREASE, "dc1", 200e3, ramp_s=ramp_s)
    steps_w = np.diff([before_w, *seen_w(world, 60)])
    assert steps_w.max() <= 1.1 * rate_w
    assert site_w(world) >= world.state.progress[order.order_id].baseline_w + 200e3


def test_feeds_that_rise_at_once_share_the_ramp_of_the_site() -> None:
    """Two feeds and the site itself, all to draw more: the site moves no faster than with one."""
    world = running()
    before_w = site_w(world)
    world.order(OrderKind.INCREASE, "main-a", 80e3)
    world.order(OrderKind.INCREASE, "main-b", 150e3)
    world.order(OrderKind.INCREASE, "dc1", 300e3)
    steps_w = np.diff([before_w, *seen_w(world, 60)])
    assert steps_w.max() <= 1.001 * RAMP_UP_W
    assert site_w(world) >= before_w + 300e3


def test_work_put_off_is_let_go_by_the_ramp_of_the_order() -> None:
    """A slow order does not let clusters go at once: what lands is never more than a dead band ahead of the ramp."""
    world = running(put_off_w=150e3)
    before_w = site_w(world)
    world.order(OrderKind.INCREASE, "dc1", 120e3, ramp_s=60.0)
    powers_w = np.array(seen_w(world, 60))
    ramp_w = before_w + np.arange(1, 61) * (120e3 + 0.01 * (before_w + 120e3)) / 60.0
    assert (powers_w - ramp_w).max() <= 0.02 * 500e3 + 5e3


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


def test_a_restart_in_the_middle_of_an_increase_goes_on() -> None:
    """A new process that knows only the order and its progress neither drops it nor starts its ramp anew."""
    world = running()
    order = world.order(OrderKind.INCREASE, "dc1", 200e3)
    world.step(40)
    least_w = world.state.progress[order.order_id].baseline_w + 200e3
    world.state = State.first(world.plant, world.state.progress)
    assert min(seen_w(world, 20)) >= least_w


def test_increases_are_replayed_bit_for_bit() -> None:
    """A recorded increase of the site and of a battery, with their ends, comes out again as it was."""
    world = running()
    world.mum.add("pv-b")
    world.order(OrderKind.INCREASE, "dc1", 450e3, for_s=20.0)
    world.order(OrderKind.INCREASE, "bess-b", 100e3, for_s=25.0)
    replay = Replay()
    replay.feed("plant", pack(world.plant))
    replay.feed("state", pack(world.state))
    for _ in range(40):
        orders = tuple(world.orders)
        decision = world.step()
        snapshot = Snapshot(world.at, world.mono_s, world.readings.copy(), orders, (), world.health)
        replay.feed("cycle", pack(snapshot, digest(decision)))
    assert (replay.cycles, replay.differing) == (40, [])
    assert decode(encode(decision.state)).unheld_before_w is None


def test_a_reduction_that_ends_beside_it_is_no_fault_of_an_increase() -> None:
    """What the other order has taken off comes back by the ramp, and the increase counts as kept meanwhile."""
    world = running()
    more = world.order(OrderKind.INCREASE, "dc1", 100e3, product="down", for_s=160.0)
    world.order(OrderKind.REDUCE, "dc1", 300e3, product="up", for_s=80.0)
    world.step(165)
    assert delivered(world, more).kept_frac == 1.0
