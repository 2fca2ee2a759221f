"""What is known when a plan is made: readings, forecasts on the plan's own steps, and what had to be done without. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from vppd.config.planning import PlanningConfig
from vppd.core.forecast.outlook import MEDIAN_FRAC, Outlook
from vppd.core.state import Decision
from vppd.planning.plan.deferral import SECONDS, Chunk
from vppd.planning.plan.green_account import GreenAccount
from vppd.snapshot import Floats, Plant, Snapshot

LEAST_STEPS = 4
"""What is known for fewer steps is not known."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What the last cycle believed."""

    snapshot: Snapshot
    decision: Decision
    stored_wh: Floats | None = None
    """(n,) energy at the beginning of the present step, NaN where not known; None: as much as now. [Wh]"""
    peak_w: float = 0.0
    """The highest import of a step so far. [W]"""
    green: GreenAccount | None = None
    """What the green rules have in this period so far; None where there are none, or nothing is counted."""


@dataclass(slots=True, eq=False)
class Known:
    """The moment and its forecasts; the horizon shrinks to what is known of every series that was asked for."""

    moment: Moment
    plant: Plant
    outlook: Mapping[str, Outlook]
    terms: PlanningConfig
    start: datetime
    step_s: float
    steps: int
    missing: list[str] = field(default_factory=list)
    """What there was no forecast for, and what was done about it."""

    def series(self, name: str) -> Floats | None:
        """Return the median of a series, (steps,), None where there is none; shortens the horizon to what is known of it."""
        found = self.outlook.get(name)
        if found is None:
            return None
        level = min(found.forecast.levels, key=lambda tau: abs(tau - MEDIAN_FRAC))
        values = found.over(self.start, self.step_s, self.steps, level)
        unknown = np.flatnonzero(~np.isfinite(values))
        known = int(unknown[0]) if len(unknown) else len(values)
        if known < min(LEAST_STEPS, self.steps):
            return None
        if known < self.steps:
            self.missing.append(f"{name}: known for {known * self.step_h:g} h only, so the plan ends there")
            self.steps = known
        return values[:known]

    @property
    def step_h(self) -> float:
        """Return the length of a step. [h]"""
        return self.step_s / SECONDS

    def starts(self) -> list[datetime]:
        """Return when each step begins."""
        return [self.start + timedelta(seconds=k * self.step_s) for k in range(self.steps)]


@dataclass(slots=True, eq=False)
class Parts:
    """Who is planned, by place in the plant; series have one entry per step or more."""

    stored: list[int] = field(default_factory=list)
    generating: list[int] = field(default_factory=list)
    computing: list[int] = field(default_factory=list)
    own_w: dict[int, Floats] = field(default_factory=dict)
    """By node: what nobody decides there, but for clusters and generation. [W]"""
    fixed_w: dict[int, Floats] = field(default_factory=dict)
    """By cluster: what may not wait. [W]"""
    demand_w: dict[int, Floats] = field(default_factory=dict)
    """By cluster: what it would draw. [W]"""
    shed_w: dict[int, Floats] = field(default_factory=dict)
    """By cluster: what may be shed of it but does not wait. [W]"""
    chunks: list[Chunk] = field(default_factory=list)
    works: dict[str, list[str]] = field(default_factory=dict)
    """By cluster: the names of its work that may wait."""

    def add(self, chunk: Chunk) -> None:
        """Note work that may wait."""
        self.chunks.append(chunk)
        self.works.setdefault(chunk.key.asset, []).append(chunk.key.name)

    def works_of(self, asset: str) -> list[str]:
        """Return the names of a cluster's work that may wait."""
        return self.works.get(asset, [])
