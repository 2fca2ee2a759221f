"""The planner step by step over an event, against a mixed-integer program that sees the whole event at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.curtail_reference import Job, horizon_optimum
from vppd.core.curtail.accounts import TOLERANCE_FRAC, opened
from vppd.core.curtail.curves import Curves, tables
from vppd.core.curtail.plan import Jobs, State, plan
from vppd.core.curtail.prospect import Budget
from vppd.snapshot import Floats

STEP_S = 600.0
CLASSES = (
    ([100.0, 200.0, 250.0, 300.0, 350.0, 400.0], [100.0, 196.0, 242.0, 287.0, 319.0, 345.0], [0.234, 0.796, 0.891, 0.944, 0.974, 1.0], 60.0),
    ([100.0, 200.0, 250.0, 300.0, 350.0, 400.0], [98.0, 195.0, 242.0, 289.0, 333.0, 368.0], [0.225, 0.781, 0.871, 0.931, 0.976, 1.0], 60.0),
    ([100.0, 200.0, 250.0, 300.0, 350.0, 400.0], [102.0, 197.0, 245.0, 291.0, 337.0, 382.0], [0.186, 0.629, 0.784, 0.867, 0.923, 1.0], 60.0),
)  # fmt: skip


def mix(seed: int, n: int) -> tuple[Curves, Jobs]:
    """Return jobs of the three classes and all tiers."""
    rng = np.random.default_rng(seed)
    nothing, never = np.zeros(n), np.full(n, np.inf)
    jobs = Jobs(
        curve=rng.integers(0, 3, n),
        gpus=rng.integers(1, 9, n).astype(np.float64) * 8,
        tier=rng.integers(0, 4, n),
        weight=np.ones(n),
        watt_factor=np.ones(n),
        pausable=rng.random(n) < 0.6,
        restart_s=nothing,
        checkpoint_s=nothing,
        least_run_s=nothing,
        least_pause_s=nothing,
        most_pause_s=never,
        slack_s=never,
    )
    return tables(CLASSES), jobs


def lived(curves: Curves, jobs: Jobs, most_w: Floats) -> tuple[Floats, Floats, Floats]:
    """Return power (t,), loss (t, n) and cap (t, n) of an event that the planner is led through."""
    n, steps = len(jobs.tier), len(most_w)
    state = State(opened(n, steps * STEP_S, 0.0), np.zeros(n, dtype=np.bool_), np.full(n, -np.inf), np.zeros(n))
    power_w, lost, caps = np.zeros(steps), np.zeros((steps, n)), np.zeros((steps, n))
    for k in range(steps):
        now_s = k * STEP_S
        budget = Budget(
            np.arange(k + 1, steps + 1, dtype=np.float64) * STEP_S, most_w[k:], np.zeros(steps - k, dtype=np.bool_)
        )
        found = plan(curves, jobs, state, budget, now_s)
        paused = found.cap_w <= 0.0
        caps[k] = found.cap_w
        lost[k] = 1.0 - np.where(paused, 0.0, curves.throughput_at_frac(jobs.curve, found.cap_w))
        power_w[k] = jobs.gpus @ np.where(paused, curves.idle_w[jobs.curve], curves.power_at_w(jobs.curve, found.cap_w))
        state = replace(
            state,
            accounts=state.accounts.charged(now_s + STEP_S, lost[k]),
            paused=paused,
            since_s=np.where(paused != state.paused, now_s, state.since_s),
        )
    return power_w, lost, caps


def reference(jobs: Jobs, most_w: Floats) -> float | None:
    """Return the least loss over the event, in GPU steps."""
    each = [
        Job(*CLASSES[c], gpus=g, weight=1.0, most_lost_frac=TOLERANCE_FRAC[t], pause_lost_frac=1.0 if p else None)
        for c, g, t, p in zip(
            jobs.curve.tolist(), jobs.gpus.tolist(), jobs.tier.tolist(), jobs.pausable.tolist(), strict=True
        )
    ]
    return horizon_optimum(each, most_w.tolist())


def event(seed: int, uncapped_w: float) -> Floats:
    """Return a budget with a ramp, a hold, perhaps a second and deeper hold, and an end."""
    rng = np.random.default_rng(seed + 1)
    cut = float(rng.uniform(0.05, 0.5))
    second = cut * float(rng.choice([1.0, 1.0, 0.6, 1.25]))
    part = np.asarray([0.0, 0.5 * cut, cut, cut, cut, second, second, 0.0])
    return np.where(part > 0.0, uncapped_w * (1.0 - part), np.inf)


@given(seed=st.integers(0, 10**6), n=st.integers(2, 8))
@settings(max_examples=40, deadline=None)
def test_no_account_is_ever_overdrawn(seed: int, n: int) -> None:
    """Whatever is asked, each job's mean loss stays within its tier, and who may not be paused is not."""
    curves, jobs = mix(seed, n)
    most_w = event(seed, float(jobs.gpus @ curves.power_w[jobs.curve, -1]))
    _, lost, caps = lived(curves, jobs, most_w)
    assert (lost.mean(axis=0) <= np.asarray(TOLERANCE_FRAC)[jobs.tier] + 1e-9).all()
    assert jobs.pausable[(caps <= 0.0).any(axis=0)].all()
    assert np.isin(caps[:, jobs.tier == 0], [400.0]).all()


def test_an_event_costs_hardly_more_than_with_all_seen_at_once() -> None:
    """Of what HiGHS can hold nearly all is held, and on average 0.1 % of the throughput is given away, at most 1 %."""
    gaps, missed = [], 0
    for seed in range(40):
        curves, jobs = mix(seed, 2 + seed % 4)
        most_w = event(seed, float(jobs.gpus @ curves.power_w[jobs.curve, -1]))
        power_w, lost, _ = lived(curves, jobs, most_w)
        best, held = reference(jobs, most_w), bool((power_w <= most_w + 1e-3).all())
        if best is None:
            assert not held
        elif held:
            gaps.append((float((lost @ jobs.gpus).sum()) - best) / (float(jobs.gpus.sum()) * len(most_w)))
        missed += best is not None and not held
    assert missed <= 2
    assert min(gaps) > -1e-6
    assert max(gaps) < 0.01
    assert float(np.mean(gaps)) < 0.001


def test_all_of_an_account_is_used_before_a_target_is_missed() -> None:
    """More is asked than the tiers can give: the target holds at first, and at the end every account is empty."""
    curves, jobs = mix(3, 4)
    jobs = replace(jobs, tier=np.full(4, 2), pausable=np.ones(4, dtype=np.bool_))
    uncapped_w = float(jobs.gpus @ curves.power_w[jobs.curve, -1])
    power_w, lost, _ = lived(curves, jobs, np.full(8, 0.4 * uncapped_w))
    assert power_w[0] <= 0.4 * uncapped_w
    assert (power_w > 0.4 * uncapped_w).any()
    assert lost.mean(axis=0) == pytest.approx(np.full(4, 0.25))
