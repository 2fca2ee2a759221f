"""What is sold stays deliverable, whatever the plan wishes."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vppd.core.headroom import Standing, deliverable_w, members, narrowed, running, standing, sustained_s
from vppd.model import Interval, Obligation
from vppd.snapshot import Floats
from vppd.testing.cycles import START, World, two_feeds

HOUR = timedelta(hours=1)


def sold(power_w: float, **more: object) -> Obligation:
    """Return a capacity obligation of the site for four hours. [W]"""
    known = {"resource": "dc1", "direction": "up", "sustain_s": 1800.0, "interval": Interval(START, START + 4 * HOUR)}
    return Obligation("a", "b", "tso", "capacity", power_w=power_w, **(known | more))  # type: ignore[arg-type]


def seen(world: World) -> Standing:
    """Return what the last cycle believed."""
    return standing(world.readings, world.history[-1], world.plant)


def world_at(soc_frac: float) -> World:
    """Return a world with storage at one charge."""
    world = World()
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), soc_frac, np.nan)
    world.step(3)
    return world


def wish(world: World, **wish_w: float) -> Floats:
    """Return wishes by asset, NaN for others. [W]"""
    found_w = np.full(len(world.plant.asset_ids), np.nan)
    for name, power_w in wish_w.items():
        found_w[world.index(name.replace("_", "-"))] = power_w
    return found_w


def test_storage_keeps_the_power_that_was_sold() -> None:
    """Of 450 kW of storage 200 kW are sold: no more than the rest may be discharged for money."""
    world = world_at(0.9)
    left_w = narrowed(wish(world, ups_a=-200e3, bess_b=-250e3), [sold(200e3)], world.at, seen(world), world.plant)
    discharge_w = -np.nansum(left_w)
    assert discharge_w == pytest.approx(250e3, rel=0.01)


def test_storage_keeps_the_energy_that_was_sold() -> None:
    """Storage with as much energy as was sold does not discharge at all, and may charge."""
    world = world_at(0.9)
    now = seen(world)
    energy_wh = float(now.spare_wh.sum())
    obligation = sold(energy_wh / 2.0, sustain_s=7200.0)
    left_w = narrowed(wish(world, ups_a=-50e3, bess_b=-100e3), [obligation], world.at, now, world.plant)
    assert np.nanmin(left_w) == pytest.approx(0.0, abs=1e-6)
    charging_w = wish(world, bess_b=100e3)
    np.testing.assert_array_equal(narrowed(charging_w, [obligation], world.at, now, world.plant), charging_w)


def test_clusters_keep_what_storage_cannot() -> None:
    """Where storage is at its reserve, the budgets leave what was sold to be shed."""
    world = world_at(0.12)
    world.soc_frac[world.index("ups-a")] = 0.32
    world.step(2)
    now = seen(world)
    left_w = narrowed(wish(world, hall_a=100e3, hall_b=100e3), [sold(150e3)], world.at, now, world.plant)
    floor_w = now.available_w - now.shed_w
    assert np.nansum(left_w - np.where(np.isnan(left_w), np.nan, floor_w)) == pytest.approx(150e3, rel=0.01)


def test_room_that_was_sold_is_not_charged_away() -> None:
    """Who has sold to draw more keeps power and room for it."""
    world = world_at(0.5)
    obligation = sold(200e3, direction="down", resource="main-b")
    left_w = narrowed(wish(world, bess_b=250e3), [obligation], world.at, seen(world), world.plant)
    assert left_w[world.index("bess-b")] == pytest.approx(50e3, rel=0.01)


def test_what_is_sold_both_ways_keeps_both_sides() -> None:
    """Neither discharge nor charge may use what a signal can ask for next."""
    world = world_at(0.6)
    now = seen(world)
    obligation = sold(100e3, direction="symmetric", resource="main-b", sustain_s=900.0)
    bess = world.index("bess-b")
    charging_w = narrowed(wish(world, bess_b=250e3), [obligation], world.at, now, world.plant)
    giving_w = narrowed(wish(world, bess_b=-250e3), [obligation], world.at, now, world.plant)
    assert charging_w[bess] == pytest.approx(150e3, rel=0.01)
    share = now.lower_w[bess] / -250e3
    assert share == pytest.approx(1.0)
    assert giving_w[bess] == pytest.approx(-150e3, rel=0.01)


def test_generation_is_left_to_be_held_back() -> None:
    """What full storage cannot take, the sun is to be there for: the plan may hold back the rest of it alone."""
    world = World()
    world.available_w[world.index("pv-b")] = world.power_w[world.index("pv-b")] = -120e3
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), 1.0, np.nan)
    world.step(3)
    obligation = sold(80e3, direction="down", resource="main-b")
    pv = world.index("pv-b")
    held_w = narrowed(wish(world, pv_b=-10e3), [obligation], world.at, seen(world), world.plant)
    assert held_w[pv] == pytest.approx(-80e3)
    free_w = narrowed(wish(world, pv_b=-100e3), [obligation], world.at, seen(world), world.plant)
    assert free_w[pv] == pytest.approx(-100e3)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1.0, 1.0), st.floats(-1.0, 1.0)), min_size=1, max_size=3),
    st.floats(0.3, 0.95),
    st.floats(0.3, 0.95),
)
@example([(1.0, 1.0)], 0.5, 0.9)
def test_room_that_was_sold_is_there_at_every_moment(
    plan: list[tuple[float, float]], soc_frac: float, part: float
) -> None:
    """Whatever the plan wishes for minutes on end: the increase that could be delivered at first can be at every moment."""
    world, hours = small_storage(), 180.0 / 3600.0
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), soc_frac, np.nan)
    world.step(3)

    def room_w() -> float:
        now = seen(world)
        return float(np.minimum(now.upper_w, now.room_wh / hours).sum())

    obligation = sold(part * room_w(), direction="down", sustain_s=180.0)
    for each in plan:
        wished_w = wish(world, ups_a=each[0] * 1e5, bess_b=each[1] * 2.5e5)
        for _ in range(60):
            world.preferred_w = narrowed(wished_w, [obligation], world.at, seen(world), world.plant)
            world.step()
        assert room_w() >= obligation.power_w * 0.999 - 10.0


def test_only_what_runs_counts() -> None:
    """An obligation that begins later is the plan's business, one that is over nobody's."""
    world = world_at(0.9)
    later = sold(400e3, interval=Interval(START + HOUR, START + 2 * HOUR))
    past = sold(400e3, interval=Interval(START - HOUR, START))
    wished_w = wish(world, bess_b=-250e3)
    assert running([later, past], world.at) == ()
    np.testing.assert_array_equal(narrowed(wished_w, [later, past], world.at, seen(world), world.plant), wished_w)


def test_a_resource_that_is_gone_is_left_out() -> None:
    """An obligation of a feed that is no longer configured narrows nothing and breaks nothing."""
    world = world_at(0.9)
    wished_w = wish(world, bess_b=-250e3)
    for direction in ("up", "down"):
        gone = sold(1e5, resource="main-z", direction=direction)
        np.testing.assert_array_equal(narrowed(wished_w, [gone], world.at, seen(world), world.plant), wished_w)
    with pytest.raises(KeyError):
        members("main-z", world.plant)


def test_power_is_sold_for_no_longer_than_the_interval_lasts() -> None:
    """Ten minutes before its end an obligation of half an hour needs ten minutes of energy."""
    assert sustained_s(sold(1.0), START) == 1800.0
    assert sustained_s(sold(1.0), START + 4 * HOUR - timedelta(minutes=10)) == 600.0
    assert sustained_s(sold(1.0, sustain_s=None, interval=Interval(START)), START) == 3600.0


powers = st.floats(-1.0, 1.0)


def small_storage() -> World:
    """Return a world whose storage lasts for minutes."""
    config = two_feeds()
    assets = tuple(a.model_copy(update={"capacity_wh": a.capacity_wh / 20.0}) for a in config.assets)
    return World(config=config.model_copy(update={"assets": assets}))


def ready_w(world: World, resource: str, sustain_s: float) -> float:
    """Return by how much what a resource draws now could fall for so long. [W]"""
    now, on, hours = seen(world), members(resource, world.plant), sustain_s / 3600.0
    storage = np.isfinite(world.plant.capacity_wh)
    least_w = np.maximum(now.lower_w, -now.spare_wh / hours)
    drawn_w = np.where(storage, world.power_w - least_w, world.power_w - (now.available_w - now.shed_w))
    return float(np.maximum(drawn_w, 0.0)[on & (storage | (now.available_w > 0.0))].sum())


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(powers, powers, powers, powers), min_size=1, max_size=3),
    st.floats(0.5, 1.0),
    st.lists(st.tuples(st.floats(0.3, 0.95), st.sampled_from(["dc1", "main-a", "main-b"])), min_size=1, max_size=3),
    st.sampled_from([60.0, 180.0]),
)
@example(plan=[(-1.0, -1.0, 0.0, 0.0)], soc_frac=0.9, sales=[(0.95, "dc1")], sustain_s=180.0)
@example(plan=[(-1.0, -1.0, 0.0, 0.0)], soc_frac=0.9, sales=[(0.9, "main-b")], sustain_s=180.0)
def test_after_economics_what_is_sold_is_still_deliverable(
    plan: list[tuple[float, ...]], soc_frac: float, sales: list[tuple[float, str]], sustain_s: float
) -> None:
    """Whatever the plan wishes for minutes on end: what could be delivered at first can be delivered at every moment."""
    world = small_storage()
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), soc_frac, np.nan)
    world.step(3)
    obligations: list[Obligation] = []
    for part, resource in sales:  # each sells a part of what is left, so that nothing is sold twice at the start
        free_w = part * deliverable_w(resource, sustain_s, seen(world), world.plant)
        sold_w = sum(o.power_w for o in obligations)
        if free_w - sold_w > 1e3:
            obligations.append(sold(free_w - sold_w, resource=resource, sustain_s=sustain_s))
    for each in plan:
        wished_w = wish(world, ups_a=each[0] * 2e5, bess_b=each[1] * 2.5e5, hall_a=4e5 * each[2], hall_b=4e5 * each[3])
        for _ in range(60):
            world.preferred_w = narrowed(wished_w, obligations, world.at, seen(world), world.plant)
            world.step()
        for resource in {*(o.resource for o in obligations), "dc1"}:
            owed_w = sum(o.power_w for o in obligations if resource in ("dc1", o.resource))
            from_rest_w = deliverable_w(resource, sustain_s, seen(world), world.plant)
            assert from_rest_w >= owed_w * 0.999 - 10.0
            assert ready_w(world, resource, sustain_s) >= owed_w * 0.999 - 10.0
