"""What a plan says of every asset, step by step: the seam between the planner, the control loop and the desk. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from vppd.snapshot import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Timetable:
    """n assets, in the order of the plant, over h steps from ``start``."""

    made_at: datetime
    start: datetime
    """Beginning of step 0, on the grid of the forecasts."""
    step_s: float
    status: str
    """How good the plan is: optimal, incumbent or heuristic."""
    asset_ids: tuple[str, ...]
    power_w: Floats
    """(n, h) planned mean power, + = consumption; NaN where nothing is planned. [W]"""
    energy_wh: Floats
    """(n, h) stored after each step, NaN for what is not storage or not planned. [Wh]"""
    import_w: Floats
    """(h,) of the site, + = import. [W]"""
    renewable_w: Floats
    """(h,) planned output of the site's generation. [W, >= 0]"""
    cost: float
    """Of the whole horizon, in the currency of the prices."""
    conflicts: tuple[str, ...] = ()
    """What could not be had."""

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.import_w)

    @property
    def end(self) -> datetime:
        """When it has nothing more to say."""
        return self.start + timedelta(seconds=self.steps * self.step_s)

    def step_at(self, at: datetime) -> int | None:
        """Return the step that ``at`` lies in, None before the first and after the last."""
        step = int((at - self.start).total_seconds() // self.step_s)
        return step if 0 <= step < self.steps else None

    def power_at(self, at: datetime) -> Floats | None:
        """Return the planned power of each asset, (n,), None when the plan says nothing of ``at``. [W]"""
        step = self.step_at(at)
        return None if step is None else self.power_w[:, step]

    def starts(self) -> tuple[datetime, ...]:
        """Return when each step begins."""
        return tuple(self.start + timedelta(seconds=k * self.step_s) for k in range(self.steps))
