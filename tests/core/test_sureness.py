"""Care: the promise is replayed on the samples, so that days unlike the past cost volume rather than the promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vppd.core.bidding.quote import Reading, sure_w
from vppd.core.bidding.sureness import AIM_FRAC, RATE_FRAC, adapted, careful_epsilon, known_rows, sure_in_slot, volume_w
from vppd.snapshot import Floats

SAMPLES = arrays(np.float64, st.tuples(st.integers(0, 30), st.just(4)), elements=st.floats(0.0, 1e6) | st.just(np.nan))


def test_misses_end_up_at_the_aim_whatever_the_world_does() -> None:
    """Half of the time the world gives a third less: the average of the misses is the aim, up to one over rate and time."""
    rng = np.random.default_rng(1)
    learned_w = rng.normal(1e6, 1e5, (40, 4))
    epsilon_frac, missed = 0.1, []
    for slot in range(2000):
        real_w = rng.normal(1e6, 1e5, (1, 4)) * (0.66 if slot // 500 % 2 else 1.0)
        missed.append(float((real_w < volume_w(learned_w, Reading.MINUTES, epsilon_frac)).mean()))
        epsilon_frac = adapted(epsilon_frac, missed[-1])
    unadapted = np.mean(rng.normal(0.66e6, 1e5, 1000) < sure_w(learned_w))
    assert unadapted > 0.9
    assert np.mean(missed) <= AIM_FRAC * 0.1 + 0.2 / (RATE_FRAC * len(missed))


def test_a_miss_makes_careful_and_a_hit_a_little_less() -> None:
    """One slot in full moves by the rate, within nothing sold and the promise."""
    assert adapted(0.05, 1.0) == pytest.approx(0.05 + RATE_FRAC * (0.1 * AIM_FRAC - 1.0))
    assert adapted(0.05, 0.0) == pytest.approx(0.05 + RATE_FRAC * 0.1 * AIM_FRAC)
    assert adapted(0.1, 0.0) == 0.1
    assert adapted(-0.1, 1.0) == -0.1
    assert volume_w(np.full((10, 4), 1e6), Reading.MINUTES, -0.1) == 0.0
    assert volume_w(np.full((10, 4), 1e6), Reading.MINUTES, -0.05) == pytest.approx(5e5)


def test_a_fall_teaches_care() -> None:
    """Where every sample is lower than the one before, less than the promise allows is risked; where nothing changes, not."""
    rng = np.random.default_rng(2)
    steady_w = rng.normal(1e6, 1e5, (40, 4))
    fallen_w = steady_w * np.linspace(1.0, 0.2, 40)[:, None]
    for reading in Reading:
        calm, careful = (careful_epsilon([w] * 24, reading) for w in (steady_w, fallen_w))
        assert careful < 0.5 * calm
        assert sure_in_slot(fallen_w, reading, careful) < sure_in_slot(fallen_w, reading, 0.1)


@settings(max_examples=60, deadline=None)
@given(st.lists(SAMPLES, max_size=4), st.floats(0.0, 0.3), st.sampled_from(list(Reading)))
def test_care_never_exceeds_the_promise(slots_w: list[Floats], promised_frac: float, reading: Reading) -> None:
    """Whatever the samples, and whatever is missing: epsilon is at most what is promised, and the volume what the rule allows."""
    frac = careful_epsilon(slots_w, reading, promised_frac)
    assert frac <= promised_frac
    for samples_w in slots_w:
        offer_w = sure_in_slot(samples_w, reading, frac)
        known_w = known_rows(samples_w)
        assert 0.0 <= offer_w <= (sure_w(known_w, reading, promised_frac) if len(known_w) else 0.0)


def test_nights_teach_nothing() -> None:
    """Slots in which there is nothing to sell are no hits: they would make the days careless."""
    rng = np.random.default_rng(3)
    days_w, nights_w = rng.normal(1e6, 3e5, (40, 4)), np.zeros((40, 4))
    assert careful_epsilon([days_w] * 4, Reading.MINUTES) == careful_epsilon(
        [days_w] * 4 + [nights_w] * 20, Reading.MINUTES
    )
