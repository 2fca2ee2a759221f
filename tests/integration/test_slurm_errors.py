"""What goes wrong between the adapter and a real Slurm: held jobs stay held, nothing is done twice, and each failure is told job by job."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adapters._slurm_config import SlurmConfig
from adapters.slurm import SlurmCluster, connect
from tests.integration.slurm_rounds import OVER, Diary
from tests.integration.slurm_work import paced, paced_result
from tests.servers.slurm import JOB_USER, SlurmServer, running_slurm, until
from vppd.errors import Unreachable
from vppd.model import Applied, Setpoint

pytestmark = [pytest.mark.integration]
CPUS, IDLE_W, CPU_W = 4, 100.0, 100.0
ALL_W = IDLE_W + CPUS * CPU_W
TWO_LESS_W = ALL_W - 2 * CPU_W


@dataclass
class Load:
    """Tolerant jobs that fill the cluster and keep diaries."""

    server: SlurmServer
    jobs: list[int] = field(default_factory=list)

    def fill(self, *users: str) -> None:
        """Start a job for each user."""
        (self.folder / OVER).unlink(missing_ok=True)
        for user in users:
            self.jobs.append(self.server.submit(paced(8, OVER), "--comment=vpp:tier=3 mine", "-t5", user=user))
        until(lambda: all(self.bursts(job) for job in self.jobs), "all jobs are at work")

    @property
    def folder(self) -> Path:
        """Return where the jobs write."""
        return self.server.base / "out"

    def bursts(self, job: int) -> int:
        """Return how much a job has done."""
        return len(self.diary(job).steps_at_s)

    def diary(self, job: int) -> Diary:
        """Return what a job wrote down."""
        return Diary.read(self.folder / f"diary.{job}")

    def stopped(self) -> set[int]:
        """Return the jobs that Slurm says are stopped."""
        return {job for job in self.jobs if self.server.state(job) == "STOPPED"}

    def signals(self) -> int:
        """Return how many signals Slurm has been told to send to these jobs."""
        text = (self.server.base / "log/slurmctld.log").read_text(encoding="utf-8")
        return sum(len(re.findall(rf"REQUEST_KILL_JOB JobId={job} ", text)) for job in self.jobs)

    def all_end_well(self, once: set[int]) -> None:
        """See every job completed with its right result, those named after one pause and the others after none."""
        (self.folder / OVER).touch()
        for job in self.jobs:
            self.server.wait(job, "COMPLETED", "FAILED")
            bursts, result = map(int, (self.folder / f"result.{job}").read_text(encoding="ascii").split())
            assert result == paced_result(bursts)
            long = [pause for pause in self.diary(job).pauses if pause[1] - pause[0] > 1.0]
            assert len(long) == (job in once)
            assert self.server.show(job)["Comment"].strip() == "vpp:tier=3 mine"


@pytest.fixture(scope="module")
def server() -> Iterator[SlurmServer]:
    """A real cluster of one node."""
    with running_slurm(1, CPUS) as running:
        yield running


@pytest.fixture
def load(server: SlurmServer) -> Iterator[Load]:
    """Jobs that are cancelled in the end, whatever happens."""
    yield Load(server)
    server.clear()


@pytest.fixture
def configured(server: SlurmServer, tmp_path: Path) -> Callable[..., SlurmConfig]:
    """Return a configuration, by REST and command line, with some things changed."""

    def config(**changed: Any) -> SlurmConfig:
        plain: dict[str, Any] = {
            "url": server.url,
            "token_file": server.token_file(),
            "command_line": True,
            "slurm_conf": server.conf,
            "command_timeout_s": 2.0,
            "node_idle_w": IDLE_W,
            "node_max_w": ALL_W,
            "journal": tmp_path / "journal.json",
        }
        return SlurmConfig(**(plain | changed))

    return config


async def apply(cluster: SlurmCluster, budget_w: float) -> Applied:
    """Keep the cluster within a budget."""
    return await cluster.apply(Setpoint("hall", budget_w, 60.0))


@pytest.mark.parametrize(("dies", "command_line"), [("slurmctld", True), ("slurmrestd", False)])
async def test_what_is_held_stays_held_and_is_not_shed_again(
    load: Load, configured: Callable[..., SlurmConfig], dies: str, command_line: bool
) -> None:
    """While nobody answers the jobs stay as they are; then the state is read, and not one signal is sent again."""
    server = load.server
    await asyncio.to_thread(load.fill, *[JOB_USER] * CPUS)
    async with connect(configured(command_line=command_line)) as cluster:
        assert (await apply(cluster, TWO_LESS_W)).power_w == TWO_LESS_W
        held = await asyncio.to_thread(load.stopped)
        await asyncio.sleep(2.0)
        done, sent = [load.bursts(job) for job in held], load.signals()
        await asyncio.to_thread(server.end, dies)
        try:
            with pytest.raises(Unreachable):
                await cluster.read()
            with pytest.raises(Unreachable):
                await apply(cluster, TWO_LESS_W)
        finally:
            await asyncio.to_thread(server.start_rest if dies == "slurmrestd" else server.start_controller)
        shown = await cluster.read()
        assert (shown.power_w, shown.setpoint_w) == (TWO_LESS_W, TWO_LESS_W)
        assert (await apply(cluster, TWO_LESS_W)).power_w == TWO_LESS_W
        await asyncio.sleep(3.0)
        assert await asyncio.to_thread(load.stopped) == held
        assert [load.bursts(job) for job in held] == done
        assert load.signals() == sent
        assert not (await cluster.read()).fault
        await cluster.release()
    await asyncio.to_thread(load.all_end_well, held)


async def test_a_job_that_may_not_be_stopped(load: Load, configured: Callable[..., SlurmConfig]) -> None:
    """With a user's token the user's jobs stop; those of somebody else are named one by one, with the power they still draw."""
    await asyncio.to_thread(load.fill, JOB_USER, "nobody", JOB_USER, "nobody")
    mine = {load.jobs[0], load.jobs[2]}
    rights = {"user_name": JOB_USER, "token_file": load.server.token_file(JOB_USER), "command_line": False}
    async with connect(configured(**rights)) as cluster:
        applied = await apply(cluster, ALL_W - 4 * CPU_W)
        assert applied.power_w == TWO_LESS_W
        assert "short by 200 W" in applied.detail
        for job in load.jobs:
            assert (f"job {job}: " in applied.detail) == (job not in mine)
        assert await asyncio.to_thread(load.stopped) == mine
        assert (await cluster.read()).lower_w == TWO_LESS_W
        await asyncio.sleep(1.5)
        await cluster.release()
    await asyncio.to_thread(load.all_end_well, mine)


async def test_a_partition_that_a_restart_opens(load: Load, configured: Callable[..., SlurmConfig]) -> None:
    """A slurmctld that comes back has every partition UP: it is closed again, and opened when all is over."""
    server = load.server
    await asyncio.to_thread(load.fill, *[JOB_USER] * CPUS)

    def state() -> str:
        return server.run("sinfo", "-h", "-p", "flex", "-o", "%a", check=False)

    async with connect(configured(freeze_partitions=("flex",))) as cluster:
        await apply(cluster, TWO_LESS_W)
        held = await asyncio.to_thread(load.stopped)
        assert await asyncio.to_thread(state) == "down"
        await asyncio.to_thread(server.end, "slurmctld")
        await asyncio.to_thread(server.start_controller)
        await asyncio.to_thread(until, lambda: state() == "down", "the partition is closed again", 30.0, state)
        await cluster.release()
        assert await asyncio.to_thread(state) == "up"
    await asyncio.to_thread(load.all_end_well, held)
