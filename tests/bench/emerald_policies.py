"""Four published policies for the same event, written from their descriptions, as baselines for the planner.

Equal share of headroom by power caps ("DVFS fair"); the same beside one paused job at a time ("DVFS + pausing fair");
pauses alone, the most flexible job first ("pausing greedy"); fewer GPUs per job in equal shares beside one paused job at
a time ("pausing + resource allocation fair"). They know the event in advance, aim exactly at the target, and come back
at once: each is given every advantage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vppd.sim.scenario import ClassTable, JobTable, Scenario
from vppd.snapshot import Floats, Ints

TOLERANCE_FRAC = (0.0, 0.10, 0.25, 0.50)


@dataclass
class Outcome:
    """What a policy did."""

    power_w: Floats
    throughput_frac: Floats
    """(t, n)"""


@dataclass
class Event:
    """The event in steps."""

    target_w: Floats
    """(t,) NaN outside."""
    step_s: float
    window_steps: int


class Cluster:
    """The jobs with their tables."""

    def __init__(self, scenario: Scenario) -> None:
        tables = {c.name: c for c in scenario.classes}
        self.jobs: tuple[JobTable, ...] = scenario.jobs
        self.tables: list[ClassTable] = [tables[j.class_name] for j in scenario.jobs]
        self.gpus = np.asarray([j.gpus for j in scenario.jobs], dtype=np.float64)
        self.full_w = np.asarray([max(t.power_w) for t in self.tables])
        self.idle_w = np.asarray([t.idle_w for t in self.tables])
        self.tolerance = np.asarray([TOLERANCE_FRAC[j.tier] for j in scenario.jobs])
        self.pausable = [i for i, j in enumerate(scenario.jobs) if j.pausable and j.tier > 0]

    def power_at_w(self, job: int, throughput_frac: float) -> float:
        """Return the power per GPU at which a job runs that fast."""
        table = self.tables[job]
        return float(np.interp(throughput_frac, table.throughput, table.power_w))

    def throughput_at_frac(self, job: int, power_w: float) -> float:
        """Return how fast a job runs at that power per GPU."""
        table = self.tables[job]
        return float(np.interp(power_w, table.power_w, table.throughput))


Slower = Callable[[Cluster, int, float, float], tuple[float, float]]
"""(cluster, job, least throughput, share of headroom) -> (power per GPU, throughput)."""


def by_caps(cluster: Cluster, job: int, least_frac: float, share: float) -> tuple[float, float]:
    """Lower a job's cap by a share of the way to its least throughput."""
    full_w, least_w = cluster.full_w[job], cluster.power_at_w(job, least_frac)
    power_w = float(full_w - share * (full_w - least_w))
    return power_w, cluster.throughput_at_frac(job, power_w)


def by_gpus(cluster: Cluster, job: int, least_frac: float, share: float) -> tuple[float, float]:
    """Take whole GPUs from a job up to a share of the way to its least throughput; the others idle."""
    used = 1.0 - np.floor(share * (1.0 - least_frac) * cluster.gpus[job] + 1e-9) / cluster.gpus[job]
    return float(used * cluster.full_w[job] + (1.0 - used) * cluster.idle_w[job]), float(used)


def fair(cluster: Cluster, event: Event, slower: Slower, part: float) -> Outcome:
    """Slow all jobs by one share of their headroom; with ``part`` > 0 one job at a time is paused for that part of its allowance."""
    steps: Ints = np.flatnonzero(~np.isnan(event.target_w)).astype(np.int64)
    pauses = _turns(cluster, event, steps, part)
    rest = _least(cluster, event, pauses, len(steps))
    power_w = np.full(len(event.target_w), float(cluster.gpus @ cluster.full_w))
    throughput = np.ones((len(event.target_w), len(cluster.jobs)))
    for k in range(len(event.target_w)):
        paused = {job for job, mine in pauses.items() if k in mine}
        if k in set(steps.tolist()):
            power_w[k], throughput[k] = _least_share(cluster, rest, paused, slower, float(event.target_w[k]))
        for job, mine in pauses.items():
            if mine and mine[-1] < k:
                lost_s = cluster.jobs[job].restart_s - (k - mine[-1] - 1) * event.step_s
                throughput[k, job] *= 1.0 - min(max(lost_s / event.step_s, 0.0), 1.0)
    return Outcome(power_w, throughput)


def greedy_pauses(cluster: Cluster, event: Event) -> Outcome:
    """Pause the most flexible jobs that have allowance left, until the target is met."""
    allowance = {i: int(_allowed_steps(cluster, event, i)) for i in cluster.pausable}
    power_w = np.full(len(event.target_w), float(cluster.gpus @ cluster.full_w))
    throughput = np.ones((len(event.target_w), len(cluster.jobs)))
    owed_s = dict.fromkeys(range(len(cluster.jobs)), 0.0)
    for k, target_w in enumerate(event.target_w.tolist()):
        for i in sorted(cluster.pausable, key=lambda i: (-cluster.jobs[i].tier, i)):
            if not np.isnan(target_w) and power_w[k] > target_w and allowance[i] > 0:
                power_w[k] -= cluster.gpus[i] * (cluster.full_w[i] - cluster.idle_w[i])
                throughput[k, i], allowance[i], owed_s[i] = 0.0, allowance[i] - 1, cluster.jobs[i].restart_s
            else:
                throughput[k, i] = 1.0 - min(owed_s[i] / event.step_s, 1.0)
                owed_s[i] = max(owed_s[i] - event.step_s, 0.0)
    return Outcome(power_w, throughput)


def policies(cluster: Cluster, event: Event) -> dict[str, Outcome]:
    """Return the outcome of each policy, those with pauses at the length of pause that is best for them."""
    parts = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)

    def best(slower: Slower, some: tuple[float, ...]) -> Outcome:
        return min((fair(cluster, event, slower, part) for part in some), key=lambda o: _rating(cluster, event, o))

    return {
        "DVFS fair": fair(cluster, event, by_caps, 0.0),
        "DVFS + pausing fair": best(by_caps, parts),
        "pausing greedy": greedy_pauses(cluster, event),
        "pausing + resource allocation fair": best(by_gpus, (0.0, *parts)),
    }


def exceeded_w(event: Event, outcome: Outcome, first: int) -> float:
    """Return by how much the target was exceeded at most after step ``first``. [W]"""
    over_w = (outcome.power_w - event.target_w)[first:]
    return float(np.nanmax(over_w))


def worst_window(event: Event, throughput_frac: Floats) -> Floats:
    """Return each job's least mean throughput in any window, (n,)."""
    w = event.window_steps
    means = [throughput_frac[k : k + w].mean(axis=0) for k in range(len(throughput_frac) - w + 1)]
    return np.asarray(np.min(means, axis=0), dtype=np.float64)


def performance(cluster: Cluster, event: Event, outcome: Outcome) -> float:
    """Return the GPU-weighted mean throughput in the worst windows."""
    return float(cluster.gpus @ worst_window(event, outcome.throughput_frac) / cluster.gpus.sum())


def tiers_kept(cluster: Cluster, event: Event, outcome: Outcome) -> bool:
    """Say whether no job lost more than its tier accepts."""
    return bool((worst_window(event, outcome.throughput_frac) >= 1.0 - cluster.tolerance - 1e-6).all())


def _rating(cluster: Cluster, event: Event, outcome: Outcome) -> tuple[bool, float]:
    """Return what to choose the length of pauses by: first the target, then the performance."""
    over_w = exceeded_w(event, outcome, 0)
    return over_w > 1.0, over_w if over_w > 1.0 else -performance(cluster, event, outcome)


def _allowed_steps(cluster: Cluster, event: Event, job: int) -> float:
    lost_s = cluster.tolerance[job] * event.window_steps * event.step_s - cluster.jobs[job].restart_s
    return max(float(np.floor(lost_s / event.step_s)), 0.0)


def _turns(cluster: Cluster, event: Event, steps: Ints, part: float) -> dict[int, list[int]]:
    """Return the steps in which each job is paused: one after another, none at the same time."""
    turns: dict[int, list[int]] = {}
    at = 0
    for job in cluster.pausable:
        n = int(part * _allowed_steps(cluster, event, job))
        turns[job] = [int(k) for k in steps[at : at + n]]
        at += n
    return turns


def _least(cluster: Cluster, event: Event, pauses: dict[int, list[int]], steps: int) -> Floats:
    """Return the least throughput of each job while it runs, so that its average keeps its tier, (n,)."""
    allowed = cluster.tolerance * event.window_steps
    least = np.ones(len(cluster.jobs))
    for i, job in enumerate(cluster.jobs):
        mine = pauses.get(i, [])
        restart = job.restart_s / event.step_s if mine else 0.0
        left = max(allowed[i] - len(mine) - restart, 0.0)
        least[i] = 1.0 - min(left / max(steps - len(mine), 1), 1.0)
    return least


def _least_share(
    cluster: Cluster, least: Floats, paused: set[int], slower: Slower, target_w: float
) -> tuple[float, Floats]:
    """Return power and throughput at the least share of headroom that meets the target, or all of it."""

    def at(share: float) -> tuple[float, Floats]:
        power_w, throughput = 0.0, np.zeros(len(cluster.jobs))
        for i in range(len(cluster.jobs)):
            each_w = float(cluster.idle_w[i])
            if i not in paused:
                each_w, throughput[i] = slower(cluster, i, float(least[i]), share)
            power_w += cluster.gpus[i] * each_w
        return power_w, throughput

    low, high = 0.0, 1.0
    if at(1.0)[0] > target_w:
        return at(1.0)
    if at(0.0)[0] <= target_w:
        return at(0.0)
    for _ in range(30):
        middle = (low + high) / 2.0
        low, high = (low, middle) if at(middle)[0] <= target_w else (middle, high)
    return at(high)
