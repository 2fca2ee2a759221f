"""The promises of the planner, one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.core.test_curtail_horizon import CLASSES
from vppd.core.curtail.accounts import Accounts, opened
from vppd.core.curtail.curves import Curves, tables
from vppd.core.curtail.plan import MOVES_FRAC, Jobs, Plan, State, plan
from vppd.core.curtail.prospect import Budget
from vppd.snapshot import Bools, Floats

STEP_S = 60.0
RIGID = tables([([400.0], [400.0], [1.0], 50.0)])
"""A class that no cap can slow: only pauses free power."""
A100 = tables(CLASSES)


def jobs_of(n: int, tier: int = 3, restart_s: float = 0.0, gpus: float = 8.0) -> Jobs:
    """Return equal jobs that may be paused."""
    nothing, never = np.zeros(n), np.full(n, np.inf)
    return Jobs(
        curve=np.zeros(n, dtype=np.int64),
        gpus=np.full(n, gpus),
        tier=np.full(n, tier),
        weight=np.ones(n),
        watt_factor=np.ones(n),
        pausable=np.ones(n, dtype=np.bool_),
        restart_s=np.full(n, restart_s),
        checkpoint_s=nothing,
        least_run_s=nothing,
        least_pause_s=nothing,
        most_pause_s=never,
        slack_s=never,
    )


def fresh(n: int, window_s: float) -> State:
    """Return jobs that have run undisturbed for ever."""
    return State(opened(n, window_s, 0.0), np.zeros(n, dtype=np.bool_), np.full(n, -np.inf), np.zeros(n))


def live(curves: Curves, jobs: Jobs, most_w: Floats, window_s: float) -> tuple[list[Plan], Bools, Floats]:
    """Return the plans, who was paused (t, n) and throughput (t, n), restarts included."""
    n, steps = len(jobs.tier), len(most_w)
    state, plans = fresh(n, window_s), []
    paused, speed = np.zeros((steps, n), dtype=np.bool_), np.zeros((steps, n))
    for k in range(steps):
        ends_s = np.arange(k + 1, steps + 1, dtype=np.float64) * STEP_S
        found = plan(curves, jobs, state, Budget(ends_s, most_w[k:], np.zeros(steps - k, dtype=np.bool_)), k * STEP_S)
        plans.append(found)
        paused[k] = found.paused
        owed_s = np.where(found.paused, jobs.restart_s, state.owed_s)
        works = np.clip(1.0 - owed_s / STEP_S, 0.0, 1.0)
        speed[k] = np.where(found.paused, 0.0, works * curves.throughput_at_frac(jobs.curve, found.cap_w))
        state = State(
            accounts=state.accounts.charged((k + 1) * STEP_S, 1.0 - speed[k]),
            paused=found.paused,
            since_s=np.where(found.paused != state.paused, k * STEP_S, state.since_s),
            owed_s=np.where(found.paused, owed_s, np.maximum(owed_s - STEP_S, 0.0)),
        )
    return plans, paused, speed


def blocks(paused: Bools) -> list[int]:
    """Return the lengths of all pauses, in steps."""
    found = []
    for column in paused.T:
        edges = np.flatnonzero(np.diff(np.concatenate(([0], column.astype(np.int64), [0]))))
        found += (edges[1::2] - edges[::2]).tolist()
    return found


def test_pauses_take_turns_and_do_not_end_together() -> None:
    """A third off from pauses alone: the tier keeps, the target holds, and few jobs change places in one step."""
    jobs = jobs_of(60, restart_s=120.0)
    full_w = 60 * 8 * 400.0
    most_w = np.full(120, full_w - 20 * 8 * 350.0 + 1.0)
    plans, paused, speed = live(RIGID, jobs, most_w, 120 * STEP_S)
    assert all(found.short_w < 1e-3 for found in plans)
    assert (paused.sum(axis=1) == 20).all()
    assert (speed.mean(axis=0) >= 0.5 - 1e-9).all()
    moves = np.abs(np.diff(paused.astype(np.int64), axis=0)).sum(axis=1)
    assert moves.max() <= 2 * np.ceil(MOVES_FRAC * 60)
    assert len(blocks(paused)) <= 2 * 60


def test_a_job_is_paused_for_long_rather_than_often() -> None:
    """With restarts that cost something, one job carries the event until its account is empty, then the next."""
    _, paused, speed = live(RIGID, jobs_of(4, restart_s=300.0), np.full(60, 3 * 8 * 400.0 + 8 * 50.5), 60 * STEP_S)
    assert (paused.sum(axis=1) == 1).all()
    assert len(blocks(paused)) <= 4
    assert (speed.mean(axis=0) >= 0.5).all()


def test_caps_come_before_pauses() -> None:
    """As long as caps do it, nobody is paused."""
    plans, paused, _ = live(A100, jobs_of(30), np.full(10, 0.75 * 30 * 8 * 345.0), 10 * STEP_S)
    assert not paused.any()
    assert all(found.short_w == 0.0 for found in plans)
    assert plans[0].cap_w == pytest.approx(np.full(30, plans[0].cap_w[0]))


def test_tier_0_gives_nothing_whatever_is_asked() -> None:
    """Jobs without tolerance run uncapped, and what is missing is told."""
    plans, paused, speed = live(A100, jobs_of(3, tier=0), np.full(3, 1000.0), 3 * STEP_S)
    assert not paused.any()
    assert (speed == 1.0).all()
    assert plans[0].short_w == pytest.approx(3 * 8 * 345.0 - 1000.0, rel=1e-6)


def test_an_empty_account_gives_nothing_more() -> None:
    """A job that lost all it may lose in this window is left alone, and serves again when the past leaves the window."""
    jobs = jobs_of(1)
    spent = opened(1, 600.0, 0.0).charged(300.0, np.ones(1)).charged(540.0, np.zeros(1))
    state = replace(fresh(1, 600.0), accounts=spent)
    now = Budget(np.asarray([600.0]), np.asarray([1000.0]), np.asarray([False]))
    assert plan(RIGID, jobs, state, now, 540.0).paused.tolist() == [False]
    rested = replace(state, accounts=spent.charged(900.0, np.zeros(1)))
    later = Budget(np.asarray([960.0]), np.asarray([1000.0]), np.asarray([False]))
    assert plan(RIGID, jobs, rested, later, 900.0).paused.tolist() == [True]


def test_a_deadline_counts_as_an_account() -> None:
    """A job with two minutes of slack is paused for two minutes at most."""
    jobs = replace(jobs_of(1), slack_s=np.asarray([120.0]))
    state = fresh(1, 6000.0)
    budget = Budget(np.arange(1, 11, dtype=np.float64) * STEP_S, np.full(10, 1000.0), np.zeros(10, dtype=np.bool_))
    assert plan(RIGID, jobs, state, budget, 0.0).paused.tolist() == [True]
    assert plan(RIGID, replace(jobs, slack_s=np.asarray([59.0])), state, budget, 0.0).paused.tolist() == [False]


def test_least_and_greatest_times_are_kept() -> None:
    """A pause lasts its least time although nothing is asked any more, and never longer than its greatest."""
    jobs = replace(jobs_of(2), least_pause_s=np.full(2, 300.0), most_pause_s=np.full(2, 600.0))
    most_w = np.where(np.arange(60) < 2, 8 * 450.5, np.inf)
    _, paused, _ = live(RIGID, jobs, most_w, 60 * STEP_S)
    assert blocks(paused) == [5]
    _, paused, _ = live(RIGID, jobs, np.full(60, 8 * 450.5), 60 * STEP_S)
    assert max(blocks(paused)) <= 10
    rests = replace(jobs, least_run_s=np.full(2, 1200.0))
    _, paused, _ = live(RIGID, rests, np.full(60, 8 * 450.5), 60 * STEP_S)
    for column in paused.T:
        edges = np.flatnonzero(np.diff(np.concatenate(([0], column.astype(np.int64), [0]))))
        assert (edges[2::2] - edges[1:-1:2] >= 20).all()


def test_a_rising_limit_brings_paused_jobs_back_one_after_another() -> None:
    """While power comes back no more jobs are started than the limit has room for."""
    n = 20
    state = replace(fresh(n, 7200.0), paused=np.ones(n, dtype=np.bool_), since_s=np.zeros(n))
    limit_w = np.linspace(0.1, 1.0, 10) * n * 8 * 400.0
    running = []
    for k in range(10):
        budget = Budget(np.arange(k + 11, 21, dtype=np.float64) * STEP_S, limit_w[k:], np.ones(10 - k, dtype=np.bool_))
        found = plan(RIGID, jobs_of(n), state, budget, (k + 10) * STEP_S)
        running.append(int((~found.paused).sum()))
        assert found.expected_w <= limit_w[k] + 1.0 or found.paused.all()
        state = replace(state, paused=found.paused)
    assert running == sorted(running)
    assert running[-1] == n


def test_measured_power_counts_and_not_the_table() -> None:
    """Jobs that draw half of what their table says free half as much, so more is asked of them."""
    budget = Budget(np.asarray([60.0]), np.asarray([0.9 * 8 * 172.5]), np.asarray([False]))
    jobs = replace(jobs_of(1), watt_factor=np.asarray([0.5]))
    found = plan(A100, jobs, fresh(1, 60.0), budget, 0.0)
    assert found.expected_w == pytest.approx(0.9 * 8 * 172.5, rel=1e-6)
    assert A100.power_at_w(jobs.curve, found.cap_w)[0] == pytest.approx(0.9 * 345.0, rel=1e-6)


def test_accounts_follow_jobs_that_come_and_go() -> None:
    """A job keeps its account at another place in the columns, and a new one starts with an empty record."""
    accounts: Accounts = opened(2, 600.0, 0.0).charged(60.0, np.asarray([0.5, 1.0]))
    moved = accounts.taken(np.asarray([1, -1, 0]))
    assert moved.since_s(0.0).tolist() == [60.0, 0.0, 30.0]
