"""The last resort: jobs that keep checkpoints go back into the queue when caps and stops have not been enough for a while."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from adapters._slurm_config import SlurmConfig
from adapters._slurm_jobs import RUNNING, Job
from adapters._slurm_journal import Held
from adapters._slurm_plan import Plan
from adapters._slurm_power import Picture

REQUEUE = "requeue"
_SHORT_FRAC = 0.005
"""A budget missed by less is met."""


class Requeueing:
    """Says which jobs go back into the queue, and for how long nothing may start in their place."""

    def __init__(self, config: SlurmConfig) -> None:
        self._config = config
        self._short_since_s: float | None = None
        self._drew_w: dict[int, float] = {}
        """By job that was put back: what it drew. [W]"""

    def freezes(self, plan: Plan, picture: Picture, budget_w: float, held: Held) -> Plan:
        """Return the plan with starts frozen for as long as the jobs that were put back have no room in the budget."""
        waiting = [i for i, touch in held.touched.items() if touch.what == REQUEUE]
        self._drew_w = {i: w for i, w in self._drew_w.items() if i in waiting}
        if not waiting or plan.freeze:
            return plan
        # One that an earlier process put back drew nobody knows how much: it waits until the budget is lifted.
        back_w = sum(self._drew_w.get(i, math.inf) for i in waiting)
        return replace(plan, freeze=picture.available_w + back_w > budget_w)

    def choose(
        self, plan: Plan, picture: Picture, jobs: Iterable[Job], budget_w: float, barred: frozenset[int], now_s: float
    ) -> list[Job]:
        """Return the jobs to put back: the most tolerant tier and the largest first, no more than are needed."""
        short_w = plan.expected_w - budget_w
        if short_w <= _SHORT_FRAC * budget_w:
            self._short_since_s = None
            return []
        if self._short_since_s is None:
            self._short_since_s = now_s
        if now_s - self._short_since_s < self._config.requeue_after_s:
            return []
        able = [job for job in jobs if self._may(job, plan, picture) and job.id not in barred]
        saves_w = {job.id: _saves_w(job, picture) for job in able}
        chosen: list[Job] = []
        for job in sorted(able, key=lambda job: (-picture.loads[job.id].tier, -saves_w[job.id], job.id)):
            if short_w <= 0.0:
                break
            chosen.append(job)
            short_w -= saves_w[job.id]
        self._drew_w |= {job.id: saves_w[job.id] for job in chosen}
        return chosen

    def _may(self, job: Job, plan: Plan, picture: Picture) -> bool:
        load = picture.loads.get(job.id)
        return (
            load is not None
            and load.tier in self._config.requeue_tiers
            and job.requeues
            and job.state == RUNNING
            and not job.mark
            and job.id not in plan.stop
        )


def _saves_w(job: Job, picture: Picture) -> float:
    return sum(picture.spots[name].full_w[job.id] for name in job.nodes if name in picture.spots)
