"""The planner of a cluster that has been handed none: the most tolerant tier first, nobody slowed beyond its tier. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from vppd.workload import Curtailment, Job, Knob, Workload

TOLERANCE_FRAC = (0.0, 0.10, 0.25, 0.50)
"""Average slow-down that each flex tier accepts."""
_ORDER = (3, 2, 1)
_ROUNDING_FRAC = 1e-9
"""A need smaller than this part of the full power is none: it would cost somebody a replica."""


class TierOrder:
    """Slows before it pauses, tier by tier; it keeps no accounts: how long a pause may last is the adapter's to guard."""

    def plan(self, workload: Workload, budget_w: float, now_s: float) -> Curtailment:
        """Return what keeps the draw within the budget. [W]"""
        excess_w = workload.full_w - budget_w
        least_w = _ROUNDING_FRAC * workload.full_w
        if excess_w <= 0.0:
            return Curtailment(expected_w=workload.full_w)
        levels: dict[str, float] = {}
        paused: dict[str, float] = {}
        for tier in _ORDER:
            jobs = [job for job in workload.jobs if job.tier == tier]
            excess_w -= _slow(jobs, excess_w, levels) if excess_w > least_w else 0.0
            excess_w -= _pause(jobs, excess_w, paused) if excess_w > least_w else 0.0
        saved_w = workload.full_w - budget_w - excess_w
        reasons = {job.id: f"tier {job.tier}" for job in workload.jobs if job.id in levels or job.id in paused}
        return Curtailment(levels, frozenset(paused), workload.full_w - saved_w, max(excess_w, 0.0), reasons)

    def shed_w(self, workload: Workload) -> tuple[float, ...]:
        """Return what could be shed now, by tier. [W]"""
        shed_w = [0.0, 0.0, 0.0, 0.0]
        for job in workload.jobs:
            if job.tier > 0:
                shed_w[job.tier] += _most_w(job)
        return tuple(shed_w)


def _deepest_frac(job: Job) -> float:
    """Return the lowest level that keeps the job within its tier for ever, its throughput following its power."""
    return 1.0 if job.knob is Knob.NONE else max(job.floor_frac, 1.0 - TOLERANCE_FRAC[job.tier])


def _most_w(job: Job) -> float:
    if job.pausable:
        return job.full_w - job.kept_w
    return job.full_w * (1.0 - _deepest_frac(job))


def _slow(jobs: Iterable[Job], excess_w: float, levels: dict[str, float]) -> float:
    """Slow the jobs of one tier equally deep, and return what that saves. [W]"""
    rooms = {job: job.full_w * (1.0 - _deepest_frac(job)) for job in jobs if not job.pausable}
    total_w = sum(rooms.values())
    if total_w <= 0.0:
        return 0.0
    depth_frac = min(1.0, excess_w / total_w)
    for job, room_w in rooms.items():
        if room_w > 0.0:
            levels[job.id] = 1.0 - depth_frac * (1.0 - _deepest_frac(job))
    return depth_frac * total_w


def _pause(jobs: Iterable[Job], excess_w: float, paused: dict[str, float]) -> float:
    """Pause as few jobs of one tier as needed, those that are paused already before others, and return what that saves. [W]"""
    chosen: list[Job] = []
    saved_w = 0.0
    for job in sorted((j for j in jobs if j.pausable), key=lambda j: (not j.paused, -j.full_w, j.id)):
        if saved_w >= excess_w:
            break
        chosen.append(job)
        saved_w += job.full_w - job.kept_w
    for job in reversed(chosen):  # the last one may have been so large that an earlier one is not needed
        less_w = saved_w - (job.full_w - job.kept_w)
        if less_w >= excess_w and not job.paused:
            saved_w = less_w
        else:
            paused[job.id] = job.full_w
    return saved_w
