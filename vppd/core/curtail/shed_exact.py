"""The exact optimum of one step of curtailment for few jobs: branch and bound over pauses and over dents of the curves. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from vppd.core.curtail.curves import Curves
from vppd.core.curtail.shed import TINY_W, Ask, Shed, cost_of, freed_w, rounded

_GAIN = 1e-9
"""A branch that cannot save more than this is not looked into."""


_Point = tuple[float, float, int | None]
"""What a point saves [W] and what it costs, and which it is, None for a pause."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One job's points by depth, for all its GPUs."""

    saved_w: tuple[float, ...]
    cost: tuple[float, ...]
    pause: tuple[float, float] | None
    """Saving and cost; None where it may not be paused."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """What is left open of a job: points ``first`` to ``last``, and perhaps a pause."""

    first: int
    last: int
    may_pause: bool
    must_pause: bool = False


@dataclass(frozen=True, slots=True)
class _Step:
    """From one corner of a job's envelope to the next; ``upper`` None is the pause."""

    per_w: float
    job: int
    lower: int
    upper: int | None
    width_w: float


@dataclass(frozen=True, slots=True)
class _Bound:
    """The relaxed answer under some choices."""

    value: float
    """The cost."""
    short_w: float
    point_w: tuple[float, ...]
    """Saving of each job by a cap. [W]"""
    paused: tuple[bool, ...]
    part: _Step | None
    """The step that is taken in part."""


def exact(curves: Curves, ask: Ask, need_w: float, most_nodes: int = 400) -> Shed:
    """Return the cheapest division without parts; beyond ``most_nodes`` the best found so far."""
    best = rounded(curves, ask, need_w)
    if need_w <= 0.0 or best.short_w > TINY_W:
        return best
    jobs = _jobs(curves, ask)
    open_nodes = [tuple(_Choice(0, len(job.saved_w) - 1, job.pause is not None) for job in jobs)]
    for _ in range(most_nodes):
        if not open_nodes:
            break
        choices = open_nodes.pop()
        bound = _bound(jobs, choices, need_w)
        if bound.short_w > TINY_W or bound.value >= best.value - _GAIN:
            continue
        if (trial := _as_shed(curves, ask, jobs, bound, need_w)) is not None and trial.value < best.value:
            best = trial
        open_nodes.extend(_branches(choices, bound.part))
    return best


def _jobs(curves: Curves, ask: Ask) -> list[_Job]:
    depth, pause_w = curves.depth, ask.pause_w(curves)
    deepest_w = depth.saved_within_w(ask.curve, np.maximum(ask.most_lost_frac, 0.0)).tolist()
    result = []
    for i, row in enumerate(ask.curve.tolist()):
        watts, worth = float(ask.gpus[i] * ask.watt_factor[i]), float(ask.gpus[i] * ask.weight[i])
        points = [(0.0, 0.0)]
        for saved_w, lost in zip(depth.saved_w[row].tolist(), depth.lost_frac[row].tolist(), strict=True):
            if lost > ask.most_lost_frac[i]:
                if deepest_w[i] > points[-1][0] + TINY_W:
                    points.append((deepest_w[i], float(ask.most_lost_frac[i])))
                break
            if (saved_w, lost) != points[-1]:
                points.append((saved_w, lost))
        pause = float(ask.pause_lost_frac[i])
        result.append(
            _Job(
                tuple(s * watts for s, _ in points),
                tuple(lo * worth for _, lo in points),
                (float(pause_w[i]) * watts, pause * worth) if np.isfinite(pause) else None,
            )
        )
    return result


def _bound(jobs: list[_Job], choices: tuple[_Choice, ...], need_w: float) -> _Bound:
    """Return the optimum when jobs may be left between corners of the envelope of their open points."""
    cost, left_w, steps = 0.0, need_w, []
    point_w, paused = [], []
    for i, (job, choice) in enumerate(zip(jobs, choices, strict=True)):
        if choice.must_pause and job.pause is not None:
            left_w, cost = left_w - job.pause[0], cost + job.pause[1]
        else:
            cost += job.cost[choice.first]
            left_w -= job.saved_w[choice.first]
            steps += _envelope(i, job, choice)
        point_w.append(0.0 if choice.must_pause else job.saved_w[choice.first])
        paused.append(choice.must_pause)
    part = None
    for step in sorted(steps, key=lambda s: (s.per_w, s.job, s.lower)):
        if left_w <= TINY_W:
            break
        taken_w = min(step.width_w, left_w)
        cost, left_w = cost + taken_w * step.per_w, left_w - taken_w
        whole = taken_w == step.width_w
        if step.upper is None:
            paused[step.job] = whole
        else:
            point_w[step.job] += taken_w
        part = None if whole else step
    return _Bound(cost, max(left_w, 0.0), tuple(point_w), tuple(paused), part)


def _envelope(i: int, job: _Job, choice: _Choice) -> list[_Step]:
    """Return the steps of the lower convex envelope of a job's open points."""
    return [
        _Step((lo - l0) / (s - s0), i, k0 if k0 is not None else 0, k, s - s0)
        for (s0, l0, k0), (s, lo, k) in pairwise(_lower_hull(_open_points(job, choice)))
    ]


def _open_points(job: _Job, choice: _Choice) -> list[_Point]:
    """Return the points of a job that are open to choose, by what they save."""
    points: list[_Point] = [(job.saved_w[k], job.cost[k], k) for k in range(choice.first, choice.last + 1)]
    if choice.may_pause and job.pause is not None and job.pause[0] > TINY_W:
        points = [point for point in points if point[0] < job.pause[0] - TINY_W]
        points.append((*job.pause, None))
    return points


def _lower_hull(points: list[_Point]) -> list[_Point]:
    """Return the points at which the lower convex hull of points, sorted by what they save, has its corners."""
    chain: list[_Point] = []
    for s, lo, k in points:
        if chain and s <= chain[-1][0] + TINY_W:
            continue  # the same saving at a greater loss
        while len(chain) > 1:
            (s0, l0, _), (s1, l1, _) = chain[-2], chain[-1]
            if (l1 - l0) * (s - s0) <= (lo - l0) * (s1 - s0):
                break
            chain.pop()
        chain.append((s, lo, k))
    return chain


def _branches(choices: tuple[_Choice, ...], part: _Step | None) -> list[tuple[_Choice, ...]]:
    """Return the choices that a job left in part is split into; none when nothing is left in part."""
    if part is None or part.upper == part.lower + 1:
        return []
    mine = choices[part.job]
    if part.upper is None:
        options = [replace(mine, may_pause=False), replace(mine, may_pause=False, must_pause=True)]
    else:
        middle = (part.lower + part.upper) // 2
        options = [replace(mine, last=middle, may_pause=False), replace(mine, first=middle)]
    return [(*choices[: part.job], option, *choices[part.job + 1 :]) for option in options]


def _as_shed(curves: Curves, ask: Ask, jobs: list[_Job], bound: _Bound, need_w: float) -> Shed | None:
    """Return the relaxed answer on the true curves where it meets the need, else None."""
    watts = ask.gpus * ask.watt_factor
    capped_w = np.asarray(bound.point_w) / np.where(watts > 0.0, watts, 1.0)
    paused = np.asarray(bound.paused, dtype=np.float64)
    shed = Shed(np.where(paused > 0.5, 0.0, capped_w), paused, 0.0, 0.0)
    if freed_w(curves, ask, shed) < need_w - TINY_W * max(len(jobs), 1):
        return None
    return replace(shed, value=cost_of(curves, ask, shed))
