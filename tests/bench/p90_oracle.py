"""How often one who knows the truth would miss: what is left of a promise over eight weeks is chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.bench.p90_profiles import DAY, Series
from vppd.core.bidding.quote import EPSILON_FRAC, Reading
from vppd.core.bidding.sureness import AIM_FRAC
from vppd.snapshot import Floats

DRAWS = 100
FIRST = 5000
"""Seed of the first draw."""
HOUR = 4


def oracle_missed(
    made: Callable[[np.random.Generator], Series], first_day: int, days: int, reading: Reading = Reading.MINUTES
) -> Floats:
    """Return what is missed in each of many draws of a profile when every hour sells the aim's quantile of all draws, (d,).

    Nothing is wrong with such a promise; how far it is off in one draw is chance.
    """
    rngs = (np.random.default_rng(FIRST + i) for i in range(DRAWS))
    drawn_w = np.array([np.sum(made(rng), axis=0) for rng in rngs])[:, first_day * DAY :][:, : days * DAY]
    hours_w = drawn_w.reshape(DRAWS, -1, HOUR)
    if reading is Reading.HOURS:
        hours_w = hours_w.min(axis=2, keepdims=True)
    pooled_w = hours_w.transpose(1, 0, 2).reshape(hours_w.shape[1], -1)
    offer_w = np.quantile(pooled_w, AIM_FRAC * EPSILON_FRAC, axis=1)
    sold = offer_w > 1.0
    return np.asarray((hours_w[:, sold] < offer_w[sold, None]).mean(axis=(1, 2)))
