"""The whole site in one step: balance, determinism, proportions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vppd.sim.physics import Commands, Physics, SiteState, StorageCommand, default_plan


def run(physics: Physics, state: SiteState, commands: Commands, steps: int, dt_s: float = 1.0) -> SiteState:
    """Return the site after so many steps."""
    for _ in range(steps):
        state = physics.step(state, commands, dt_s)
    return state


def site_w(state: SiteState) -> float:
    """Return the power of all feeds. [W]"""
    return sum(feed.power_w for feed in state.feeds.values())


@pytest.fixture
def physics() -> Physics:
    """The default site."""
    return Physics(default_plan(), seed=1)


def test_the_same_seed_gives_the_same_site(physics: Physics) -> None:
    """Two runs agree to the last bit; another seed does not."""
    one, two = (run(p, p.start(), p.no_commands(), 300) for p in (physics, Physics(default_plan(), seed=1)))
    other = Physics(default_plan(), seed=2)
    assert one.feeds == two.feeds
    assert (one.halls["hall-a"].power_w == two.halls["hall-a"].power_w).all()
    assert run(other, other.start(), other.no_commands(), 300).feeds != one.feeds


def test_a_step_changes_nothing_that_was_handed_in(physics: Physics) -> None:
    """The step is a function: the state before it can be stepped again to the same result."""
    state = run(physics, physics.start(), physics.no_commands(), 50)
    first, again = physics.step(state, physics.no_commands(), 0.1), physics.step(state, physics.no_commands(), 0.1)
    assert first.feeds == again.feeds


def test_the_meter_is_the_sum_of_its_feed(physics: Physics) -> None:
    """Halls, racks, cooling and storage less PV are what the meter sees."""
    commands = replace(physics.no_commands(), storage={n: StorageCommand(-30e3, 0.1) for n in ("ups-a", "bess-b")})
    state = run(physics, physics.start(), commands, 100)
    a, b = state.feeds["main-a"], state.feeds["main-b"]
    assert a.power_w == pytest.approx(state.halls["hall-a"].total_w + a.racks_w + a.cooling_w - 30e3)
    sun_w = state.pv["pv-b"].output_w
    assert b.power_w == pytest.approx(state.halls["hall-b"].total_w + b.racks_w + b.cooling_w - 30e3 - sun_w)


def test_a_quarter_of_the_site_needs_storage_and_compute(physics: Physics) -> None:
    """Neither all storage nor any one tier is enough for 25 %, together they are."""
    base_w = site_w(physics.start())
    assert 0.9e6 < base_w < 1.1e6
    plan = physics.plan
    stored_w = sum(spec.max_discharge_w for _, spec in plan.storage.values())
    everything = StorageCommand(-1e9, 0.3)
    commands = replace(physics.no_commands(), storage=dict.fromkeys(plan.storage, everything))
    only_storage = run(physics, physics.start(), commands, 60)
    assert stored_w < 0.25 * base_w
    assert base_w - site_w(only_storage) < 0.25 * base_w
    halls = {}
    for name, hall in physics.halls.items():
        jobs = physics.start().halls[name].job
        flexible = frozenset(int(j) for j, s in zip(jobs, hall.spec.slots, strict=True) if s.tier >= 2)
        halls[name] = replace(hall.no_commands(), paused=flexible)
    both = run(physics, physics.start(), replace(commands, halls=halls), 60)
    assert base_w - site_w(both) > 0.30 * base_w


def test_storage_holds_a_quarter_for_minutes_above_its_reserve(physics: Physics) -> None:
    """Ten minutes of full discharge leave both units above their reserve."""
    commands = replace(
        physics.no_commands(), storage={"ups-a": StorageCommand(-1e9, 0.3), "bess-b": StorageCommand(-1e9, 0.1)}
    )
    state = run(physics, physics.start(), commands, 600)
    assert state.storage["ups-a"].power_w == -100e3
    assert state.storage["ups-a"].soc_frac > 0.3
    assert state.storage["bess-b"].soc_frac > 0.1


def test_cooling_follows_by_minutes(physics: Physics) -> None:
    """A cut of IT power is seen in the cooling late: a fifth of it after a minute, nearly all after twenty."""
    caps = {name: replace(h.no_commands(), cap_w=np.full(32, 4400.0)) for name, h in physics.halls.items()}
    commands = replace(physics.no_commands(), halls=caps)
    before_w = physics.start().feeds["main-a"].cooling_w
    minute = run(physics, physics.start(), commands, 60)
    settled = run(physics, minute, commands, 1140)
    whole_w = 0.15 * (physics.start().halls["hall-a"].total_w - minute.halls["hall-a"].total_w)
    assert before_w - minute.feeds["main-a"].cooling_w == pytest.approx(0.18 * whole_w, rel=0.15)
    assert before_w - settled.feeds["main-a"].cooling_w == pytest.approx(whole_w, rel=0.1)


def test_plant_time_runs_apart_from_wall_time(physics: Physics) -> None:
    """Ten times faster, a second moves ten seconds of energy and work, but ramps stay what they are."""
    commands = replace(physics.no_commands(), storage={n: StorageCommand(-100e3, 0.1) for n in ("ups-a", "bess-b")})
    slow, fast = physics.step(physics.start(), commands, 1.0), physics.step(physics.start(), commands, 1.0, 10.0)
    assert fast.storage == {
        n: replace(s, soc_frac=fast.storage[n].soc_frac, discharged_wh=fast.storage[n].discharged_wh)
        for n, s in slow.storage.items()
    }
    assert fast.storage["bess-b"].discharged_wh == pytest.approx(10.0 * slow.storage["bess-b"].discharged_wh)
    gain = [s.halls["hall-a"].work_gpu_s - physics.start().halls["hall-a"].work_gpu_s for s in (slow, fast)]
    assert gain[1] == pytest.approx(10.0 * gain[0])


def test_noise_is_small_and_the_sun_moves(physics: Physics) -> None:
    """Half an hour of the feed without PV stays within 2 %, the PV plant wanders by more."""
    state, a_w, sun_w = physics.start(), [], []
    for _ in range(1800):
        state = physics.step(state, physics.no_commands(), 1.0)
        a_w.append(state.feeds["main-a"].power_w)
        sun_w.append(state.pv["pv-b"].output_w)
    assert max(a_w) - min(a_w) < 0.02 * max(a_w)
    assert max(sun_w) - min(sun_w) > 20e3
    assert max(np.abs(np.diff(sun_w))) < 15e3


def test_pv_stays_under_its_limit(physics: Physics) -> None:
    """A limited plant gives no more than its limit within seconds."""
    state = run(physics, physics.start(), replace(physics.no_commands(), pv_limit_w={"pv-b": 40e3}), 10)
    assert state.pv["pv-b"].output_w <= 40e3 * 1.001
    assert state.pv["pv-b"].available_w > 60e3
