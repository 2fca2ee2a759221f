"""Whole cycles in virtual time: orders in, meters out."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vppd.core.cycle import decide
from vppd.core.failsafe import SOC_MARGIN_FRAC, Severity
from vppd.core.state import Command, Reason, State
from vppd.model import OrderKind, Signal
from vppd.runtime.record import Replay, decode, digest, encode, pack
from vppd.snapshot import Health, Snapshot
from vppd.testing.cycles import World


def over_frac(world: World, feed: str, limit_w: float, cycles: int, window: int = 10) -> float:
    """Return the worst 10-cycle average above the limit, as part of it."""
    seen = []
    for _ in range(cycles):
        world.step()
        seen.append(world.meter_w(feed))
    means = np.convolve(seen, np.ones(window) / window, mode="valid")
    return float(means.max() / limit_w - 1.0)


def test_nothing_is_touched_without_an_order() -> None:
    """With full batteries and no order every asset is given back to itself."""
    world = World()
    decision = world.step(5)
    controllable = world.plant.controllable
    assert (decision.command[controllable] == Command.RELEASE).all()
    assert (decision.command[~controllable] == Command.NONE).all()


def test_a_limit_is_reached_and_kept() -> None:
    """A 25 % limit on a feed is reached within its ramp and never broken by more than 2 % on a 10 s average."""
    world = World()
    world.step(3)
    world.order(OrderKind.LIMIT, "main-a", 337e3, for_s=600)
    world.step(10)
    assert over_frac(world, "main-a", 337e3, 580) <= 0.02
    assert world.meter_w("main-b") == pytest.approx(450e3)


@pytest.mark.parametrize("skew", [0, 1, 2])
def test_readings_of_different_age_do_not_make_it_swing(skew: int) -> None:
    """Storage read one or two cycles late still settles at the limit instead of oscillating around it."""
    world = World(skew_cycles=skew)
    world.step(5)
    world.order(OrderKind.LIMIT, "main-a", 337e3, for_s=600)
    world.step(40)
    seen = []
    for _ in range(60):
        world.step()
        seen.append(world.meter_w("main-a"))
    assert max(seen) <= 337e3 * 1.01
    assert np.ptp(seen) <= 0.03 * 337e3


def test_storage_bridges_until_compute_has_landed() -> None:
    """A long order is met by the battery at once and by compute later; the battery hands back."""
    world = World(cluster_delay_s=60)
    world.step(3)
    world.order(OrderKind.LIMIT, "main-a", 330e3, for_s=3600)
    world.step(15)
    ups, hall = world.index("ups-a"), world.index("hall-a")
    bridged_w = -world.power_w[ups]
    assert bridged_w > 100e3
    assert world.power_w[hall] == pytest.approx(300e3)
    assert world.history[-1].reason[ups] == Reason.BRIDGE
    world.step(80)
    assert world.power_w[hall] < 250e3
    assert -world.power_w[ups] < 0.7 * bridged_w
    assert world.meter_w("main-a") <= 330e3


def test_power_is_given_back_by_a_ramp_and_everything_is_restored() -> None:
    """After the order the feed climbs no faster than the site's ramp and ends where it was."""
    world = World()
    world.step(3)
    world.order(OrderKind.LIMIT, "main-a", 300e3, for_s=120)
    world.step(123)
    before_w = world.meter_w("main-a")
    climbs = []
    for _ in range(120):
        world.step()
        climbs.append(world.meter_w("main-a") - before_w)
        before_w = world.meter_w("main-a")
    assert max(climbs) <= 40e3
    assert world.power_w[world.index("hall-a")] == pytest.approx(300e3)
    assert world.history[-1].command[world.index("hall-a")] == Command.RELEASE


def test_what_cannot_be_delivered_is_reported() -> None:
    """A limit below anything reachable gives the most there is and a shortfall of the rest."""
    world = World()
    world.step(3)
    world.order(OrderKind.LIMIT, "main-a", 20e3)
    decision = world.step(60)
    reachable_w = world.meter_w("main-a")
    assert decision.shortfall_w[1] == pytest.approx(reachable_w - 20e3 * 0.99, rel=0.02)


def test_regulation_is_followed_both_ways() -> None:
    """The meter follows base + signal x capacity, charging for more and discharging for less."""
    world = World()
    world.step(3)
    world.order(OrderKind.REGULATION, "main-b", 80e3)
    world.step(2)
    base_w = world.state.progress["order-0"].baseline_w
    for value in (0.5, -1.0, 0.25):
        for _ in range(8):
            world.signals = [Signal("tso", value, world.mono_s)]
            world.step()
        assert world.meter_w("main-b") == pytest.approx(base_w + value * 80e3, abs=2e3)
    assert world.power_w[world.index("hall-b")] == pytest.approx(300e3)


def test_a_failed_asset_is_replaced_by_others() -> None:
    """When the battery goes silent during an order, compute takes its share and the limit holds again."""
    world = World()
    world.step(3)
    world.order(OrderKind.LIMIT, "main-b", 380e3, for_s=600)
    world.step(20)
    world.silent.add("bess-b")
    world.power_w[world.index("bess-b")] = 0.0
    decision = world.step(40)
    assert decision.severity[world.index("bess-b")] == Severity.ISOLATE
    assert decision.command[world.index("bess-b")] == Command.NONE
    assert world.meter_w("main-b") <= 380e3


def test_nothing_is_written_before_the_plant_is_ready() -> None:
    """Before the ledger is replayed and the devices tried, no asset gets any command."""
    world = World(health=Health(ready=False))
    world.order(OrderKind.LIMIT, "main-a", 300e3)
    assert (world.step(3).command == Command.NONE).all()


def test_the_operator_wins() -> None:
    """An operator release aborts the grid's orders and gives everything back."""
    world = World()
    world.step(3)
    world.order(OrderKind.LIMIT, "main-a", 300e3)
    world.step(20)
    world.health = replace(world.health, operator_release=True)
    decision = world.step(60)
    assert not world.orders
    assert decision.command[world.index("hall-a")] == Command.RELEASE
    assert world.transitions[-1].progress.phase == "aborted"


def test_a_ups_on_battery_freezes_its_feed() -> None:
    """When a UPS carries its load, nothing on that feed is written to; the other feed goes on."""
    world = World()
    world.step(3)
    world.readings.on_battery[world.index("ups-a")] = True
    decision = world.step(1)
    on_a = (world.plant.node == 1) & world.plant.controllable
    assert (decision.command[on_a] == Command.NONE).all()
    assert (decision.command[world.index("bess-b")]) == Command.RELEASE


def test_a_restart_in_the_middle_goes_on_without_a_gap() -> None:
    """A new process that knows only the orders and their progress gives the same setpoints within a few cycles."""
    world = World()
    world.step(3)
    world.order(OrderKind.LIMIT, "main-a", 330e3, for_s=600)
    world.step(60)
    before_w = world.meter_w("main-a")
    world.state = State.first(world.plant, world.state.progress)
    seen = []
    for _ in range(20):
        world.step()
        seen.append(world.meter_w("main-a"))
    assert max(seen) <= max(before_w, 330e3) * 1.005
    assert len([t for t in world.transitions if t.progress.phase == "active"]) == 1


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    limit_w=st.floats(50e3, 450e3),
    soc_frac=st.floats(0.3, 0.6),
)
def test_the_reserve_is_never_touched(seed: int, limit_w: float, soc_frac: float) -> None:
    """Whatever is ordered and however SoC estimates err, the UPS never discharges below its reserve."""
    rng = np.random.default_rng(seed)
    world = World()
    ups = world.index("ups-a")
    world.soc_frac[ups] = soc_frac
    true_frac = soc_frac
    world.order(OrderKind.LIMIT, "main-a", limit_w, for_s=None)
    for _ in range(400):
        world.soc_frac[ups] = true_frac + rng.uniform(-0.019, 0.019)
        said = world.soc_frac[ups]
        world.step()
        true_frac += world.soc_frac[ups] - said
        assert true_frac >= min(0.3, soc_frac) - 1e-9 or world.power_w[ups] >= 0.0
    assert true_frac >= min(soc_frac, 0.3) - 1e-6


def test_a_recorded_day_replays_byte_for_byte() -> None:
    """Recorded snapshots give the very same decisions again, and a changed one is found."""
    world = World()
    world.order(OrderKind.LIMIT, "main-a", 330e3, for_s=60)
    replay = Replay()
    replay.feed("plant", pack(world.plant))
    replay.feed("state", pack(world.state))
    frames = []
    for _ in range(90):
        world._measure()
        snapshot = Snapshot(world.at, world.mono_s, world.readings.copy(), tuple(world.orders), (), world.health)
        decision = decide(snapshot, world.state, world.plant)
        frames.append(pack(snapshot, digest(decision)))
        world.state = decision.state
        world._move(decision)
    for frame in frames[:50]:
        replay.feed("cycle", frame)
    assert (replay.cycles, replay.differing) == (50, [])
    tampered = replace(snapshot, mono_s=snapshot.mono_s + 1)
    replay.feed("cycle", pack(tampered, digest(decision)))
    assert len(replay.differing) == 1
    assert encode(decode(encode(decision))) == encode(decision)


def test_the_margin_is_above_the_error_of_the_estimate() -> None:
    """The margin held above the reserve covers the 2 % error that SoC estimates have."""
    assert SOC_MARGIN_FRAC >= 0.02


def test_storage_keeps_headroom_for_clouds() -> None:
    """When PV fades during an order at the edge of the battery, the limit still holds at once."""
    world = World()
    pv = world.index("pv-b")
    world.available_w[pv] = world.power_w[pv] = -100e3
    world.step(3)
    world.order(OrderKind.LIMIT, "main-b", 100e3, for_s=600)
    world.step(40)
    for left_w in (-85e3, -70e3):
        world.available_w[pv] = world.power_w[pv] = left_w
        world.step(2)
        assert world.meter_w("main-b") <= 100e3


@pytest.mark.parametrize("flag", ["rejected", "faulty"])
def test_an_isolated_asset_still_draws_its_power(flag: str) -> None:
    """An asset that may not be written to counts as inflexible load at once; the others keep the limit."""
    world = World()
    world.step(3)
    world.order(OrderKind.LIMIT, "main-b", 350e3, for_s=600)
    world.step(30)
    world.power_w[world.index("bess-b")] = 60e3
    getattr(world.readings, flag)[world.index("bess-b")] = True
    world.step(15)
    decision = world.step(1)
    assert decision.command[world.index("bess-b")] == Command.NONE
    assert world.meter_w("main-b") <= 350e3
    assert decision.state.base_w[2] == pytest.approx(210e3, rel=0.01)


def test_storage_that_acknowledges_and_does_nothing_is_replaced() -> None:
    """A battery whose power does not follow its setpoint is left out, and compute keeps the limit instead."""
    world = World(stuck={"bess-b"})
    world.step(3)
    world.order(OrderKind.LIMIT, "main-b", 380e3, for_s=600)
    decision = world.step(40)
    assert decision.severity[world.index("bess-b")] == Severity.ISOLATE
    assert world.meter_w("main-b") <= 380e3
