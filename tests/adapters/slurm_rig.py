"""The Slurm adapter connected to a cluster in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from adapters._slurm_config import SlurmConfig
from adapters.slurm import SlurmCluster, connect_through
from tests.adapters.slurm_fake import IDLE_W, JOB_W, FakeSlurm
from vppd.errors import Unreachable
from vppd.model import Applied, Setpoint

LEASE_S = 30.0
ALL_W = IDLE_W + 4 * JOB_W
"""What one node with a job of every tier draws."""


def four_tiers() -> FakeSlurm:
    """Return one node with a job of every tier, numbered from 1."""
    slurm = FakeSlurm()
    for tier in range(4):
        slurm.add(tier)
    return slurm


def configured(folder: Path) -> SlurmConfig:
    """Return a configuration without a command line, with a good token."""
    token = folder / "token"
    token.write_text("good\n")
    journal = folder / "state" / "journal.json"
    return SlurmConfig(url="http://slurm", token_file=token, journal=journal, node_idle_w=IDLE_W, gpu_stopped_w=65.0)


@asynccontextmanager
async def connected(fake: FakeSlurm, config: SlurmConfig) -> AsyncIterator[SlurmCluster]:
    """Connect to the cluster in memory."""
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(fake)) as client,
        connect_through(client, config) as cluster,
    ):
        yield cluster


async def lost(fake: FakeSlurm, config: SlurmConfig, budget_w: float) -> None:
    """Apply a budget and lose the link: like a killed process, it gives nothing back."""
    try:
        async with connected(fake, config) as cluster:
            await apply(cluster, budget_w)
            fake.down = True
            await cluster.read()
    except Unreachable:
        fake.down = False


async def apply(cluster: SlurmCluster, budget_w: float, valid_for_s: float = LEASE_S) -> Applied:
    """Apply a budget."""
    return await cluster.apply(Setpoint("hall", budget_w, valid_for_s))
