"""A site with a long beat: its accounts cover all the time, its ramps stay as careful as at a short one."""

from __future__ import annotations

from vppd.core.cycle import LONGEST_STEP_S
from vppd.core.state import Phase
from vppd.model import OrderKind
from vppd.testing.cycles import World, two_feeds

BEAT_S = 60.0


def slow_world() -> World:
    """Return the usual plant at a beat of a minute."""
    config = two_feeds(cycle_s=BEAT_S, lease_s=200.0, ramp_down_w_per_s=5e3)
    assets = tuple(asset.model_copy(update={"stale_after_s": 200.0}) for asset in config.assets)
    return World(config.model_copy(update={"assets": assets}), cluster_delay_s=1.0)


def test_a_statement_covers_the_whole_order_at_a_long_beat() -> None:
    """An order of an hour is accounted for an hour, not for five seconds of every minute."""
    world = slow_world()
    world.step(3)
    world.order(OrderKind.REDUCE, "dc1", 50e3, for_s=3600.0)
    world.step(62)
    (over,) = (t for t in world.transitions if t.progress.phase is Phase.COMPLETED)
    delivery = over.progress.delivery
    assert abs(delivery.active_s - 3600.0) <= BEAT_S
    assert delivery.reduced_wh >= 0.95 * 50e3


def test_a_long_beat_does_not_let_power_jump() -> None:
    """In one beat power moves by no more than what the ramp allows in the longest step."""
    world = slow_world()
    world.step(3)
    before_w = world.meter_w("main-a") + world.meter_w("main-b")
    world.order(OrderKind.REDUCE, "dc1", 300e3, for_s=3600.0)
    world.step(1)
    assert before_w - world.meter_w("main-a") - world.meter_w("main-b") <= 5e3 * LONGEST_STEP_S + 1e3
