"""The season's plan of storage: the daemon's own, solved in this process, and what it wishes of each asset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import numpy as np

from vppd.config.planning import PlanningConfig
from vppd.core.forecast.outlook import Outlook
from vppd.core.forecast.quantiles import LEVELS, Forecast, Score
from vppd.core.headroom import narrowed, standing
from vppd.core.state import Decision
from vppd.core.timetable import Timetable
from vppd.model import Obligation
from vppd.planning.plan.answer import Plan, plan_of, wishes
from vppd.planning.plan.assemble import assemble
from vppd.planning.plan.known import Moment
from vppd.planning.plan.worker import answered
from vppd.snapshot import Floats, Plant, Snapshot

TERMS = PlanningConfig(horizon_h=36.0, defer_h=(0.0, 0.0, 0.0, 0.0), time_limit_s=20.0)
NOTHING_WAITS = (False, False, False, False)


def price_outlook(at: datetime, step_s: float, steps: int) -> Outlook:
    """Return prices that are known beforehand: dear in the evening, cheap at night. [per Wh]"""
    hour = (at.hour + at.minute / 60.0 + np.arange(steps) * step_s / 3600.0) % 24.0
    price = (90.0 + 50.0 * np.exp(-(((hour - 18.5) / 2.5) ** 2)) - 40.0 * np.exp(-(((hour - 3.0) / 3.0) ** 2))) / 1e6
    score = Score(0.0, np.ones(len(LEVELS)), steps)
    forecast = Forecast("known", step_s, LEVELS, np.tile(price, (len(LEVELS), 1)), score, np.empty((0, steps)))
    return Outlook("price/import", "feed:day-ahead", at, at, forecast)


class Plans:
    """Makes a plan when told to and says what it wishes."""

    def __init__(self, plant: Plant, step_s: float, obligations: Callable[[datetime], Sequence[Obligation]]) -> None:
        self._plant, self._step_s, self._obligations = plant, step_s, obligations
        self._plan: Plan | None = None
        self.made = self.failed = 0

    @property
    def timetable(self) -> Timetable | None:
        """Return the newest plan's timetable."""
        return None if self._plan is None else self._plan.timetable

    def make(self, snapshot: Snapshot, decision: Decision, outlook: Mapping[str, Outlook]) -> None:
        """Plan anew from what the last cycle believed, around everything that is sold."""
        sold = self._obligations(snapshot.at)
        problem = assemble(Moment(snapshot, decision), self._plant, outlook, sold, {}, TERMS, self._step_s)
        answer = answered(problem.document)
        if answer["cost"] is None:
            self.failed += 1
            return
        self._plan, self.made = plan_of(problem, answer, snapshot.at, self._plant), self.made + 1

    def preferred_w(self, snapshot: Snapshot, decision: Decision) -> Floats | None:
        """Return what the plan wishes of each asset, as the daemon's planner does. [W]"""
        if self._plan is None:
            return None
        found_w = wishes(self._plan, snapshot.at, snapshot.readings, NOTHING_WAITS, self._plant)
        sold = self._obligations(snapshot.at)
        if found_w is None or not sold:
            return found_w
        return narrowed(found_w, sold, snapshot.at, standing(snapshot.readings, decision, self._plant), self._plant)
