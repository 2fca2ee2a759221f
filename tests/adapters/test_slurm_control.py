"""The Slurm adapter over a cluster in memory, in virtual time: budgets, leases, pauses, refusals."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from adapters._slurm_config import SlurmConfig
from tests.adapters.slurm_fake import IDLE_W, JOB_W, FakeSlurm
from tests.adapters.slurm_rig import ALL_W, LEASE_S, apply, configured, connected, four_tiers
from vppd.errors import Refused

pytestmark = [pytest.mark.looptime]


@pytest.fixture
def fake() -> FakeSlurm:
    """One node with a job of every tier."""
    return four_tiers()


@pytest.fixture
def config(tmp_path: Path) -> SlurmConfig:
    """A configuration without a command line."""
    return configured(tmp_path)


async def test_reads_power_and_flexibility(fake: FakeSlurm, config: SlurmConfig) -> None:
    """The power read is what the nodes draw, and only tiers 2 and 3 can be stopped."""
    async with connected(fake, config) as cluster:
        sample = await cluster.read()
    assert sample.power_w == ALL_W
    assert sample.available_w == ALL_W
    assert sample.tier_shed_w == (0.0, 0.0, JOB_W, JOB_W)
    assert sample.lower_w == ALL_W - 2 * JOB_W
    assert sample.setpoint_w is None


async def test_sheds_by_tier_and_restores(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A budget stops what the tiers allow, the available power stays, and a release gives all of it back."""
    async with connected(fake, config) as cluster:
        applied = await apply(cluster, ALL_W - JOB_W)
        assert applied.power_w == ALL_W - JOB_W
        assert fake.stopped() == {4}
        sample = await cluster.read()
        assert (sample.power_w, sample.available_w, sample.setpoint_w) == (ALL_W - JOB_W, ALL_W, ALL_W - JOB_W)
        await cluster.release()
        assert not fake.stopped()
        assert (await cluster.read()).setpoint_w is None
    assert [job.comment for job in fake.jobs.values()] == [f"vpp:tier={tier} mine" for tier in range(4)]


async def test_marked_before_touched(fake: FakeSlurm, config: SlurmConfig) -> None:
    """The mark is in the job's comment and the journal on disk before the signal goes out, and both go after the job goes on."""
    async with connected(fake, config) as cluster:
        await apply(cluster, ALL_W - 1.0)
        assert fake.order == ["mark 4", "SIGSTOP 4"]
        assert config.journal is not None
        assert json.loads(config.journal.read_text())["touched"]["4"]["what"] == "stop"
        await cluster.release()
        assert fake.order[2:] == ["SIGCONT 4", "unmark 4"]
        assert json.loads(config.journal.read_text())["touched"] == {}


async def test_applying_twice_is_applying_once(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A renewed budget touches nothing that is in force already, and so does a second release."""
    async with connected(fake, config) as cluster:
        for _ in range(3):
            await apply(cluster, ALL_W - 2 * JOB_W)
            await asyncio.sleep(5.0)
        assert fake.count["SIGSTOP 3"] == fake.count["SIGSTOP 4"] == 1
        await cluster.release()
        await cluster.release()
        assert fake.count["SIGCONT 3"] == fake.count["SIGCONT 4"] == 1


async def test_a_shortfall_is_said(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A budget that the tiers cannot reach reads back as what will be drawn, and tier 0 and 1 run on."""
    async with connected(fake, config) as cluster:
        applied = await apply(cluster, 1000.0)
        assert applied.power_w == ALL_W - 2 * JOB_W
        assert "short by" in applied.detail
        assert fake.stopped() == {3, 4}


async def test_lease_ends(fake: FakeSlurm, config: SlurmConfig) -> None:
    """Without renewal every job goes on once the lease has ended, and not before."""
    async with connected(fake, config) as cluster:
        await apply(cluster, ALL_W - 2 * JOB_W)
        await asyncio.sleep(LEASE_S - 2.0)
        assert fake.stopped() == {3, 4}
        await asyncio.sleep(4.0)
        assert not fake.stopped()
        assert (await cluster.read()).setpoint_w is None


async def test_pending_jobs_do_not_start_in_the_hole(fake: FakeSlurm, config: SlurmConfig) -> None:
    """Pending flexible jobs are held while the budget binds, also those that come later; held by their users, they stay so."""
    first = fake.add(3, state="PENDING")
    users_own = fake.add(3, state="PENDING", held=True)
    fake.add(0, state="PENDING")
    async with connected(fake, config) as cluster:
        await apply(cluster, ALL_W - JOB_W)
        assert fake.held() == {first.id, users_own.id}
        late = fake.add(2, state="PENDING")
        await asyncio.sleep(2.0)
        assert fake.held() == {first.id, users_own.id, late.id}
        assert fake.order.index("hold 5") < fake.order.index("SIGSTOP 4")
        await cluster.release()
    assert fake.held() == {users_own.id}
    assert fake.count[f"free {users_own.id}"] == 0


async def test_watchdog_ends_a_long_pause(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A job goes on before its longest pause is over, and another of its tier takes its turn."""
    other = fake.add(3)
    limits: dict[str, Any] = {"max_pause_s": {3: 100.0}}
    async with connected(fake, config.model_copy(update=limits)) as cluster:
        await apply(cluster, ALL_W, 1e6)
        assert fake.stopped() == {4}
        await asyncio.sleep(95.0)
        assert fake.stopped() == {4}
        await asyncio.sleep(5.0)
        assert fake.stopped() == {other.id}
        stopped_s: Counter[int] = Counter()
        for _ in range(2000):
            await asyncio.sleep(1.0)
            stopped_s.update(fake.stopped())
    assert all(800 <= stopped_s[i] <= 1000 + 100 for i in (4, other.id)), stopped_s
    assert not fake.stopped()


async def test_staggered_release(fake: FakeSlurm, config: SlurmConfig) -> None:
    """Jobs go on one after another, and all of them within the time for it."""
    for _ in range(20):
        fake.add(3)
    loop = asyncio.get_running_loop()
    async with connected(fake, config) as cluster:
        await apply(cluster, 0.0)
        assert len(fake.stopped()) == 22
        before_s = loop.time()
        release = asyncio.create_task(cluster.release())
        await asyncio.sleep(config.release_within_s / 2.0)
        assert 5 <= len(fake.stopped()) <= 17
        await release
        assert loop.time() - before_s <= config.release_within_s * 1.5
        assert not fake.stopped()


async def test_a_stopped_job_of_a_user_stays_stopped(fake: FakeSlurm, config: SlurmConfig) -> None:
    """What a user has stopped is neither counted as flexible nor let go on."""
    fake.jobs[4].state = "STOPPED"
    async with connected(fake, config) as cluster:
        assert (await cluster.read()).tier_shed_w == (0.0, 0.0, JOB_W, 0.0)
        await apply(cluster, ALL_W - JOB_W - 1.0)
        assert fake.stopped() == {3, 4}
        await cluster.release()
    assert fake.stopped() == {4}


async def test_partial_success_is_told_job_by_job(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A job that the token may not touch is named, left alone for a while, and another is stopped instead."""
    fake.jobs[4].deny = True
    async with connected(fake, config) as cluster:
        applied = await apply(cluster, ALL_W - JOB_W)
        assert "job 4" in applied.detail
        assert applied.power_w == ALL_W
        await asyncio.sleep(2.0)
        assert fake.stopped() == {3}
        assert (await apply(cluster, ALL_W - JOB_W)).power_w == ALL_W - JOB_W


async def test_time_limit_given_back(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A stopped job's time limit is longer by its longest pause, and in the end by what it lost."""
    async with connected(fake, config) as cluster:
        await apply(cluster, ALL_W - JOB_W, 1e6)
        assert fake.jobs[4].limit_min == 60 + 30
        await asyncio.sleep(130.0)
        await cluster.release()
        assert fake.jobs[4].limit_min == 60 + 3


async def test_time_limit_not_permitted(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A token that may not extend limits still stops jobs."""
    fake.may_extend = False
    async with connected(fake, config) as cluster:
        await apply(cluster, ALL_W - JOB_W)
        assert fake.stopped() == {4}
        await cluster.release()
    assert fake.jobs[4].limit_min == 60
    assert fake.jobs[4].comment == "vpp:tier=3 mine"


async def test_caps_first_and_old_caps_back(fake: FakeSlurm, config: SlurmConfig) -> None:
    """Where agents cap nodes no job is stopped for a small cut, and each node gets its old cap back."""
    fake.nodes = ("n1", "n2")
    fake.cap_w["n2"] = 9000.0
    for _ in range(4):
        fake.add(3, node="n2")
    total_w = ALL_W + IDLE_W + 4 * JOB_W
    capped = config.model_copy(update={"cap_url": "http://slurm/caps", "node_max_w": ALL_W})
    async with connected(fake, capped) as cluster:
        applied = await apply(cluster, total_w - 1000.0)
        assert applied.power_w == total_w - 1000.0
        assert fake.cap_w == {"n2": ALL_W - 1000.0}
        assert not fake.stopped()
        assert (await cluster.read()).power_w == total_w - 1000.0
        assert (await cluster.read()).available_w == total_w
        await apply(cluster, total_w - 1000.0)
        assert fake.count["cap n2"] == 1
        await cluster.release()
    assert fake.cap_w == {"n2": 9000.0}


async def test_hold_method_stops_nothing(fake: FakeSlurm, config: SlurmConfig) -> None:
    """With the method hold, running jobs are never stopped."""
    async with connected(fake, config.model_copy(update={"stop_method": "hold"})) as cluster:
        await apply(cluster, 0.0)
        assert not fake.stopped()


async def test_a_full_disk_touches_nothing(fake: FakeSlurm, config: SlurmConfig, tmp_path: Path) -> None:
    """What cannot be written down is not done."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    async with connected(fake, config.model_copy(update={"journal": blocked / "journal.json"})) as cluster:
        with pytest.raises(Refused):
            await apply(cluster, ALL_W - JOB_W)
        assert not fake.order


async def test_token_read_again_when_refused(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A token that has changed on disk is taken up; one that is no good is Refused."""
    async with connected(fake, config) as cluster:
        fake.token = "newer"
        with pytest.raises(Refused):
            await cluster.read()
        assert config.token_file is not None
        await asyncio.to_thread(config.token_file.write_text, "newer")
        assert (await cluster.read()).power_w == ALL_W
