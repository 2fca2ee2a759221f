"""Keeps the books on what is held down: how much each job has been slowed, and what it drew before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from adapters._slurm_config import SlurmConfig
from adapters._slurm_jobs import ENDING, LIVE, PENDING, Job
from adapters._slurm_journal import TOLERANCE_FRAC, Credit, Held, Touch
from adapters._slurm_plan import Plan
from adapters._slurm_power import Picture, full_credit_s, in_scope, job_tier

SETTLE_S = 8.0
"""After a node is let go its meter needs so long to show what it draws unheld."""


def adopt(config: SlurmConfig, held: Held, jobs: Iterable[Job], now_s: float) -> None:
    """Take over jobs that carry our mark but are not in the journal; how long they have been held is not known."""
    for job in jobs:
        if job.mark and job.id not in held.touched and in_scope(config, job.partitions):
            tier = job_tier(config, job)
            left_s = config.orphan_lease_s * (1.0 - TOLERANCE_FRAC[tier])
            held.touched[job.id] = Touch(job.mark, now_s)
            held.credits[job.id] = Credit(min(left_s, full_credit_s(config, tier)), now_s, 1.0)


def forget_ended(held: Held, by_id: Mapping[int, Job]) -> None:
    """Drop jobs that have ended."""
    alive = {i for i, job in by_id.items() if job.state in LIVE or job.state == PENDING}
    ending = {i for i, job in by_id.items() if job.state in ENDING}  # one that is put back ends, and then waits
    held.touched = {i: t for i, t in held.touched.items() if i in alive or (t.what == "requeue" and i in ending)}
    held.credits = {i: credit for i, credit in held.credits.items() if i in alive}


def keep_accounts(config: SlurmConfig, held: Held, plan: Plan, picture: Picture, now_s: float) -> None:
    """Write into each job's account how much it is slowed from now on."""
    for load in picture.loads.values():
        slow_frac = 1.0 if load.id in plan.stop else plan.slow_frac.get(load.id, 0.0)
        if slow_frac > 0.0 or load.credit_s < full_credit_s(config, load.tier):
            held.credits[load.id] = Credit(load.credit_s, now_s, slow_frac)
        else:
            held.credits.pop(load.id, None)


class DrawMemory:
    """What jobs drew at full speed on nodes that are touched; kept until the meters show it again."""

    def __init__(self) -> None:
        self._settled_at_s: dict[str, float] = {}

    def keep(self, held: Held, plan: Plan, picture: Picture, now_s: float) -> None:
        """Remember nodes that are touched now, and forget those let go long enough ago."""
        touched = {*plan.cap_w, *held.old_cap_w}
        for job_id in plan.stop | held.touched.keys():
            load = picture.loads.get(job_id)
            touched.update(load.nodes if load else ())
        for name in touched & picture.spots.keys():
            held.full_w.setdefault(name, dict(picture.spots[name].full_w))
            self._settled_at_s[name] = now_s + SETTLE_S
        for name in list(held.full_w):
            if now_s >= self._settled_at_s.setdefault(name, now_s + SETTLE_S):
                del held.full_w[name], self._settled_at_s[name]
