"""What was measured of one place lately, for reports: kept in steps of a few seconds for a little over a day, also over a restart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vppd.grid.openadr3.trail import STATES, Trail
from vppd.snapshot import Floats

STEP_S = 5.0
"""Figures are means, or the last word, over steps of this length. [s]"""
KEPT_S = 25 * 3_600.0
"""Steps are kept for this long. [s]"""
SLACK_S = 3_600.0
"""And forgotten when they are older by this. [s]"""
LEAST_COVERED_FRAC = 0.9
"""An interval is known when at least this part of it was measured. [0-1]"""
MEANS = (
    "DEMAND", "BASELINE", "LOAD_SHED_DELTA_AVAILABLE", "GENERATION_DELTA_AVAILABLE", "UP_REGULATION_AVAILABLE",
    "DOWN_REGULATION_AVAILABLE", "STORAGE_MAX_CHARGE_POWER", "STORAGE_MAX_DISCHARGE_POWER",
)  # fmt: skip
LEVELS = ("STORAGE_CHARGE_LEVEL", "STORAGE_USABLE_CAPACITY")
"""Of these the last word in an interval counts."""
_COLUMNS = (*MEANS, *LEVELS)
_FIRST_ROOM = 256


class Past:
    """The steps of one place, oldest first."""

    def __init__(self, path: Path | None, now_s: float) -> None:
        """Take up what a file has of the time until now [unix s]; without a path nothing is kept over a restart."""
        self._steps = np.zeros(_FIRST_ROOM, dtype=[("at_s", "<f8"), ("said", "<f8", (len(_COLUMNS),)), ("state", "u1")])
        self._count = 0
        self._trail = Trail(path, len(_COLUMNS))
        for at_s, said, state in self._trail.load(now_s - KEPT_S, now_s):
            self._keep(at_s, said, state)

    def add(self, at_s: float, said: Mapping[str, float], state: str) -> None:
        """Put a step away that began at a time [unix s]; the one in which an earlier process ended stays as it was."""
        row = np.array([said.get(name, math.nan) for name in _COLUMNS])
        self._trail.append(at_s, row, state)
        self._keep(at_s, row, state)

    def mean(self, name: str, start_s: float, span_s: float) -> float | None:
        """Return the mean over a time that has been measured for the most part; None otherwise. [W]"""
        steps = self._seen()
        at_s = steps["at_s"]
        i, j = np.searchsorted(at_s, (start_s - STEP_S, start_s + span_s), side="right")
        power_w = steps["said"][i:j, _COLUMNS.index(name)]
        overlap_s = np.minimum(at_s[i:j] + STEP_S, start_s + span_s) - np.maximum(at_s[i:j], start_s)
        overlap_s = np.where(np.isfinite(power_w), np.maximum(overlap_s, 0.0), 0.0)
        covered_s = float(overlap_s.sum())
        if not covered_s or covered_s < LEAST_COVERED_FRAC * span_s - STEP_S:
            return None
        return float((overlap_s * np.nan_to_num(power_w)).sum()) / covered_s

    def last(self, name: str, start_s: float, end_s: float) -> float | str | None:
        """Return the last word of a time: a level [0-1], an energy [Wh] or the state; None when there was none."""
        steps = self._seen()
        i = int(np.searchsorted(steps["at_s"], end_s, side="left")) - 1
        if i < 0 or steps["at_s"][i] + STEP_S < start_s:
            return None
        if name == "OPERATING_STATE":
            return STATES[int(steps["state"][i])]
        if name not in _COLUMNS:
            return None
        value = float(steps["said"][i, _COLUMNS.index(name)])
        return value if math.isfinite(value) else None

    def _seen(self) -> NDArray[np.void]:
        """Return all steps; who asks may do so beside the loop, and must not see the array change while it is looked at."""
        steps = self._steps
        return steps[: self._count]

    def tidy(self, at_s: float) -> bool:
        """Forget what is too old at a time [unix s], in memory and on disk, and say whether there was enough of it to bother."""
        if not self._count or self._steps["at_s"][0] >= at_s - KEPT_S - SLACK_S:
            return False
        old = int(np.searchsorted(self._seen()["at_s"], at_s - KEPT_S, side="right"))
        kept = self._steps[old : self._count].copy()
        self._steps, self._count = kept, len(kept)
        self._trail.rewrite(kept)
        return True

    def _keep(self, at_s: float, said: Floats, state: str) -> None:
        if self._count and at_s <= self._steps["at_s"][self._count - 1]:
            return
        if self._count == len(self._steps):
            room = np.zeros(max(_FIRST_ROOM, self._count // 2), dtype=self._steps.dtype)
            self._steps = np.concatenate([self._steps, room])
        self._steps[self._count] = (at_s, said, STATES.index(state))
        self._count += 1
