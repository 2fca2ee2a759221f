"""Who may do what in a real Slurm: a daemon that is nobody on its machine, and administrators at work beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters._slurm_cli import SlurmCommands
from adapters._slurm_config import SlurmConfig
from adapters._slurm_rest import Denied
from adapters.slurm import connect
from tests.servers.slurm import REST_USER, SlurmServer, running_slurm
from vppd.model import Setpoint

pytestmark = [pytest.mark.integration]


@pytest.fixture(scope="module")
def server() -> Iterator[SlurmServer]:
    """A real cluster of one node."""
    with running_slurm(1, 2) as running:
        yield running


@pytest.fixture(autouse=True)
def cleared(server: SlurmServer) -> Iterator[None]:
    """Leave nothing to the next test: no job, no closed partition."""
    yield
    server.clear()


@pytest.fixture
def commands(tmp_path: Path) -> str:
    """Return a folder with the Slurm commands as a user without rights runs them."""
    for name in ("squeue", "scontrol", "scancel"):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\ncd /; exec runuser -u {REST_USER} -- {shutil.which(name)} "$@"\n')
        script.chmod(0o755)
    return str(tmp_path)


async def test_the_token_speaks(server: SlurmServer, commands: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user may not do is done with the token: comments, limits, holds, signals, partitions; and settings hide no job."""
    monkeypatch.setenv("SQUEUE_USERS", "root")
    assert os.geteuid() == 0
    job = server.submit("sleep 60", "--comment=vpp:tier=3", "-t", "5")
    server.wait(job, "RUNNING")
    with pytest.raises(Denied):
        await SlurmCommands(commands, server.conf, 5.0).comment(job, "ours")
    able = SlurmCommands(commands, server.conf, 5.0, server.token_file())
    assert (job, "RUNNING") in [(found.id, found.state) for found in await able.jobs()]
    await able.comment(job, "ours", 9)
    await able.signal_scripts((job,), "STOP")
    server.wait(job, "STOPPED")
    await able.signal_scripts((job,), "CONT")
    server.wait(job, "RUNNING")
    assert server.show(job)["Comment"].strip() == "ours"
    assert server.show(job)["TimeLimit"] == "00:09:00"
    waiting = server.submit("true", "--begin=now+1hour")
    await able.hold(waiting, True)
    assert server.show(waiting)["Reason"] == "JobHeldAdmin"
    await able.hold(waiting, False)
    await able.set_partition("flex", "DOWN")
    assert await able.partition_state("flex") == "DOWN"
    await able.set_partition("flex", "UP")
    assert await able.partition_state("flex") == "UP"


async def test_a_partition_that_somebody_else_closes(server: SlurmServer, tmp_path: Path) -> None:
    """A partition that an administrator sets INACTIVE while we hold it DOWN stays INACTIVE."""
    config = SlurmConfig(
        command_line=True, slurm_conf=server.conf, freeze_partitions=("flex",), journal=tmp_path / "journal.json"
    )
    job = server.submit("sleep 60", "--comment=vpp:tier=3")
    server.wait(job, "RUNNING")
    async with connect(config) as cluster:
        await cluster.apply(Setpoint("hall", 0.0, 60.0))
        assert server.state(job) == "STOPPED"
        assert server.run("sinfo", "-h", "-p", "flex", "-o", "%a") == "down"
        server.run("scontrol", "update", "PartitionName=flex", "State=INACTIVE")
        await cluster.release()
    assert server.state(job) == "RUNNING"
    assert server.run("sinfo", "-h", "-p", "flex", "-o", "%a") == "inactive"
