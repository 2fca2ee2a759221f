"""The Slurm adapter, in virtual time, with others at work on the same jobs: users, administrators, the scheduler."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from adapters._slurm_config import SlurmConfig
from tests.adapters.slurm_fake import JOB_W, FakeJob, FakeSlurm
from tests.adapters.slurm_rig import ALL_W, apply, configured, connected, four_tiers
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


def is_as_it_was(job: FakeJob) -> bool:
    """Say whether a job runs, unheld, with its user's own comment."""
    return job.state == "RUNNING" and not job.held and "vpp:held" not in job.comment


async def test_a_job_that_starts_as_it_is_held(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A pending job that starts in the moment in which it is held is stopped like others, and goes on like others."""
    late = fake.add(3, state="PENDING")
    async with connected(fake, config) as cluster:
        await apply(cluster, ALL_W - 2 * JOB_W)
        late.state = "RUNNING"
        await asyncio.sleep(3.0)
        assert fake.stopped() == {3, 4, late.id}
        assert fake.count[f"SIGSTOP {late.id}"] == 1
        await cluster.release()
    assert all(is_as_it_was(job) for job in fake.jobs.values())


async def test_a_requeued_job_is_kept_from_starting(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A stopped job that is requeued meanwhile does not start into the hole, and may start after the release."""
    async with connected(fake, config) as cluster:
        await apply(cluster, ALL_W - JOB_W)
        fake.jobs[4].state = "PENDING"
        await asyncio.sleep(2.0)
        assert fake.held() == {4}
        await cluster.release()
    assert not fake.held()
    assert fake.jobs[4].limit_min == 60
    assert fake.jobs[4].comment == "vpp:tier=3 mine"


async def test_an_administrators_hold_stays(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A stopped job that an administrator requeues and holds meanwhile stays held after the release; only our mark goes."""
    async with connected(fake, config) as cluster:
        await apply(cluster, ALL_W - JOB_W)
        fake.jobs[4].state, fake.jobs[4].held = "PENDING", True
        await asyncio.sleep(2.0)
        await cluster.release()
    assert fake.held() == {4}
    assert fake.jobs[4].comment == "vpp:tier=3 mine"


async def test_an_administrators_time_limit_stays(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A time limit that somebody changes while the job is stopped is not taken back."""
    async with connected(fake, config) as cluster:
        await apply(cluster, ALL_W - JOB_W, 1e6)
        fake.jobs[4].limit_min = 600
        await asyncio.sleep(2.0)
        await cluster.release()
    assert fake.jobs[4].limit_min == 600
    assert is_as_it_was(fake.jobs[4])


async def test_a_mark_that_is_wiped_comes_back(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A user who rewrites the comment of a stopped job keeps his words; the job is held by the journal and goes on."""
    async with connected(fake, config) as cluster:
        await apply(cluster, ALL_W - JOB_W)
        fake.jobs[4].comment = "vpp:tier=3 other"
        await asyncio.sleep(2.0)
        assert fake.stopped() == {4}
        await cluster.release()
    assert fake.jobs[4].comment == "vpp:tier=3 other"
    assert is_as_it_was(fake.jobs[4])


async def test_a_partition_that_goes_inactive(fake: FakeSlurm, config: SlurmConfig) -> None:
    """In a partition that somebody sets INACTIVE stopped jobs go on though their marks stay; a held job is a refusal, until it may start."""
    held = fake.add(3, state="PENDING")
    async with connected(fake, config) as cluster:
        await apply(cluster, ALL_W - JOB_W)
        fake.jobs[4].inactive = held.inactive = True
        with pytest.raises(Refused, match="job 5 stays held"):
            await cluster.release()
        assert not fake.stopped()
        held.inactive = False
        await asyncio.sleep(2.0)
        assert not fake.held()
        assert (await cluster.read()).fault == ""
        await cluster.release()


async def test_a_job_for_several_partitions(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A pending job that may start in one of ours among others is held; its least tolerant partition places it."""
    both = fake.add(None, state="PENDING", partition="other,flex")
    firm = fake.add(None, state="PENDING", partition="firm,flex")
    ours: dict[str, object] = {
        "partitions": ("flex", "firm"),
        "partition_tier": {"flex": 3, "other": 2, "firm": 0},
    }
    async with connected(fake, config.model_copy(update=ours)) as cluster:
        await apply(cluster, ALL_W - JOB_W)
        assert fake.held() == {both.id}
        assert firm.comment == ""
        await cluster.release()
    assert not fake.held()


async def test_a_broken_journal_of_nothing(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A broken journal with nothing held raises an alarm that ends: an asset with a fault gets no orders."""
    assert config.journal is not None
    config.journal.parent.mkdir(parents=True)
    await asyncio.to_thread(config.journal.write_text, "{")
    async with connected(fake, config) as cluster:
        assert "journal" in (await cluster.read()).fault
        await asyncio.sleep(config.orphan_lease_s + 2.0)
        assert (await cluster.read()).fault == ""
