"""The table of forecasts: units of people, a curve, and honest words where nothing is known."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from vppd.api.console_forecasts import bars, forecasts_table

SCORE = {"pinball": 1234.0, "coverage": [0.11, 0.5, 0.88], "samples": 900}
UNKNOWN = {"pinball": None, "coverage": [None] * 3, "samples": 0}


def row(name: str, values: list[list[float | None]] | None, score: Any = None, **more: Any) -> dict[str, Any]:
    """Return one series as the daemon shows it."""
    found = {
        "name": name,
        "source": "seasonal",
        "reason": "",
        "values": values,
        "levels": [0.1, 0.5, 0.9],
        "score": score,
    }
    return found | more


def printed(width: int = 200, **more: Any) -> str:
    """Return what is printed of a view."""
    view: dict[str, Any] = {
        "made_at": "2026-03-28T12:00:00+00:00", "took_s": 3.21, "fault": "", "series": [], "feeds": [],
        "history": {"fault": "", "dropped": 0},
    } | more  # fmt: skip
    text = StringIO()
    forecasts_table(view, Console(file=text, width=width))
    return text.getvalue()


def test_series_are_told_in_the_units_of_people() -> None:
    """Watts become kW, prices per MWh, carbon g/kWh; the score stands beside them."""
    said = printed(
        series=[
            row("load/a", [[90e3, 80e3], [100e3, 110e3], [120e3, None]], SCORE),
            row("price/import", [[5e-5] * 2, [8e-5] * 2, [9e-5] * 2], UNKNOWN, source="constant"),
            row("carbon", [[0.1] * 2, [0.2] * 2, [0.3] * 2], UNKNOWN),
            row("generation/pv", None, source="", reason="nothing was measured"),
        ]
    )
    load, price, carbon, sun = (
        next(line for line in said.splitlines() if name in line)
        for name in ("load/a", "price/", "carbon", "generation/")
    )
    assert all(part in load for part in ("seasonal", "100.0 kW", "80.0 - 120.0", "1.2 kW", "11%, 88%"))
    assert all(part in price for part in ("constant", "80.00 /MWh", "unknown"))
    assert "200 g/kWh" in carbon
    assert sun.split() == ["generation/pv", "-", "1)"]
    assert "1) nothing was measured" in said


def test_a_narrow_terminal_shows_whole_names() -> None:
    """Eighty columns hold a line of everything; a reason that many series share stands once, below."""
    many = [row(f"compute/hall-a/tier{k}", [[14e3]] * 3, UNKNOWN, reason="less than a day") for k in range(4)]
    said = printed(width=80, series=many)
    assert max(map(len, said.splitlines())) <= 80
    assert all(f"compute/hall-a/tier{k}" in said for k in range(4))
    assert said.count("less than a day") == 1


def test_faults_and_feeds_are_shown() -> None:
    """What is wrong stands where nobody overlooks it."""
    feed = {"name": "spot", "series": "price/import", "kind": "http", "fault": "", "issued_at": None, "stale": None}
    late = feed | {
        "name": "late",
        "issued_at": "2026-03-28T12:00:00+00:00",
        "stale": True,
        "end": "2026-03-29T12:00:00+00:00",
    }
    said = printed(
        feeds=[feed, late, feed | {"name": "bad", "fault": "no JSON"}], fault="killed", history={"fault": "disk full"}
    )
    assert all(
        part in said for part in ("silent", "stale", "no JSON", "The last round failed: killed", "History: disk full")
    )
    assert "Nothing has been foreseen yet. killed" in printed(made_at=None, fault="killed")


def test_a_feed_stands_with_its_record() -> None:
    """Each feed's error, what that is of our own method's, and whether it is the one that speaks."""
    feed = {
        "series": "generation/pv",
        "kind": "http",
        "fault": "",
        "issued_at": "2026-03-28T12:00:00+00:00",
        "stale": False,
    }
    record = {"trust": "score", "speaks": False, "score": UNKNOWN, "times_own": None, "reason": ""}
    records = [
        record | {"feed": "fine", "speaks": True, "score": SCORE, "times_own": 0.416},
        record | {"feed": "rough", "score": SCORE | {"pinball": 4567.0}, "times_own": 1.54},
        record | {"feed": "new", "reason": "feed 'new' says nothing of the time to come"},
    ]
    view: dict[str, Any] = {
        "series": [row("generation/pv", [[1e3]] * 3, SCORE, source="feed:fine", feeds=records)],
        "feeds": [feed | {"name": name} for name in ("fine", "rough", "new", "other")],
    }
    said = printed(**view)
    narrow = [line for line in printed(width=80, **view).splitlines() if " http " in line]
    assert len(narrow) == 4
    assert narrow[0].split()[-1] == "speaks"
    lines = {line.split()[0]: line.split() for line in said.splitlines()[3:] if " http " in line}
    assert lines["fine"][-4:] == ["1.2", "kW", "0.42", "speaks"]
    assert lines["rough"][-4:] == ["4.6", "kW", "1.54", "waits"]
    assert lines["new"][-2:] == ["unknown", "silent"]
    assert lines["other"][-1] == "ok"


@pytest.mark.parametrize(
    ("values", "curve"),
    [([0.0, 7.0], "▁▁██"), ([1.0] * 8, "▁▁▁▁"), ([None, None, 2.0, 9.0], "  ▁█"), ([None], "    "), ([0, 1, 2, 3, 4, 5, 6, 7], "▁▃▆█")],
)  # fmt: skip
def test_a_curve_has_as_many_columns_as_asked_for(values: list[float | None], curve: str) -> None:
    """More values are averaged, fewer repeated, missing ones blank."""
    assert bars(values, 4) == curve
