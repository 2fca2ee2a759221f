"""What reports say of a plant in a table: what was measured, what could be done, what is foreseen, and what is not known."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from vppd.core.forecast.outlook import Outlook
from vppd.core.forecast.quantiles import Forecast, Score
from vppd.core.timetable import Timetable
from vppd.grid.openadr3.figures import MOST_PLACES, SiteFigures
from vppd.grid.openadr3.past import KEPT_S, SLACK_S, STEP_S, Past
from vppd.model import Interval, OrderKind
from vppd.snapshot import Health, Snapshot
from vppd.testing.cycles import START, World

MINUTE = timedelta(minutes=1)
LOAD_W = 2 * 150e3 + 2 * 300e3
"""What the two feeds draw while nobody asks anything. [W]"""


class Watched:
    """A world whose decisions the figures take."""

    def __init__(
        self, outlooks: dict[str, Outlook] | None = None, path: Path | None = None, table: Timetable | None = None
    ) -> None:
        self.world = World()
        self.table = table
        self.figures = SiteFigures(
            self.world.plant, lambda: self.world.at, lambda: outlooks or {}, path, lambda: self.table
        )

    def run(self, for_s: int) -> None:
        """Let so many cycles of a second pass."""
        w = self.world
        for _ in range(for_s):
            decision = w.step()
            self.figures.take(Snapshot(w.at, w.mono_s, w.readings.copy(), tuple(w.orders), (), w.health), decision)

    def told(self, kind: str, start: datetime, length: timedelta = MINUTE, name: str = "dc1") -> float | str | None:
        """Return what is said of a place and a time."""
        return self.figures(kind, name, Interval(start, start + length))

    def power(self, kind: str, start: datetime, length: timedelta = MINUTE, name: str = "dc1") -> float:
        """Return a number that is said of a place and a time."""
        found = self.told(kind, start, length, name)
        assert isinstance(found, float), found
        return found


def test_what_was_drawn_and_what_would_have_been() -> None:
    """Under a limit demand is the limit, its energy is the usage, and the baseline is what would have been drawn without us."""
    watched = Watched()
    watched.run(60)
    start = watched.world.at
    watched.world.order(OrderKind.LIMIT, "dc1", 800e3, for_s=None)
    watched.run(180)
    assert watched.power("DEMAND", START) == pytest.approx(LOAD_W, rel=0.01)
    held = start + MINUTE
    assert watched.power("DEMAND", held) == pytest.approx(800e3, rel=0.02)
    assert watched.power("USAGE", held) == pytest.approx(800e3 / 60.0, rel=0.02)
    assert watched.power("BASELINE", held) == pytest.approx(LOAD_W, rel=0.01)
    assert (watched.told("OPERATING_STATE", START), watched.told("OPERATING_STATE", held)) == (
        "NORMAL",
        "RUNNING_CURTAILED",
    )


def test_what_was_not_measured_is_not_known() -> None:
    """Before the first decision, over a gap, and after what is kept there is no figure, and never a 0."""
    watched = Watched()
    watched.run(30)
    watched.world.at += 10 * MINUTE
    watched.run(120)
    kinds = ("DEMAND", "USAGE", "BASELINE", "LOAD_SHED_DELTA_AVAILABLE")
    assert [watched.told(kind, START - 2 * MINUTE) for kind in kinds] == [None] * 4
    assert [watched.told(kind, START, 10 * MINUTE) for kind in kinds] == [None] * 4
    assert watched.told("STORAGE_CHARGE_LEVEL", START + 5 * MINUTE) is None
    assert watched.told("OPERATING_STATE", START + 5 * MINUTE) is None
    assert watched.told("DEMAND", START + 11 * MINUTE) is not None


def test_short_intervals() -> None:
    """An interval shorter than a step has the figure of the step it lies in."""
    watched = Watched()
    watched.run(60)
    assert watched.power("DEMAND", START + timedelta(seconds=22), timedelta(seconds=2)) == pytest.approx(
        LOAD_W, rel=0.01
    )


def test_storage_above_its_reserve() -> None:
    """Level times usable capacity is what could be given without touching the reserve; powers are what can be sustained."""
    watched = Watched()
    watched.run(60)
    usable_wh = 0.7 * 100e3 + 0.9 * 500e3
    assert watched.power("STORAGE_USABLE_CAPACITY", START) == pytest.approx(usable_wh)
    stored_wh = (0.9 - 0.3) * 100e3 + (0.9 - 0.1) * 500e3
    assert watched.power("STORAGE_CHARGE_LEVEL", START) == pytest.approx(stored_wh / usable_wh, rel=0.01)
    assert 0.0 < watched.power("STORAGE_MAX_DISCHARGE_POWER", START) <= 450e3
    assert 0.0 < watched.power("STORAGE_MAX_CHARGE_POWER", START) <= 350e3


def test_what_can_be_shed_now_is_taken_to_last_for_a_while() -> None:
    """Without forecasts the next hour is told as the present, what comes later is not known, and longer means less from storage."""
    watched = Watched()
    watched.run(60)
    now = watched.world.at
    near = watched.power("LOAD_SHED_DELTA_AVAILABLE", now + 30 * MINUTE, 15 * MINUTE)
    assert near == pytest.approx(watched.power("LOAD_SHED_DELTA_AVAILABLE", START), rel=0.01)
    assert 0.0 < watched.power("LOAD_SHED_DELTA_AVAILABLE", now, 240 * MINUTE) < near
    assert watched.told("LOAD_SHED_DELTA_AVAILABLE", now + 90 * MINUTE, 15 * MINUTE) is None
    assert watched.told("DEMAND", now + 30 * MINUTE) is None


def test_an_interval_that_is_nearly_over_is_still_foreseen() -> None:
    """What is told of a short interval under way is what is available, however little of it is left; once it is over, what was measured."""
    watched = Watched()
    watched.run(22)
    start, length = watched.world.at - timedelta(seconds=4), timedelta(seconds=6)
    assert watched.power("LOAD_SHED_DELTA_AVAILABLE", start, length) > 0.0
    assert watched.told("DEMAND", start, length) is None
    watched.run(10)
    assert watched.power("DEMAND", start, length) == pytest.approx(LOAD_W, rel=0.01)


def outlook(name: str, low_w: float, median_w: float) -> Outlook:
    """Return a forecast that is the same for a day. [W]"""
    values = np.array([[low_w] * 96, [median_w] * 96])
    found = Forecast("test", 900.0, (0.1, 0.5), values, Score(0.0, np.zeros(2), 0), np.zeros((0, 96)))
    return Outlook(name, "test", START, START, found)


def test_forecasts_are_told_where_there_are_some() -> None:
    """What is to come is the sum of the forecasts; what can be shed is what clusters surely have; with one missing, nothing."""
    names = {"load/main-a": 150e3, "load/main-b": 150e3, "compute/hall-a": 300e3, "compute/hall-b": 300e3}
    known = {name: outlook(name, 0.0, power_w) for name, power_w in names.items()}
    known |= {f"compute/{hall}/tier{k}": outlook("", 10e3 * k, 90e3) for hall in ("hall-a", "hall-b") for k in range(4)}
    known["generation/pv-b"] = outlook("generation/pv-b", 0.0, 40e3)
    watched = Watched(known)
    watched.run(30)
    later = START + 300 * MINUTE
    assert watched.power("BASELINE", later, 15 * MINUTE) == pytest.approx(LOAD_W - 40e3)
    assert watched.power("USAGE", later, 15 * MINUTE) == pytest.approx((LOAD_W - 40e3) / 4.0)
    shed_w = watched.power("LOAD_SHED_DELTA_AVAILABLE", later, 15 * MINUTE)
    now_w = watched.power("STORAGE_MAX_DISCHARGE_POWER", START, timedelta(seconds=25))
    assert shed_w == pytest.approx(2 * (10e3 + 20e3 + 30e3) + now_w, rel=0.01)
    del known["load/main-a"]
    assert watched.told("BASELINE", later, 15 * MINUTE) is None


def test_memory_is_bounded() -> None:
    """Steps older than a day and a little are let go."""
    watched = Watched()
    watched.run(2)
    snapshot = Snapshot(
        watched.world.at, watched.world.mono_s, watched.world.readings.copy(), health=Health(ready=True)
    )
    decision, steps = watched.world.history[-1], int(KEPT_S / 60.0) + 200
    for k in range(steps):
        at = START + k * MINUTE
        watched.figures.take(Snapshot(at, snapshot.mono_s, snapshot.readings, health=snapshot.health), decision)
    watched.world.at = START + steps * MINUTE
    assert watched.told("DEMAND", START, timedelta(seconds=STEP_S)) is None
    assert watched.told("DEMAND", START + (steps - 60) * MINUTE, timedelta(seconds=STEP_S)) is not None


def test_a_restart_leaves_no_hole(tmp_path: Path) -> None:
    """What was measured before is known to the next process; the step in which the old one ended is not counted twice."""
    first = Watched(path=tmp_path)
    first.run(60)
    second = Watched()
    second.world.at, second.world.mono_s = first.world.at, first.world.mono_s
    second.figures = SiteFigures(second.world.plant, lambda: second.world.at, dict, tmp_path)
    second.run(60)
    for kind in ("DEMAND", "BASELINE", "LOAD_SHED_DELTA_AVAILABLE"):
        assert second.power(kind, START, 2 * MINUTE) == pytest.approx(first.power(kind, START), rel=0.01)
    assert second.power("STORAGE_CHARGE_LEVEL", START) == first.power("STORAGE_CHARGE_LEVEL", START)
    assert second.told("OPERATING_STATE", START) == "NORMAL"


def test_a_damaged_trail_is_no_harm(tmp_path: Path) -> None:
    """A record cut short, nonsense, and a file that cannot be written leave what is good, and never raise."""
    first = Watched(path=tmp_path)
    first.run(60)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole + b"\xff" * 100)
    again = SiteFigures(first.world.plant, lambda: first.world.at, dict, tmp_path)
    assert again("DEMAND", "dc1", Interval(START, START + MINUTE)) == first.power("DEMAND", START)
    path.write_bytes(b"nonsense" * 40)
    again = SiteFigures(first.world.plant, lambda: first.world.at, dict, tmp_path)
    assert again("DEMAND", "dc1", Interval(START, START + MINUTE)) is None
    nowhere = Watched(path=tmp_path / "missing")
    nowhere.run(30)
    assert nowhere.told("DEMAND", START, timedelta(seconds=20)) is not None


def test_feeds_and_assets_for_themselves() -> None:
    """Feeds add up to the site; an asset is what it draws; a place that nobody asked about is not known."""
    watched = Watched()
    places = ("main-a", "main-b", "bess-b", "hall-a", "pv-b", "poi-a")
    watched.figures.watch(places)
    watched.run(60)
    watched.world.order(OrderKind.LIMIT, "main-b", 300e3, for_s=None)
    start = watched.world.at + MINUTE
    watched.run(180)

    def said(kind: str, *names: str) -> list[float]:
        return [watched.power(kind, start, name=name) for name in names]

    assert said("DEMAND", "main-b") == [pytest.approx(300e3, rel=0.02)]
    for kind in ("DEMAND", "BASELINE", "USAGE"):
        assert sum(said(kind, "main-a", "main-b")) == pytest.approx(said(kind, "dc1")[0], rel=1e-3)
    assert said("DEMAND", "hall-a", "poi-a") == pytest.approx([300e3, 450e3], rel=0.02)
    assert said("BASELINE", "bess-b") == [0.0]
    assert said("DEMAND", "bess-b")[0] < 0.0
    assert watched.told("STORAGE_CHARGE_LEVEL", start, name="hall-a") is None
    assert watched.told("DEMAND", start, name="ups-a") is None
    states = [watched.told("OPERATING_STATE", start, name=name) for name in ("dc1", "main-a", "main-b", "bess-b")]
    assert states == ["RUNNING_CURTAILED", "NORMAL", "RUNNING_CURTAILED", "RUNNING_CURTAILED"]


def test_what_stores_of_a_feed_have_is_not_the_sites() -> None:
    """Usable capacity and level are those of the storage of the place, and weigh up to the site's."""
    watched = Watched()
    watched.figures.watch(("main-a", "main-b", "ups-a"))
    watched.run(65)
    size = {
        name: watched.power("STORAGE_USABLE_CAPACITY", START, name=name)
        for name in ("dc1", "main-a", "main-b", "ups-a")
    }
    assert size == pytest.approx({"dc1": 520e3, "main-a": 70e3, "main-b": 450e3, "ups-a": 70e3})
    level = {name: watched.power("STORAGE_CHARGE_LEVEL", START, name=name) for name in size}
    together = (level["main-a"] * size["main-a"] + level["main-b"] * size["main-b"]) / size["dc1"]
    assert level["dc1"] == pytest.approx(together)


def test_generation_and_what_answers_at_once() -> None:
    """Generation is what PV could give; regulation is what storage and inverters could move either way, and no cluster."""
    watched = Watched()
    pv = watched.world.index("pv-b")
    watched.world.available_w[pv] = watched.world.power_w[pv] = -80e3
    watched.figures.watch(("main-b", "pv-b", "hall-a"))
    watched.run(60)
    later = START + timedelta(seconds=30)
    for name in ("dc1", "main-b", "pv-b"):
        assert watched.power("GENERATION_DELTA_AVAILABLE", later, timedelta(seconds=20), name) == pytest.approx(80e3)
    up_w = watched.power("UP_REGULATION_AVAILABLE", later, timedelta(seconds=20))
    down_w = watched.power("DOWN_REGULATION_AVAILABLE", later, timedelta(seconds=20))
    discharge_w = watched.power("STORAGE_MAX_DISCHARGE_POWER", later, timedelta(seconds=20))
    charge_w = watched.power("STORAGE_MAX_CHARGE_POWER", later, timedelta(seconds=20))
    assert up_w + down_w == pytest.approx(discharge_w + charge_w + 80e3, rel=0.01)
    assert watched.told("UP_REGULATION_AVAILABLE", later, timedelta(seconds=20), "hall-a") is None


def timetable(world: World, powers_w: dict[str, list[float]], energies_wh: dict[str, list[float]]) -> Timetable:
    """Return a plan of four hours from the start for some assets."""
    ids = world.plant.asset_ids
    power_w, energy_wh = np.full((len(ids), 4), np.nan), np.full((len(ids), 4), np.nan)
    for rows, said in ((power_w, powers_w), (energy_wh, energies_wh)):
        for name, values in said.items():
            rows[ids.index(name)] = values
    blank = np.full(4, np.nan)
    return Timetable(START, START, 3600.0, "optimal", ids, power_w, energy_wh, blank, blank, 0.0)


def test_the_plan_shapes_what_is_foreseen() -> None:
    """With a plan demand follows it, and what storage can give or take in an hour is what it will have by then, not what it has now."""
    names = {
        "load/main-a": 150e3,
        "load/main-b": 150e3,
        "compute/hall-a": 300e3,
        "compute/hall-b": 300e3,
        "generation/pv-b": 0.0,
    }
    known = {name: outlook(name, 0.0, power_w) for name, power_w in names.items()}
    known |= {f"compute/{hall}/tier{k}": outlook("", 20e3, 90e3) for hall in ("hall-a", "hall-b") for k in range(4)}
    watched = Watched(known)
    powers_w = {"ups-a": [0.0] * 4, "bess-b": [100e3, -200e3, -200e3, 0.0], "hall-b": [300e3, 300e3, 300e3, 250e3]}
    energies_wh = {"ups-a": [90e3] * 4, "bess-b": [450e3, 250e3, 55e3, 55e3]}
    watched.table = timetable(watched.world, powers_w, energies_wh)
    watched.figures.watch(("main-b", "bess-b", "hall-b"))
    watched.run(10)
    hour = timedelta(hours=1)
    starts = [START + k * hour for k in range(1, 4)]
    assert [watched.power("DEMAND", at, hour) for at in starts] == pytest.approx([700e3, 700e3, 850e3])
    assert [watched.power("BASELINE", at, hour) for at in starts] == pytest.approx([900e3] * 3)
    for kind in ("USAGE", "USAGE_FORECAST"):
        assert [watched.power(kind, at, hour, "main-b") for at in starts] == pytest.approx([250e3, 250e3, 400e3])
    assert [watched.power("DEMAND", at, hour, "bess-b") for at in starts] == pytest.approx([-200e3, -200e3, 0.0])
    levels = [watched.power("STORAGE_CHARGE_LEVEL", at, hour, "bess-b") for at in starts]
    assert levels == pytest.approx([200e3 / 450e3, 5e3 / 450e3, 5e3 / 450e3])
    shed = [watched.power("LOAD_SHED_DELTA_AVAILABLE", at, hour, "main-b") for at in starts]
    assert shed[1] == pytest.approx(60e3)  # the tiers of the hall; storage is planned to give all that it has
    assert shed[2] == pytest.approx(10e3, abs=1.0)  # 50 kW of the hall are held back by the plan, and storage is empty
    up = [watched.power("UP_REGULATION_AVAILABLE", at, hour, "bess-b") for at in starts]
    down = [watched.power("DOWN_REGULATION_AVAILABLE", at, hour, "bess-b") for at in starts]
    assert up == pytest.approx([0.0, 0.0, 0.0], abs=1.0)
    room_w = 50e3 / float(watched.world.plant.efficiency_frac[watched.world.index("bess-b")])
    assert down == pytest.approx([200e3 + room_w, 450e3, 250e3])
    assert watched.told("STORAGE_CHARGE_LEVEL", START + 5 * hour, hour) is None


def test_a_plant_of_other_assets_is_not_planned_by_this_plan() -> None:
    """A plan from before a change of the plant that lacks an asset says nothing of it, and nothing breaks."""
    watched = Watched()
    table = timetable(watched.world, {"bess-b": [0.0] * 4}, {"bess-b": [450e3] * 4})
    watched.table = replace(table, asset_ids=tuple(f"old-{name}" for name in table.asset_ids))
    watched.run(10)
    assert watched.told("STORAGE_CHARGE_LEVEL", START + 2 * 60 * MINUTE) is None


def test_not_more_places_than_there_is_room_for(tmp_path: Path) -> None:
    """Whoever asks about everything does not fill the memory; what is asked about no more is let go, its file stays."""
    watched = Watched(path=tmp_path)
    watched.figures.watch([f"{name}" for name in watched.world.plant.asset_ids] * MOST_PLACES)
    watched.run(20)
    assert watched.told("DEMAND", START, timedelta(seconds=10), "hall-a") is not None
    watched.figures.watch(())
    assert watched.told("DEMAND", START, timedelta(seconds=10), "hall-a") is None
    watched.figures.watch(("hall-a",))
    assert watched.told("DEMAND", START, timedelta(seconds=10), "hall-a") is not None


def test_the_file_is_bounded(tmp_path: Path) -> None:
    """What is forgotten in memory is forgotten on disk as well."""
    past, step = Past(tmp_path / "steps.bin", 0.0), {"DEMAND": 1.0}
    for k in range(400):
        past.add(k * 600.0, step, "NORMAL")
        past.tidy(k * 600.0)
    assert len((tmp_path / "steps.bin").read_bytes()) <= (KEPT_S + SLACK_S + 1200.0) / 600.0 * 100
    again = Past(tmp_path / "steps.bin", 400 * 600.0)
    assert again.mean("DEMAND", 399 * 600.0, 5.0) == 1.0
