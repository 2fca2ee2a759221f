"""What the meters show is shared out once among all that was sold, and both directions are looked at."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from tests.planning.test_holding import cycle, sold
from vppd.core.failsafe import SOC_MARGIN_FRAC
from vppd.core.headroom import members
from vppd.model import Interval, Obligation, OrderKind, Signal
from vppd.planning.trade.holding import Look, looks
from vppd.testing.cycles import START, World, two_feeds

PLACES = ("dc1", "main-a", "main-b", "hall-a", "bess-b")
KINDS = {"up": OrderKind.REDUCE, "down": OrderKind.INCREASE, "symmetric": OrderKind.REGULATION}
SHORTEST_S = 60.0
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""A case takes a tenth of a second: making a failing one small would take minutes."""
BASE_W = {"main-a": 50e3, "main-b": 50e3}


def plant_of_minutes(soc_frac: float, *, seconds: int = 20) -> World:
    """Return a plant whose storage lasts for minutes and rests at this charge, having run for a while."""
    config = two_feeds()
    assets = tuple(
        a.model_copy(update={"capacity_wh": a.capacity_wh / 10.0, "soc_target_frac": soc_frac}) for a in config.assets
    )
    world = World(config=config.model_copy(update={"assets": assets}), base_w=dict(BASE_W))
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), soc_frac, np.nan)
    world.step(seconds)
    return world


def award(award_id: str, resource: str, direction: str, power_w: float, **more: Any) -> Obligation:
    """Return an award of half an hour, to be sustained for five minutes. [W]"""
    known = {"product": award_id, "resource": resource, "direction": direction, "sustain_s": 300.0}
    return sold(award_id, power_w, 1800.0, **(known | more))


def seen(world: World, *obligations: Obligation) -> dict[str, Look]:
    """Return what is there of each award now."""
    return dict(looks(obligations, *cycle(world), world.plant))


def reach_w(world: World, node: str) -> tuple[float, float]:
    """Return by how much a node could draw less, and more, than if nobody moved it, for the shortest time. [W]"""
    plant, r, on = world.plant, world.readings, members(node, world.plant)
    storage, hours = np.isfinite(plant.capacity_wh) & on, SHORTEST_S / 3600.0
    spare_wh = np.maximum(world.soc_frac - plant.reserve_frac, 0.0) * plant.capacity_wh * plant.efficiency_frac
    room_wh = (1.0 - world.soc_frac) * plant.capacity_wh / plant.efficiency_frac
    less_w = np.minimum(-plant.rated_lower_w, spare_wh / hours)[storage].sum()
    more_w = np.minimum(plant.rated_upper_w, room_wh / hours)[storage].sum()
    sheds_w = r.tier_shed_w[:, 1:].sum(axis=1)[on].sum()
    made_w = -np.minimum(np.nan_to_num(r.available_w), 0.0)[on].sum()
    free_w = sum(BASE_W[f] for f in BASE_W if node in ("dc1", f)) + float(np.nan_to_num(r.available_w)[on].sum())
    left_w = float(plant.node_upper_w[plant.nodes.index(node)]) - free_w
    # What is delivered counts though storage could not keep it up; and what is asked of a node above moves this one too.
    meters = [plant.meter[plant.nodes.index(f)] for f in BASE_W if node in ("dc1", f)]
    off_w = float(r.power_w[meters].sum()) - free_w
    less_w, more_w = float(less_w + sheds_w), min(float(more_w + made_w), left_w)
    if node != "dc1":
        less_w, more_w = less_w + max(off_w, 0.0), more_w + max(-off_w, 0.0)
    return max(less_w, -off_w), max(more_w, off_w)


def ordered(world: World, one: Obligation, power_w: float, **more: Any) -> None:
    """Have an award called."""
    world.order(KINDS[one.direction], one.resource, power_w, product=one.product, for_s=600.0, **more)


def test_a_shortfall_is_nobodys_twice() -> None:
    """Two products ordered at once, together more than there is: the one received first has its part, the other the rest."""
    world = plant_of_minutes(0.1)
    awards = [award(name, "dc1", "up", 300e3) for name in ("late", "early")]
    for one in reversed(awards):
        ordered(world, one, 300e3)
    world.step(60)
    found, (can_w, _) = seen(world, *awards), reach_w(world, "dc1")
    assert found["early"].there_w == pytest.approx(300e3, rel=0.02)
    assert found["late"].there_w == pytest.approx(can_w - 300e3, abs=15e3)
    assert found["late"].delivered_w == pytest.approx(can_w - 300e3, abs=15e3)


def test_what_a_feed_has_moved_is_not_the_sites() -> None:
    """What is delivered beneath is taken off before the site's own is judged."""
    world = plant_of_minutes(0.1)
    feed, site = award("feed", "main-a", "up", 168e3), award("site", "dc1", "up", 300e3)
    for one in (site, feed):
        ordered(world, one, one.power_w)
    world.step(60)
    found, (can_w, _) = seen(world, site, feed), reach_w(world, "dc1")
    assert found["feed"].delivered_w == pytest.approx(168e3, rel=0.05)
    assert found["site"].there_w == pytest.approx(can_w - 168e3, rel=0.05)


def test_what_the_site_needs_of_a_feed_is_not_the_feeds() -> None:
    """Awards count at every node above them: the site's comes first, so the feed's is short though its own halls could."""
    world = plant_of_minutes(0.1)
    found = seen(world, award("site", "dc1", "up", 300e3), award("feed", "main-a", "up", 150e3))
    assert found["site"].there_w == pytest.approx(300e3)
    assert found["feed"].there_w == pytest.approx(reach_w(world, "dc1")[0] - 300e3, abs=10e3)


def test_the_same_energy_is_not_there_for_two_times() -> None:
    """What must last long leaves less to what is short, and the other way round."""
    world = plant_of_minutes(0.7)
    battery = "bess-b"  # 50 kWh, 28 of them above its reserve and margin
    long, short = (award(name, battery, "up", 108e3, sustain_s=s) for name, s in (("l", 900.0), ("s", 300.0)))
    for first, second in ((long, short), (short, long)):
        found = seen(world, first, second)
        there_wh = sum(float(found[o.award_id].there_w or 0.0) * (o.sustain_s or 0.0) / 3600.0 for o in (first, second))
        spare_wh = (0.7 - 0.1 - SOC_MARGIN_FRAC) * 50e3 * 0.96
        assert found[first.award_id].there_w == pytest.approx(first.power_w, rel=0.02)
        assert 0.8 * spare_wh < there_wh <= spare_wh * 1.001


def test_an_isolated_asset_gives_nothing() -> None:
    """What takes no setpoints cannot be asked for anything, whatever it draws."""
    world = plant_of_minutes(0.7)
    world.readings.faulty[world.index("hall-a")] = True
    world.step(3)
    up, down = award("a", "hall-a", "up", 50e3), award("b", "hall-a", "down", 50e3)
    found = seen(world, up, down)
    assert world.history[-1].severity[world.index("hall-a")] > 0
    assert (found["a"].there_w, found["b"].there_w) == (0.0, 0.0)


def test_room_and_held_back_power_stand_behind_an_increase() -> None:
    """Storage charges until it is full, the sun is held back; for longer there is less."""
    world = plant_of_minutes(0.5)
    world.available_w[world.index("pv-b")] = world.power_w[world.index("pv-b")] = -80e3
    world.step(30)
    most_w = reach_w(world, "main-b")[1]
    (short,) = seen(world, award("a", "main-b", "down", 400e3, sustain_s=60.0)).values()
    assert short.there_w == pytest.approx(most_w, rel=0.03)
    (long,) = seen(world, award("a", "main-b", "down", 400e3, sustain_s=900.0)).values()
    assert long.there_w == pytest.approx(80e3 + 25e3 / 0.96 * 4.0, rel=0.05)


def test_an_increase_stays_below_every_limit() -> None:
    """Neither beyond what the feed may draw, nor beyond what the grid allows for now."""
    world = plant_of_minutes(0.5)
    drawn_w = world.meter_w("main-b")
    feeds = tuple(f.model_copy(update={"import_max_w": drawn_w + 60e3}) for f in world.config.feeds)
    narrow = World(config=world.config.model_copy(update={"feeds": feeds}), base_w=dict(BASE_W))
    narrow.soc_frac[:] = np.where(np.isfinite(narrow.soc_frac), 0.5, np.nan)
    narrow.step(20)
    on_feed, on_site = award("a", "main-b", "down", 200e3), award("b", "dc1", "down", 500e3)
    assert seen(narrow, on_feed)["a"].there_w == pytest.approx(60e3, abs=1e3)
    assert seen(narrow, on_site)["b"].there_w == pytest.approx(120e3, abs=2e3)
    limit_w = narrow.order(OrderKind.LIMIT, "dc1", 2 * drawn_w + 30e3).power_w or 0.0
    narrow.step(20)
    left_w = 30e3 - narrow.plant.margin_frac * limit_w
    assert seen(narrow, on_site)["b"].there_w == pytest.approx(left_w, abs=1e3)


def test_a_symmetric_award_has_the_lesser_side() -> None:
    """Full storage gives nothing upwards of consumption; what stands behind it is not sold again on either side."""
    world = plant_of_minutes(0.6)
    less_w, more_w = reach_w(world, "dc1")
    both = award("both", "dc1", "symmetric", 120e3, sustain_s=60.0)
    up, down = (award(side, "dc1", side, 1e6, sustain_s=60.0) for side in ("up", "down"))
    found = seen(world, both, up, down)
    assert found["both"].there_w == pytest.approx(120e3)
    assert found["up"].there_w == pytest.approx(less_w - 120e3, rel=0.05)
    assert found["down"].there_w == pytest.approx(more_w - 120e3, rel=0.05)
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), 1.0, np.nan)
    world.step(120)
    assert seen(world, both)["both"].there_w == pytest.approx(0.0, abs=5e3)


@pytest.mark.parametrize("signal", [-0.8, 0.0, 0.5])
def test_a_signal_that_is_followed_is_delivered(signal: float) -> None:
    """What the signal asks for counts as ordered and, when the meter follows, as delivered; all of it is still there."""
    world = plant_of_minutes(0.6)
    one = award("both", "dc1", "symmetric", 100e3, sustain_s=60.0)
    ordered(world, one, 100e3)
    for _ in range(60):
        world.signals[:] = [Signal("tso", signal, world.mono_s)]
        world.step()
    world.signals[:] = [Signal("tso", signal, world.mono_s)]
    found = seen(world, one)["both"]
    assert found.ordered_w == pytest.approx(abs(signal) * 100e3)
    assert found.delivered_w == pytest.approx(abs(signal) * 100e3, rel=0.03, abs=1e3)
    assert found.there_w == pytest.approx(100e3, rel=0.02)


def test_reductions_and_increases_are_told_apart_at_one_meter() -> None:
    """100 kW less of one product and 60 kW more of another: both are delivered though the meter shows 40."""
    world = plant_of_minutes(0.7)
    less, more = award("less", "dc1", "up", 100e3), award("more", "dc1", "down", 60e3)
    before_w = sum(map(world.meter_w, ("main-a", "main-b")))
    for one in (less, more):
        ordered(world, one, one.power_w)
    world.step(40)
    shown_w = before_w - sum(map(world.meter_w, ("main-a", "main-b")))
    found = seen(world, less, more)
    assert found["less"].delivered_w - found["more"].delivered_w == pytest.approx(shown_w, abs=5e3)


call = st.tuples(
    st.sampled_from(PLACES),
    st.sampled_from(["up", "down", "up", "symmetric"]),
    st.floats(20e3, 400e3),
    st.sampled_from(["p", "q", "r"]),
    st.sampled_from([60.0, 300.0, 900.0]),
    st.floats(0.0, 1.0),
)


@settings(max_examples=20, deadline=None, phases=NO_SHRINKING)
@given(
    st.lists(call, min_size=1, max_size=6),
    st.floats(0.1, 1.0),
    st.lists(st.sampled_from(["hall-a", "hall-b", "bess-b", "ups-a"]), max_size=2),
    st.floats(-1.0, 1.0),
)
@example([("dc1", "up", 3e5, "p", 300.0, 1.0), ("dc1", "up", 3e5, "q", 300.0, 1.0)], 0.1, [], 0.0)
@example([("dc1", "up", 3e5, "p", 300.0, 0.0), ("main-a", "up", 2e5, "q", 300.0, 1.0)], 0.1, ["hall-a"], 0.0)
@example([("bess-b", "up", 2e5, "p", 900.0, 0.0), ("bess-b", "up", 2e5, "q", 60.0, 0.0)], 0.5, [], 0.0)
@example([("dc1", "down", 3e5, "p", 300.0, 1.0), ("main-b", "down", 3e5, "q", 60.0, 0.5)], 0.6, [], 0.0)
def test_no_more_is_credited_than_there_is(
    calls: list[tuple[str, str, float, str, float, float]], soc_frac: float, stuck: list[str], signal: float
) -> None:
    """Whatever is sold where, called or not, followed or not: at no node is more there than it could draw less, or more."""
    world = plant_of_minutes(soc_frac)
    awards = [
        award(f"{i}", resource, direction, power_w, product=product, sustain_s=sustain_s)
        for i, (resource, direction, power_w, product, sustain_s, _) in enumerate(calls)
    ]
    world.stuck.update(stuck)
    for one, (*_, part) in zip(awards, calls, strict=True):
        if part > 0.3:
            ordered(world, one, part * one.power_w)
    for _ in range(40):
        world.signals[:] = [Signal("tso", signal, world.mono_s)]
        world.step()
    found = seen(world, *awards)
    for node in world.plant.nodes:
        inside = [one for one in awards if not (members(one.resource, world.plant) & ~members(node, world.plant)).any()]
        less_w, more_w = reach_w(world, node)
        for side, can_w in (("up", less_w), ("down", more_w)):
            there_w = sum(found[one.award_id].there_w or 0.0 for one in inside if one.direction in (side, "symmetric"))
            other = ("down" if side == "up" else "up", "symmetric" if (signal > 0.0) == (side == "up") else "")
            beside_w = sum(found[one.award_id].delivered_w for one in inside if one.direction in other)
            assert there_w - beside_w <= can_w * 1.03 + 5e3


def test_an_award_is_told_from_another_by_its_direction() -> None:
    """Of a product that is sold both ways the order for less fills the award for less."""
    world = plant_of_minutes(0.6)
    up, down = (award(side, "dc1", side, 100e3, product="either") for side in ("up", "down"))
    ordered(world, up, 100e3)
    world.step(40)
    found = seen(world, up, down)
    assert found["up"].ordered_w == 100e3
    assert found["down"].ordered_w == 0.0


def test_awards_of_one_regulation_share_its_signal() -> None:
    """Two awards called by one order: each has its part of the capacity."""
    world = plant_of_minutes(0.6)
    one, two = (award(name, "dc1", "symmetric", 50e3, product="both", sustain_s=60.0) for name in "ab")
    ordered(world, replace(one, power_w=1.0), 75e3)
    for _ in range(60):
        world.signals[:] = [Signal("tso", -1.0, world.mono_s)]
        world.step()
    found = seen(world, one, two)
    assert found["a"].ordered_w == pytest.approx(50e3)
    assert found["b"].ordered_w == pytest.approx(25e3)
    assert sum(look.delivered_w for look in found.values()) == pytest.approx(75e3, rel=0.05)
    assert [look.there_w for look in found.values()] == [pytest.approx(50e3, rel=0.02)] * 2


def test_an_order_that_fills_no_award_has_what_it_asks_for_first() -> None:
    """What a running order still needs, for as long as it lasts, is not there for an award."""
    world = plant_of_minutes(0.48)
    short = award("a", "bess-b", "up", 200e3, sustain_s=60.0)
    assert seen(world, short)["a"].there_w == pytest.approx(200e3)
    world.order(OrderKind.REDUCE, "bess-b", 100e3, product="other", for_s=600.0)
    world.step(20)
    found = seen(world, short)["a"]
    spare_wh = (float(world.soc_frac[world.index("bess-b")]) - 0.1 - SOC_MARGIN_FRAC) * 50e3 * 0.96
    assert found.there_w == pytest.approx((spare_wh - 100e3 * 580.0 / 3600.0) * 60.0, abs=15e3)
    assert 0.0 < float(found.there_w or 0.0) < 130e3


def test_an_award_is_looked_at_until_it_ends() -> None:
    """An award that began long ago needs what is left of it."""
    world = plant_of_minutes(0.5)
    interval = Interval(START, world.at + timedelta(seconds=120.0))
    (found,) = seen(world, award("a", "bess-b", "down", 250e3, sustain_s=3600.0, interval=interval)).values()
    assert found.there_w == pytest.approx(250e3, rel=0.02)
