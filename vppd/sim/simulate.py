"""``vppd simulate``: the curtailment planner and a cluster that does what its tables say, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vppd.core.curtail.accounts import TOLERANCE_FRAC, opened
from vppd.core.curtail.curves import Curves
from vppd.core.curtail.plan import Jobs, State, plan
from vppd.core.curtail.prospect import Budget
from vppd.sim.reserve import Store, charged, discharge_w, discharged, full_store, recharge_w
from vppd.sim.scenario import Scenario
from vppd.snapshot import Bools, Floats

MARGIN_FRAC = 0.002
"""Aimed below the target: the tables say exactly what a cap does, so this covers nothing but arithmetic and small drift."""
RESTORE_LEAST_S = 300.0
"""After an event power comes back over its ramp time, and over no less than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What happened, step by step."""

    power_w: Floats
    """(t,) at the meter, the battery included. [W]"""
    battery_w: Floats
    """(t,) + = charging. [W]"""
    target_w: Floats
    """(t,) NaN outside events. [W]"""
    held: Bools
    """(t,) the target applies in full: the ramp is over."""
    cap_w: Floats
    """(t, n) 0 = paused. [W]"""
    throughput_frac: Floats
    """(t, n)"""


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What is asked of the cluster in each step, (t,)."""

    target_w: Floats
    """NaN outside events. [W]"""
    held: Bools
    ceiling_w: Floats
    """Inside events the target; while power comes back a limit that rises; else inf. [W]"""
    soft: Bools


def simulate(scenario: Scenario, margin_frac: float = MARGIN_FRAC) -> Run:
    """Return the run of a scenario, the same each time."""
    curves, jobs = scenario.curves(), _jobs(scenario)
    asked = targets(scenario, float(jobs.gpus @ curves.power_w[jobs.curve, -1]))
    aim_w = np.where(asked.soft, asked.ceiling_w, asked.ceiling_w * (1.0 - margin_frac))
    state = _rested(len(jobs.tier), scenario.window_steps * scenario.step_s)
    store = full_store(scenario.battery)
    steps, step_s = scenario.steps, scenario.step_s
    cap_w, throughput = np.zeros((steps, len(jobs.tier))), np.zeros((steps, len(jobs.tier)))
    power_w, battery_w = np.zeros(steps), np.zeros(steps)
    for k in range(steps):
        uncapped_w = float(jobs.gpus @ curves.power_w[jobs.curve, -1])
        gives_w = discharge_w(store, np.maximum(uncapped_w - aim_w[k:], 0.0), step_s)
        budget = Budget(np.arange(k + 1, steps + 1, dtype=np.float64) * step_s, aim_w[k:] + gives_w, asked.soft[k:])
        found = plan(curves, jobs, state, budget, k * step_s)
        cap_w[k] = found.cap_w
        state, throughput[k], jobs_w = _lived(curves, jobs, state, found.cap_w, k * step_s, step_s)
        store, battery_w[k] = _stored(store, jobs_w, float(aim_w[k]), float(gives_w[0]), step_s)
        power_w[k] = jobs_w + battery_w[k]
    return Run(power_w, battery_w, asked.target_w, asked.held, cap_w, throughput)


def targets(scenario: Scenario, uncapped_w: float) -> Targets:
    """Return the least target of all events in each step, ramped from uncapped power, and the limits on coming back."""
    begin_s = scenario.step_s * np.arange(scenario.steps)
    end_s = begin_s + scenario.step_s
    target_w, ceiling_w = np.full(scenario.steps, np.inf), np.full(scenario.steps, np.inf)
    held = np.zeros(scenario.steps, dtype=np.bool_)
    for event in scenario.events:
        full_w = event.target_w if event.target_w is not None else (event.target_frac or 0.0) * uncapped_w
        way_w = max(uncapped_w - full_w, 0.0)
        inside = (end_s > event.start_s + 1e-9) & (begin_s < event.end_s - 1e-9)
        down = np.clip((end_s - event.start_s) / event.ramp_s, 0.0, 1.0) if event.ramp_s else np.ones(scenario.steps)
        target_w[inside] = np.minimum(target_w, full_w + way_w * (1.0 - down))[inside]
        held |= inside & (end_s > event.start_s + event.ramp_s + 1e-9)
        back = np.clip((end_s - event.end_s) / max(event.ramp_s, RESTORE_LEAST_S), 0.0, 1.0)
        after = (begin_s >= event.end_s - 1e-9) & (back < 1.0)
        ceiling_w[after] = np.minimum(ceiling_w, full_w + way_w * back)[after]
    inside = np.isfinite(target_w)
    soft = ~inside & np.isfinite(ceiling_w)
    return Targets(np.where(inside, target_w, np.nan), held, np.where(inside, target_w, ceiling_w), soft)


def result(scenario: Scenario, run: Run) -> dict[str, Any]:
    """Return the run as plain JSON values; a job's throughput is that of its worst window."""
    worst_frac = _worst_window(run.throughput_frac, scenario.window_steps)
    gpus = np.asarray([job.gpus for job in scenario.jobs], dtype=np.float64)
    found = {
        "power_w": run.power_w.tolist(),
        "target_w": [None if np.isnan(t) else t for t in run.target_w.tolist()],
        "jobs": {
            job.name: {"tier": job.tier, "throughput_frac": float(worst_frac[i]), "cap_w": run.cap_w[:, i].tolist()}
            for i, job in enumerate(scenario.jobs)
        },
        "weighted_performance": float(gpus @ worst_frac / gpus.sum()),
        "violations": _violations(scenario, run, worst_frac),
    }
    return found if scenario.battery is None else found | {"battery_w": run.battery_w.tolist()}


def _jobs(scenario: Scenario) -> Jobs:
    names = {c.name: i for i, c in enumerate(scenario.classes)}
    n, jobs = len(scenario.jobs), scenario.jobs
    nothing, never = np.zeros(n), np.full(n, np.inf)
    return Jobs(
        curve=np.asarray([names[j.class_name] for j in jobs], dtype=np.int64),
        gpus=np.asarray([j.gpus for j in jobs], dtype=np.float64),
        tier=np.asarray([j.tier for j in jobs], dtype=np.int64),
        weight=np.ones(n),
        watt_factor=np.ones(n),
        pausable=np.asarray([j.pausable for j in jobs], dtype=np.bool_),
        restart_s=np.asarray([j.restart_s for j in jobs], dtype=np.float64),
        checkpoint_s=nothing,
        least_run_s=nothing,
        least_pause_s=nothing,
        most_pause_s=never,
        slack_s=never,
    )


def _rested(n: int, window_s: float) -> State:
    return State(opened(n, window_s, 0.0), np.zeros(n, dtype=np.bool_), np.full(n, -np.inf), np.zeros(n))


def _lived(
    curves: Curves, jobs: Jobs, state: State, cap_w: Floats, now_s: float, step_s: float
) -> tuple[State, Floats, float]:
    """Return the state after a step, the throughput in it, (n,), and the power of all jobs [W]."""
    paused = cap_w <= 0.0
    power_w = np.where(paused, curves.idle_w[jobs.curve], curves.power_at_w(jobs.curve, cap_w))
    owed_s = np.where(paused, jobs.restart_s, state.owed_s)
    works_frac = np.clip((step_s - owed_s) / step_s, 0.0, 1.0)
    throughput = np.where(paused, 0.0, works_frac * curves.throughput_at_frac(jobs.curve, cap_w))
    after = replace(
        state,
        accounts=state.accounts.charged(now_s + step_s, 1.0 - throughput),
        paused=paused,
        since_s=np.where(paused != state.paused, now_s, state.since_s),
        owed_s=np.where(paused, owed_s, np.maximum(owed_s - step_s, 0.0)),
    )
    return after, throughput, float(jobs.gpus @ power_w)


def _stored(store: Store, jobs_w: float, aim_w: float, gives_w: float, step_s: float) -> tuple[Store, float]:
    """Return the battery after a step and its power: what was planned and what the jobs could not give. [W, + = charging]"""
    if np.isfinite(aim_w):
        power_w = min(max(gives_w, jobs_w - aim_w, 0.0), store.most_w(step_s))
        power_w = min(power_w, max(jobs_w - aim_w, 0.0))
        return discharged(store, power_w, step_s), -power_w
    power_w = recharge_w(store, step_s)
    return charged(store, power_w, step_s), power_w


def _worst_window(throughput_frac: Floats, window_steps: int) -> Floats:
    """Return each job's least mean over any window, (n,). [0-1]"""
    total = np.cumsum(np.vstack((np.zeros(throughput_frac.shape[1]), throughput_frac)), axis=0)
    worst: Floats = (total[window_steps:] - total[:-window_steps]).min(axis=0) / window_steps
    return np.clip(worst, 0.0, 1.0)


def _violations(scenario: Scenario, run: Run, worst_frac: Floats) -> list[dict[str, Any]]:
    """Return where the target was exceeded after the ramp, and whose tier was not kept."""
    found: list[dict[str, Any]] = [
        {
            "kind": "target",
            "at_s": k * scenario.step_s,
            "power_w": float(run.power_w[k]),
            "target_w": float(run.target_w[k]),
        }
        for k in np.flatnonzero(run.held & (run.power_w > run.target_w * (1.0 + 1e-9) + 1e-6)).tolist()
    ]
    for i, job in enumerate(scenario.jobs):
        least_frac = 1.0 - TOLERANCE_FRAC[job.tier]
        if worst_frac[i] < least_frac - 1e-9:
            found.append(
                {"kind": "tier", "job": job.name, "throughput_frac": float(worst_frac[i]), "least_frac": least_frac}
            )
    return found
