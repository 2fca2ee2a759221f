"""A scenario for ``vppd simulate``: classes of work, jobs, events and perhaps a battery, as frozen values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PositiveFloat, ValidationError, model_validator

from vppd.config.table import Fraction, InvalidConfig, NonNegative, Problem, Table, problems_of
from vppd.config.toml_file import content_of
from vppd.core.curtail.curves import Curves, tables

_MOST_STEPS = 100_000


class ClassTable(Table):
    """``[[classes]]``: what a GPU draws and does under a cap; linear between the points."""

    name: str = Field(min_length=1)
    cap_w: tuple[PositiveFloat, ...] = Field(min_length=1)
    power_w: tuple[NonNegative, ...]
    throughput: tuple[Fraction, ...]
    """1.0 = uncapped."""
    idle_w: NonNegative
    """While the job is paused."""

    @model_validator(mode="after")
    def _is_table(self) -> Self:
        if not len(self.cap_w) == len(self.power_w) == len(self.throughput):
            raise ValueError("cap_w, power_w and throughput must have the same number of points")
        if len(set(self.cap_w)) < len(self.cap_w):
            raise ValueError("every cap_w may occur once")
        if self.throughput[self.cap_w.index(max(self.cap_w))] != 1.0:
            raise ValueError("throughput at the greatest cap_w must be 1.0: that is uncapped")
        return self


class JobTable(Table):
    """``[[jobs]]``: one job for the whole of the scenario."""

    name: str = Field(min_length=1)
    class_name: str = Field(alias="class")
    gpus: Annotated[int, Field(ge=1)]
    tier: Annotated[int, Field(ge=0, le=3)]
    pausable: bool = False
    restart_s: NonNegative = 0.0
    """After a pause the job draws power and does nothing for so long."""


class EventTable(Table):
    """``[[events]]``: from the end of the ramp the cluster draws no more than the target."""

    start_s: NonNegative
    end_s: PositiveFloat
    ramp_s: NonNegative = 0.0
    target_w: NonNegative | None = None
    target_frac: Fraction | None = None
    """Of the uncapped power of the cluster."""

    @model_validator(mode="after")
    def _is_event(self) -> Self:
        if self.end_s <= self.start_s:
            raise ValueError("end_s must be after start_s")
        if self.ramp_s > self.end_s - self.start_s:
            raise ValueError("ramp_s must not be longer than the event")
        if (self.target_w is None) == (self.target_frac is None):
            raise ValueError("exactly one of target_w and target_frac must be given")
        return self


class BatteryTable(Table):
    """``[battery]``: carries a part of each event, and is charged again after it."""

    power_w: PositiveFloat
    """Most it charges or discharges with."""
    capacity_wh: PositiveFloat
    soc_frac: Fraction = 1.0
    """At the beginning, and what it is charged to again."""
    reserve_frac: Fraction = 0.2
    """It is never discharged below."""
    efficiency_frac: Annotated[float, Field(gt=0.0, le=1.0)] = 0.96
    """Each way."""


class Scenario(Table):
    """The whole file."""

    step_s: PositiveFloat
    duration_s: PositiveFloat
    window_s: PositiveFloat
    """Every window of this length, or the whole run where that is shorter, keeps the tiers."""
    classes: tuple[ClassTable, ...] = Field(min_length=1)
    jobs: tuple[JobTable, ...] = Field(min_length=1)
    events: tuple[EventTable, ...] = ()
    battery: BatteryTable | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.step_s > min(self.duration_s, self.window_s):
            raise ValueError("step_s must not be longer than duration_s or window_s")
        if self.duration_s / self.step_s > _MOST_STEPS:
            raise ValueError(f"duration_s is more than {_MOST_STEPS} steps of step_s")
        for what, names in (("classes", [c.name for c in self.classes]), ("jobs", [j.name for j in self.jobs])):
            if twice := sorted(
                {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()
            ):
                raise ValueError(f"{what}: the name {twice[0]!r} is used twice")
        known = {c.name for c in self.classes}
        for job in self.jobs:
            if job.class_name not in known:
                raise ValueError(
                    f"jobs: {job.name!r} is of class {job.class_name!r}; there are {', '.join(sorted(known))}"
                )
        return self

    @property
    def steps(self) -> int:
        """Return the number of steps; the last may reach beyond ``duration_s``."""
        return math.ceil(self.duration_s / self.step_s - 1e-9)

    @property
    def window_steps(self) -> int:
        """Return the number of steps over which tiers are judged."""
        return max(1, min(self.steps, math.floor(self.window_s / self.step_s + 1e-9)))

    def curves(self) -> Curves:
        """Return the tables of all classes in their order."""
        return tables([(c.cap_w, c.power_w, c.throughput, c.idle_w) for c in self.classes])


def read(path: Path) -> Scenario:
    """Return the scenario in ``path``. Raises InvalidConfig with every mistake found."""
    try:
        return Scenario.model_validate(content_of(path))
    except ValidationError as error:
        raise InvalidConfig(path, tuple(_worded(p) for p in problems_of(error))) from error


def _worded(problem: Problem) -> Problem:
    known = "see docs/curtailment.md for the keys there are"
    return Problem(problem.key, problem.reason, known) if problem.reason == "unknown key" else problem
