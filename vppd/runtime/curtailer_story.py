"""Why each job got what it got, in words that are only made when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from vppd.core.curtail.classes import Classes
from vppd.core.curtail.workload_columns import Columns
from vppd.runtime.verification import Verification
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


def chosen_view(story: Story, at: datetime, mono_s: float) -> dict[str, Any]:
    """Return what was chosen per job, as plain JSON values; jobs that are left at full speed are only counted."""
    answer, reasons, workload = story.answer, story.reasons, story.workload
    jobs = [
        {
            "id": job.id,
            "tier": job.tier,
            "group": job.group,
            "full_w": round(job.full_w, 1),
            "power_w": job.power_w,
            "wanted": "paused" if job.id in answer.paused else answer.level_frac.get(job.id, 1.0),
            "in_force": "paused" if job.paused else job.level_frac,
            "reason": reasons[job.id] if job.id in reasons else _left_alone(bool(story.barred[i])),
            "account_left_s": round(float(reasons.left_s[i]), 1),
        }
        for i, job in enumerate(workload.jobs)
        if job.id in reasons or job.paused or job.level_frac < 1.0 or story.barred[i]
    ]
    return {
        "at": (at - timedelta(seconds=max(mono_s - story.at_s, 0.0))).isoformat(),
        "budget_w": round(story.budget_w, 1),
        "aimed_w": round(story.aim_w, 1),
        "rest_w": round(workload.rest_w, 1),
        "expected_w": round(answer.expected_w, 1),
        "short_w": round(answer.short_w, 1),
        "for_s": round(story.horizon_s, 1),
        "gives_back": story.soft,
        "jobs": jobs,
        "at_full_speed": len(workload.jobs) - len(jobs),
    }


def measured_view(
    story: Story, verification: Verification, measured_w: float, at: datetime, mono_s: float
) -> dict[str, Any]:
    """Return what the meter shows of it, as plain JSON values."""
    before_w = verification.before_w
    wanted_w = None if before_w is None else before_w - story.budget_w
    delivered = None if before_w is None or not wanted_w or wanted_w <= 0.0 else (before_w - measured_w) / wanted_w
    return {
        "before_w": None if before_w is None else round(before_w, 1),
        "expected_w": round(story.answer.expected_w, 1),
        "now_w": round(measured_w, 1),
        "delivered_frac": None if delivered is None else round(delivered, 3),
        "short_w": round(max(measured_w - story.budget_w, 0.0), 1),
        "correction_w": round(verification.correction_w, 1),
        "steps": [
            {
                "at": (at - timedelta(seconds=max(mono_s - step.at_s, 0.0))).isoformat(),
                "budget_w": round(step.budget_w, 1),
                "before_w": round(step.before_w, 1),
                "expected_w": round(step.expected_w, 1),
                "measured_w": round(step.measured_w, 1),
                "delivered_frac": round(step.delivered_frac, 3),
                "short_w": round(step.short_w, 1),
            }
            for step in verification.steps
        ],
    }


def _left_alone(barred: bool) -> str:
    return "left alone for a while: it did not follow" if barred else "goes back to full speed"
