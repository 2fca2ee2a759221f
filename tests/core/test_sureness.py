"""Care: the promise is replayed on the samples, so that days unlike the past cost volume rather than the promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vppd.core.bidding import sureness
from vppd.core.bidding.quote import EPSILON_FRAC, Reading, sure_w
from vppd.core.bidding.sureness import AIM_FRAC, careful_epsilon, controlled, known_rows, sure_in_slot, volume_w
from vppd.snapshot import Floats

SAMPLES = arrays(np.float64, st.tuples(st.integers(0, 30), st.just(4)), elements=st.floats(0.0, 1e6) | st.just(np.nan))
AIM = AIM_FRAC * EPSILON_FRAC
KNOWN = np.ones(10)


def _missed_over(world_w: Floats, rows: int, reading: Reading, *, careful: bool) -> float:
    """Return what is missed of (d, m) days, each sold the day before from the ``rows`` days before."""
    missed = []
    for day in range(rows, len(world_w)):
        past_w = world_w[day - rows : day]
        frac = careful_epsilon([past_w], reading) if careful else EPSILON_FRAC
        over = world_w[day] < sure_in_slot(past_w, reading, frac)
        missed.append(over.any() if reading is Reading.HOURS else over.mean())
    return float(np.mean(missed))


@pytest.mark.parametrize("reading", list(Reading))
def test_of_few_days_that_are_alike_no_more_is_missed_than_aimed_at(reading: Reading) -> None:
    """Twenty samples hide the worst days: by the bare rule more than the promise is missed, with care about the aim."""
    rng = np.random.default_rng(1)
    world_w = np.repeat(rng.normal(1e6, 2e5, (700, 1)), 4, axis=1) + rng.normal(0.0, 5e4, (700, 4))
    bare = _missed_over(world_w, 20, reading, careful=False)
    careful = _missed_over(world_w, 20, reading, careful=True)
    assert bare > EPSILON_FRAC
    assert 0.5 * EPSILON_FRAC <= careful <= 0.9 * EPSILON_FRAC


def test_while_days_get_worse_the_promise_is_kept_by_care(monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again a week in which each day gives less than the one before: without the control far more is missed."""
    rng = np.random.default_rng(2)
    level = 1.0 - 0.06 * np.maximum(np.arange(198) % 22 - 14, 0)[:, None]
    world_w = level * rng.normal(1e6, 5e4, (198, 4))
    careful = _missed_over(world_w, 20, Reading.MINUTES, careful=True)
    monkeypatch.setattr(sureness, "_GAIN_FRAC", 0.0)
    monkeypatch.setattr(sureness, "_LASTING_FRAC", 0.0)
    unmoved = _missed_over(world_w, 20, Reading.MINUTES, careful=True)
    assert careful <= 0.5 * EPSILON_FRAC < EPSILON_FRAC < unmoved


def test_a_miss_makes_careful_and_what_was_left_a_little_less() -> None:
    """The newest day counts most, what is not known as the aim, and whatever happens the promise is the most."""
    missed_late, missed_early = np.zeros(10), np.zeros(10)
    missed_late[-1] = missed_early[0] = 1.0
    assert controlled(np.full(10, AIM), KNOWN) == pytest.approx(AIM)
    assert controlled(missed_late, KNOWN) < AIM < controlled(missed_early, KNOWN)
    assert controlled(np.ones(10), np.zeros(10)) == AIM == controlled(np.zeros(0), np.zeros(0))
    assert AIM < controlled(np.zeros(10), KNOWN) <= EPSILON_FRAC
    assert controlled(np.zeros(10), KNOWN, 0.01) <= 0.01
    assert controlled(np.ones(10), KNOWN) < 0.0


def test_a_long_mean_counts_as_far_as_it_stands_out() -> None:
    """Ten days that miss 15 % each move more than one of them that misses all: so much may be chance. One day alone says little."""
    steady, once = np.full(10, 0.15), np.zeros(10)
    once[:2] = 0.75
    assert controlled(steady, KNOWN) < controlled(once, KNOWN)
    assert controlled(np.full(1, 0.15), np.ones(1)) > controlled(steady, KNOWN)
    assert controlled(np.zeros(10), KNOWN, 0.0) == 0.0


def test_below_zero_the_worst_sample_is_trusted_less_and_less() -> None:
    """At minus a tenth nothing is sold."""
    samples_w = np.full((10, 4), 1e6)
    assert volume_w(samples_w, Reading.MINUTES, -0.1) == 0.0
    assert volume_w(samples_w, Reading.MINUTES, -0.05) == pytest.approx(5e5)
    assert volume_w(samples_w, Reading.MINUTES, 0.0) == pytest.approx(1e6)


def test_a_fall_teaches_care() -> None:
    """Where every sample is lower than the one before, less than the promise allows is risked; where nothing changes, not."""
    rng = np.random.default_rng(2)
    steady_w = rng.normal(1e6, 1e5, (40, 4))
    fallen_w = steady_w * np.linspace(1.0, 0.2, 40)[:, None]
    for reading in Reading:
        calm, careful = (careful_epsilon([w] * 24, reading) for w in (steady_w, fallen_w))
        assert careful < 0.5 * calm
        assert sure_in_slot(fallen_w, reading, careful) < sure_in_slot(fallen_w, reading, 0.1)


def test_newer_days_and_those_of_the_same_day_of_the_week_count_more() -> None:
    """One bad day of twenty-one costs most where it was today a week ago, and more the newer it is."""
    sold_w = {}
    for age in (3, 7, 10, 17):
        samples_w = np.linspace(1.0e6, 1.2e6, 84).reshape(21, 4)
        samples_w[20 - age] = 2e5
        sold_w[age] = volume_w(samples_w, Reading.MINUTES, 0.06)
    assert sold_w[7] < sold_w[3] < sold_w[10] < sold_w[17]


@settings(max_examples=60, deadline=None)
@given(st.lists(SAMPLES, max_size=4), st.floats(0.0, 0.3), st.sampled_from(list(Reading)))
def test_care_never_exceeds_the_promise(slots_w: list[Floats], promised_frac: float, reading: Reading) -> None:
    """Whatever the samples, and whatever is missing: epsilon is at most what is promised, and the volume what the bare rule allows."""
    frac = careful_epsilon(slots_w, reading, promised_frac)
    assert frac <= promised_frac
    for samples_w in slots_w:
        offer_w = sure_in_slot(samples_w, reading, frac)
        known_w = known_rows(samples_w)
        most_w = sure_w(known_w, reading, max(promised_frac, EPSILON_FRAC)) if len(known_w) else 0.0
        assert 0.0 <= offer_w <= most_w


def test_one_sample_is_taken_for_sure() -> None:
    """What is known is sold in full: no want of samples makes it less, in whatever company."""
    known_w = np.array([[3e5, 2e5, 4e5, 5e5]])
    for reading in Reading:
        frac = careful_epsilon([known_w], reading)
        assert sure_in_slot(known_w, reading, frac) == 2e5
        assert sure_in_slot(np.vstack([np.full((20, 4), np.nan), known_w]), reading, frac) == 2e5
        assert sure_in_slot(np.repeat(known_w, 9, axis=0), reading, frac) == 0.0


def test_what_was_not_known_when_it_was_sold_teaches_nothing() -> None:
    """A day missed that today's forecast has not seen come true moves nothing; as soon as it has, it does."""
    rng = np.random.default_rng(4)
    days_w = rng.normal(1e6, 1e5, (21, 4))
    days_w[19:] = np.nan
    unknown = careful_epsilon([days_w] * 24, Reading.MINUTES)
    days_w[19] = 1e5
    assert careful_epsilon([days_w] * 24, Reading.MINUTES) < unknown - 0.05


def test_nights_teach_nothing() -> None:
    """Slots in which there is nothing to sell are no hits: they would make the days careless."""
    rng = np.random.default_rng(3)
    days_w, nights_w = rng.normal(1e6, 3e5, (40, 4)), np.zeros((40, 4))
    assert careful_epsilon([days_w] * 4, Reading.MINUTES) == careful_epsilon(
        [days_w] * 4 + [nights_w] * 20, Reading.MINUTES
    )
