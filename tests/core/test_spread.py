"""Energy of storage is spread over an order: what is fast and small is not empty, or full, before the order ends."""

from __future__ import annotations

import numpy as np
import pytest

from vppd.core import dispatch, merit
from vppd.model import OrderKind
from vppd.testing.cycles import World


def site_w(world: World) -> float:
    """Return what the site draws. [W]"""
    return float(world.history[-1].node_power_w[0])


def ordered(kind: OrderKind, power_w: float, soc_frac: float, for_s: float) -> tuple[World, float]:
    """Return the plant shortly before the end of an order, and by how much it missed the order at most after a minute. [W]"""
    world = World()
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), soc_frac, np.nan)
    world.step(10)
    order = world.order(kind, "dc1", power_w, for_s=for_s)
    worst_w, sign = 0.0, 1.0 if kind is OrderKind.INCREASE else -1.0
    for k in range(int(for_s) - 2):
        world.step()
        moved_w = sign * (site_w(world) - world.state.progress[order.order_id].baseline_w)
        worst_w = max(worst_w, power_w - moved_w) if k > 60 else 0.0
    return world, worst_w


def test_an_increase_is_held_to_its_end_although_the_small_unit_could_give_more_at_first() -> None:
    """The UPS has room for 10 kWh behind a feed of its own; at full power it would be full after half of the time."""
    world, worst_w = ordered(OrderKind.INCREASE, 180e3, 0.9, 900.0)
    assert worst_w < 0.02 * site_w(world)


def test_without_the_spread_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same plant with a split that looks at the next minute alone is short before the end."""
    plain = merit.merit_order
    monkeypatch.setattr(dispatch, "merit_order", lambda *given: plain(*given[:7]))
    world, worst_w = ordered(OrderKind.INCREASE, 180e3, 0.9, 900.0)
    assert worst_w > 0.02 * site_w(world)


def test_what_is_asked_for_now_is_given_now() -> None:
    """Beyond what storage can hold to the end power is dear, not barred: a reduction that clusters cannot carry yet is there at once."""
    world = World(cluster_delay_s=30.0)
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), 0.4, np.nan)
    world.step(10)
    order = world.order(OrderKind.REDUCE, "dc1", 300e3, for_s=3600.0)
    world.step(25)
    moved_w = world.state.progress[order.order_id].baseline_w - site_w(world)
    assert moved_w >= 0.98 * 300e3
