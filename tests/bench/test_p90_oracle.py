"""Who knows the truth misses what it aims at, and by chance more or less in each draw."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.p90_oracle import oracle_missed
from tests.bench.p90_profiles import N, Series
from vppd.core.bidding.quote import EPSILON_FRAC, Reading
from vppd.core.bidding.sureness import AIM_FRAC


def days_alike(rng: np.random.Generator) -> Series:
    """Return what is drawn once a day and stays for all of it."""
    return (np.repeat(rng.normal(1e6, 1e5, N // 96), 96),)


def quarters_apart(rng: np.random.Generator) -> Series:
    """Return what has nothing to do with the quarter hour before."""
    return (rng.normal(1e6, 1e5, N),)


@pytest.mark.parametrize("reading", list(Reading))
def test_the_oracle_aims_true_and_chance_is_what_days_have_in_common(reading: Reading) -> None:
    """Fifty-five days that are each of one piece leave 3.6 % of chance, quarter hours of their own a fraction of it."""
    aim = AIM_FRAC * EPSILON_FRAC
    whole, apart = (oracle_missed(made, 43, 55, reading) for made in (days_alike, quarters_apart))
    assert whole.mean() == pytest.approx(aim, abs=0.01)
    assert apart.mean() == pytest.approx(aim, abs=0.005)
    assert whole.std() == pytest.approx(float(np.sqrt(aim * (1.0 - aim) / 55.0)), rel=0.3)
    assert apart.std() < 0.3 * whole.std()
