"""Energy that was sold for later is still there later: what clusters can give meanwhile, they give."""

from __future__ import annotations

import numpy as np
import pytest

from vppd.core.state import Phase
from vppd.model import Order, OrderKind
from vppd.testing.cycles import World, two_feeds

HOUR_S = 3600.0


def storage_wh(world: World) -> float:
    """Return the energy in all storage. [Wh]"""
    return float(np.nansum(world.soc_frac * world.plant.capacity_wh))


def meters_w(world: World) -> float:
    """Return the true power of the site. [W]"""
    return sum(world.meter_w(feed) for feed in ("main-a", "main-b"))


def evening(*, product: str = "peak", later_w: float = 530e3) -> tuple[World, Order]:
    """Let 110 kW be sold for an hour, and nearly all there is for the two hours after it; clusters can shed 336 kW."""
    config = two_feeds(cycle_s=20.0, lease_s=100.0)
    assets = tuple(asset.model_copy(update={"stale_after_s": 100.0}) for asset in config.assets)
    world = World(config.model_copy(update={"assets": assets}))
    world.step(10)
    world.order(OrderKind.REDUCE, "dc1", 110e3, for_s=HOUR_S, product="peak")
    later = world.order(OrderKind.REDUCE, "dc1", later_w, for_s=2.0 * HOUR_S, after_s=HOUR_S, product=product)
    return world, later


def test_storage_is_kept_for_what_is_sold_next() -> None:
    """Storage gives only what the next hours leave of it, though it is cheaper than clusters; those are delivered."""
    world, later = evening()
    before_wh = storage_wh(world)
    world.step(180)
    assert before_wh - storage_wh(world) < 0.5 * 110e3
    world.step(364)
    (delivery,) = (
        t.progress.delivery
        for t in world.transitions
        if t.order.order_id == later.order_id and t.progress.phase is Phase.COMPLETED
    )
    assert delivery.reduced_wh >= 2.0 * 0.97 * 530e3


def test_nothing_is_kept_for_orders_that_nobody_bought() -> None:
    """An order that was not sold leaves the split of now as it was."""
    worlds = [evening()[0], evening(product="")[0], evening(later_w=1.0)[0]]
    for world in worlds:
        world.step(60)
    kept, plain, tiny = (storage_wh(world) for world in worlds)
    assert plain == pytest.approx(tiny, rel=1e-3)
    assert kept > plain + 5e3


def test_an_order_that_only_storage_can_carry_has_it() -> None:
    """What is kept bounds the steady split alone: where clusters cannot do it, storage does, and the order is delivered."""
    world, _ = evening()
    before_w = meters_w(world)
    world.order(OrderKind.REDUCE, "dc1", 340e3, for_s=400.0, product="reserve")
    world.step(8)
    assert before_w - meters_w(world) >= 450e3
