"""Whatever orders come together, up and down: limits hold, storage stays within its charge, and what is sold both ways cancels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vppd.core.state import Command
from vppd.model import OrderKind, Priority, Signal
from vppd.testing.cycles import World

FEEDS = ("main-a", "main-b")
NODES = ("dc1", *FEEDS)
ASSETS = ("bess-b", "ups-a", "hall-a", "pv-b")
STEPS = 70
SLACK_W = 1.0


@st.composite
def orders(draw: st.DrawFn) -> dict[str, object]:
    """Return one order: any kind on a node, and of an asset what does not force it against its feed."""
    kind = draw(st.sampled_from([OrderKind.INCREASE, OrderKind.INCREASE, *OrderKind][:-1]))
    on_asset = kind in (OrderKind.INCREASE, OrderKind.REDUCE, OrderKind.LIMIT) and draw(st.booleans())
    return {
        "kind": kind,
        "resource": draw(st.sampled_from(ASSETS if on_asset else NODES)),
        "power_w": draw(st.floats(1e3, 9e5 if kind in (OrderKind.LIMIT, OrderKind.SETPOINT) else 4e5)),
        "after_s": draw(st.integers(0, 40)),
        "for_s": draw(st.integers(5, 60)),
        "ramp_s": draw(st.sampled_from([None, 0.0, 20.0])),
        "priority": draw(st.sampled_from([Priority.AWARD, Priority.GRID_LIMIT])),
        "product": draw(st.sampled_from(["", "down", "up"])),
    }


def site(soc_frac: tuple[float, float], sun_w: float, put_off_w: float) -> World:
    """Return a plant at rest with that charge, sun, and work put off."""
    world = World(cluster_delay_s=3.0)
    world.soc_frac[world.index("ups-a")], world.soc_frac[world.index("bess-b")] = soc_frac
    pv, hall = world.index("pv-b"), world.index("hall-a")
    world.available_w[pv] = world.power_w[pv] = -sun_w
    wish_w = np.full(len(world.plant.asset_ids), np.nan)
    wish_w[hall] = 300e3 - put_off_w
    world.preferred_w = wish_w
    world.step(8)
    return world


def check_cycle(world: World, least_frac: np.ndarray) -> None:
    """Fail where a limit of a node is broken that could be kept, or storage is beyond its charge or rating."""
    decision, plant = world.history[-1], world.plant
    planned_w = decision.node_planned_w
    assert np.isfinite(planned_w).all()
    over_w = planned_w - plant.node_upper_w - np.maximum(decision.shortfall_w, 0.0)
    assert (over_w <= SLACK_W).all()
    # An order never takes a node above its physical limit: all that hangs here can get out of the way.
    assert (planned_w <= plant.node_upper_w + SLACK_W).all()
    storage = np.isfinite(plant.capacity_wh)
    assert (world.soc_frac[storage] <= 1.0 + 1e-9).all()
    assert (world.soc_frac[storage] >= least_frac[storage] - 1e-6).all()
    told = decision.command == Command.SETPOINT
    assert (decision.target_w[told] <= plant.rated_upper_w[told] + SLACK_W).all()
    assert (decision.target_w[told] >= plant.rated_lower_w[told] - SLACK_W).all()


@settings(max_examples=12, deadline=None)
@given(
    wanted=st.lists(orders(), min_size=1, max_size=4),
    soc_frac=st.tuples(st.floats(0.25, 1.0), st.floats(0.05, 1.0)),
    sun_w=st.floats(0.0, 150e3),
    put_off_w=st.floats(0.0, 150e3),
    signal=st.floats(-1.0, 1.0),
)
def test_no_mix_of_orders_breaks_a_limit(
    wanted: list[dict[str, object]], soc_frac: tuple[float, float], sun_w: float, put_off_w: float, signal: float
) -> None:
    """Feeds and site stay within their limits, and storage between its reserve and full."""
    world = site(soc_frac, sun_w, put_off_w)
    least_frac = np.minimum(world.plant.reserve_frac, world.soc_frac)
    for order in wanted:
        world.order(**order)  # type: ignore[arg-type]
    for _ in range(STEPS):
        world.signals = [Signal("tso", signal, world.mono_s)]
        world.step()
        check_cycle(world, least_frac)
    for i, feed in enumerate(FEEDS, start=1):
        # What a slow asset lands with is told to storage one cycle later.
        assert world.meter_w(feed) <= world.plant.node_upper_w[i] + 2.0 * world.plant.ramp_up_w_per_s


@settings(max_examples=10, deadline=None)
@given(
    power_w=st.floats(5e3, 120e3),
    resource=st.sampled_from(NODES),
    soc_frac=st.floats(0.3, 0.95),
    sun_w=st.floats(0.0, 150e3),
)
def test_equal_orders_sold_both_ways_leave_the_baseline(
    power_w: float, resource: str, soc_frac: float, sun_w: float
) -> None:
    """Whatever the size and the place, as much more as less is nothing."""
    world = site((soc_frac, soc_frac), sun_w, 0.0)
    world.preferred_w = None
    world.step(2)
    more = world.order(OrderKind.INCREASE, resource, power_w, product="down")
    world.order(OrderKind.REDUCE, resource, power_w, product="up")
    decision = world.step(30)
    baseline_w = world.state.progress[more.order_id].baseline_w
    node = world.plant.nodes.index(resource)
    assert decision.node_planned_w[node] == pytest.approx(baseline_w, abs=1.0)
    assert all(world.state.progress[o.order_id].delivery.kept_frac == 1.0 for o in world.orders)


@settings(max_examples=10, deadline=None)
@given(power_w=st.floats(5e3, 250e3), ramp_s=st.sampled_from([None, 0.0, 30.0]), for_s=st.integers(10, 40))
def test_power_never_moves_faster_than_the_ramps(power_w: float, ramp_s: float | None, for_s: int) -> None:
    """Up and down, from the order's beginning until all is as it was: never a step."""
    world = World()
    world.step(4)
    before_w = sum(world.meter_w(feed) for feed in FEEDS)
    world.order(OrderKind.INCREASE, "dc1", power_w, ramp_s=ramp_s, for_s=float(for_s))
    powers_w = [before_w]
    for _ in range(for_s + 25):
        world.step()
        powers_w.append(sum(world.meter_w(feed) for feed in FEEDS))
    steps_w = np.diff(powers_w)
    assert steps_w.max() <= world.plant.ramp_up_w_per_s + SLACK_W
    assert steps_w.min() >= -world.plant.ramp_down_w_per_s - SLACK_W
    assert powers_w[-1] == pytest.approx(before_w, abs=SLACK_W)
