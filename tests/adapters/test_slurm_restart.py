"""The Slurm adapter over a cluster in memory, in virtual time: lost links, kills, restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from adapters._slurm_config import SlurmConfig
from tests.adapters.slurm_fake import JOB_W, FakeSlurm
from tests.adapters.slurm_rig import ALL_W, LEASE_S, apply, configured, connected, four_tiers, lost
from vppd.errors import Unreachable

pytestmark = [pytest.mark.looptime]


@pytest.fixture
def fake() -> FakeSlurm:
    """One node with a job of every tier."""
    return four_tiers()


@pytest.fixture
def config(tmp_path: Path) -> SlurmConfig:
    """A configuration without a command line."""
    return configured(tmp_path)


async def test_lease_ends_while_slurm_is_down(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A lease that ends while nothing answers is carried out as soon as something does; until then there is an alarm."""
    async with connected(fake, config) as cluster:
        await apply(cluster, ALL_W - 2 * JOB_W)
        fake.down = True
        with pytest.raises(Unreachable):
            await cluster.read()
        await asyncio.sleep(LEASE_S + 20.0)
        assert fake.stopped() == {3, 4}
        fake.down = False
        assert "cannot be looked after" in (await cluster.read()).fault
        await asyncio.sleep(3.0)
        assert not fake.stopped()
        assert (await cluster.read()).fault == ""


async def test_never_sheds_again_after_a_lost_link(fake: FakeSlurm, config: SlurmConfig) -> None:
    """While nothing answers a setpoint is Unreachable; afterwards the same budget stops nobody anew."""
    async with connected(fake, config) as cluster:
        await apply(cluster, ALL_W - JOB_W)
        fake.down = True
        with pytest.raises(Unreachable):
            await apply(cluster, ALL_W - JOB_W)
        fake.down = False
        await apply(cluster, ALL_W - JOB_W)
        assert fake.count["SIGSTOP 4"] == 1
        assert fake.stopped() == {4}


async def test_successor_finds_the_journal(fake: FakeSlurm, config: SlurmConfig) -> None:
    """After a kill a new process says which budget is in force, keeps it for one lease, and then lets every job go on."""
    await lost(fake, config, ALL_W - 2 * JOB_W)
    assert fake.stopped() == {3, 4}
    async with connected(fake, config) as cluster:
        assert (await cluster.read()).setpoint_w == ALL_W - 2 * JOB_W
        assert (await cluster.read()).available_w == ALL_W
        await asyncio.sleep(LEASE_S - 2.0)
        assert fake.stopped() == {3, 4}
        await asyncio.sleep(5.0)
        assert not fake.stopped()
    assert fake.count["SIGSTOP 3"] == fake.count["SIGSTOP 4"] == 1


async def test_successor_without_a_journal(fake: FakeSlurm, config: SlurmConfig) -> None:
    """Where the journal is lost the marks tell; a release by the new process gives everything back at once."""
    pending = fake.add(3, state="PENDING")
    await lost(fake, config, ALL_W - 2 * JOB_W)
    assert config.journal is not None
    config.journal.unlink()
    async with connected(fake, config) as cluster:
        assert fake.stopped() == {3, 4}
        await cluster.release()
        assert not fake.stopped()
        assert not pending.held
    assert "vpp:held" not in "".join(job.comment for job in fake.jobs.values())


async def test_an_interrupted_release_goes_on(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A release that is cut short is finished by the next connection at once, and stops nobody anew."""
    for _ in range(10):
        fake.add(3)

    async def interrupted() -> None:
        async with connected(fake, config) as cluster:
            await apply(cluster, 0.0)
            release = asyncio.create_task(cluster.release())
            await asyncio.sleep(0.5)
            release.cancel()
            fake.down = True
            await cluster.read()

    with pytest.raises(Unreachable):
        await interrupted()
    fake.down = False
    assert 0 < len(fake.stopped()) < 12
    async with connected(fake, config) as cluster:
        assert (await cluster.read()).setpoint_w is None
        await asyncio.sleep(6.0)
        assert not fake.stopped()
    assert max(fake.count[f"SIGSTOP {i}"] for i in fake.jobs) == 1


async def test_a_broken_journal_is_told_and_the_marks_count(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A journal that cannot be read raises an alarm, and jobs are restored by their marks all the same."""
    await lost(fake, config, ALL_W - JOB_W)
    assert config.journal is not None
    await asyncio.to_thread(config.journal.write_text, "{")
    async with connected(fake, config) as cluster:
        assert "journal" in (await cluster.read()).fault
        assert fake.stopped() == {4}
        await asyncio.sleep(config.orphan_lease_s + 2.0)
        assert not fake.stopped()
        assert (await cluster.read()).fault == ""


@pytest.mark.parametrize("held", [True, False], ids=["others are held", "nothing is held"])
async def test_a_stop_that_comes_late_is_taken_back(fake: FakeSlurm, config: SlurmConfig, held: bool) -> None:
    """A job that Slurm stops after it was let go on, by a request that was given up, goes on; stopped again, that is its user's will."""
    async with connected(fake, config) as cluster:
        await apply(cluster, ALL_W - 2 * JOB_W)
        await (apply(cluster, ALL_W - JOB_W) if held else cluster.release())
        assert fake.jobs[3].state == "RUNNING"
        await asyncio.sleep(0.5)
        fake.jobs[3].state = "STOPPED"
        await asyncio.sleep(2.5)
        assert fake.jobs[3].state == "RUNNING"
        fake.jobs[3].state = "STOPPED"
        await asyncio.sleep(5.0)
        assert fake.jobs[3].state == "STOPPED"


async def test_clean_exit_restores(fake: FakeSlurm, config: SlurmConfig) -> None:
    """Leaving the connection in good order lets every job go on."""
    async with connected(fake, config) as cluster:
        await apply(cluster, ALL_W - JOB_W)
    assert not fake.stopped()


async def test_cancellation_restores(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A cancelled owner lets every job go on, too."""

    async def own() -> None:
        async with connected(fake, config) as cluster:
            await apply(cluster, ALL_W - JOB_W)
            await asyncio.sleep(1000.0)

    task = asyncio.create_task(own())
    await asyncio.sleep(5.0)
    assert fake.stopped() == {4}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not fake.stopped()


async def test_a_lost_link_leaves_jobs_held(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A connection given up because nothing answers releases nothing: the next one goes on with the same budget."""
    await lost(fake, config, ALL_W - JOB_W)
    assert fake.stopped() == {4}
