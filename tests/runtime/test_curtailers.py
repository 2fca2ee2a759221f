"""The accounts' files, the planners of a plant, and what the meter shows of a curtailment."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.runtime.plannable_cluster import Cluster, Truth, job, mixed, unbound
from vppd.config.load import Config
from vppd.config.plant import AssetConfig, FeedConfig, SiteConfig
from vppd.model import Kind
from vppd.runtime.clock import FakeClock, SystemClock
from vppd.runtime.curtail_file import packed, read, unpacked, write
from vppd.runtime.curtailer import Curtailer, Terms
from vppd.runtime.curtailers import Curtailers, curtailers_of, file_of
from vppd.runtime.verification import Verification

AT = datetime(2026, 1, 1, tzinfo=UTC)
TERMS = Terms(window_s=1_200.0, restore_s=300.0)


def held(lasts_s: int = 300) -> tuple[Cluster, Curtailer]:
    """Return a cluster in the middle of an event, with decode that has been learned from."""
    cluster = Cluster(*mixed(), Truth(job("d", 2, family="decode"), draws_frac=unbound))
    planner = Curtailer("hall", TERMS, cluster.now)
    planner.shed_w(cluster.look())
    cluster.live(planner, 0.78 * cluster.full_w, lasts_s)
    return cluster, planner


def test_what_was_written_is_what_is_read() -> None:
    """Accounts, who is held since when, and what was learned, on another monotonic clock half a minute later."""
    cluster, planner = held()
    blob = packed(planner.books, planner.classes, cluster.now_s, AT)
    books, known = unpacked(blob, 1_200.0, 77.0, AT + timedelta(seconds=30.0))
    index = {job_id: i for i, job_id in enumerate(planner.books.ids)}
    kept = [index[job_id] for job_id in books.ids]
    assert books.at_s == pytest.approx(47.0 - (cluster.now_s - planner.books.at_s))
    spent_s = planner.books.accounts.since_s(cluster.now_s - 200.0)
    assert books.accounts.since_s(47.0 - 200.0) == pytest.approx(spent_s[kept], abs=1e-3)
    assert books.paused.tolist() == planner.books.paused[kept].tolist()
    assert {"j0", "j4"}.isdisjoint(books.ids)
    assert known.row == planner.classes.row
    assert (known.curves.power_w == planner.classes.curves.power_w).all()
    assert len(blob) < 60_000


def test_a_clock_that_was_set_back_gives_nothing_away() -> None:
    """Losses stay as old as they were when they were written."""
    cluster, planner = held()
    blob = packed(planner.books, planner.classes, cluster.now_s, AT)
    books, _ = unpacked(blob, 1_200.0, cluster.now_s, AT - timedelta(days=1))
    assert books.at_s == pytest.approx(planner.books.at_s)


@pytest.mark.parametrize("damage", ["empty", "cut", "words", "version"])
def test_a_file_that_makes_no_sense_counts_as_none(tmp_path: Path, damage: str) -> None:
    """It is said, and the daemon starts with accounts that charge for what is held."""
    cluster, planner = held(40)
    blob = packed(planner.books, planner.classes, cluster.now_s, AT)
    broken = {"empty": b"", "cut": blob[: len(blob) // 2], "words": b"no accounts", "version": blob}[damage]
    if damage == "version":
        broken = blob.replace(b'"version": 1', b'"version": 9')
    path = tmp_path / "accounts-hall.npz"
    write(path, broken)
    with capture_logs() as logs:
        assert read(path, 1_200.0, 0.0, AT) is None
    assert [entry["event"] for entry in logs] == ["accounts_unreadable"]
    path.unlink()
    assert read(path, 1_200.0, 0.0, AT) is None


@pytest.mark.looptime
async def test_the_file_follows_what_is_in_force(tmp_path: Path) -> None:
    """Nothing is written while nobody has lost anything; a change is there in seconds, then it is kept every ten."""
    clock = SystemClock()
    cluster = Cluster(*mixed())
    planner = Curtailer("hall", TERMS, clock.mono_s)
    keeper = Curtailers({"hall": planner}, tmp_path, clock)
    path = file_of(tmp_path, "hall")
    task = asyncio.ensure_future(keeper.run())
    planner.shed_w(cluster.look())
    await asyncio.sleep(30.0)
    assert not path.exists()
    cluster.jobs["j3"].paused = True
    planner.shed_w(cluster.look())
    await asyncio.sleep(4.0)
    first = path.read_bytes()
    planner.shed_w(cluster.look())
    await asyncio.sleep(3.0)
    assert path.read_bytes() == first
    await asyncio.sleep(10.0)
    assert path.read_bytes() != first
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    keeper.close({"hall"})
    books, _ = unpacked(path.read_bytes(), 1_200.0, clock.mono_s(), clock.now())
    assert not books.paused.any()


@pytest.mark.looptime
async def test_a_disk_that_fails_is_said_once_and_tried_again(tmp_path: Path) -> None:
    """The control loop goes on."""
    clock, cluster = SystemClock(), Cluster(*mixed())
    planner = Curtailer("hall", TERMS, clock.mono_s)
    folder = tmp_path / "gone"
    task = asyncio.ensure_future(Curtailers({"hall": planner}, folder, clock).run())
    with capture_logs() as logs:
        for _ in range(4):
            cluster.jobs["j3"].paused = not cluster.jobs["j3"].paused
            planner.shed_w(cluster.look())
            await asyncio.sleep(5.0)
        assert [entry["event"] for entry in logs] == ["accounts_not_kept"]
        folder.mkdir()
        cluster.jobs["j3"].paused = True
        planner.shed_w(cluster.look())
        await asyncio.sleep(15.0)
    assert file_of(folder, "hall").exists()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_every_controlled_cluster_has_a_planner_of_its_own(tmp_path: Path) -> None:
    """With the terms of its table and the accounts of its file."""
    hall = AssetConfig.model_validate(
        {"id": "hall-a", "kind": "cluster", "feed": "f", "adapter": "x", "rated_w": 1e5, "curtail": {"window_s": 600.0}}
    )
    config = Config(
        site=SiteConfig(id="dc", agent_id="a", import_max_w=1e6, state_dir=tmp_path),
        feeds=(FeedConfig(tag="f", meter="m", import_max_w=1e6),),
        assets=(
            AssetConfig(id="m", kind=Kind.METER, feed="f", adapter="x"),
            hall,
            hall.model_copy(update={"id": "hall-b"}),
            hall.model_copy(update={"id": "hall-c", "control": False}),
        ),
    )
    clock = FakeClock(AT, 5_000.0)
    cluster, planner = held(100)
    write(file_of(tmp_path, "hall-a"), packed(planner.books, planner.classes, cluster.now_s, AT))
    found = curtailers_of(config, clock, lambda asset: float(asset), lambda asset: False)
    assert set(found) == {"hall-a", "hall-b"}
    assert found["hall-a"].books.accounts.window_s == 600.0
    assert set(found["hall-a"].books.ids) == set(cluster.jobs) - {"j0", "j4", "j8", "j12"}
    assert found["hall-b"].books.ids == ()


def test_the_drop_is_verified_within_the_ramp_time_and_again_while_it_is_short() -> None:
    """Per budget: expected, measured, delivered and short; the next budget is another step."""
    verification = Verification("hall", 30.0)
    verification.planned(100e3, 80e3, 79e3, is_free=False, now_s=0.0)
    verification.measured(90e3, 79e3, 80e3, settled=False, now_s=29.0)
    assert not verification.steps
    with capture_logs() as logs:
        verification.measured(90e3, 79e3, 80e3, settled=True, now_s=30.0)
        assert verification.correction_w > 0.0
        verification.planned(90e3, 80e3, 75e3, is_free=False, now_s=30.0)
        verification.measured(79e3, 79e3, 80e3, settled=True, now_s=61.0)
    assert [(step.delivered_frac, step.short_w) for step in verification.steps] == [(0.5, 10e3), (1.05, 0.0)]
    assert [(e["event"], e["log_level"]) for e in logs] == [
        ("curtailment_verified", "warning"),
        ("curtailment_verified", "info"),
    ]
    verification.planned(79e3, 60e3, 59e3, is_free=False, now_s=62.0)
    verification.measured(59e3, 59e3, 60e3, settled=True, now_s=92.0)
    assert verification.steps[-1].delivered_frac == pytest.approx(41 / 40)
    verification.planned(59e3, 1e9, 100e3, is_free=True, now_s=100.0)
    assert verification.before_w is None


def test_less_power_than_expected_is_given_back_by_half_only() -> None:
    """And a reading that is far off is not believed beyond a fifth of the budget."""
    verification = Verification("hall", 30.0)
    verification.planned(100e3, 80e3, 79e3, is_free=False, now_s=0.0)
    for second in range(30):
        verification.measured(75e3, 79e3, 80e3, settled=True, now_s=float(second))
    assert verification.correction_w == pytest.approx(-2e3, rel=0.01)
    for second in range(30):
        verification.measured(500e3, 79e3, 80e3, settled=True, now_s=float(second))
    assert verification.correction_w == pytest.approx(16e3)


def test_given_back_means_that_nothing_is_in_force() -> None:
    """After a release nobody is charged for the time the daemon is away."""
    cluster, planner = held()
    spent_s = planner.books.accounts.since_s(cluster.now_s - 1_200.0).copy()
    planner.released()
    for truth in cluster.jobs.values():
        truth.level_frac, truth.paused = 1.0, False
    cluster.now_s += 300.0
    planner.shed_w(cluster.look())
    assert planner.books.accounts.since_s(cluster.now_s - 1_200.0) == pytest.approx(spent_s, abs=1e-6)


def test_a_planner_outlives_a_cluster_that_shows_no_jobs() -> None:
    """No jobs, then some: nothing is asked of nobody."""
    cluster, planner = held(40)
    empty = replace(cluster.look(), jobs=())
    assert planner.shed_w(empty) == (0.0, 0.0, 0.0, 0.0)
    answer = planner.plan(empty, 1.0, cluster.now_s)
    assert (dict(answer.level_frac), answer.paused) == ({}, frozenset())
    assert answer.short_w > 0.0
    assert np.isfinite(answer.expected_w)
