"""What reports say of a plant in a table: what was measured, what could be done, what is foreseen, and what is not known."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from vppd.core.forecast.outlook import Outlook
from vppd.core.forecast.quantiles import Forecast, Score
from vppd.grid.openadr3_figures import KEPT_S, STEP_S, SiteFigures
from vppd.model import Interval, OrderKind
from vppd.snapshot import Health, Snapshot
from vppd.testing.cycles import START, World

MINUTE = timedelta(minutes=1)
LOAD_W = 2 * 150e3 + 2 * 300e3
"""What the two feeds draw while nobody asks anything. [W]"""


class Watched:
    """A world whose decisions the figures take."""

    def __init__(self, outlooks: dict[str, Outlook] | None = None, path: Path | None = None) -> None:
        self.world = World()
        self.figures = SiteFigures(self.world.plant, lambda: self.world.at, lambda: outlooks or {}, path)

    def run(self, for_s: int) -> None:
        """Let so many cycles of a second pass."""
        w = self.world
        for _ in range(for_s):
            decision = w.step()
            self.figures.take(Snapshot(w.at, w.mono_s, w.readings.copy(), tuple(w.orders), (), w.health), decision)

    def told(self, kind: str, start: datetime, length: timedelta = MINUTE) -> float | str | None:
        """Return what is said of a time."""
        return self.figures(kind, Interval(start, start + length))

    def power(self, kind: str, start: datetime, length: timedelta = MINUTE) -> float:
        """Return a number that is said of a time."""
        found = self.told(kind, start, length)
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
    path = tmp_path / "figures.bin"
    first = Watched(path=path)
    first.run(60)
    second = Watched()
    second.world.at, second.world.mono_s = first.world.at, first.world.mono_s
    second.figures = SiteFigures(second.world.plant, lambda: second.world.at, dict, path)
    second.run(60)
    for kind in ("DEMAND", "BASELINE", "LOAD_SHED_DELTA_AVAILABLE"):
        assert second.power(kind, START, 2 * MINUTE) == pytest.approx(first.power(kind, START), rel=0.01)
    assert second.power("STORAGE_CHARGE_LEVEL", START) == first.power("STORAGE_CHARGE_LEVEL", START)
    assert second.told("OPERATING_STATE", START) == "NORMAL"


def test_a_damaged_trail_is_no_harm(tmp_path: Path) -> None:
    """A record cut short, nonsense, and a file that cannot be written leave what is good, and never raise."""
    path = tmp_path / "figures.bin"
    first = Watched(path=path)
    first.run(60)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\xff" * 100)
    again = SiteFigures(first.world.plant, lambda: first.world.at, dict, path)
    assert again("DEMAND", Interval(START, START + MINUTE)) == first.power("DEMAND", START)
    path.write_bytes(b"nonsense" * 40)
    assert (
        SiteFigures(first.world.plant, lambda: first.world.at, dict, path)("DEMAND", Interval(START, START + MINUTE))
        is None
    )
    nowhere = Watched(path=tmp_path / "missing" / "figures.bin")
    nowhere.run(30)
    assert nowhere.told("DEMAND", START, timedelta(seconds=20)) is not None
