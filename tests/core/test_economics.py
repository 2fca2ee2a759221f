"""Wishes of the plan in the cycle: followed where nothing binds, by the site's ramps, and never against anything."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vppd.core.cycle import decide
from vppd.core.economics import KEPT_FRAC
from vppd.core.failsafe import Severity
from vppd.core.state import Command, Decision, Reason, State
from vppd.model import OrderKind
from vppd.runtime.record import Replay, decode, digest, encode, pack
from vppd.snapshot import Floats, Health, Snapshot
from vppd.testing.cycles import World, two_feeds


def wishing(world: World, **wish_w: float) -> Floats:
    """Have the world's plan wish; names have underscores for dashes. [W]"""
    preferred_w = np.full(len(world.plant.asset_ids), np.nan)
    for name, power_w in wish_w.items():
        preferred_w[world.index(name.replace("_", "-"))] = power_w
    world.preferred_w = preferred_w
    return preferred_w


def power_w(world: World, name: str) -> float:
    """Return an asset's true power. [W]"""
    return float(world.power_w[world.index(name)])


def test_storage_follows_its_wish() -> None:
    """Storage charges and discharges as the plan has it, and says why."""
    world = World()
    world.soc_frac[world.index("bess-b")] = 0.5
    wishing(world, bess_b=-120e3)
    decision = world.step(20)
    assert power_w(world, "bess-b") == pytest.approx(-120e3)
    assert decision.reason[world.index("bess-b")] == Reason.PLANNED
    wishing(world, bess_b=80e3)
    world.step(20)
    assert power_w(world, "bess-b") == pytest.approx(80e3)


def test_rest_that_is_planned_is_kept() -> None:
    """A wish of 0 keeps storage from recharging by itself; without a wish it recharges as ever."""
    world = World()
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), 0.5, np.nan)
    wishing(world, bess_b=0.0)
    decision = world.step(10)
    assert power_w(world, "bess-b") == 0.0
    assert decision.command[world.index("bess-b")] == Command.SETPOINT
    assert power_w(world, "ups-a") > 0.0
    assert decision.reason[world.index("ups-a")] == Reason.RECHARGE


def test_a_budget_holds_a_cluster_and_is_given_back() -> None:
    """A budget below what a cluster would draw is set; when the wish ends all jobs come back."""
    world = World()
    wishing(world, hall_b=230e3)
    decision = world.step(30)
    assert power_w(world, "hall-b") == pytest.approx(230e3, rel=0.03)
    assert decision.reason[world.index("hall-b")] == Reason.PLANNED
    wishing(world)
    decision = world.step(60)
    assert power_w(world, "hall-b") == pytest.approx(300e3)
    assert decision.command[world.index("hall-b")] == Command.RELEASE


def test_a_budget_never_takes_what_the_tiers_do_not_give() -> None:
    """A wish of 0 for a cluster leaves what its tiers do not let go."""
    world = World()
    wishing(world, hall_b=0.0)
    world.step(60)
    hall = world.index("hall-b")
    assert power_w(world, "hall-b") >= world.available_w[hall] - world.tier_shed_w[hall].sum() - 1.0


def test_a_budget_above_the_demand_is_no_hold() -> None:
    """A cluster that draws less than its budget is not written to at all."""
    world = World()
    wishing(world, hall_b=390e3)
    assert world.step(5).command[world.index("hall-b")] == Command.RELEASE


def test_a_ceiling_holds_generation_back() -> None:
    """PV is curtailed to its ceiling, and let go when the wish ends."""
    world = World()
    world.available_w[world.index("pv-b")] = world.power_w[world.index("pv-b")] = -100e3
    wishing(world, pv_b=-40e3)
    world.step(20)
    assert power_w(world, "pv-b") == pytest.approx(-40e3)
    world.preferred_w = None
    assert world.step(20).command[world.index("pv-b")] == Command.RELEASE
    assert power_w(world, "pv-b") == pytest.approx(-100e3)


def test_a_new_step_is_no_step_of_the_site() -> None:
    """Wishes of all assets together move the site by no more than its ramps, also when the plan ends at once."""
    world = World(config=two_feeds(ramp_down_w_per_s=30e3, ramp_up_w_per_s=20e3))
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), 0.6, np.nan)
    wishing(world, bess_b=-200e3, ups_a=-60e3)
    world.step(30)
    told_w = []
    for bess_w, ups_w in ((140e3, 80e3), (-200e3, -60e3), (None, None)):
        wishing(world, bess_b=bess_w or 0.0, ups_a=ups_w or 0.0)
        if bess_w is None:
            world.preferred_w = None
        for _ in range(30):
            world.step()
            told_w.append(power_w(world, "bess-b") + power_w(world, "ups-a"))
    change_w = np.diff(told_w)
    assert change_w.max() <= 20e3 + 1.0
    assert change_w.min() >= -30e3 - 1.0
    assert max(told_w) == pytest.approx(220e3)
    assert world.state.wished_w is None, "nothing is left of the wishes"


def test_a_band_that_cannot_be_run_in_is_no_trap() -> None:
    """Storage that cannot run below a fifth of its rating gets across by a ramp that is slower than that."""
    config = two_feeds(ramp_down_w_per_s=2e3, ramp_up_w_per_s=2e3)
    assets = tuple(
        asset.model_copy(update={"min_running_frac": 0.2 if asset.capacity_wh else 0.0}) for asset in config.assets
    )
    world = World(config=config.model_copy(update={"assets": assets}))
    wishing(world, bess_b=-150e3)
    world.step(80)
    assert power_w(world, "bess-b") == pytest.approx(-150e3)


def test_the_reserve_is_approached_slowly_and_no_failsafe_notices() -> None:
    """Storage that is wished empty ends above its reserve and the failsafe's margins."""
    world = World()
    world.soc_frac[world.index("ups-a")] = 0.42
    wishing(world, ups_a=-200e3)
    world.step(700)
    ups = world.index("ups-a")
    assert 0.3 + KEPT_FRAC - 1e-6 <= world.soc_frac[ups] <= 0.3 + KEPT_FRAC + 0.012
    assert max(d.severity[ups] for d in world.history) == Severity.NONE


def test_charging_leaves_the_feed_below_its_limit() -> None:
    """A wish to charge is cut where the feed has no room, with the margin kept free."""
    world = World()
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), 0.3, np.nan)
    world.base_w["main-b"] = 240e3
    world.step(3)
    wishing(world, bess_b=250e3)
    world.step(60)
    assert power_w(world, "bess-b") > 40e3
    assert world.meter_w("main-b") <= 0.99 * 600e3 + 1.0


def test_discharging_does_not_export_more_than_may_be() -> None:
    """A wish to discharge is cut where the feed would export beyond its limit."""
    world = World(config=two_feeds(export_max_w=0.0))
    world.run_jobs("hall-a", (10e3, 0.0, 0.0, 0.0))
    world.run_jobs("hall-b", (10e3, 0.0, 0.0, 0.0))
    world.base_w = {"main-a": 20e3, "main-b": 20e3}
    world.step(3)
    wishing(world, bess_b=-200e3)
    seen_w = []
    for _ in range(40):
        world.step()
        seen_w.append(world.meter_w("main-a") + world.meter_w("main-b"))
    assert min(seen_w) >= 0.0
    assert power_w(world, "bess-b") < -40e3


def test_an_order_wins() -> None:
    """A limit is met although the plan wishes to charge, and the wish is followed again afterwards."""
    world = World()
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), 0.6, np.nan)
    wishing(world, bess_b=60e3)
    world.step(20)
    world.order(OrderKind.LIMIT, "main-b", 350e3, for_s=300)
    world.step(30)
    seen_w = []
    for _ in range(200):
        world.step()
        seen_w.append(world.meter_w("main-b"))
    assert max(seen_w) <= 350e3
    world.step(200)
    assert power_w(world, "bess-b") == pytest.approx(60e3)


def test_a_loose_order_leaves_the_wish() -> None:
    """An order that asks for nothing does not end the plan."""
    world = World()
    world.soc_frac[world.index("bess-b")] = 0.5
    wishing(world, bess_b=-50e3, hall_b=250e3)
    world.order(OrderKind.LIMIT, "main-b", 590e3, for_s=300)
    world.step(60)
    assert power_w(world, "bess-b") == pytest.approx(-50e3)
    assert power_w(world, "hall-b") == pytest.approx(250e3, rel=0.03)


@pytest.mark.parametrize(
    "health", [Health(ready=True, operator_release=True), Health(ready=True, clock_ok=False), Health(ready=False)]
)
def test_no_wish_is_followed_when_the_site_is_not_well(health: Health) -> None:
    """Released by the operator, with a clock that cannot be believed, or not ready: the plan has no say."""
    world = World(health=health)
    world.soc_frac[world.index("bess-b")] = 0.9
    wishing(world, bess_b=-100e3, hall_b=230e3)
    world.step(30)
    assert power_w(world, "bess-b") == 0.0
    assert power_w(world, "hall-b") == pytest.approx(300e3)


def test_without_wishes_everything_is_as_it_was() -> None:
    """No wish and a wish of nothing for everybody give the same setpoints, and records without wishes have no new bytes."""
    plain, blank = World(), World()
    blank.preferred_w = np.full(len(blank.plant.asset_ids), np.nan)
    for world in (plain, blank):
        world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), 0.7, np.nan)
        world.order(OrderKind.LIMIT, "main-a", 330e3, for_s=60, after_s=10.0)
        world.step(120)
    for mine, other in zip(plain.history, blank.history, strict=True):
        np.testing.assert_array_equal(mine.target_w, other.target_w)
        np.testing.assert_array_equal(mine.reason, other.reason)
        assert digest(mine) == digest(other)
    assert b'"Snapshot"' in encode(_snapshot(plain))
    assert len(_values(plain, "Snapshot")) == len(fields(Snapshot)) - 2  # no wishes, and nothing kept ready


def test_wishes_are_replayed() -> None:
    """A recorded day with wishes comes out again bit for bit."""
    world, replay = World(), Replay()
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), 0.6, np.nan)
    replay.feed("plant", pack(world.plant))
    replay.feed("state", pack(world.state))
    for k in range(40):
        if k == 5:
            wishing(world, bess_b=-100e3, hall_a=260e3)
        if k == 30:
            world.preferred_w = None
        snapshot = replace(_snapshot(world), readings=world.readings.copy())
        decision = decide(snapshot, world.state, world.plant)
        replay.feed("cycle", pack(snapshot, digest(decision)))
        world.state = decision.state
        world.step()
        world.state = decision.state
    assert replay.cycles == 40
    assert not replay.differing


def _snapshot(world: World) -> Snapshot:
    return Snapshot(world.at, world.mono_s, world.readings, (), (), world.health, world.preferred_w)


def _values(world: World, kind: str) -> list[object]:
    again = decode(encode(_snapshot(world)))
    assert type(again).__name__ == kind
    return [f.name for f in fields(again) if getattr(again, f.name) is not None]


wishes = st.lists(st.one_of(st.none(), st.floats(-400e3, 400e3)), min_size=7, max_size=7)


@settings(max_examples=15, deadline=None)
@given(st.lists(wishes, min_size=1, max_size=4), st.floats(0.1, 1.0), st.booleans())
def test_no_wish_breaks_anything(plan: list[list[float | None]], soc_frac: float, ordered: bool) -> None:
    """Whatever is wished: within ratings and reserve, feeds within their limits, orders kept as without wishes."""
    world = World()
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), soc_frac, np.nan)
    world.available_w[world.index("pv-b")] = world.power_w[world.index("pv-b")] = -80e3
    world.step(3)
    if ordered:
        world.order(OrderKind.LIMIT, "main-b", 330e3, for_s=None)
        world.step(40)
    seen_w = [world.meter_w("main-b")] * 10
    for wish in plan:
        world.preferred_w = np.array([np.nan if w is None else w for w in wish])
        for _ in range(15):
            decision = world.step()
            _judge(world, decision, soc_frac)
            seen_w = [*seen_w[1:], world.meter_w("main-b")]
            if ordered and soc_frac > 0.4:
                assert np.mean(seen_w) <= 330e3 * 1.02


def _judge(world: World, decision: Decision, soc_frac: float) -> None:
    told = np.isfinite(decision.target_w)
    assert (decision.target_w[told] >= world.plant.rated_lower_w[told] - 1e-6).all()
    assert (decision.target_w[told] <= world.plant.rated_upper_w[told] + 1e-6).all()
    storage = np.isfinite(world.plant.capacity_wh)
    assert (world.soc_frac[storage] >= np.minimum(world.plant.reserve_frac[storage], soc_frac) - 1e-3).all()
    for feed in ("main-a", "main-b"):
        assert world.meter_w(feed) <= 600e3
    assert world.meter_w("main-a") >= -1.0
    assert world.meter_w("main-b") >= -1e5 - 1.0


def test_a_first_state_has_no_wishes() -> None:
    """A daemon that starts follows nothing from before."""
    assert State.first(World().plant).wished_w is None
