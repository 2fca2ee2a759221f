"""Energy that was sold for later is still there later: what clusters can give meanwhile, they give."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from vppd.core.aggregate import aggregate, perceive
from vppd.core.promised import kept_ready, promised_wh, spared
from vppd.core.state import Phase
from vppd.model import Interval, Obligation, Order, OrderKind
from vppd.snapshot import Floats, Snapshot
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


def ready(world: World, power_w: float, **more: Any) -> Obligation:
    """Return an award of four hours from now on, kept ready, to be sustained for one. [W]"""
    interval = Interval(world.at, world.at + timedelta(hours=4))
    known: dict[str, Any] = {"resource": "dc1", "direction": "up", "sustain_s": HOUR_S, "product": "reserve"}
    return Obligation("a", "b", "tso", power_w=power_w, **({"interval": interval} | known | more))


def kept(world: World, *sold: Obligation) -> dict[str, float]:
    """Return what each storage keeps while another product is delivered, by name. [Wh]"""
    if not world.orders:
        world.order(OrderKind.REDUCE, "dc1", 50e3, product="peak", for_s=HOUR_S)
    decision = world.step()
    snapshot = Snapshot(
        world.at, world.mono_s, world.readings.copy(), tuple(world.orders), (), world.health, None,
        kept_ready(sold, world.at),
    )  # fmt: skip
    image = aggregate(
        snapshot, decision.state, world.plant, perceive(snapshot, decision.state, world.plant), decision.severity >= 5
    )
    kept_wh = promised_wh(snapshot, image, world.plant, decision.demands)
    return {name: float(kept_wh[world.index(name)]) for name in ("ups-a", "bess-b")}


def settled() -> World:
    """Return a plant that has run for a while; clusters can shed 336 kW."""
    world = World()
    world.step(10)
    return world


def test_what_is_kept_ready_keeps_its_energy() -> None:
    """Now or later: the power beyond what clusters could shed beside the order of now, for as long as it can be asked for."""
    world = settled()
    need_wh = 400e3 - (336e3 - 50e3)
    assert sum(kept(world, ready(world, 400e3)).values()) == pytest.approx(need_wh, rel=0.02)
    half = ready(world, 400e3, sustain_s=HOUR_S / 2)
    assert sum(kept(world, half).values()) == pytest.approx(need_wh / 2, rel=0.02)
    end = world.at + timedelta(hours=2)
    soon = ready(world, 400e3, interval=Interval(world.at + timedelta(hours=0.9), end))
    assert sum(kept(world, soon).values()) == pytest.approx(need_wh, rel=0.02)
    both = [ready(world, 400e3), half]
    assert sum(kept(world, *both).values()) == pytest.approx(need_wh + 400e3 / 2, rel=0.15)
    assert sum(kept(world, ready(world, 5e6)).values()) < 500e3


def test_what_is_called_is_not_kept_from_itself() -> None:
    """The order of the award's own product may have what was kept for it; a symmetric one keeps it for its next signal."""
    world = settled()
    world.order(OrderKind.REDUCE, "dc1", 400e3, product="reserve", for_s=HOUR_S)
    assert sum(kept(world, ready(world, 400e3)).values()) == 0.0
    assert sum(kept(world, ready(world, 450e3)).values()) == pytest.approx(50e3, rel=0.02)
    world = settled()
    world.order(OrderKind.REGULATION, "dc1", 400e3, product="reserve", for_s=HOUR_S)
    assert sum(kept(world, ready(world, 400e3, direction="symmetric")).values()) > 60e3


def test_what_a_feed_has_sold_is_kept_on_the_feed() -> None:
    """Elsewhere it would be of no use."""
    world = settled()
    on_feed = ready(world, 300e3, resource="main-b")
    found = kept(world, on_feed)
    assert found["bess-b"] == pytest.approx(300e3 - 168e3, rel=0.02)
    assert found["ups-a"] == 0.0


def test_what_comes_after_a_pause_can_be_charged_before() -> None:
    """Of an award that begins hours after the order of now nothing need be kept; nor of one to draw more."""
    world = settled()
    late = Interval(world.at + timedelta(hours=8), world.at + timedelta(hours=9))
    assert sum(kept(world, ready(world, 400e3, interval=late)).values()) == 0.0
    assert sum(kept(world, ready(world, 400e3, direction="down")).values()) == 0.0


def resting_w(world: World, *sold: Obligation, rest_w: float = 100e3) -> Floats:
    """Return what is left of a recharge of all storage. [W]"""
    decision = world.step()
    snapshot = Snapshot(
        world.at, world.mono_s, world.readings.copy(), tuple(world.orders), (), world.health, None,
        kept_ready(sold, world.at),
    )  # fmt: skip
    image = aggregate(
        snapshot, decision.state, world.plant, perceive(snapshot, decision.state, world.plant), decision.severity >= 5
    )
    return spared(np.full(len(world.plant.asset_ids), rest_w), snapshot, image, world.plant)


@pytest.mark.parametrize("direction", ["down", "symmetric"])
def test_room_that_is_sold_is_not_filled_at_rest(direction: str) -> None:
    """Storage does not recharge into room that was sold, kept ready or by a schedule; other storage recharges as ever."""
    world = settled()
    bess, ups = world.index("bess-b"), world.index("ups-a")
    on_feed = ready(world, 200e3, resource="main-b", direction=direction)
    found_w = resting_w(world, on_feed)
    assert (found_w[bess], found_w[ups]) == (0.0, 100e3)
    assert resting_w(world, ready(world, 200e3))[bess] == 100e3
    world.order(OrderKind.INCREASE, "main-b", 100e3, product="fill", after_s=HOUR_S, for_s=HOUR_S)
    assert resting_w(world)[bess] == 0.0
