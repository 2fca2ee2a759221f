"""Meter and clusters that are read at different times: what is believed of the load behind them, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vppd.core.settled import LONGEST_HOLD_S
from vppd.core.state import Decision, State
from vppd.model import OrderKind
from vppd.runtime.record import Replay, decode, digest, encode, pack
from vppd.snapshot import Floats, Snapshot
from vppd.testing.cycles import World, two_feeds

JOB_W = 60e3
HELD_W = 180e3
UNHELD_W = 450e3
"""What the feed draws when nobody holds its hall. [W]"""
STEP_FRAC = 0.05
"""Part of a step of power that may pass for a moment. [0-1]"""
LATE = (
    {"hall-a": 1},
    {"hall-a": 2},
    {"poi-a": 1},
    {"poi-a": 2},
    {"poi-a": 1, "hall-a": 2},
)
"""How late meter and hall are. [cycles]"""


@dataclass
class Skewed(World):
    """A plant of which each asset is seen as it was some cycles ago, and stamped with that time."""

    late_cycles: dict[str, int] = field(default_factory=dict)
    """How old each asset's reading is; others are read now."""
    every_cycles: dict[str, int] = field(default_factory=dict)
    """How often an asset is asked; others in every cycle."""
    back_w: float = np.inf
    """By how much a hall rises in one cycle at most. [W]"""
    _seen: list[tuple[float, Floats, Floats]] = field(default_factory=list)

    def _measure(self) -> None:
        super()._measure()
        r = self.readings
        self._seen.append((self.mono_s - self.plant.cycle_s, r.power_w.copy(), r.available_w.copy()))
        newest = len(self._seen) - 1
        for i, name in enumerate(self.plant.asset_ids):
            late = self.late_cycles.get(name, 0) + (newest + i) % self.every_cycles.get(name, 1)
            at_s, power_w, available_w = self._seen[max(newest - late, 0)]
            r.power_w[i], r.available_w[i], r.mono_s[i] = power_w[i], available_w[i], at_s

    def _move(self, decision: Decision) -> None:
        before_w = self.power_w.copy()
        super()._move(decision)
        slow = ~self.plant.fast
        self.power_w[slow] = np.minimum(self.power_w[slow], before_w[slow] + self.back_w)

    @property
    def hall_w(self) -> float:
        """Return what hall-a draws. [W]"""
        return float(self.power_w[self.index("hall-a")])

    @hall_w.setter
    def hall_w(self, power_w: float) -> None:
        self.power_w[self.index("hall-a")] = power_w

    def budgets_w(self, cycles: int) -> list[float]:
        """Let cycles pass; return the setpoints of hall-a. [W]"""
        return [float(self.step().target_w[self.index("hall-a")]) for _ in range(cycles)]


def without_storage(late: dict[str, int], **how: object) -> Skewed:
    """Return a plant in which a feed has nothing but its hall to give."""
    config = two_feeds()
    kept = tuple(asset for asset in config.assets if asset.id not in ("ups-a", "bess-b"))
    return Skewed(config.model_copy(update={"assets": kept}), late_cycles=late, **how)  # type: ignore[arg-type]


def held_world(late: dict[str, int], **how: object) -> Skewed:
    """Return a plant whose hall-a stands at HELD_W and moves by the test alone."""
    world = without_storage(late, stuck={"hall-a", "hall-b"}, **how)
    world.hall_w = HELD_W
    world.step(20)
    return world


def limited(late: dict[str, int], **how: object) -> tuple[Skewed, float]:
    """Return such a plant under a limit, and the budget that leaves to its hall. [W]"""
    world = held_world(late, **how)
    world.order(OrderKind.LIMIT, "main-a", 340e3, for_s=None)
    return world, world.budgets_w(20)[-1]


@pytest.mark.parametrize("late", LATE)
def test_a_job_that_ends_does_not_raise_the_budget(late: dict[str, int]) -> None:
    """However meter and hall are read apart, a job that ends in an event is never taken for room to give back."""
    world, budget_w = limited(late)
    world.hall_w -= JOB_W
    world.available_w[world.index("hall-a")] -= JOB_W
    seen = world.budgets_w(20)
    assert max(seen) <= budget_w + STEP_FRAC * JOB_W
    assert seen[-1] == pytest.approx(budget_w, rel=0.01)


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("wait", range(8))
def test_a_reduction_counts_from_what_is_drawn_without_us(late: dict[str, int], wait: int) -> None:
    """A reduction that begins while jobs come back takes what the feed draws unheld for its baseline."""
    world = held_world(late)
    world.hall_w += JOB_W
    world.step(1)
    world.hall_w += JOB_W
    world.step(wait)
    world.order(OrderKind.REDUCE, "main-a", 50e3)
    world.step(1)
    assert world.state.progress["order-0"].baseline_w == pytest.approx(UNHELD_W, abs=2.0 * STEP_FRAC * JOB_W)


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("wait", range(4, 16, 3))
def test_a_reduction_right_after_an_event_is_delivered(late: dict[str, int], wait: int) -> None:
    """What is ordered while power is coming back by a ramp is what the meter shows against what is drawn unheld."""
    world = without_storage(late, cluster_delay_s=2.0, back_w=20e3)
    world.step(5)
    world.order(OrderKind.LIMIT, "main-a", 300e3, for_s=60)
    world.step(60 + wait)
    world.order(OrderKind.REDUCE, "main-a", 50e3)
    world.step(40)
    assert UNHELD_W - world.meter_w("main-a") == pytest.approx(50e3, abs=0.015 * UNHELD_W)
    assert UNHELD_W - world.meter_w("main-a") >= 50e3


@pytest.mark.parametrize("late", LATE)
def test_a_load_that_rises_is_believed_at_once(late: dict[str, int]) -> None:
    """More load than the hall's budget explains is taken off it in the very cycle in which the meter shows it."""
    world, budget_w = limited(late)
    world.base_w["main-a"] += 40e3
    lag = late.get("poi-a", 0)
    assert world.budgets_w(lag + 1)[-1] <= HELD_W - 40e3 + 2.0 * (budget_w - HELD_W)
    assert world.budgets_w(4)[-1] == pytest.approx(budget_w - 40e3, rel=0.01)


@pytest.mark.parametrize("late", LATE)
def test_a_load_that_falls_is_believed_when_it_stays(late: dict[str, int]) -> None:
    """Less inflexible load is given back once meter and hall have stood still for three cycles."""
    world, budget_w = limited(late)
    world.base_w["main-a"] -= 40e3
    lag = late.get("poi-a", 0)
    seen = world.budgets_w(lag + 3)
    assert max(seen[:-1]) <= budget_w + STEP_FRAC * JOB_W
    assert seen[-1] == pytest.approx(budget_w + 40e3, abs=1.0)


def test_a_baseline_is_never_above_what_the_meter_leaves_room_for() -> None:
    """Load that is gone at the meter is gone from a baseline at once."""
    world = held_world({"hall-a": 1})
    world.base_w["main-a"] -= 40e3
    world.order(OrderKind.REDUCE, "main-a", 50e3)
    world.step(1)
    assert world.state.progress["order-0"].baseline_w == pytest.approx(UNHELD_W - 40e3, abs=1.0)


@pytest.mark.parametrize("beat", range(5))
def test_a_hall_that_is_asked_seldom_does_not_raise_the_budget_either(beat: int) -> None:
    """With a reading of the hall every five seconds the meter shows a job's end seconds before: the budget waits for the hall."""
    world, budget_w = limited({}, every_cycles={"hall-a": 5})
    world.step(beat)
    world.hall_w -= JOB_W
    world.available_w[world.index("hall-a")] -= JOB_W
    assert max(world.budgets_w(20)) <= budget_w + STEP_FRAC * JOB_W
    world.base_w["main-a"] -= 40e3
    assert max(world.budgets_w(10)) == pytest.approx(budget_w + 40e3, rel=0.01)


def test_what_is_never_read_together_is_believed_in_the_end() -> None:
    """A meter that is asked so seldom that it never fits the hall's readings holds nothing up for ever."""
    world, budget_w = limited({"hall-a": 4})
    world.base_w["main-a"] -= 40e3
    assert world.budgets_w(int(LONGEST_HOLD_S) + 5)[-1] == pytest.approx(budget_w + 40e3, abs=1.0)


def test_power_that_swings_for_ever_holds_nothing_up_for_ever() -> None:
    """Behind a hall whose power swings by 20 kW from second to second a fall of the load is found within minutes."""
    world, _ = limited({"hall-a": 1})
    world.base_w["main-a"] -= 40e3
    for cycle in range(400):
        world.hall_w = HELD_W + 10e3 * (-1) ** (cycle // 2)
        world.step(1)
    assert world.history[-1].state.recent is not None
    assert world.history[-1].state.recent.base_w[1] == pytest.approx(110e3, abs=5e3)


@settings(max_examples=15, deadline=None)
@given(data=st.data(), late=st.sampled_from(LATE))
def test_steps_of_a_hall_never_pass_for_load(data: st.DataObject, late: dict[str, int]) -> None:
    """Whatever jobs do, an inflexible load that stands still is known to a small part of the latest step."""
    world = held_world(late)
    steps_w = data.draw(
        st.lists(st.sampled_from((0.0, 0.0, 0.0, HELD_W, 60e3, 120e3, 240e3)), min_size=30, max_size=60)
    )
    for power_w in steps_w:
        world.hall_w = power_w or world.hall_w
        recent = world.step(1).state.recent
        assert recent is not None
        assert recent.base_w[1] == pytest.approx(150e3, abs=0.1 * HELD_W)
    world.step(6)
    recent = world.history[-1].state.recent
    assert recent is not None
    assert recent.base_w[1] == pytest.approx(150e3, abs=1.0)


def test_a_plant_read_at_once_remembers_nothing() -> None:
    """Where all readings are of one moment nothing is kept of the cycles before."""
    assert World().step(5).state.recent is None


def test_a_restart_finds_the_load_again() -> None:
    """A process that starts while power moves knows the load once it has stood still."""
    world = held_world({"hall-a": 2})
    world.hall_w += JOB_W
    world.state = State.first(world.plant, world.state.progress)
    recent = world.step(6).state.recent
    assert recent is not None
    assert recent.base_w[1] == pytest.approx(150e3, abs=1.0)


def test_a_recorded_day_of_skewed_readings_replays() -> None:
    """What is remembered of the cycles before is recorded with the state and gives the same decisions again."""
    world = held_world({"hall-a": 1})
    replay = Replay()
    replay.feed("plant", pack(world.plant))
    replay.feed("state", pack(world.state))
    for cycle in range(30):
        world.hall_w = HELD_W + 20e3 * (cycle % 3)
        before = world.state
        decision = world.step(1)
        snapshot = Snapshot(
            world.at, world.mono_s, world.readings.copy(), tuple(world.orders), tuple(world.signals), world.health
        )
        replay.feed("cycle", pack(snapshot, digest(decision)))
        assert encode(decode(encode(before))) == encode(before)
    assert (replay.cycles, replay.differing) == (30, [])
    assert decode(encode(replace(world.state, recent=None))).recent is None
