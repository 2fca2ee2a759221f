"""Forecasts: single-valued methods, quantiles that keep their promise on days they have not seen, and honest scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.bench.bench_calibration import coverage
from tests.bench.p90_profiles import SYNTHETIC
from vppd.core.forecast.point import METHODS, Grid, Method, persistence, seasonal, similar_day
from vppd.core.forecast.quantiles import LEVELS, Trial, forecast, held_back, pinball
from vppd.snapshot import Floats

HOUR = Grid(3600.0)
QUARTER = Grid(900.0)
WEEK = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.4, 0.4])


def office(days: int, seed: int, noise: float = 0.05, grid: Grid = HOUR) -> Floats:
    """A load with days and weekends, and an error that lasts for hours."""
    rng = np.random.default_rng(seed)
    hours = np.arange(days * grid.day) * grid.step_s / 3600.0
    shape = 1000.0 + 300.0 * np.sin((hours - 8.0) / 24.0 * 2 * np.pi)
    level = WEEK[(hours // 24).astype(int) % 7]
    drift = np.zeros(len(hours))
    for i in range(1, len(drift)):
        drift[i] = 0.8 * drift[i - 1] + rng.normal(0.0, noise)
    return np.asarray(shape * level * (1.0 + drift))


def sun(days: int, seed: int, grid: Grid = HOUR) -> Floats:
    """A PV plant under changing clouds; generation is negative."""
    rng = np.random.default_rng(seed)
    hours = np.arange(days * grid.day) * grid.step_s / 3600.0 % 24
    clear = np.maximum(np.sin((hours - 6.0) / 12.0 * np.pi), 0.0)
    return np.asarray(-500.0 * clear * np.repeat(rng.uniform(0.2, 1.0, days), grid.day))


def now(method: Method, history: Floats, steps: int, grid: Grid = HOUR) -> Floats:
    """Return what a method says at the end of a history."""
    return np.asarray(method(history, np.array([len(history)]), steps, grid)[0])


def test_persistence_holds_the_last_known_value() -> None:
    """What was measured last stays, gaps aside; without anything measured for a day there is no forecast."""
    assert now(persistence, np.array([*np.ones(24), 5.0, np.nan]), 2) == pytest.approx([5.0, 5.0])
    assert np.isnan(now(persistence, np.full(48, np.nan), 3)).all()


def test_similar_days_know_a_weekend() -> None:
    """A Saturday looks like Saturdays and Sundays, not like Friday."""
    history = office(5 + 14, 1, noise=0.0)  # ends on a Friday night
    friday, ahead = history[-24:], now(similar_day, history, 24)
    assert ahead == pytest.approx(friday * 0.4, rel=1e-9)


def test_the_bias_of_the_last_hours_fades() -> None:
    """A load that runs 100 W above its profile since an hour is forecast high at first and by the profile tomorrow."""
    history = office(28, 1, noise=0.0)
    truth = history[-28 * 24 :][:24]
    ahead = now(seasonal, history[: -7 * 24] + 0.0, 24)
    lifted = history[: -7 * 24].copy()
    lifted[-2:] += 100.0
    shifted = now(seasonal, lifted, 24) - ahead
    assert ahead == pytest.approx(truth, rel=0.02)
    assert 50.0 < shifted[0] < 100.0
    assert abs(shifted[-1]) < 10.0
    assert (np.diff(shifted[:12]) < 0.0).all()


def test_a_bright_evening_says_nothing_of_the_night() -> None:
    """Where the sun has never shone it will not, whatever the last error was; a load may begin at any time."""
    history = np.tile(np.where((np.arange(24) >= 6) & (np.arange(24) < 20), 100.0, 0.0), 10)[: 9 * 24 + 19]
    history[-1] = 160.0
    assert now(seasonal, history, 5, Grid(3600.0, (0,), sunny=True))[1:] == pytest.approx([0.0] * 4)
    assert (now(seasonal, history, 5)[1:] > 1.0).all()


def test_a_step_that_does_not_divide_a_day_is_refused() -> None:
    """The grid must repeat from day to day."""
    with pytest.raises(ValueError, match="does not divide a day"):
        now(similar_day, np.ones(100), 4, Grid(7000.0))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_quantiles_cover_what_they_say_on_unseen_days(seed: int) -> None:
    """On four weeks that follow, each level is kept as often as it says, within what the sample allows."""
    whole = office(70, seed)
    hits, n = np.zeros(len(LEVELS)), 0
    for origin in range(42 * 24, 69 * 24, 7):
        found = forecast(
            whole[:origin], 24, HOUR, method="seasonal", trial=Trial(reach_s=28 * 86_400.0, every_s=4 * 3600.0)
        )
        real = whole[origin : origin + 24]
        hits += (real[None, :] <= found.values).sum(axis=1)
        n += len(real)
    assert hits / n == pytest.approx(np.asarray(LEVELS), abs=0.08)


def test_quantiles_of_the_sun_hold_at_every_time_of_day() -> None:
    """Dawn errs by little and noon by much: told apart, each level is kept within 4 points over ten weeks of sunlight."""
    found = coverage(SYNTHETIC["PV"](np.random.default_rng(3))[0], "seasonal", Grid(900.0, (0,), sunny=True))
    assert found["worst_off_frac"] < 0.04, found


def test_the_score_is_what_comes_true() -> None:
    """The coverage a forecast states of itself is close to what it then reaches."""
    found = forecast(office(60, 5), 24, HOUR, method="seasonal")
    assert found.score.samples > 200
    assert found.score.coverage == pytest.approx(np.asarray(LEVELS), abs=0.15)
    assert np.all(np.diff(found.score.coverage) >= 0.0)


def test_the_best_method_is_chosen_by_its_back_test() -> None:
    """A load with weekends is not left to persistence; a flat one is forecast as well by all."""
    assert forecast(office(42, 7), 24, HOUR).method in {"seasonal", "similar-day"}
    own = {name: forecast(office(42, 7), 24, HOUR, method=name).score.pinball for name in METHODS}
    assert forecast(office(42, 7), 24, HOUR).score.pinball == min(own.values())
    assert own["persistence"] > 2.0 * min(own.values())


def test_the_sun_does_not_shine_at_night() -> None:
    """Bounds hold at every level, and quantiles are narrow where nothing ever happens."""
    found = forecast(sun(42, 3), 24, HOUR, method="similar-day", bounds=(-500.0, 0.0))
    night = [0, 1, 2, 3, 22, 23]
    assert (found.values <= 0.0).all()
    assert (found.values >= -500.0).all()
    assert found.values[:, night] == pytest.approx(0.0, abs=1e-9)
    assert found.at(0.1)[12] < found.at(0.9)[12] - 50.0


def test_a_short_history_says_that_it_knows_no_error() -> None:
    """With a day and a half there is a forecast but no score; asking for a level that is not there is an error."""
    found = forecast(office(2, 1)[:30], 6, HOUR)
    assert np.isfinite(found.values).all()
    assert not found.score.known or found.score.samples < 200
    with pytest.raises(KeyError, match=r"0\.05"):
        found.at(0.05)


def test_nobody_is_scored_on_what_it_has_seen() -> None:
    """A jump inside the days held back costs coverage: their own errors do not widen the quantiles they are judged by."""
    calm = office(42, 9, noise=0.001)
    calm[-5 * 24 :] *= 1.5
    found = forecast(calm, 6, HOUR, method="similar-day", trial=Trial(reach_s=14 * 86_400.0))
    assert found.score.coverage[-1] < 0.85  # 0.98 if they did


def test_an_error_counts_from_when_it_is_known() -> None:
    """A load that doubles when the judged days begin is foreseen there without a miss; the misses before were not known yet."""
    doubled = np.ones(40 * 24)
    trial = Trial(reach_s=10 * 86_400.0)
    doubled[held_back(len(doubled), HOUR, trial)[0] - 1 :] = 2.0
    found = forecast(doubled, 48, HOUR, method="persistence", trial=trial)
    assert found.score.samples > 500
    assert found.score.pinball == pytest.approx(0.0)
    assert found.values[-1].max() > 1.5  # by now they are


def test_pinball_is_the_textbook_loss() -> None:
    """Half the absolute error at the median; the asymmetric rest by hand."""
    values = np.array([[1.0, 1.0], [2.0, 2.0]])
    assert pinball((0.5,), values[:1], np.array([3.0, 0.0])) == pytest.approx((1.0 + 0.5) / 2)
    assert pinball((0.9,), values[1:], np.array([3.0, 1.0])) == pytest.approx((0.9 + 0.1) / 2)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, st.integers(1, 24 * 9), elements=st.floats(-1e6, 1e6) | st.just(np.nan)), st.integers(1, 30))
def test_any_history_gives_ordered_quantiles_or_none(history: Floats, steps: int) -> None:
    """Whatever is missing: no error, no infinite value, and levels in their order."""
    found = forecast(history, steps, HOUR)
    assert found.values.shape == (len(LEVELS), steps)
    finite = np.isfinite(found.values)
    assert (finite.all(axis=0) | ~finite.any(axis=0)).all()
    assert not np.isinf(found.values).any()
    assert (np.diff(found.values[:, finite.all(axis=0)], axis=0) >= 0.0).all()


def test_paths_are_the_errors_made_at_this_time_of_day() -> None:
    """A load that stops at night is never foreseen to run then, whatever went wrong at noon; rows go from old to new."""
    found = forecast(sun(42, 3), 24, HOUR, method="similar-day", bounds=(-500.0, 0.0))
    assert found.paths.shape[1] == 24
    assert len(found.paths) == pytest.approx(21, abs=1)
    night = found.paths[:, [0, 1, 2, 3, 22, 23]]
    assert night[np.isfinite(night)] == pytest.approx(0.0, abs=1e-9)
    assert np.nanstd(found.paths[:, 12]) > 50.0
    known = np.isfinite(found.paths).sum(axis=1)
    assert (np.diff(known) <= 0).all()
    assert known[0] == 24


def test_rows_of_two_series_are_the_same_moments() -> None:
    """Two loads of which one is the other plus noise go wrong together: the spread of the sum tells it, not that of the parts."""
    one = office(42, 11)
    two = 1500.0 - one  # what one draws more, the other draws less
    paths = [forecast(series, 24, HOUR, method="similar-day").paths for series in (one, two)]
    both = paths[0] + paths[1]
    assert np.nanmax(np.abs(both - 1500.0)) < 1e-6
    assert min(np.nanstd(path[:, 5]) for path in paths) > 10.0


def test_without_a_back_test_there_are_no_paths() -> None:
    """Half a day of history gives no origin to learn from."""
    assert forecast(office(1, 1)[:12], 6, HOUR).paths.shape == (0, 6)
