"""What is sure of uncertain things together, with care where the past was kinder than the days to come. Pure.

The promise is a part of all samples: at most epsilon of them may be short. The samples are errors of the past, and the days to come
are not like the past when a tenant leaves or a load drifts. So the promise is replayed on the samples in the order they were made:
each miss makes the next volume more careful and each hit a little less (adaptive conformal inference, Gibbs and Candes 2021),
from an aim below the promise and never above it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vppd.core.bidding.quote import EPSILON_FRAC, Reading, overbid_frac, sure_w
from vppd.snapshot import Floats

AIM_FRAC = 0.75
"""So much of the accepted misses is aimed at."""
RATE_FRAC = 0.02
"""A miss of all moves epsilon by this."""
LEAST_ROWS = 10
"""Fewer samples say nothing about one in ten; one alone is what is known for sure."""
_CARE_FRAC = 0.1
"""At minus this epsilon nothing is sold; between it and 0 a part of the worst sample is."""


def adapted(epsilon_frac: float, missed_frac: float, promised_frac: float = EPSILON_FRAC) -> float:
    """Return the epsilon to go on with after a slot of which a part was missed; below 0 the worst sample is not trusted either."""
    moved_frac = epsilon_frac + RATE_FRAC * (AIM_FRAC * promised_frac - missed_frac)
    return min(max(moved_frac, -_CARE_FRAC), promised_frac)


def volume_w(samples_w: Floats, reading: Reading, epsilon_frac: float) -> float:
    """Return ``sure_w``, and for an epsilon below 0 a part of the worst sample. [W]"""
    trusted_frac = max(0.0, 1.0 + min(epsilon_frac, 0.0) / _CARE_FRAC)
    return trusted_frac * sure_w(samples_w, reading, max(epsilon_frac, 0.0))


def careful_epsilon(slots_w: Iterable[Floats], reading: Reading, promised_frac: float = EPSILON_FRAC) -> float:
    """Return the epsilon that the samples of several slots teach, each (i, m) with the oldest first, NaN where unknown."""
    slots = [samples_w for samples_w in slots_w if np.nan_to_num(samples_w).max(initial=0.0) > 0.0]
    epsilon_frac = AIM_FRAC * promised_frac
    for row in range(LEAST_ROWS, max((len(samples_w) for samples_w in slots), default=0)):
        for samples_w in slots:
            epsilon_frac = _after(samples_w, row, reading, epsilon_frac, promised_frac)
    return epsilon_frac


def sure_in_slot(samples_w: Floats, reading: Reading, epsilon_frac: float) -> float:
    """Return the most that may be sold of what (i, m) samples say of a slot; 0 where too little is known. [W]"""
    known_w = known_rows(samples_w)
    return volume_w(known_w, reading, epsilon_frac) if is_enough(known_w) else 0.0


def known_rows(samples_w: Floats) -> Floats:
    """Return the rows in which nothing is missing."""
    return samples_w[np.isfinite(samples_w).all(axis=1)]


def is_enough(samples_w: Floats) -> bool:
    """Say whether something may be said from so many samples."""
    return len(samples_w) == 1 or len(samples_w) >= LEAST_ROWS


def _after(samples_w: Floats, row: int, reading: Reading, epsilon_frac: float, promised_frac: float) -> float:
    """Return epsilon after one more sample came true; as before where too little was known."""
    past_w = known_rows(samples_w[:row])
    if len(past_w) < LEAST_ROWS or not len(known_rows(samples_w[row : row + 1])):
        return epsilon_frac
    offer_w = volume_w(past_w, reading, epsilon_frac)
    if offer_w <= 0.0 <= epsilon_frac:
        return epsilon_frac  # nothing was to be sold, so nothing was learned
    return adapted(epsilon_frac, overbid_frac(offer_w, samples_w[row : row + 1], reading), promised_frac)
