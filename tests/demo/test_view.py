"""The view shows what is so, in a terminal and without one."""

from __future__ import annotations

import io

from rich.console import Console

from vppd.demo.acts import Line, Point, Result
from vppd.demo.chart import bins, chart
from vppd.demo.record import SITE, Record
from vppd.demo.room import Truth, Unit
from vppd.demo.view import Scene, line, picture, statement

STATE = {
    "assets": [
        {"id": "ups-a", "kind": "ups", "feed": "main-a", "power_w": -40e3, "setpoint_w": -40e3, "soc_frac": 0.71,
         "online": True, "severity": "none", "cause": "", "reason": "covers the gap"},
        {"id": "hall-a", "kind": "cluster", "feed": "main-a", "power_w": None, "setpoint_w": None, "soc_frac": None,
         "online": False, "severity": "isolate", "cause": "silent", "reason": ""},
        {"id": "hall-b", "kind": "cluster", "feed": "main-b", "power_w": 2e5, "setpoint_w": None, "soc_frac": None,
         "online": True, "severity": "warn", "cause": "warm", "reason": ""},
    ],
    "orders": [{"order_id": "0123456789", "kind": "limit", "resource": "main-a", "power_w": 4e5, "phase": "active"}],
    "causes": ["the clock is not synchronised"], "shortfall_w": {"main-b": 12e3},
}  # fmt: skip


def scene(*, target_w: float | None = 80e3) -> Scene:
    """Return a scene with a minute of history on two feeds."""
    record = Record(("main-a", "main-b"))
    if target_w is not None:
        record.targets_w["main-a"] = target_w
    for second in range(60):
        record.add(float(second), {"main-a": 100e3 - second * 500.0, "main-b": 50e3})
    return Scene(record, "vppd demo", said="act 1", state=STATE)


def rendered(thing: object) -> str:
    """Return what a terminal of 140 columns shows."""
    console = Console(file=io.StringIO(), width=140, force_terminal=False)
    console.print(thing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_picture_shows_everything() -> None:
    """Meters with targets, assets with power, charge and condition, orders and reasons are all there."""
    shown = rendered(picture(scene()))
    for word in ("act 1", "main-a  70 kW  target 80 kW", "ups-a", "-40 kW", "71%", "offline", "01234567", "active"):
        assert word in shown
    for word in ("covers the gap", "warn: warm", "the clock is not synchronised", "main-b cannot deliver 12 kW"):
        assert word in shown


def test_missing_is_a_dash_not_a_zero() -> None:
    """An asset without a reading shows a dash."""
    row = next(text for text in rendered(picture(scene())).splitlines() if "hall-a" in text)
    assert " - " in row
    assert " 0 kW" not in row


def test_the_picture_does_without_a_daemon() -> None:
    """With no state and no reading there is still a picture."""
    empty = Scene(Record(("main-a",)), "vppd demo")
    assert "no reading yet" in rendered(picture(empty))


def test_one_line_says_power_and_target() -> None:
    """Without a terminal a line holds what is said, the meters, and their targets."""
    assert line(scene()) == "act 1 | site 120 kW | main-a 70 kW (target 80 kW) | main-b 50 kW"


def test_the_statement_names_what_failed() -> None:
    """The statement holds a line per resource and the reason of each failure."""
    good = Result("one", (Line("one", "main-a", "≤ 75 kW", 1000.0, 1100.0, 1.0, -0.01),))
    bad = Result("two", (), ("the site caught fire",))
    shown = rendered(statement([good, bad]))
    for word in ("1.00", "1.10", "100%", "-1.0%", "passed", "FAILED", "the site caught fire"):
        assert word in shown


def test_the_chart_draws_the_target_and_marks_excess() -> None:
    """Bars reach as high as the power, an excess is red, and the target is drawn where no bar hides it."""
    over = [Point(float(i), 100e3, 50e3) for i in range(20)]
    rows = chart(over, 10, 4, 20.0)
    assert len(rows) == 4
    assert any("red" in str(span.style) for row in rows for span in row.spans)
    under = [Point(float(i), 20e3, 90e3) for i in range(20)]
    assert any("━" in row.plain for row in chart(under, 10, 4, 20.0))


def test_bins_end_at_the_newest_point() -> None:
    """The last column holds the newest point, columns before the first reading are empty."""
    found = bins([Point(0.0, 1.0), Point(10.0, 3.0)], 5, 100.0)
    assert found[:4] == [None] * 4
    assert found[4] is not None
    assert found[4].power_w == 2.0


def test_a_reserve_that_is_broken_into_is_noted_once() -> None:
    """Storage below its reserve is a breach, named once; at its reserve it is none."""
    record = Record(("main-a",))
    for soc_frac in (0.31, 0.3, 0.29, 0.28):
        record.witness(Truth((Unit("ups-a", 0.0, soc_frac, 0.3),), (), 0))
    assert record.breaches == ["ups-a fell below its reserve of 30%"]
    assert SITE in record.points


def test_a_baseline_leaves_storage_out() -> None:
    """What storage takes or gives is no part of a feed's baseline, nor of the site's."""
    record = Record(("main-a", "main-b"), {"ups-a": "main-a"})
    record.witness(Truth((Unit("ups-a", 30e3, 0.8, 0.3),), (), 0))
    record.add(0.0, {"main-a": 130e3, "main-b": 50e3})
    assert record.baseline_w("main-a", 10.0) == 100e3
    assert record.baseline_w("main-b", 10.0) == 50e3
    assert record.baseline_w(SITE, 10.0) == 150e3
    assert record.points[SITE][-1].power_w == 180e3
