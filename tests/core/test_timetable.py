"""What a timetable says of a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from vppd.core.timetable import Timetable

START = datetime(2026, 3, 1, 6, tzinfo=UTC)


def timetable() -> Timetable:
    """Return three quarters of an hour of a battery and a meter."""
    return Timetable(
        made_at=START,
        start=START,
        step_s=900.0,
        status="optimal",
        asset_ids=("bess", "meter"),
        power_w=np.array([[100.0, -50.0, 0.0], [np.nan] * 3]),
        energy_wh=np.array([[25.0, 12.5, 12.5], [np.nan] * 3]),
        import_w=np.array([300.0, 150.0, 200.0]),
        renewable_w=np.zeros(3),
        cost=1.5,
    )


def test_a_moment_has_the_power_of_its_step() -> None:
    """Steps are half-open: the end of one is the beginning of the next."""
    table = timetable()
    powers_w = [table.power_at(START + timedelta(seconds=s)) for s in (0.0, 899.9, 900.0, 2699.0)]
    assert [None if p is None else p[0] for p in powers_w] == [100.0, 100.0, -50.0, 0.0]


def test_before_its_beginning_and_after_its_end_it_says_nothing() -> None:
    """A stale timetable is none."""
    table = timetable()
    assert table.end == START + timedelta(minutes=45)
    assert table.power_at(START - timedelta(seconds=1)) is None
    assert table.power_at(table.end) is None
    assert table.step_at(table.end) is None


def test_its_steps_begin_on_the_grid() -> None:
    """One beginning per step."""
    assert timetable().starts() == (START, START + timedelta(minutes=15), START + timedelta(minutes=30))
