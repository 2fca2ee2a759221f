"""What a plant does becomes means on a fixed grid, and nothing that was not measured becomes a number."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.planning.rig import Recording, step
from vppd.core.cycle import decide
from vppd.core.state import State
from vppd.ledger.history import open_history
from vppd.model import OrderKind
from vppd.planning.forecasts.recorder import Recorder
from vppd.snapshot import Health, Readings, Snapshot

STEP = 30
"""Cycles of a 5-minute step."""


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """A plant that has not run yet."""
    return Recording(tmp_path / "history.db")


async def test_all_series_of_a_plant_are_recorded(recording: Recording) -> None:
    """Feeds, generators, clusters and their tiers each get a series, with the sign that each has."""
    recording.world.available_w[recording.world.index("pv-b")] = -80e3
    recorder = await recording.run(2 * STEP + 2)
    assert recorder.names == (
        "load/main-a", "load/main-b", "generation/pv-b", "compute/hall-a", "compute/hall-b",
        *(f"compute/hall-a/tier{k}" for k in range(4)), *(f"compute/hall-b/tier{k}" for k in range(4)),
    )  # fmt: skip
    assert recording.means("load/main-a", 2)[1] == pytest.approx(150e3, rel=1e-3)
    assert recording.means("generation/pv-b", 2)[1] == pytest.approx(80e3)
    assert recording.means("compute/hall-a", 2)[1] == pytest.approx(300e3)
    assert recording.means("compute/hall-a/tier2", 2)[1] == pytest.approx(72e3)
    assert recording.means("compute/hall-a/tier0", 2)[1] == 0.0


async def test_means_are_weighted_by_time(recording: Recording) -> None:
    """A value counts for as long as it stood, however many cycles that were."""
    world, hall = recording.world, recording.world.index("hall-a")
    async with open_history(recording.path) as history:
        recorder = Recorder(world.plant, history)
        recorder.take(*recording.cycle())  # at 10 s
        world.available_w[hall] = 100e3
        for _ in range(9):
            recorder.take(*recording.cycle())  # until 100 s
        world.available_w[hall] = 200e3
        for _ in range(5):
            recording.pause(30.0)
            recorder.take(*recording.cycle())  # every 40 s, until 300 s
        recorder.take(*recording.cycle())
    expected_w = (90.0 * 100e3 + 200.0 * 200e3) / 290.0
    assert recording.means("compute/hall-a", 1) == pytest.approx([expected_w])


async def test_a_cycle_across_the_edge_is_shared(recording: Recording) -> None:
    """Time before the edge goes to the old step, time after it to the new one."""
    world, hall = recording.world, recording.world.index("hall-a")
    recording.pause(6.0)
    async with open_history(recording.path) as history:
        recorder = Recorder(world.plant, history)
        world.available_w[hall] = 100e3
        for _ in range(29):
            recorder.take(*recording.cycle())  # until 296 s
        world.available_w[hall] = 390e3
        for _ in range(30):
            recorder.take(*recording.cycle())  # 4 s of the first belong to the first step
        world.available_w[hall] = 0.0
        recorder.take(*recording.cycle())
    first_w = (280.0 * 100e3 + 4.0 * 390e3) / 284.0
    assert recording.means("compute/hall-a", 2) == pytest.approx([first_w, (296.0 * 390e3) / 300.0], rel=1e-9)


async def test_held_back_power_is_not_what_would_have_been(recording: Recording) -> None:
    """A cluster under an order is recorded with what it would have drawn, and a PV plant with what it could have given."""
    world = recording.world
    world.available_w[world.index("pv-b")] = -100e3
    world.order(OrderKind.LIMIT, "hall-a", 230e3, for_s=None)
    world.order(OrderKind.LIMIT, "pv-b", -40e3, for_s=None)
    await recording.run(3 * STEP)
    assert world.power_w[world.index("hall-a")] < 240e3
    assert recording.means("compute/hall-a", 3)[1] == pytest.approx(300e3)
    assert recording.means("generation/pv-b", 3)[1] == pytest.approx(100e3)


async def test_what_is_held_and_says_nothing_is_missing(recording: Recording) -> None:
    """Without the device's word nobody knows what a held cluster or PV plant would do: no number is better than a wrong one."""
    world = recording.world
    hall, pv = world.index("hall-a"), world.index("pv-b")
    world.available_w[pv] = -100e3
    async with open_history(recording.path) as history:
        recorder = Recorder(world.plant, history)
        for cycle in range(4 * STEP):
            snapshot, decision = recording.cycle()
            r = snapshot.readings
            r.available_w[[hall, pv]] = np.nan
            if cycle >= 2 * STEP:
                r.setpoint_w[[hall, pv]] = r.power_w[hall], r.power_w[pv]
            elif cycle >= STEP:
                r.setpoint_w[pv] = -140e3  # a ceiling far above holds nothing
            recorder.take(snapshot, decision)
    assert np.isfinite(recording.means("compute/hall-a", 4)).tolist() == [True, True, False, False]
    assert np.isfinite(recording.means("generation/pv-b", 4)).tolist() == [True, True, False, False]


async def test_stale_and_implausible_values_do_not_count(recording: Recording) -> None:
    """A meter that falls silent leaves a hole; a power beyond reason is not believed."""
    world = recording.world
    await recording.run(STEP + 1)
    world.silent = {"poi-a"}
    await recording.run(STEP + 1)
    world.silent = set()
    world.available_w[world.index("hall-b")] = 5e6
    await recording.run(2 * STEP)
    assert np.isfinite(recording.means("load/main-a", 4)).tolist() == [True, False, True, True]
    assert np.isnan(recording.means("compute/hall-b", 4)[2:]).all()


async def test_what_is_only_watched_is_not_counted_twice(recording: Recording) -> None:
    """PV that nobody steers is in the remainder behind the meter: it is taken out, because it has a series of its own."""
    config = recording.world.config
    assets = tuple(a.model_copy(update={"control": a.id != "pv-b"}) for a in config.assets)
    watched = Recording(recording.path, type(recording.world)(config.model_copy(update={"assets": assets})))
    world, pv = watched.world, watched.world.index("pv-b")
    world.power_w[pv] = world.available_w[pv] = world.readings.power_w[pv] = -60e3
    await watched.run(2 * STEP)
    assert world.meter_w("main-b") == pytest.approx(150e3 + 300e3 - 60e3, rel=1e-6)
    assert watched.means("load/main-b", 2)[1] == pytest.approx(150e3, rel=1e-3)
    assert watched.means("generation/pv-b", 2)[1] == pytest.approx(60e3)


@pytest.mark.parametrize(("last_w", "known"), [(-1e3, True), (-90e3, False)])
async def test_a_sleeping_inverter_gives_nothing_and_a_lost_one_is_unknown(
    recording: Recording, last_w: float, known: bool
) -> None:
    """One that fell silent at dusk counts as 0; one lost at noon leaves holes, also in the load that it is mixed with."""
    world, pv = recording.world, recording.world.index("pv-b")
    world.available_w[pv] = world.power_w[pv] = last_w
    async with open_history(recording.path) as history:
        recorder = Recorder(world.plant, history)
        for _ in range(STEP):
            recorder.take(*recording.cycle())
        world.silent, world.power_w[pv] = {"pv-b"}, last_w
        for _ in range(3 * STEP):
            recorder.take(*recording.cycle())
    generation, load = recording.means("generation/pv-b", 3)[2], recording.means("load/main-b", 3)[2]
    assert [np.isfinite(generation), np.isfinite(load)] == [known, known]
    if known:
        assert generation == 0.0
        assert load == pytest.approx(150e3, abs=1.5e3)


async def test_a_restart_loses_no_more_than_its_step(recording: Recording) -> None:
    """Steps on both sides are there; the one in the middle counts when half of it was seen by one of the two."""
    await recording.run(STEP + STEP // 4)
    recording.pause(60.0)
    await recording.run(2 * STEP)
    assert np.isfinite(recording.means("load/main-a", 4)).tolist() == [True, True, True, False]
    await recording.run(4)
    assert np.isfinite(recording.means("load/main-a", 5)).tolist() == [True, True, True, False, False]


async def test_less_than_half_a_step_is_not_measured(recording: Recording) -> None:
    """A minute and a half does not stand for five."""
    recording.pause(210.0)
    await recording.run(STEP + 10)
    assert np.isfinite(recording.means("load/main-a", 2)).tolist() == [False, True]


async def test_a_gap_is_not_filled(recording: Recording) -> None:
    """After a pause the value stands for a few beats at most, and the steps in between are missing."""
    await recording.run(0)
    async with open_history(recording.path) as history:
        recorder = Recorder(recording.world.plant, history)
        for _ in range(STEP):
            recorder.take(*recording.cycle())
        recording.pause(700.0)
        for _ in range(STEP + 5):
            recorder.take(*recording.cycle())
    assert np.isfinite(recording.means("load/main-a", 5)).tolist() == [True, False, False, True, False]


async def test_a_clock_set_back_does_not_spoil_what_was_recorded(recording: Recording) -> None:
    """The steps that come twice are measured anew, and no sum is carried into another step."""
    async with open_history(recording.path) as history:
        recorder = Recorder(recording.world.plant, history)
        for _ in range(2 * STEP + 10):
            recorder.take(*recording.cycle())
        recording.world.at -= timedelta(seconds=400.0)
        recording.world.available_w[recording.world.index("hall-a")] = 200e3
        for _ in range(2 * STEP):
            recorder.take(*recording.cycle())
    assert recording.means("compute/hall-a", 3) == pytest.approx([300e3, 200e3, 200e3], rel=0.02)


async def test_prices_are_recorded_beside_what_is_measured(recording: Recording) -> None:
    """What a feed says of the middle of a step is kept as the truth of that step."""
    asked: list[datetime] = []

    def quotes(at: datetime) -> dict[str, float]:
        asked.append(at)
        return {"price/import": 8e-5 + 1e-5 * len(asked)}

    recording.quotes = quotes
    await recording.run(2 * STEP + 1)
    assert asked == [step(0) + timedelta(seconds=150), step(1) + timedelta(seconds=150)]
    assert recording.means("price/import", 2) == pytest.approx([9e-5, 1e-4])


async def test_the_present_is_the_mean_so_far(recording: Recording) -> None:
    """At once there is the first value, then the mean of the step under way; what is unknown is not there."""
    world, hall = recording.world, recording.world.index("hall-a")
    async with open_history(recording.path) as history:
        recorder = Recorder(world.plant, history)
        assert not recorder.present()
        assert not recorder.heard.is_set()
        world.silent = {"hall-b"}
        recorder.take(*recording.cycle())
        assert recorder.heard.is_set()
        assert recorder.present()["compute/hall-a"] == pytest.approx(300e3)
        assert "compute/hall-b" not in recorder.present()
        world.available_w[hall] = 100e3
        recorder.take(*recording.cycle())
        world.available_w[hall] = 200e3
        recorder.take(*recording.cycle())
        assert recorder.present()["compute/hall-a"] == pytest.approx(150e3)


async def test_recording_a_thousand_assets_is_cheap(recording: Recording) -> None:
    """A cycle of a large plant spends well under a millisecond here; the bound leaves room for a busy machine."""
    config = recording.world.config
    halls = tuple(config.assets[-1].model_copy(update={"id": f"hall-{k}"}) for k in range(1_000))
    large = type(recording.world)(config.model_copy(update={"assets": (*config.assets[:5], *halls)})).plant
    readings = Readings.blank(len(large.asset_ids))
    readings.mono_s[:], readings.power_w[:], readings.available_w[:] = 0.0, 100e3, 120e3
    first = Snapshot(step(0), 0.0, readings, health=Health(ready=True))
    decision = decide(first, State.first(large), large)
    async with open_history(recording.path) as history:
        recorder = Recorder(large, history)
        began_s = time.perf_counter()
        for k in range(100):
            readings.mono_s[:] = k * 2.9
            recorder.take(replace(first, at=step(0) + timedelta(seconds=k * 2.9), mono_s=k * 2.9), decision)
        assert (time.perf_counter() - began_s) / 100 < 5e-3
        assert len(recorder.present()) == 5_003
