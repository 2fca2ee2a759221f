"""The plan as Prometheus reads it: looked up at the scrape, from what is there anyway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vppd.planning.plan.answer import Plan
from vppd.planning.plan.tally import Step
from vppd.runtime.figures import Figure, Row, one

STATUSES = ("none", "optimal", "incumbent", "heuristic")


class Planning(Protocol):
    """The planner, as far as it is counted."""

    @property
    def newest(self) -> Plan | None:
        """The newest plan, in force or not."""
        ...

    @property
    def in_force(self) -> bool:
        """Say whether it is followed."""
        ...

    @property
    def last_step(self) -> Step | None:
        """The step that ended last."""
        ...

    @property
    def reason(self) -> str:
        """Why there is no new plan; empty when there is."""
        ...


@dataclass(frozen=True, slots=True)
class _Plan:
    """Reads what the planner has."""

    planner: Planning
    now: Callable[[], datetime]

    def of(self, read: Callable[[Plan], float | None]) -> Callable[[], float | None]:
        """Return what reads something of the newest plan, None while there is none."""
        return lambda: read(self.planner.newest) if self.planner.newest is not None else None

    def status(self) -> Iterator[Row]:
        found = "none" if self.planner.newest is None else self.planner.newest.timetable.status
        for status in dict.fromkeys((*STATUSES, found)):
            yield (status,), float(status == found)

    def step_import(self) -> Iterator[Row]:
        if (step := self.planner.last_step) is not None:
            yield ("measured",), step.import_w
            if step.planned is not None:
                yield ("planned",), step.planned.import_w

    def import_w(self, plan: Plan) -> float | None:
        step = plan.timetable.step_at(self.now())
        return None if step is None else float(plan.timetable.import_w[step])

    def age_s(self, plan: Plan) -> float:
        return (self.now() - plan.timetable.made_at).total_seconds()


def plan_figures(planner: Planning, now: Callable[[], datetime]) -> tuple[Figure, ...]:
    """Return how old and how good the plan is, and whether the meter does what it says."""
    plan = _Plan(planner, now)
    last_step = "Mean import of the site over the step that ended last, planned and measured."
    return (
        one("vppd_plan_in_force", "Whether there is a plan that can be believed.", lambda: planner.in_force),
        one("vppd_plan_failing", "Whether the newest round gave no plan.", lambda: bool(planner.reason)),
        one("vppd_plan_age_seconds", "Time since the newest plan was made.", plan.of(plan.age_s)),
        Figure("vppd_plan_status", "How good the newest plan is: 1 for one of them.", ("status",), plan.status),
        one("vppd_plan_cost", "Of the plan's horizon, in the currency of prices.", plan.of(lambda p: p.timetable.cost)),
        one("vppd_plan_gap_ratio", "How far its cost may be from the least.", plan.of(lambda p: p.gap_frac)),
        one("vppd_plan_solve_seconds", "Time that the solver took.", plan.of(lambda p: p.solve_s)),
        one("vppd_plan_conflicts", "What could not be had.", plan.of(lambda p: len(p.timetable.conflicts))),
        one("vppd_plan_import_watts", "Planned import of the site now.", plan.of(plan.import_w)),
        Figure("vppd_plan_step_import_watts", last_step, ("what",), plan.step_import),
    )
