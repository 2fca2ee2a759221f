"""What is expected of a series, on whatever grid it is asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vppd.core.forecast.outlook import Outlook, resampled
from vppd.core.forecast.quantiles import Forecast, Score
from vppd.snapshot import Floats

AT = datetime(2026, 3, 29, tzinfo=UTC)
NAN = np.nan


def later(by_s: float) -> datetime:
    """Return a moment after the start of the values."""
    return AT + timedelta(seconds=by_s)


def test_the_same_grid_gives_the_same_numbers() -> None:
    """Nothing is computed where nothing changes, and what is not said is missing."""
    values = np.array([0.1, NAN, 0.3])
    found = resampled(values, AT, 900.0, later(900.0), 900.0, 4)
    np.testing.assert_array_equal(found, [NAN, 0.3, NAN, NAN])
    np.testing.assert_array_equal(resampled(values, AT, 900.0, later(-1800.0), 900.0, 3), [NAN, NAN, 0.1])


def test_finer_steps_repeat_and_coarser_ones_average() -> None:
    """A mean over an hour holds for each of its quarters; four quarters make an hour."""
    hours = np.array([4.0, 8.0])
    np.testing.assert_allclose(resampled(hours, AT, 3600.0, AT, 900.0, 8), np.repeat(hours, 4))
    np.testing.assert_allclose(resampled(np.arange(8.0), AT, 900.0, AT, 3600.0, 2), [1.5, 5.5])


def test_steps_that_do_not_meet_share_by_time() -> None:
    """An hour that begins at half past takes half of each neighbour."""
    np.testing.assert_allclose(resampled(np.array([2.0, 4.0]), AT, 3600.0, later(1800.0), 3600.0, 1), [3.0])


def test_half_a_step_is_enough_and_less_is_not() -> None:
    """What is known of a step stands for it from a half on."""
    quarters = np.array([1.0, NAN, NAN, 3.0, 5.0, NAN, NAN, NAN])
    np.testing.assert_allclose(resampled(quarters, AT, 900.0, AT, 3600.0, 2), [2.0, NAN])


def test_levels_are_kept_apart_and_nothing_gives_nothing() -> None:
    """Rows are levels; without values there is nothing on any grid."""
    rows = np.array([[1.0, 3.0], [5.0, 7.0]])
    np.testing.assert_allclose(resampled(rows, AT, 900.0, AT, 1800.0, 1), [[2.0], [6.0]])
    assert np.isnan(resampled(np.zeros((2, 0)), AT, 900.0, AT, 1800.0, 3)).all()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40),
    st.sampled_from([300.0, 420.0, 900.0, 3600.0]),
    st.sampled_from([300.0, 900.0, 1000.0, 1800.0]),
    st.integers(-20, 20),
)
def test_energy_is_kept(values: list[float], step_s: float, new_step_s: float, ahead: int) -> None:
    """Over steps that are known whole, the integral is that of the old values."""
    start = later(ahead * 60.0)
    found = resampled(np.array(values), AT, step_s, start, new_step_s, 30)
    for i in np.flatnonzero(np.isfinite(found)):
        begin_s = ahead * 60.0 + i * new_step_s
        parts = [
            (value, min(begin_s + new_step_s, (k + 1) * step_s) - max(begin_s, k * step_s))
            for k, value in enumerate(values)
        ]
        known = [(value, part_s) for value, part_s in parts if part_s > 0.0]
        exact = sum(value * part_s for value, part_s in known) / sum(part_s for _, part_s in known)
        assert found[i] == pytest.approx(exact, rel=1e-9, abs=1e-4)


def test_an_outlook_speaks_on_the_grid_it_is_asked_for() -> None:
    """The median by default, any level by name, and a level that is not there is an error."""
    values: Floats = np.array([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0], [100.0, 200.0, 300.0, 400.0]])
    said = Forecast("seasonal", 900.0, (0.1, 0.5, 0.9), values, Score(1.0, np.array([0.1, 0.5, 0.9]), 10), values[:0])
    outlook = Outlook("load/main-a", "seasonal", AT, AT, said)
    assert outlook.end == later(3600.0)
    np.testing.assert_allclose(outlook.over(AT, 1800.0, 3), [15.0, 35.0, NAN])
    np.testing.assert_allclose(outlook.over(AT, 1800.0, 1, 0.9), [150.0])
    with pytest.raises(KeyError, match=r"0\.25"):
        outlook.over(AT, 1800.0, 1, 0.25)
