"""Two reductions that were sold for the same time are both delivered: neither is the other one again."""

from __future__ import annotations

import pytest

from vppd.core.state import Phase
from vppd.model import OrderKind
from vppd.testing.cycles import World

FEEDS = ("main-a", "main-b")


def site_w(world: World) -> float:
    """Return the true power of the site. [W]"""
    return sum(world.meter_w(feed) for feed in FEEDS)


def test_awards_of_one_time_add_up_at_the_meter() -> None:
    """100 kW of one product and 60 kW of another take 160 kW off the site, and each statement has its own."""
    world = World()
    world.step(10)
    before_w = site_w(world)
    one = world.order(OrderKind.REDUCE, "dc1", 100e3, product="peak", for_s=300.0)
    world.step(30)
    other = world.order(OrderKind.REDUCE, "dc1", 60e3, product="reserve", for_s=200.0)
    world.step(60)
    assert before_w - site_w(world) >= 160e3
    assert before_w - site_w(world) <= 160e3 + 0.05 * before_w
    world.step(300)
    ended = {
        t.order.order_id: t.progress.delivery for t in world.transitions if t.progress.phase is Phase.COMPLETED
    }  # fmt: skip
    hours = 300.0 / 3600.0
    assert ended[one.order_id].reduced_wh == pytest.approx(100e3 * hours, rel=0.12)
    assert ended[other.order_id].reduced_wh == pytest.approx(60e3 * 200.0 / 3600.0, rel=0.25)


def test_an_award_on_a_feed_is_not_the_one_on_the_site() -> None:
    """50 kW sold on a feed come on top of 80 kW sold on the site; the feed owes its own part alone."""
    world = World()
    world.step(10)
    before_w, feed_w = site_w(world), world.meter_w("main-a")
    world.order(OrderKind.REDUCE, "dc1", 80e3, product="peak")
    world.order(OrderKind.REDUCE, "main-a", 50e3, product="reserve")
    decision = world.step(60)
    assert before_w - site_w(world) >= 130e3
    assert feed_w - world.meter_w("main-a") >= 50e3
    upper_w = {d.order.resource: d.upper_w for d in decision.demands}
    assert upper_w["main-a"] > feed_w - 60e3


def test_orders_that_nobody_bought_do_not_add_up() -> None:
    """Plain reductions are bounds as before: the tighter one holds."""
    world = World()
    world.step(10)
    before_w = site_w(world)
    world.order(OrderKind.REDUCE, "dc1", 100e3)
    world.order(OrderKind.REDUCE, "dc1", 60e3)
    world.step(60)
    assert 100e3 <= before_w - site_w(world) <= 130e3
