"""Throughput accounts: what each job has lost, so that no window of time loses more than its tier accepts. Pure."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from vppd.snapshot import Floats, Ints

TOLERANCE_FRAC = (0.0, 0.10, 0.25, 0.50)
"""Tolerated average slow-down by flex tier 0-3."""


@dataclass(frozen=True, slots=True, eq=False)
class Accounts:
    """The losses of n jobs over the last window, as running sums."""

    window_s: float
    ends_s: tuple[float, ...]
    """Ends of the steps that are kept; the first is where the record begins."""
    lost_s: tuple[Floats, ...]
    """(n,) each: uncapped seconds lost until then."""

    def since_s(self, at_s: float) -> Floats:
        """Return what was lost after ``at_s``, the whole of a step that it falls into, (n,). [s]"""
        return self.lost_s[-1] - self.lost_s[max(bisect_right(self.ends_s, at_s + 1e-9) - 1, 0)]

    def charged(self, until_s: float, lost_frac: Floats) -> Accounts:
        """Return the accounts after a step that ends at ``until_s``; what no window reaches any more is dropped."""
        return self.booked(until_s, lost_frac * (until_s - self.ends_s[-1]))

    def booked(self, until_s: float, lost_s: Floats, least_step_s: float = 0.0) -> Accounts:
        """Return the accounts after ``lost_s`` more were lost until ``until_s``, (n,). [s]

        Steps shorter than ``least_step_s`` are put together: a window that begins inside counts the whole of it.
        """
        total_s = self.lost_s[-1] + lost_s
        last = len(self.ends_s) - (len(self.ends_s) > 1 and until_s - self.ends_s[-2] <= least_step_s)
        first = min(max(bisect_right(self.ends_s, until_s - self.window_s + 1e-9) - 1, 0), last - 1)
        return Accounts(self.window_s, (*self.ends_s[first:last], until_s), (*self.lost_s[first:last], total_s))

    def taken(self, columns: Ints) -> Accounts:
        """Return the accounts for other jobs: where each was before, -1 for a job that is new."""
        new = columns < 0
        return Accounts(
            self.window_s, self.ends_s, tuple(np.where(new, 0.0, lost_s[columns]) for lost_s in self.lost_s)
        )


def opened(n: int, window_s: float, at_s: float) -> Accounts:
    """Return accounts of n jobs that have lost nothing yet."""
    return Accounts(window_s, (at_s,), (np.zeros(n),))


def allowed_s(tier: Ints, window_s: float) -> Floats:
    """Return what each job may lose in any window, (n,). [s]"""
    return np.asarray(TOLERANCE_FRAC)[tier] * window_s
