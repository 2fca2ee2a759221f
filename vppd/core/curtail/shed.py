"""One step of curtailment: the least weighted slow-down that frees a given power, by caps and pauses. Pure.

Every job brings a convex curve of loss over saving: the envelope of its cap table, and a pause beyond. All edges of all
curves are taken in order of loss per watt until the need is met, which is the optimum of the relaxed problem; what is
then left in part (at most one pause, or one chord over a dent of a curve) is rounded, or searched where jobs are few.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vppd.core.curtail.curves import Curves
from vppd.snapshot import Bools, Floats, Ints

NO_PAUSE = np.inf
"""``Ask.pause_lost_frac`` of a job that may not be paused."""
TINY_W = 1e-6
_MANY_JOBS = 500
"""From so many jobs on, a single pause more or less does not matter."""


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """What n jobs may give."""

    curve: Ints
    """(n,) rows of the curves."""
    gpus: Floats
    """(n,) slowed by a cap or stopped by a pause."""
    watt_factor: Floats
    """(n,) measured power over the curve's. """
    weight: Floats
    """(n,) importance of the throughput of one GPU."""
    most_lost_frac: Floats
    """(n,) the deepest cap loses no more. [0-1]"""
    pause_lost_frac: Floats
    """(n,) throughput that a pause costs, its part of the restart included (so perhaps above 1); NO_PAUSE: not to be paused."""
    rank: Floats
    """(n,) among equally good pauses the lower goes first."""
    points: tuple[Floats, Floats] | None = None
    """What ``corners`` says, where it is known already."""
    pause_saved_w: Floats | None = None
    """(n,) saved by a pause, per GPU before ``watt_factor``; None: what the curves say. [W]"""

    def pause_w(self, curves: Curves) -> Floats:
        """Return what a pause saves, per GPU before ``watt_factor``, (n,). [W]"""
        return curves.depth.pause_saved_w[self.curve] if self.pause_saved_w is None else self.pause_saved_w


@dataclass(frozen=True, slots=True, eq=False)
class Shed:
    """Who gives what."""

    capped_w: Floats
    """(n,) saved by a cap, per GPU, before ``watt_factor``. [W]"""
    paused_frac: Floats
    """(n,) 1 where the job is paused; between 0 and 1 in relaxed answers only."""
    value: float
    """The throughput lost, in weighted GPUs."""
    short_w: float
    """Need that is not met. [W]"""


@dataclass(frozen=True, slots=True, eq=False)
class _Edges:
    """Pieces of curves, (e,): the real ones first, then chords and pauses by rank."""

    job: Ints
    width_w: Floats
    """For all GPUs of the job. [W]"""
    lost_per_w: Floats
    gpu_w: Floats
    """Width for one GPU; 0 for a pause. [W]"""
    pause_frac: Floats
    """How much of a pause the whole edge is; 0 for a cap."""
    real: Bools


def relax(curves: Curves, ask: Ask, need_w: float, *, average: bool = False) -> Shed:
    """Return the cheapest mixture that frees ``need_w``: at most one job per price level is left in part.

    ``average``: pauses are rationed so that a job's mean loss stays within ``most_lost_frac``.
    """
    n = len(ask.curve)
    if need_w <= 0.0 or n == 0:
        return Shed(np.zeros(n, dtype=np.float64), np.zeros(n, dtype=np.float64), 0.0, 0.0)
    edges = _edges(curves, ask, average)
    taken = _take(edges, need_w)
    capped_w = np.asarray(np.bincount(edges.job, taken * edges.gpu_w, minlength=n), dtype=np.float64)
    paused, pauses = np.zeros(n), edges.pause_frac > 0.0
    paused[edges.job[pauses]] = taken[pauses] * edges.pause_frac[pauses]
    taken_w = taken * edges.width_w
    short_w = need_w - float(taken_w.sum())  # no dot product: for many jobs it would wake the threads of the BLAS
    cost = float((taken_w * edges.lost_per_w).sum())
    return Shed(capped_w, np.minimum(paused, 1.0), cost, short_w if short_w > TINY_W else 0.0)


def freed_w(curves: Curves, ask: Ask, shed: Shed) -> float:
    """Return what a division without parts frees. [W]"""
    each_w = np.where(shed.paused_frac > 0.5, ask.pause_w(curves), shed.capped_w)
    return float((ask.gpus * ask.watt_factor * each_w).sum())


def cost_of(curves: Curves, ask: Ask, shed: Shed) -> float:
    """Return the weighted loss of a division without parts, by the true curves."""
    lost = curves.depth.lost_at_frac(ask.curve, shed.capped_w)
    paused = shed.paused_frac > 0.5
    each = np.where(paused, np.where(paused, ask.pause_lost_frac, 0.0), lost)
    return float((ask.gpus * ask.weight * each).sum())


def rounded(curves: Curves, ask: Ask, need_w: float) -> Shed:
    """Return a division without parts: a pause left in part is made whole, or among fewer jobs perhaps not made at all."""
    loose = relax(curves, ask, need_w)
    part = (loose.paused_frac > 0.0) & (loose.paused_frac < 1.0)
    if not part.any() or len(part) > _MANY_JOBS:
        return settled(curves, ask, replace(loose, paused_frac=np.ceil(loose.paused_frac)))
    whole = loose.paused_frac >= 1.0
    tries = [whole | part] if loose.short_w > TINY_W else [whole | part, whole]
    found = [with_pauses(curves, ask, need_w, paused) for paused in tries]
    return min(found, key=lambda shed: (shed.short_w > TINY_W, shed.short_w if shed.short_w > TINY_W else shed.value))


def settled(curves: Curves, ask: Ask, loose: Shed) -> Shed:
    """Return a relaxed answer in which no pause is left in part as a division, at its true cost."""
    paused = loose.paused_frac > 0.5
    shed = replace(loose, capped_w=np.where(paused, 0.0, loose.capped_w))
    return replace(shed, value=cost_of(curves, ask, shed))


def with_pauses(curves: Curves, ask: Ask, need_w: float, paused: Bools) -> Shed:
    """Return the cheapest caps beside given pauses."""
    pause_w = ask.pause_w(curves) * ask.gpus * ask.watt_factor
    rest = replace(
        ask,
        pause_lost_frac=np.full(len(paused), NO_PAUSE),
        gpus=np.where(paused, 0.0, ask.gpus),
    )
    left_w = need_w - float(pause_w[paused].sum())
    caps = relax(curves, rest, left_w)
    shed = Shed(caps.capped_w, paused.astype(np.float64), 0.0, caps.short_w)
    return replace(shed, value=cost_of(curves, ask, shed))


def corners(curves: Curves, ask: Ask) -> tuple[Floats, Floats]:
    """Return saving [W per GPU] and loss at the corners of each job's curve, (n, m), none beyond its greatest loss.

    Where the greatest loss lies in a dent of the curve, the last edge is a chord that may be dearer than the true envelope.
    """
    depth = curves.depth
    saved_w, lost = depth.hull_saved_w[ask.curve], depth.hull_lost_frac[ask.curve]
    deepest_w = depth.saved_within_w(ask.curve, np.maximum(ask.most_lost_frac, 0.0))[:, None]
    deepest = np.minimum(ask.most_lost_frac[:, None], lost[:, -1:])
    within = lost <= ask.most_lost_frac[:, None]
    return np.where(within, saved_w, deepest_w), np.where(within, lost, np.maximum(deepest, 0.0))


def _edges(curves: Curves, ask: Ask, average: bool) -> _Edges:
    saved_w, lost = ask.points or corners(curves, ask)
    gpu_w, rise = np.diff(saved_w, axis=1), np.diff(lost, axis=1)
    watts = ask.gpus * ask.watt_factor
    used = (gpu_w > TINY_W) & (watts[:, None] > 0.0)
    pauses = np.flatnonzero(np.isfinite(ask.pause_lost_frac) & (watts > 0.0))
    tangent, pause_w, pause_rise = _tangents(curves, ask, saved_w, lost, pauses)
    used[pauses] &= np.arange(gpu_w.shape[1]) < tangent[:, None]
    share = _ration(ask, lost, pauses, tangent, pause_rise) if average else np.ones(len(pauses))
    keep = (pause_w > TINY_W) & (share > 0.0)
    pauses, pause_w, pause_rise, share = pauses[keep], pause_w[keep], pause_rise[keep], share[keep]
    job, k = np.nonzero(used)
    real = curves.depth.real[ask.curve[job], k]
    if not real.all():
        chords = np.flatnonzero(~real)
        turn = np.concatenate((np.flatnonzero(real), chords[np.argsort(ask.rank[job[chords]], kind="stable")]))
        job, k, real = job[turn], k[turn], real[turn]
    queue = np.argsort(ask.rank[pauses], kind="stable")
    pauses, pause_w, pause_rise, share = pauses[queue], pause_w[queue], pause_rise[queue], share[queue]
    per_w = ask.weight / np.where(watts > 0.0, ask.watt_factor, 1.0)
    return _Edges(
        job=np.concatenate((job, pauses)),
        width_w=np.concatenate((gpu_w[job, k] * watts[job], pause_w * watts[pauses] * share)),
        lost_per_w=np.concatenate((rise[job, k] / gpu_w[job, k] * per_w[job], pause_rise / pause_w * per_w[pauses])),
        gpu_w=np.concatenate((gpu_w[job, k], np.zeros(len(pauses)))),
        pause_frac=np.concatenate((np.zeros(len(job)), share)),
        real=np.concatenate((real, np.zeros(len(pauses), dtype=np.bool_))),
    )


def _tangents(curves: Curves, ask: Ask, saved_w: Floats, lost: Floats, pauses: Ints) -> tuple[Ints, Floats, Floats]:
    """Return the corner from which the way to a pause is cheapest, and its width [W per GPU] and rise."""
    width_w = ask.pause_w(curves)[pauses][:, None] - saved_w[pauses]
    rise = ask.pause_lost_frac[pauses][:, None] - lost[pauses]
    slope = np.where(width_w > TINY_W, rise / np.where(width_w > TINY_W, width_w, 1.0), -np.inf)
    tangent = slope.argmax(axis=1)
    rows = np.arange(len(pauses))
    return tangent, width_w[rows, tangent], rise[rows, tangent]


def _ration(ask: Ask, lost: Floats, pauses: Ints, tangent: Ints, rise: Floats) -> Floats:
    """Return how much of the time each job may be paused on average, (p,)."""
    spare = ask.most_lost_frac[pauses] - lost[pauses, tangent]
    return np.clip(spare / np.maximum(rise, 1e-12), 0.0, 1.0)


def _take(edges: _Edges, need_w: float) -> Floats:
    """Return how much of each edge is taken, (e,): the cheapest whole; of the last price, real edges alike, others in turn."""
    order = np.argsort(edges.lost_per_w, kind="stable")
    total_w = np.cumsum(edges.width_w[order])
    taken = np.ones(len(order))
    if not len(order) or total_w[-1] <= need_w:
        return taken
    last = int(np.searchsorted(total_w, need_w))
    price = edges.lost_per_w[order[last]]
    same = np.abs(edges.lost_per_w[order] - price) <= 1e-12 * (1.0 + abs(price))
    first = int(same.argmax())
    taken[order[last + 1 :]] = 0.0
    before_w = float(total_w[first - 1]) if first else 0.0
    alike = order[same & edges.real[order]]
    alike_w = float(edges.width_w[alike].sum())
    share = min(1.0, (need_w - before_w) / alike_w) if alike_w > 0.0 else 0.0
    taken[alike] = share
    others = order[same & ~edges.real[order]]
    left_w = need_w - before_w - share * alike_w
    upto_w = np.cumsum(edges.width_w[others])
    taken[others] = np.clip((left_w - (upto_w - edges.width_w[others])) / edges.width_w[others], 0.0, 1.0)
    return taken
