"""A cluster's jobs as columns and rows: what a job says, and what a group of jobs on shared nodes comes to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vppd.core.curtail.accounts import opened
from vppd.core.curtail.classes import RIGID, classes
from vppd.core.curtail.gangs import Gangs, alike, gangs_of, rows_of
from vppd.core.curtail.plan import Jobs
from vppd.core.curtail.workload_columns import Columns, columns_of
from vppd.snapshot import Bools
from vppd.workload import Job, Knob

ONE = Job(
    "a", 3, full_w=1_000.0, kept_w=100.0, gpus=2.0, family="f", knob=Knob.CAP, floor_frac=0.6, pausable=True,
    restart_s=10.0, most_pause_s=500.0,
)  # fmt: skip


def rows(*jobs: Job, barred: Bools | None = None) -> tuple[Columns, Gangs, Jobs]:
    """Return columns, gangs and the planner's rows."""
    columns, known = columns_of(jobs, classes())
    follows = np.ones(len(jobs), dtype=np.bool_) if barred is None else ~barred
    slowed = alike(columns, columns.slowable & follows)
    gangs = gangs_of(columns, slowed)
    return columns, gangs, rows_of(columns, gangs, known.curves, slowed, columns.pausable & follows)


def test_a_job_by_itself_is_a_row_in_parts_of_its_own_power() -> None:
    """Watts are in the factor, the floor in the deepest loss, what is kept beside a pause in its own column."""
    _, gangs, found = rows(ONE, replace(ONE, id="b", floor_frac=0.5))
    assert gangs.are_single
    assert (found.gpus * found.watt_factor).tolist() == [1_000.0, 1_000.0]
    assert found.kept_w is not None
    assert found.kept_w.tolist() == [0.1, 0.1]
    assert found.deepest_lost_frac is not None
    assert 0.0 < found.deepest_lost_frac[0] < found.deepest_lost_frac[1]


@pytest.mark.parametrize(
    ("job", "row"),
    [
        pytest.param(replace(ONE, tier=0), (0, RIGID, False), id="tier-0"),
        pytest.param(replace(ONE, knob=Knob.NONE), (3, RIGID, True), id="no-knob"),
        pytest.param(replace(ONE, floor_frac=1.0), (3, RIGID, True), id="no-way-to-go"),
        pytest.param(replace(ONE, pausable=False), (3, 1, False), id="not-pausable"),
    ],
)
def test_what_may_not_be_done_to_a_job_is_not_offered(job: Job, row: tuple[int, int, bool]) -> None:
    """Tier 0 nothing at all, whatever its adapter offers."""
    _, _, found = rows(job)
    assert (found.tier[0], found.curve[0], found.pausable[0]) == row


def test_a_group_is_as_tolerant_as_its_least_tolerant_job() -> None:
    """One row: power and GPUs together, the least tier, the shortest pause, the longest restart."""
    other = replace(ONE, id="b", tier=1, full_w=3_000.0, restart_s=60.0, most_pause_s=100.0, group="n1")
    columns, gangs, found = rows(replace(ONE, group="n1"), other, replace(ONE, id="c"))
    assert gangs.row.tolist() == [0, 0, 1]
    assert found.tier.tolist() == [1, 3]
    assert (found.gpus * found.watt_factor).tolist() == [4_000.0, 1_000.0]
    assert found.most_pause_s.tolist() == [100.0, 500.0]
    assert found.restart_s.tolist() == [60.0, 10.0]
    assert found.pausable.tolist() == [True, True]
    assert columns.groups == ("n1", "n1", "")


def test_a_group_is_paused_only_if_all_of_it_may_be() -> None:
    """One job that may only be slowed keeps the others from being paused."""
    _, _, found = rows(replace(ONE, group="n1"), replace(ONE, id="b", group="n1", pausable=False))
    assert found.pausable.tolist() == [False]


@pytest.mark.parametrize(
    "stiff",
    [
        pytest.param(replace(ONE, id="b", tier=0, group="n1"), id="tier-0"),
        pytest.param(replace(ONE, id="b", knob=Knob.NONE, group="n1"), id="no-knob"),
    ],
)
def test_beside_a_job_that_may_not_be_slowed_the_others_can_still_be_paused(stiff: Job) -> None:
    """The nodes are not capped at all; each job of them stands alone."""
    _, gangs, found = rows(replace(ONE, group="n1"), stiff, replace(ONE, id="c", group="n2"))
    assert gangs.are_single
    assert found.curve.tolist() == [RIGID, RIGID, 1]
    assert found.pausable[0]


def test_who_does_not_follow_holds_his_group_back() -> None:
    """A barred job is neither slowed nor paused, and its node mates are only paused."""
    _, _, found = rows(replace(ONE, group="n1"), replace(ONE, id="b", group="n1"), barred=np.asarray([True, False]))
    assert found.curve.tolist() == [RIGID, RIGID]
    assert found.pausable.tolist() == [False, True]


def test_the_account_of_a_group_is_in_each_step_that_of_its_worst_job() -> None:
    """Two jobs that lost in turn count as one that lost all the time."""
    _, gangs, _ = rows(replace(ONE, group="n1"), replace(ONE, id="b", group="n1"), replace(ONE, id="c"))
    accounts = opened(3, 100.0, 0.0).charged(10.0, np.asarray([1.0, 0.0, 0.5]))
    accounts = accounts.charged(20.0, np.asarray([0.0, 1.0, 0.5]))
    assert gangs.worst(accounts).since_s(0.0).tolist() == [20.0, 10.0]
    assert gangs.worst(accounts).since_s(10.0).tolist() == [10.0, 5.0]


def test_classes_are_told_apart_by_knob_family_and_curve() -> None:
    """And what has been learnt of one survives the arrival of others with longer tables."""
    curve = tuple((p, p) for p in np.linspace(0.1, 1.0, 10).tolist())
    columns, known = columns_of([ONE, replace(ONE, id="b"), replace(ONE, id="c", family="g")], classes())
    assert columns.kind.tolist() == [1, 1, 2]
    learned = replace(
        known.learned, power_weight=known.learned.power_weight + 1.0, power_error_w=known.learned.power_error_w + 0.1
    )
    columns, grown = columns_of([ONE, replace(ONE, id="d", knob=Knob.REPLICAS, curve=curve)], known.taught(learned))
    assert columns.kind.tolist() == [1, 3]
    assert grown.learned.power_error_w[1, 0] == pytest.approx(0.1)
    assert grown.curves.throughput_at_frac(columns.kind[1:], np.asarray([0.55]))[0] == pytest.approx(0.55)


def test_what_is_in_force_is_what_is_lost() -> None:
    """Paused loses all; a level loses by its curve; a job without a knob that somebody slows is charged by the prior."""
    jobs = [
        replace(ONE, level_frac=0.6),
        replace(ONE, id="b", paused=True),
        replace(ONE, id="c", knob=Knob.NONE, level_frac=0.6, pausable=False),
        replace(ONE, id="d", power_w=None),
    ]
    columns, known = columns_of(jobs, classes())
    lost = columns.lost_frac(known)
    assert lost[0] == pytest.approx(0.958 * 0.4**1.358, abs=0.01)
    assert lost[1:].tolist() == [1.0, lost[0], 0.0]
    assert columns.drawn_w(known).tolist() == pytest.approx([600.0, 100.0, 600.0, 1_000.0])
    assert np.isnan(columns.power_w[3])


def test_figures_that_are_none_are_counted_on_for_nothing() -> None:
    """A job of unknown power frees nothing, one of unknown level counts as free; nobody else's figures suffer."""
    odd = replace(ONE, id="b", full_w=float("nan"), kept_w=float("nan"), level_frac=float("nan"), power_w=float("nan"))
    columns, known = columns_of([ONE, odd], classes())
    assert columns.drawn_w(known).tolist() == [1_000.0, 0.0]
    assert columns.lost_frac(known).tolist() == [0.0, 0.0]
