"""The Slurm adapter against a real Slurm: what the tiers allow is held down, everything is given back, no work is lost."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from adapters._slurm_config import SlurmConfig
from adapters.slurm import connect
from tests.servers.slurm import SlurmServer, running_slurm, until
from tests.support import ROOT
from vppd.errors import Refused, Unreachable
from vppd.model import Setpoint
from vppd.ports import Window
from vppd.runtime.curtailer import Curtailer, Terms

pytestmark = [pytest.mark.integration]
IDLE_W, CPU_W, NODES, CPUS = 100.0, 100.0, 2, 4
ALL_W = NODES * (IDLE_W + CPUS * CPU_W)
# 40 rounds of counting and resting: real work, whose sum tells whether a round was lost or done twice.
WORK = "n=0; for i in $(seq 40); do for k in $(seq 500); do n=$((n+1)); done; sleep 0.1; done; echo $n"
RESULT = 40 * 500
HOLDER = """
import asyncio, sys
from adapters._slurm_config import SlurmConfig
from adapters.slurm import connect
from vppd.model import Setpoint
from vppd.ports import Window
from vppd.runtime.curtailer import Curtailer, Terms
async def main():
    async with connect(SlurmConfig.model_validate_json(sys.argv[1])) as cluster:
        applied = await cluster.apply(Setpoint("hall", float(sys.argv[2]), 60.0))
        sys.stdout.write(applied.detail + "\\n")
        sys.stdout.flush()
        await asyncio.sleep(600)
asyncio.run(main())
"""


@dataclass(slots=True)
class Load:
    """Two jobs of every tier that fill the cluster, each with a result to show, and two that wait."""

    server: SlurmServer
    tiers: dict[int, int] = field(default_factory=dict)
    pending: list[int] = field(default_factory=list)

    def start(self, script: str = WORK) -> None:
        """Submit all and wait until they run."""
        for tier in (0, 1, 2, 3) * 2:
            job = self.server.submit(f"{script} > result.$SLURM_JOB_ID", f"--comment=vpp:tier={tier} mine", "-t", "5")
            self.tiers[job] = tier
        for job in self.tiers:
            self.server.wait(job, "RUNNING")
        self.pending = [self.server.submit(f"{WORK} > result.$SLURM_JOB_ID", f"--comment=vpp:tier={t}") for t in (2, 3)]

    def of(self, *tiers: int) -> set[int]:
        """Return the jobs of some tiers."""
        return {job for job, tier in self.tiers.items() if tier in tiers}

    def stopped(self) -> set[int]:
        """Return the jobs whose every process is stopped."""
        return {job for job in self.tiers if self.server.state(job) == "STOPPED" and self.halted(job)}

    def halted(self, job: int) -> bool:
        """Say whether a job has processes and none of them can run."""
        processes = self.server.processes(job)
        return bool(processes) and all(_status(p) in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE) for p in processes)

    def all_end_well(self) -> None:
        """Wait until every job has completed, and check its result and that its comment is the user's own."""
        for job in (*self.tiers, *self.pending):
            self.server.wait(job, "COMPLETED", for_s=60.0)
            assert (self.server.base / "out" / f"result.{job}").read_text().strip() == str(RESULT)
        for job, tier in self.tiers.items():
            assert self.server.show(job)["Comment"].strip() == f"vpp:tier={tier} mine"


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_ZOMBIE)


@pytest.fixture(scope="module")
def server() -> Iterator[SlurmServer]:
    """A real cluster of two nodes with four CPUs each."""
    with running_slurm(NODES, CPUS) as running:
        yield running


@pytest.fixture
def config(server: SlurmServer, tmp_path: Path) -> SlurmConfig:
    """REST and command line, no agents for caps."""
    return SlurmConfig(
        url=server.url,
        token_file=server.token_file(),
        command_line=True,
        slurm_conf=server.conf,
        node_idle_w=IDLE_W,
        node_max_w=IDLE_W + CPUS * CPU_W,
        max_pause_s={2: 600.0, 3: 1800.0},
        journal=tmp_path / "journal.json",
    )


@pytest.fixture
def load(server: SlurmServer) -> Iterator[Load]:
    """Jobs of all tiers, cancelled in the end whatever happens."""
    full = Load(server)
    yield full
    server.clear()


def hold(config: SlurmConfig, budget_w: float) -> subprocess.Popen[str]:
    """Start a process that holds the cluster to a budget, and return once it does."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, config.model_dump_json(), str(budget_w)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert holder.stdout is not None
    assert "stopped" in holder.stdout.readline()
    return holder


def kill(holder: subprocess.Popen[str]) -> None:
    """End a process as kill -9 does."""
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert holder.stdout is not None
    holder.stdout.close()


async def apply(cluster: Any, budget_w: float) -> float:
    """Apply a budget and return what is read back."""
    applied = await cluster.apply(Setpoint("hall", budget_w, 60.0))
    return float(applied.power_w)


async def test_only_what_the_tiers_allow(load: Load, config: SlurmConfig) -> None:
    """A budget nobody can meet stops tiers 2 and 3 alone, pending jobs stay out, and in the end every job has its right result."""
    await asyncio.to_thread(load.start)
    async with connect(config) as cluster:
        before = await cluster.read()
        assert (before.power_w, before.available_w) == (ALL_W, ALL_W)
        assert before.tier_shed_w == (0.0, 0.0, 2 * CPU_W, 2 * CPU_W)
        assert await apply(cluster, 50.0) == ALL_W - 4 * CPU_W
        assert await asyncio.to_thread(load.stopped) == load.of(2, 3)
        assert {load.server.state(job) for job in load.pending} == {"PENDING"}
        assert await apply(cluster, ALL_W - 2 * CPU_W) == ALL_W - 2 * CPU_W
        assert await asyncio.to_thread(load.stopped) == load.of(3)
        after = await cluster.read()
        assert (after.power_w, after.available_w) == (ALL_W - 2 * CPU_W, ALL_W)
        await apply(cluster, 50.0)
        for job in load.of(0, 1):  # their CPUs fall free, and still nothing starts
            await asyncio.to_thread(load.server.wait, job, "COMPLETED")
        await asyncio.sleep(3.0)
        assert {load.server.state(job) for job in load.pending} == {"PENDING"}
        assert await asyncio.to_thread(load.stopped) == load.of(2, 3)
        await cluster.release()
        assert not await asyncio.to_thread(load.stopped)
    await asyncio.to_thread(load.all_end_well)


async def test_a_killed_process_is_made_good(load: Load, config: SlurmConfig) -> None:
    """After kill -9 the jobs stay stopped; the next process finds them and gives everything back, and no work is lost."""
    await asyncio.to_thread(load.start)
    kill(await asyncio.to_thread(hold, config, ALL_W - 4 * CPU_W))
    assert await asyncio.to_thread(load.stopped) == load.of(2, 3)
    async with connect(config) as cluster:
        assert (await cluster.read()).setpoint_w == ALL_W - 4 * CPU_W
        assert await asyncio.to_thread(load.stopped) == load.of(2, 3)
        await cluster.release()
        assert not await asyncio.to_thread(load.stopped)
    await asyncio.to_thread(load.all_end_well)


async def test_marks_are_enough(load: Load, config: SlurmConfig) -> None:
    """After kill -9 and with the journal lost, a process that knows nothing restores all jobs by their marks."""
    await asyncio.to_thread(load.start)
    kill(await asyncio.to_thread(hold, config, ALL_W - 4 * CPU_W))
    async with connect(config.model_copy(update={"journal": None})) as cluster:
        await cluster.release()
        assert not await asyncio.to_thread(load.stopped)
    await asyncio.to_thread(load.all_end_well)


async def test_steps_are_stopped_too(load: Load, config: SlurmConfig) -> None:
    """The processes that srun starts are stopped with their batch script, which Slurm 22.05's REST alone does not do."""
    await asyncio.to_thread(load.start, f"srun -n1 bash -c '{WORK}'")
    async with connect(config) as cluster:
        await apply(cluster, ALL_W - 2 * CPU_W)
        await asyncio.to_thread(until, lambda: load.stopped() == load.of(3), "scripts and steps are stopped", 10.0)
        assert not any(load.halted(job) for job in load.of(0, 1, 2))
        await cluster.release()
    await asyncio.to_thread(load.all_end_well)


async def test_suspend_and_a_partition_that_is_down(load: Load, config: SlurmConfig) -> None:
    """With suspend, which frees CPUs, a partition set DOWN keeps others from starting in the hole; both are undone."""
    await asyncio.to_thread(load.start)
    other = config.model_copy(update={"stop_method": "suspend", "freeze_partitions": ("flex",)})
    async with connect(other) as cluster:
        assert await apply(cluster, ALL_W - 4 * CPU_W) == ALL_W - 4 * CPU_W
        assert {load.server.state(job) for job in load.of(2, 3)} == {"SUSPENDED"}
        assert load.server.run("sinfo", "-h", "-p", "flex", "-o", "%a").split() == ["down"]
        await asyncio.sleep(3.0)
        assert {load.server.state(job) for job in load.pending} == {"PENDING"}
        await cluster.release()
        assert {load.server.state(job) for job in load.of(2, 3)} == {"RUNNING"}
        assert load.server.run("sinfo", "-h", "-p", "flex", "-o", "%a").split() == ["up"]
    await asyncio.to_thread(load.all_end_well)


async def test_by_command_line_when_rest_is_gone(load: Load, config: SlurmConfig) -> None:
    """With slurmrestd dead everything still works through the commands, and the same jobs are seen."""
    await asyncio.to_thread(load.start)
    async with connect(config) as cluster:
        by_rest = await cluster.read()
        await asyncio.to_thread(load.server.end, "slurmrestd")
        try:
            assert await cluster.read() == by_rest
            assert await apply(cluster, ALL_W - 2 * CPU_W) == ALL_W - 2 * CPU_W
            assert await asyncio.to_thread(load.stopped) == load.of(3)
            assert {load.server.state(job) for job in load.pending} == {"PENDING"}
        finally:
            await asyncio.to_thread(load.server.start_rest)
        await cluster.release()
        assert not await asyncio.to_thread(load.stopped)
    await asyncio.to_thread(load.all_end_well)


async def test_a_dead_controller_is_unreachable(load: Load, config: SlurmConfig) -> None:
    """Without slurmctld a read is Unreachable; the shed is in force when it is back, and the same budget repeats nothing."""
    await asyncio.to_thread(load.start)
    async with connect(config) as cluster:
        await apply(cluster, ALL_W - 2 * CPU_W)
        await asyncio.to_thread(load.server.end, "slurmctld")
        try:
            with pytest.raises(Unreachable):
                await cluster.read()
        finally:
            await asyncio.to_thread(load.server.start_controller)
        assert await asyncio.to_thread(load.halted, next(iter(load.of(3))))
        assert await apply(cluster, ALL_W - 2 * CPU_W) == ALL_W - 2 * CPU_W
        await cluster.release()
        assert not await asyncio.to_thread(load.stopped)
    await asyncio.to_thread(load.all_end_well)


async def test_tokens(server: SlurmServer, config: SlurmConfig, tmp_path: Path) -> None:
    """A bad token is Refused; with renew_token a fresh one is minted and nobody need write a file."""
    bad = tmp_path / "token"
    await asyncio.to_thread(bad.write_text, "abc")
    rest_alone: dict[str, Any] = {"token_file": bad, "command_line": False}
    with pytest.raises(Refused):
        await connect(config.model_copy(update=rest_alone)).__aenter__()
    minted: dict[str, Any] = {"token_file": None, "renew_token": True}
    async with connect(config.model_copy(update=minted)) as cluster:
        assert (await cluster.read()).power_w == NODES * IDLE_W


async def test_under_the_daemons_planner(load: Load, config: SlurmConfig) -> None:
    """The planner's choice is carried out on real jobs: what it says can be shed is shed, firm jobs run on, and no work is lost."""
    await asyncio.to_thread(load.start)
    async with connect(config) as cluster:
        loop = asyncio.get_running_loop()
        cluster.plan_with(Curtailer("hall", Terms(window_s=600.0, ramp_s=5.0), loop.time, lambda: 60.0))
        before = await cluster.read()
        assert before.tier_shed_w == pytest.approx((0.0, 0.0, 2 * CPU_W, 2 * CPU_W), rel=0.1)
        start_s = time.perf_counter()
        assert await apply(cluster, ALL_W - 2.1 * CPU_W) == ALL_W - 2.1 * CPU_W
        sys.stderr.write(f"slurm under the planner: {(time.perf_counter() - start_s) * 1e3:.0f} ms to three stops\n")
        stopped = await asyncio.to_thread(load.stopped)
        assert len(stopped) == 3
        assert stopped <= load.of(2, 3)
        await asyncio.sleep(3.0)
        assert len(await asyncio.to_thread(load.stopped)) == 3
        await cluster.release()
        assert not await asyncio.to_thread(load.stopped)
    await asyncio.to_thread(load.all_end_well)


async def test_a_reserved_window_is_not_run_into(load: Load, config: SlurmConfig) -> None:
    """A job that would last into an awarded window does not start on the nodes kept free for it, a short one does; others go on.

    The reservation outlives the process, follows the award, and goes with it.
    """
    start = datetime.now(UTC) + timedelta(minutes=20)
    award = Window(start, start + timedelta(hours=1), CPUS * CPU_W)
    server, options = load.server, ("-N2", "--comment=vpp:tier=0")
    running = server.submit("sleep 60", "-t", "60", "--comment=vpp:tier=3", "-w", "node1")
    server.wait(running, "RUNNING")
    reserving = config.model_copy(update={"reserve_for_awards": True})
    async with connect(reserving) as cluster:
        (kept,) = await cluster.reserve([award])
        assert kept.power_w == CPUS * CPU_W
    (name,) = re.findall(r"ReservationName=(vppd-\S+) ", server.run("scontrol", "-o", "show", "reservations"))
    long = server.submit("sleep 1", "-t", "60", *options)
    short = server.submit("sleep 1", "-t", "2", *options)
    await asyncio.to_thread(server.wait, short, "COMPLETED")
    assert server.state(long) == "PENDING"
    assert server.state(running) == "RUNNING"
    async with connect(reserving) as cluster:
        await cluster.reserve([award])
        assert server.run("scontrol", "-o", "show", "reservations").count("ReservationName") == 1
        await cluster.reserve([replace(award, power_w=2 * CPUS * CPU_W)])
        assert "NodeCnt=2" in server.run("scontrol", "-o", "show", "reservation", name)
        assert server.state(long) == "PENDING"
        await cluster.reserve([])
    assert server.run("scontrol", "-o", "show", "reservations") == "No reservations in the system"
    await asyncio.to_thread(server.wait, long, "COMPLETED")


async def test_back_into_the_queue_as_the_last_resort(load: Load, config: SlurmConfig) -> None:
    """A job on two nodes that keeps checkpoints is put back and held when nothing else helps, the next process lets it go, and it ends well."""
    server = load.server
    keep = "echo $n > $f.new; mv $f.new $f"  # it may be ended at any moment
    script = f"f=checkpoint.$SLURM_JOB_ID; n=$(cat $f || echo 0); while [ $n -lt 60 ]; do n=$((n+1)); {keep}; sleep 0.1; done"
    job = server.submit(script, "-N2", "-n8", "-t", "5", "--requeue", "--comment=vpp:tier=3 vpp:requeue")
    server.wait(job, "RUNNING")
    last = config.model_copy(update={"requeue_tiers": (3,), "requeue_after_s": 1.0})
    holder = await asyncio.to_thread(hold, last, 50.0)
    await asyncio.to_thread(server.wait, job, "PENDING")
    kill(holder)
    assert server.show(job)["Priority"] == "0"
    assert "vpp:held=requeue" in server.run("squeue", "-h", "-j", str(job), "-o", "%k")
    assert not server.processes(job)
    async with connect(last) as cluster:
        await cluster.release()
    assert server.show(job)["Priority"] != "0"
    assert server.show(job)["Comment"].strip() == "vpp:tier=3 vpp:requeue"
    # Slurm lets it wait for two minutes, so that nothing late of its first run is taken for its second; here some seconds will do.
    await asyncio.to_thread(
        until, lambda: not server.run("sinfo", "-h", "-N", "-t", "completing"), "its nodes are free"
    )
    await asyncio.sleep(4.0)
    server.run("scontrol", "update", f"JobId={job}", "StartTime=now")
    await asyncio.to_thread(server.wait, job, "COMPLETED", "FAILED", for_s=60.0)
    assert server.state(job) == "COMPLETED", (server.show(job), (server.base / "out" / f"{job}.log").read_text())
    assert server.show(job)["Restarts"] == "1"


def test_how_fast(load: Load, config: SlurmConfig) -> None:
    """A read, and a budget from the call to jobs that are seen to be stopped, take well under a second."""
    load.start()

    async def measure() -> tuple[float, float]:
        async with connect(config) as cluster:
            start_s = time.perf_counter()
            await cluster.read()
            read_s, start_s = time.perf_counter() - start_s, time.perf_counter()
            await apply(cluster, ALL_W - 4 * CPU_W)
            return read_s, time.perf_counter() - start_s

    read_s, apply_s = asyncio.run(measure())
    sys.stderr.write(f"slurm on {os.cpu_count()} cores: read {read_s * 1e3:.0f} ms, 4 stops {apply_s * 1e3:.0f} ms\n")
    assert read_s < 1.0
    assert apply_s < 2.0
