"""What the meter shows of a curtailment: measured before and after, step by step, and what is still missing."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import structlog

from vppd.core.curtail.learn import drift_w

STEPS_KEPT = 50
SHORT_FRAC = 0.01
"""More than this part of the budget beyond it is a shortfall. [0-1]"""
ANOTHER_FRAC = 0.01
"""A budget that moves by more than this is another step. [0-1]"""
DRIFT_MOST_FRAC = 0.2
"""Of the budget: a greater difference is no drift but a wrong reading. [0-1]"""
GIVE_BACK = 0.5
"""Of what the meter shows less than expected only this part is given back: too little power is no breach."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Step:
    """One budget and what came of it within the ramp time."""

    at_s: float
    budget_w: float
    before_w: float
    """Measured before anything was curtailed, what an earlier process held added. [W]"""
    expected_w: float
    measured_w: float
    delivered_frac: float
    """Measured drop by the drop that was asked for; 1 when nothing was. [0-1 and beyond]"""
    short_w: float
    """Measured beyond the budget. [W, >= 0]"""


class Verification:
    """Follows one cluster from before a curtailment to its end."""

    def __init__(self, asset_id: str, ramp_s: float) -> None:
        self._asset_id, self._ramp_s = asset_id, ramp_s
        self.before_w: float | None = None
        """Measured when the curtailment began; None while there is none. [W]"""
        self.drift_w = 0.0
        """What the meter shows beyond what is in force, smoothed. [W]"""
        self.steps: deque[Step] = deque(maxlen=STEPS_KEPT)
        self._budget_w, self._expected_w, self._due_s = 0.0, 0.0, float("inf")

    def measured(self, power_w: float, in_force_w: float, budget_w: float, *, settled: bool, now_s: float) -> None:
        """Take a measurement beside what is believed of what is in force. [W]"""
        if self.before_w is None or not math.isfinite(power_w):
            return
        if settled:
            most_w = DRIFT_MOST_FRAC * budget_w
            # Beyond the budget all of it counts at once; what is only a better guess is smoothed.
            now_w = power_w - in_force_w if power_w > budget_w else drift_w(self.drift_w, in_force_w, power_w)
            self.drift_w = min(max(now_w, -most_w), most_w)
        if now_s >= self._due_s:
            self._judge(power_w, now_s)

    def planned(self, unheld_w: float, budget_w: float, expected_w: float, *, is_free: bool, now_s: float) -> None:
        """Note what was planned; ``unheld_w`` is measured, with what was held then added. [W]"""
        if is_free:
            self.before_w, self.drift_w, self._due_s = None, 0.0, float("inf")
            return
        began = self.before_w is None
        if self.before_w is None:
            self.before_w = unheld_w
        if began or abs(budget_w - self._budget_w) > ANOTHER_FRAC * max(abs(budget_w), 1.0):
            self._budget_w, self._due_s = budget_w, now_s + self._ramp_s
        self._expected_w = expected_w

    @property
    def correction_w(self) -> float:
        """Return what is to be taken off the next budget. [W]"""
        return self.drift_w if self.drift_w > 0.0 else GIVE_BACK * self.drift_w

    def _judge(self, power_w: float, now_s: float) -> None:
        assert self.before_w is not None
        wanted_w = self.before_w - self._budget_w
        delivered_frac = (self.before_w - power_w) / wanted_w if wanted_w > 0.0 else 1.0
        over_w = max(power_w - self._budget_w, 0.0)
        short_w = over_w if over_w > SHORT_FRAC * abs(self._budget_w) else 0.0
        step = Step(now_s, self._budget_w, self.before_w, self._expected_w, power_w, delivered_frac, short_w)
        self.steps.append(step)
        # While it is short it is judged again after another ramp time: that is when what was added has landed.
        self._due_s = now_s + self._ramp_s if short_w > 0.0 else float("inf")
        say = log.warning if short_w > 0.0 else log.info
        say(
            "curtailment_verified",
            asset=self._asset_id,
            budget_w=round(step.budget_w),
            before_w=round(step.before_w),
            expected_w=round(step.expected_w),
            measured_w=round(step.measured_w),
            delivered_frac=round(delivered_frac, 3),
            short_w=round(short_w),
        )
