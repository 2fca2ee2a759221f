"""Why each job got what it got, in words that are only made when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from vppd.core.classes import Classes
from vppd.core.workload_columns import Columns
from vppd.snapshot import Bools, Floats
from vppd.workload import Curtailment, Workload


class Reasons(Mapping[str, str]):
    """Reasons of all jobs that are touched, by id."""

    def __init__(self, columns: Columns, classes: Classes, left_s: Floats, level_frac: Floats, paused: Bools) -> None:
        """``left_s``: what is left in each account, (n,). [s]"""
        self._columns, self._classes, self.left_s = columns, classes, left_s
        self.level_frac, self.paused = level_frac, paused
        self._index: dict[str, int] | None = None

    def __getitem__(self, job_id: str) -> str:
        return self._of(self._touched()[job_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._touched())

    def __len__(self) -> int:
        return len(self._touched())

    def _touched(self) -> dict[str, int]:
        if self._index is None:
            touched = np.flatnonzero(self.paused | (self.level_frac < 1.0)).tolist()
            self._index = {self._columns.ids[i]: i for i in touched}
        return self._index

    def _of(self, i: int) -> str:
        c, group = self._columns, "" if self._columns.groups is None else self._columns.groups[i]
        with_group = f", with all of {group}" if group else ""
        left = f"{self.left_s[i]:.0f} s of its account left"
        if self.paused[i]:
            freed_w = c.full_w[i] - c.kept_w[i]
            return f"tier {c.tier[i]}: paused, frees {freed_w / 1e3:.2f} kW{with_group}; {left}"
        curves, level = self._classes.curves, self.level_frac[i : i + 1]
        freed_w = c.full_w[i] * (1.0 - curves.power_at_w(c.kind[i : i + 1], level)[0])
        lost_frac = 1.0 - curves.throughput_at_frac(c.kind[i : i + 1], level)[0]
        return (
            f"tier {c.tier[i]}: slowed to {level[0]:.0%} of its power, frees {freed_w / 1e3:.2f} kW "
            f"for {lost_frac:.0%} of its throughput{with_group}; {left}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Story:
    """One plan with all that led to it."""

    at_s: float
    """Monotonic time. [s]"""
    budget_w: float
    aim_w: float
    """The budget less margin and correction. [W]"""
    workload: Workload
    answer: Curtailment
    reasons: Reasons
    barred: Bools
    """(n,) jobs left alone because they did not follow."""
    horizon_s: float
    soft: bool
    """The limit only spreads what comes back."""
