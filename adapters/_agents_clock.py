"""What locked SM clocks do to the power of GPUs: a table given or guessed, corrected by what is measured."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

GUESS: tuple[tuple[int, float], ...] = ((600, 0.60), (1000, 0.70), (1400, 0.82), (1980, 1.0))
"""Deliberately shallow: a clock that saves more than expected keeps a budget, one that saves less breaks it."""
_LEARN_FRAC = 0.2
_BELIEVED_FRAC = 0.3
"""A measurement further off than this tells of another work, not of the clock."""


class ClockTable:
    """Power at a locked clock as a part of power at the highest: rising, between given points linear."""

    def __init__(self, points: Sequence[tuple[int, float]] = ()) -> None:
        given = tuple(points) or GUESS
        self._mhz = [mhz for mhz, _ in given]
        self._frac = [frac for _, frac in given]

    @property
    def highest_mhz(self) -> int:
        """Return the clock at which nothing is saved. [MHz]"""
        return self._mhz[-1]

    def power_frac(self, mhz: int) -> float:
        """Return the power at a clock, as a part of full power. [0-1]"""
        i = min(max(bisect_left(self._mhz, mhz), 1), len(self._mhz) - 1)
        low, high = self._mhz[i - 1], self._mhz[i]
        share = min(max((mhz - low) / (high - low), 0.0), 1.0)
        return self._frac[i - 1] + share * (self._frac[i] - self._frac[i - 1])

    def clock_mhz(self, power_frac: float) -> int:
        """Return the highest clock that keeps within a part of full power, the lowest in the table when none does. [MHz]"""
        for i in range(len(self._mhz) - 1, 0, -1):
            below, above = self._frac[i - 1], self._frac[i]
            if above <= power_frac:
                return self._mhz[i]
            if below <= power_frac:
                share = (power_frac - below) / (above - below)
                return int(self._mhz[i - 1] + share * (self._mhz[i] - self._mhz[i - 1]))
        return self._mhz[0]

    def learn(self, mhz: int, power_frac: float) -> None:
        """Take in what a GPU really drew at a locked clock, as a part of what it drew before. [0-1]"""
        error = power_frac - self.power_frac(mhz)
        if not self._mhz[0] <= mhz < self._mhz[-1] or abs(error) > _BELIEVED_FRAC:
            return
        i = bisect_left(self._mhz, mhz)
        for j in {max(i - 1, 0), min(i, len(self._mhz) - 2)}:
            near = 1.0 - min(abs(self._mhz[j] - mhz) / (self._mhz[-1] - self._mhz[0]), 1.0)
            self._frac[j] = min(max(self._frac[j] + _LEARN_FRAC * near * error, 0.05), 1.0)
        for j in range(1, len(self._frac)):
            self._frac[j] = max(self._frac[j], self._frac[j - 1])
