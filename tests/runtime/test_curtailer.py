"""The planner of a cluster in a closed loop: targets, accounts, learning, jobs that come and go, and the way back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tests.runtime.plannable_cluster import Cluster, Truth, job, mixed, unbound
from vppd.core.curtail.books import Books, blank
from vppd.core.curtail.classes import Classes, classes
from vppd.runtime.curtail_file import packed, unpacked
from vppd.runtime.curtailer import Curtailer, Terms
from vppd.workload import Knob

WINDOW_S = 1_200
TERMS = Terms(window_s=WINDOW_S, restore_s=300.0)
AT = datetime(2026, 1, 1, tzinfo=UTC)


def curtailer(cluster: Cluster, lasts_s: float, known: tuple[Books, Classes] | None = None) -> Curtailer:
    """Return a planner that knows when the order ends and has seen the cluster once."""
    ends_s = cluster.now_s + lasts_s
    planner = Curtailer("hall", TERMS, cluster.now, lambda: max(ends_s - cluster.now_s, 0.0), known)
    planner.shed_w(cluster.look())
    return planner


def fresh(cluster: Cluster, lasts_s: float) -> Curtailer:
    """Return a planner of a cluster that has not been held before."""
    assert not any(truth.paused or truth.level_frac < 1.0 for truth in cluster.jobs.values())
    return curtailer(cluster, lasts_s)


def over_s(cluster: Cluster, target_w: float, after_s: int) -> int:
    """Return for how many seconds the meter was above the target, from some time on. [s]"""
    return int((np.asarray(cluster.power_w[after_s:]) > target_w).sum())


@pytest.mark.parametrize("lag_s", [0, 3])
def test_the_target_is_kept_after_the_ramp_and_no_tier_is_overdrawn(lag_s: int) -> None:
    """Near the most that the accounts bear, for three windows: the meter stays below, independent books find no breach."""
    cluster = Cluster(*mixed())
    for truth in cluster.jobs.values():
        truth.lag_s = lag_s
    planner, target_w = fresh(cluster, 3_600.0), 0.76 * cluster.full_w
    cluster.live(planner, target_w, 3_600)
    assert over_s(cluster, target_w, 30) == 0
    cluster.live(planner, 1e6, 900)
    assert cluster.power_w[-1] == cluster.full_w
    assert cluster.overdrawn(WINDOW_S) == {}
    assert all(answer.short_w == 0.0 for answer in cluster.answers)


def test_more_than_the_accounts_bear_is_told_and_not_taken() -> None:
    """Half off for ever: what is missing is said, and still nobody is slowed beyond his tier."""
    cluster = Cluster(*mixed())
    cluster.live(fresh(cluster, 1e9), 0.5 * cluster.full_w, 3_600)
    assert cluster.answers[-1].short_w > 0.05 * cluster.full_w
    assert cluster.overdrawn(WINDOW_S) == {}
    assert all(not answer.paused & {"j0", "j4"} for answer in cluster.answers)


def test_what_takes_long_to_happen_is_decided_in_time() -> None:
    """Everybody goes on 22 s after he is told: a pause ends before the account does, with something held back for that."""
    cluster = Cluster(*mixed(12, knob=Knob.NONE), every_s=2)
    for truth in cluster.jobs.values():
        truth.lag_s = 22
    cluster.live(fresh(cluster, 1e9), 0.5 * cluster.full_w, 1_200)
    assert cluster.answers[-1].short_w > 0.0
    assert cluster.overdrawn(WINDOW_S) == {}


def test_a_cap_that_frees_nothing_is_seen_and_others_give_instead() -> None:
    """Decode draws what it draws under any cap: after a few minutes it is left alone and the meter is where it should be."""
    decode = [Truth(job(f"d{i}", 2, family="decode", pausable=False), draws_frac=unbound) for i in range(6)]
    train = [Truth(job(f"t{i}", 2, pausable=False)) for i in range(6)]
    cluster = Cluster(*decode, *train)
    target_w = 0.86 * cluster.full_w
    cluster.live(fresh(cluster, 1_200.0), target_w, 900)
    assert cluster.answers[0].level_frac.keys() >= {"d0", "t0"}
    assert over_s(cluster, target_w, 400) == 0
    assert not any(name.startswith("d") for name in cluster.answers[-1].level_frac)
    assert cluster.overdrawn(WINDOW_S) == {}


def test_what_only_the_meter_shows_makes_the_next_plan_deeper() -> None:
    """Fans that nobody tells of: the first plan is short, the next one is not, and why is on record."""
    cluster = Cluster(*mixed())
    cluster.hidden_w = 4_000.0
    planner, target_w = fresh(cluster, 1_200.0), 0.9 * cluster.full_w
    cluster.live(planner, target_w, 300)
    assert over_s(cluster, target_w, 60) == 0
    first, last = planner.verification.steps[0], planner.verification.steps[-1]
    assert last.short_w == 0.0
    assert last.delivered_frac >= 1.0 > 0.8 > first.delivered_frac or first.short_w == 0.0
    assert planner.verification.drift_w == pytest.approx(4_000.0, rel=0.1)


def test_who_does_not_follow_is_left_alone_and_others_give() -> None:
    """Two deaf jobs: after their ramp the power comes from others, and they are not asked again for a while."""
    cluster = Cluster(*mixed())
    for name in ("j3", "j7"):
        cluster.jobs[name].deaf = True
    planner, target_w = fresh(cluster, 600.0), 0.85 * cluster.full_w
    cluster.live(planner, target_w, 110)
    assert over_s(cluster, target_w, 60) == 0
    assert not cluster.answers[-1].level_frac.keys() & {"j3", "j7"}


def test_replicas_are_rounded_down_by_whoever_has_them() -> None:
    """Eight replicas each: the target is kept, and what was rounded away is charged."""
    curve = ((0.125, 0.125), (1.0, 1.0))
    truths = [
        Truth(
            job(f"r{i}", 1 + i % 3, knob=Knob.REPLICAS, curve=curve, floor_frac=0.125, pausable=False),
            slows_frac=lambda level_frac: 1.0 - level_frac,
            parts=8,
        )
        for i in range(12)
    ]
    cluster = Cluster(*truths)
    planner, target_w = fresh(cluster, 1_800.0), 0.85 * cluster.full_w
    cluster.live(planner, target_w, 1_800)
    assert over_s(cluster, target_w, 30) == 0
    assert cluster.overdrawn(WINDOW_S) == {}


def test_a_budget_that_rises_and_still_binds_is_kept() -> None:
    """Raised step by step: the meter is never above it, and the jobs do not all go on meanwhile."""
    cluster = Cluster(*mixed(knob=Knob.NONE))
    planner = fresh(cluster, 1_200.0)
    for part in (0.85, 0.88, 0.91, 0.94, 0.97):
        before = len(cluster.power_w)
        cluster.live(planner, part * cluster.full_w, 60)
        assert over_s(cluster, part * cluster.full_w, before + cluster.every_s) == 0


def test_a_lease_that_ran_out_is_no_refusal() -> None:
    """The link is lost, the adapter lets all jobs go on; when it is back they are asked again at once."""
    cluster = Cluster(*mixed())
    planner, target_w = fresh(cluster, 1_200.0), 0.8 * cluster.full_w
    cluster.live(planner, target_w, 120)
    for truth in cluster.jobs.values():
        truth.level_frac, truth.paused = 1.0, False
    cluster.now_s += 60.0
    planner.shed_w(cluster.look())
    before = len(cluster.power_w)
    cluster.live(planner, target_w, 60)
    assert over_s(cluster, target_w, before + cluster.every_s) == 0
    assert cluster.overdrawn(WINDOW_S) == {}


def test_jobs_start_and_end_during_an_event() -> None:
    """One ends and one starts every two minutes: the target holds but for the moment of a start, the tiers always."""
    cluster = Cluster(*mixed(20))
    planner, target_w = fresh(cluster, 3_600.0), 0.78 * cluster.full_w
    for i in range(20):
        cluster.live(planner, target_w, 120)
        cluster.end(f"j{i}")
        started = Truth(job(f"n{i}", i % 4))
        cluster.jobs[f"n{i}"] = started
    assert over_s(cluster, target_w, 30) <= 20 * cluster.every_s
    assert cluster.overdrawn(WINDOW_S) == {}


def test_a_job_that_is_missed_for_a_moment_keeps_its_account() -> None:
    """An answer of the cluster that leaves jobs out forgives them nothing."""
    cluster = Cluster(*mixed())
    planner, target_w = fresh(cluster, 3_600.0), 0.76 * cluster.full_w
    for _ in range(12):
        cluster.live(planner, target_w, 300)
        whole = cluster.look()
        planner.shed_w(replace(whole, jobs=whole.jobs[:4]))
    assert cluster.overdrawn(WINDOW_S) == {}


def test_after_the_order_the_jobs_come_back_one_after_another() -> None:
    """Thirty and more paused jobs at the end of an order: never more than a few start in one half minute, and all are back in time."""
    cluster = Cluster(*(Truth(job(f"j{i}", 3, knob=Knob.NONE, restart_s=20.0)) for i in range(66)))
    planner = fresh(cluster, 300.0)
    cluster.live(planner, cluster.full_w - 30 * 4_400.0, 300)
    held = sum(truth.paused for truth in cluster.jobs.values())
    assert held >= 30
    paused, returns = [], []
    for _ in range(15):
        cluster.live(planner, 1e6, 30)
        returns.append(planner.comes_back)
        paused.append(sum(truth.paused for truth in cluster.jobs.values()))
    assert paused[-1] == 0
    assert returns == [True] * 9 + [False] * 6
    assert max(-np.diff([held, *paused])) <= 0.2 * held


def carried_over(planner: Curtailer, cluster: Cluster, gone_s: float) -> tuple[Books, Classes]:
    """Return what the next process reads from the file, some time later on another monotonic clock."""
    blob = packed(planner.books, planner.classes, cluster.now_s, AT)
    cluster.now_s -= 500.0
    return unpacked(blob, float(WINDOW_S), cluster.now_s, AT + timedelta(seconds=gone_s))


def test_a_restart_in_the_middle_keeps_the_accounts() -> None:
    """A deep cut before it, another after it: no tier is overdrawn, as it would be by a process that had forgotten."""
    breaches = []
    for remembers in (True, False):
        cluster = Cluster(*mixed())
        planner = fresh(cluster, 500.0)
        cluster.live(planner, 0.65 * cluster.full_w, 500)
        assert over_s(cluster, 0.65 * cluster.full_w, 30) == 0
        known = carried_over(planner, cluster, 0.0)
        if not remembers:
            known = replace(blank(float(WINDOW_S), cluster.now_s), at_s=cluster.now_s), classes()
        cluster.live(curtailer(cluster, 500.0, known), 0.65 * cluster.full_w, 500)
        breaches.append(cluster.overdrawn(WINDOW_S))
    assert breaches[0] == {}
    assert breaches[1] != {}


def test_a_restart_does_not_disturb_what_goes_on() -> None:
    """A cut that the accounts bear for ever is kept through a restart that takes a minute."""
    cluster = Cluster(*mixed())
    planner, target_w = fresh(cluster, 2_000.0), 0.78 * cluster.full_w
    cluster.live(planner, target_w, 800)
    cluster.answers.append(cluster.answers[-1])
    known = carried_over(planner, cluster, 0.0)
    cluster.live(curtailer(cluster, 800.0, known), target_w, 800)
    assert over_s(cluster, target_w, 30) == 0
    assert cluster.overdrawn(WINDOW_S) == {}


def test_without_its_file_who_is_held_counts_as_held_for_a_whole_window() -> None:
    """Power comes back rather than a tier being overdrawn."""
    cluster = Cluster(*mixed())
    target_w = 0.76 * cluster.full_w
    cluster.live(fresh(cluster, 2_400.0), target_w, 1_000)
    cluster.live(curtailer(cluster, 1_400.0), target_w, 1_400)
    assert cluster.overdrawn(WINDOW_S) == {}
    assert max(answer.short_w for answer in cluster.answers[500:]) > 0.0


@pytest.mark.parametrize(("knob", "restart_s"), [(Knob.CAP, 0.0), (Knob.NONE, 0.0), (Knob.NONE, 15.0)])
def test_what_is_counted_on_is_delivered(knob: Knob, restart_s: float) -> None:
    """What is said to be sheddable for the time of an order is shed for all of it, and no tier is overdrawn."""
    cluster = Cluster(*mixed(24, knob=knob, restart_s=restart_s))
    planner = fresh(cluster, 1_800.0)
    shed_w = planner.shed_w(cluster.look())
    assert shed_w[0] == 0.0
    assert sum(shed_w) > 0.09 * cluster.full_w
    target_w = cluster.full_w - sum(shed_w)
    cluster.live(planner, target_w, 1_800)
    assert over_s(cluster, target_w, 30) == 0
    assert cluster.overdrawn(WINDOW_S) == {}


def test_every_touched_job_has_a_reason() -> None:
    """Tier, what it gives and what is left, and none for a job at full speed."""
    cluster = Cluster(*mixed())
    cluster.live(fresh(cluster, 600.0), 0.7 * cluster.full_w, 10)
    answer = cluster.answers[-1]
    assert set(answer.reasons) == set(answer.level_frac) | answer.paused
    assert answer.reasons["j3"].startswith("tier 3: ")
    assert "of its account left" in answer.reasons["j3"]
