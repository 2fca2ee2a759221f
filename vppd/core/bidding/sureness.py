"""What is sure of uncertain things together, with care where the past was kinder than the days to come. Pure.

The promise is a part of all samples: at most epsilon of them may be short. Three things stand between the samples and the days to
come. Few samples hide the worst days. Newer ones, and those of the same day of the week, say more than others. And tenants leave. So
less than the promise is aimed at, samples are weighed, and the aim is replayed on the days that have come true: what it would have missed
lately makes the next volume more careful, what it would have left in the drawer less so, never above the promise.

Samples are (i, m): row i is the i-th day, oldest first, and the last row is today, of which little is known as yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vppd.core.bidding.quote import EPSILON_FRAC, Reading, sure_w
from vppd.snapshot import Bools, Floats, Ints

AIM_FRAC = 0.75
"""So much of the accepted misses is aimed at."""
LEAST_ROWS = 10
"""Fewer samples say nothing about one in ten; one alone is what is known for sure."""
_CARE_FRAC = 0.1
"""At minus this epsilon nothing is sold; between it and 0 a part of the worst sample is."""
_KEPT_FRAC = 0.97
"""A day counts this part of the next one."""
_WEEK = 7
_SAME_DAY = 2.0
"""A sample of the same day of the week counts so often."""
_INDEPENDENT = 2.0
"""The steps of one slot on one day are alike: they say no more than so many samples that are not."""
_REPLAYED_ROWS = 14
"""The aim is replayed on so many days."""
_GAIN_FRAC = 0.2
"""Of what was missed lately above the aim, this part is taken off epsilon."""
_FADING_FRAC = 0.5
"""There a day counts this part of the next one."""
_LASTING_FRAC = 0.1
"""What is missed in the long run is expected to be off by this part of the promise."""
_BACK = 1.5
"""What was left in the drawer counts so much more than what was missed: upwards epsilon ends at the promise."""


def volume_w(samples_w: Floats, reading: Reading, epsilon_frac: float) -> float:
    """Return the most power that epsilon of the weighed samples are short of, by interpolation between samples. [W]

    Never more than the bare rule ``sure_w`` allows at the usual promise. For an epsilon below 0 a part of the worst sample.
    """
    known_w = known_rows(samples_w)
    if len(known_w) == 1:
        return float(_trusted_frac(np.array(epsilon_frac))) * sure_w(known_w, reading, max(epsilon_frac, 0.0))
    return float(_ranked(samples_w[None], _ages(len(samples_w)), reading).at(np.array([epsilon_frac]))[0])


def careful_epsilon(slots_w: Iterable[Floats], reading: Reading, promised_frac: float = EPSILON_FRAC) -> float:
    """Return the part of the samples that may be short, as several slots teach, each (i, m) with the oldest first, NaN where unknown.

    It is what to sell by with ``sure_in_slot``: at most ``promised_frac``, and less than that the fewer samples there are.
    """
    slots = [samples_w for samples_w in slots_w if np.nan_to_num(samples_w).max(initial=0.0) > 0.0]
    epsilon_frac = controlled(*_replayed(slots, reading, AIM_FRAC * promised_frac), promised_frac)
    known = [samples_w for samples_w in slots if len(known_rows(samples_w)) >= LEAST_ROWS]
    counts = [_ranked(samples_w[None], _ages(len(samples_w)), reading).count for samples_w in known]
    return float(_inner(epsilon_frac, np.mean(counts, axis=0))[0]) if counts else epsilon_frac


def controlled(missed_frac: Floats, known_frac: Floats, promised_frac: float = EPSILON_FRAC) -> float:
    """Return the epsilon to go on with after days of which parts were missed when selling by the aim, (d,), oldest first.

    ``known_frac`` (d,) is how much of each day is known; what is not counts as the aim.
    """
    aim_frac = AIM_FRAC * promised_frac
    above_frac = missed_frac - aim_frac
    fading = (1.0 - _FADING_FRAC) * _FADING_FRAC ** np.arange(len(known_frac))[::-1]
    lately_frac = float((fading * known_frac * above_frac).sum())
    less_frac = _GAIN_FRAC * lately_frac + _standing_out_frac(above_frac, known_frac, _LASTING_FRAC * promised_frac)
    moved_frac = aim_frac - (less_frac if less_frac > 0.0 else _BACK * less_frac)
    return min(max(moved_frac, -_CARE_FRAC), promised_frac)


def _standing_out_frac(above_frac: Floats, known_frac: Floats, expected_frac: float) -> float:
    """Return the mean of days, the nearer to 0 the less it stands out of their scatter, as errors of the expected size lie about 0."""
    days = float(known_frac.sum())
    if days < 2.0:
        return 0.0
    mean_frac = float((known_frac * above_frac).sum()) / days
    variance = float((known_frac * (above_frac - mean_frac) ** 2).sum()) / (days - 1.0) / days
    return mean_frac * expected_frac**2 / max(expected_frac**2 + variance, 1e-12)


def sure_in_slot(samples_w: Floats, reading: Reading, epsilon_frac: float) -> float:
    """Return the most that may be sold of what (i, m) samples say of a slot; 0 where too little is known. [W]"""
    return volume_w(samples_w, reading, epsilon_frac) if is_enough(known_rows(samples_w)) else 0.0


def known_rows(samples_w: Floats) -> Floats:
    """Return the rows in which nothing is missing."""
    return samples_w[np.isfinite(samples_w).all(axis=1)]


def is_enough(samples_w: Floats) -> bool:
    """Say whether something may be said from so many samples."""
    return len(samples_w) == 1 or len(samples_w) >= LEAST_ROWS


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """Samples of several slots in the order of their power."""

    power_w: Floats
    """(s, k) rising."""
    below_frac: Floats
    """(s, k) weight of the samples before this one."""
    known: Ints
    """(s,) so many of them are known."""
    count: Floats
    """(s,) they say as much as so many that have nothing to do with each other."""

    def at(self, epsilon_frac: Floats) -> Floats:
        """Return the power that a part of the samples is below, (s,); below 0 a part of the worst sample. [W]"""
        part_frac = np.maximum(epsilon_frac, 0.0)[:, None]
        last = self.power_w.shape[1] - 1
        here = np.clip((self.below_frac <= part_frac).sum(axis=1, keepdims=True) - 1, 0, last)
        from_frac, from_w = self._in(here)
        to_frac, to_w = self._in(np.minimum(here + 1, last))
        way_frac = np.clip((part_frac - from_frac) / np.maximum(to_frac - from_frac, 1e-12), 0.0, 1.0)
        bare = np.floor(np.maximum(part_frac, EPSILON_FRAC) * self.known[:, None] + 1e-9).astype(np.int64)
        found_w = np.minimum(from_w + way_frac * (to_w - from_w), self._in(np.minimum(bare, last))[1])
        return np.asarray(_trusted_frac(epsilon_frac) * np.maximum(found_w[:, 0], 0.0))

    def _in(self, place: Ints) -> tuple[Floats, Floats]:
        return np.take_along_axis(self.below_frac, place, axis=1), np.take_along_axis(self.power_w, place, axis=1)


def _ages(rows: int) -> Ints:
    """Return how many days ago each row was."""
    return np.arange(rows)[::-1]


def _ranked(samples_w: Floats, age: Ints, reading: Reading) -> _Ranked:
    """Return (s, i, m) samples in order, rows in which something is missing without weight."""
    known: Bools = np.asarray(np.isfinite(samples_w).all(axis=2))
    worth_w = samples_w.min(axis=2, keepdims=True) if reading is Reading.HOURS else samples_w
    many = worth_w.shape[2]
    weight = known * (_KEPT_FRAC**age * np.where(age % _WEEK == 0, _SAME_DAY, 1.0))
    weight = weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)
    count = min(np.sqrt(many), _INDEPENDENT) / np.maximum((weight**2).sum(axis=1), 1e-12)
    flat_w = np.where(known[:, :, None], worth_w, np.inf).reshape(len(worth_w), -1)
    order = np.argsort(flat_w, axis=1, kind="stable")
    each_frac = np.take_along_axis(np.repeat(weight / many, many, axis=1), order, axis=1)
    power_w = np.take_along_axis(flat_w, order, axis=1)
    most_w = np.max(power_w, axis=1, keepdims=True, initial=0.0, where=np.isfinite(power_w))
    below_frac = np.cumsum(each_frac, axis=1) - each_frac
    return _Ranked(np.minimum(power_w, most_w), below_frac, known.sum(axis=1) * many, count)


def _inner(epsilon_frac: float, count: Floats) -> Floats:
    """Return the part of so many samples that may be short for the next one to be short no more often than epsilon.

    One more that is like them is the worst of all with 1 / (count + 1): that much is missed without any of them being short.
    For want of samples alone the worst one is trusted.
    """
    return np.maximum(epsilon_frac - (1.0 - epsilon_frac) / np.maximum(count, 1.0), min(epsilon_frac, 0.0))


def _trusted_frac(epsilon_frac: Floats) -> Floats:
    """Return how much of the worst sample may be sold."""
    return np.asarray(np.clip(1.0 + np.minimum(epsilon_frac, 0.0) / _CARE_FRAC, 0.0, 1.0))


def _replayed(slots: Sequence[Floats], reading: Reading, aim_frac: float) -> tuple[Floats, Floats]:
    """Return what the aim would have missed on each of the last days, and how much of the day is known, (d,), oldest first."""
    found: dict[int, list[Floats]] = {}
    for samples_w, tail in _alike(slots):
        newest = samples_w.shape[1] - 1 - tail
        # What was offered for a day knew no more of the days before than is known today of the last ones.
        for row in range(max(newest + 1 - _REPLAYED_ROWS, LEAST_ROWS), newest + 1):
            past_w = samples_w[:, : row + 1 - max(tail, 1)]
            found.setdefault(newest + tail - row, []).append(_missed(past_w, samples_w[:, row], row, reading, aim_frac))
    days = [np.concatenate(found[age]) for age in sorted(found, reverse=True)]
    known = np.array([np.isfinite(day).sum() for day in days], dtype=np.float64)
    missed_frac = np.array([np.nansum(day) for day in days]) / np.maximum(known, 1.0)
    return missed_frac, known / max(known.max(initial=0.0), 1.0)


def _missed(past_w: Floats, there_w: Floats, row: int, reading: Reading, aim_frac: float) -> Floats:
    """Return what of a day selling by the aim would have missed, (s,), NaN where nothing is known or nothing was to be sold."""
    ranked = _ranked(past_w, row - np.arange(past_w.shape[1]), reading)
    offer_w = ranked.at(_inner(aim_frac, ranked.count))
    over = there_w < (offer_w * (1.0 - 1e-9))[:, None]
    part = over.any(axis=1) if reading is Reading.HOURS else over.mean(axis=1)
    enough = np.isfinite(past_w).all(axis=2).sum(axis=1) >= LEAST_ROWS
    return np.where(enough & np.isfinite(there_w).all(axis=1) & (offer_w > 0.0), part, np.nan)


def _alike(slots: Sequence[Floats]) -> Iterator[tuple[Floats, int]]:
    """Yield slots of one shape together, (s, i, m), and of how many of the last days nothing is known yet."""
    groups: dict[tuple[int, int, int], list[Floats]] = {}
    for samples_w in slots:
        known = np.flatnonzero(np.isfinite(samples_w).all(axis=1))
        if len(known):
            groups.setdefault((*samples_w.shape, len(samples_w) - 1 - int(known[-1])), []).append(samples_w)
    for (_, _, tail), own in groups.items():
        yield np.stack(own), tail
