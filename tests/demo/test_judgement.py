"""The demo's judgement: what passes passes, what does not is named."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vppd.demo.acts import Point, correlation, energy_wh, judge_limit, judge_regulation, performance, windows
from vppd.grid.wander import signals


def flat(power_w: float, seconds: int, target_w: float | None = None) -> list[Point]:
    """Return a reading every half second. [W]"""
    return [Point(i / 2.0, power_w, target_w) for i in range(2 * seconds + 1)]


def test_a_kept_limit_passes() -> None:
    """A meter just below its target keeps the order in every window and saves the energy that was ordered."""
    line, faults = judge_limit("a", "main-a", flat(74e3, 120), 100e3, 75e3, settled_s=20.0)
    assert not faults
    assert line.kept_frac == 1.0
    assert line.worst_frac == pytest.approx(-1 / 75, rel=1e-6)
    assert line.ordered_wh == pytest.approx(25e3 * 120 / 3600)
    assert line.delivered_wh == pytest.approx(26e3 * 120 / 3600)


def test_the_ramp_is_not_judged() -> None:
    """What the meter shows before the ramp is over breaks nothing."""
    points = [Point(p.mono_s, 100e3 if p.mono_s < 15.0 else 74e3) for p in flat(0.0, 120)]
    assert judge_limit("a", "main-a", points, 100e3, 75e3, settled_s=20.0)[1] == []


@pytest.mark.parametrize(
    ("power_w", "seconds", "broken"),
    [
        pytest.param(90e3, 10.0, True, id="ten-seconds-far-over"),
        pytest.param(78e3, 10.0, True, id="ten-seconds-4-percent-over"),
        pytest.param(76e3, 60.0, False, id="within-2-percent"),
        pytest.param(80e3, 1.0, False, id="a-second-averages-out"),
    ],
)
def test_an_excess_counts_by_its_ten_second_average(power_w: float, seconds: float, broken: bool) -> None:
    """An excess breaks the order when a 10 s average is more than 2 % over, and only then."""
    points = [Point(p.mono_s, power_w if 50.0 <= p.mono_s < 50.0 + seconds else 74e3) for p in flat(0.0, 120)]
    line, faults = judge_limit("a", "main-a", points, 100e3, 75e3, settled_s=20.0)
    assert bool(faults) is broken
    assert (line.kept_frac < 1.0) is broken


@pytest.mark.parametrize("points", [[], flat(70e3, 25)], ids=["nothing", "too-short"])
def test_too_little_measured_is_a_fault(points: list[Point]) -> None:
    """An act without a full window after the ramp has not been shown to pass."""
    assert judge_limit("a", "main-a", points, 100e3, 75e3, settled_s=20.0)[1]


@given(power_w=st.floats(0.0, 1e6), seconds=st.integers(10, 60))
def test_windows_of_a_flat_line_are_flat(power_w: float, seconds: int) -> None:
    """Every full window of a constant power has that mean."""
    found = windows(flat(power_w, seconds, 1.0))
    assert len(found) >= 2 * (seconds - 10) + 1
    assert all(mean_w == pytest.approx(power_w) for mean_w, _ in found)


def followed(lag: int, gain: float = 1.0) -> list[Point]:
    """Return a meter that follows a signal of 100 kW around 1 MW, ``lag`` half seconds late."""
    levels = [level for level in signals(3, 60) for _ in range(4)]
    asked = [1e6 + 100e3 * level for level in levels]
    got = [1e6 + gain * 100e3 * levels[max(0, i - lag)] for i in range(len(levels))]
    return [Point(i / 2.0, power_w, target_w) for i, (power_w, target_w) in enumerate(zip(got, asked, strict=True))]


def test_a_close_follower_scores_high() -> None:
    """A site that follows two seconds late passes with a score near 1."""
    line, faults = judge_regulation("site", followed(lag=4), 1e6, 100e3)
    assert not faults
    assert line.kept_frac > 0.95
    assert line.delivered_wh > 0.85 * line.ordered_wh


@pytest.mark.parametrize("gain", [0.0, -1.0], ids=["flat", "inverted"])
def test_a_site_that_does_not_follow_fails(gain: float) -> None:
    """A flat response and an inverted one do not reach the passing score."""
    assert performance(followed(lag=0, gain=gain), 100e3) < 0.75
    assert judge_regulation("site", followed(lag=0, gain=gain), 1e6, 100e3)[1]


def test_energy_is_the_area_under_the_points() -> None:
    """An hour at 1 kW is 1 kWh, a ramp to it half of that; fewer than two points hold none."""
    assert energy_wh([Point(0.0, 1e3), Point(3600.0, 1e3)]) == pytest.approx(1e3)
    assert energy_wh([Point(0.0, 0.0), Point(3600.0, 1e3)]) == pytest.approx(500.0)
    assert energy_wh([Point(0.0, 1e3)]) == 0.0


def test_correlation_of_a_flat_line_is_none() -> None:
    """Something that does not move correlates with nothing."""
    assert correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == 0.0
    assert math.isclose(correlation([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 1.0)
