"""The Slurm adapter against the simulated hall: measured power, caps by node agents, jobs of all tiers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters._slurm_config import SlurmConfig
from adapters.slurm import connect
from vppd.model import Applied, Sample, Setpoint
from vppd.ports import Controllable, Polled
from vppd.sim.serve import serve
from vppd.sim.site import Site

TOKEN = "open-sesame"
SETTLE_S = 4.0


@dataclass(frozen=True, slots=True)
class Hall:
    """A simulated hall and how to reach it."""

    site: Site
    config: SlurmConfig

    def states(self) -> dict[str, int]:
        """Return how many of its jobs are in each state."""
        jobs = self.site.halls["hall-a"].jobs.values()
        return {state: sum(job.state == state for job in jobs) for state in ("RUNNING", "STOPPED", "CANCELLED")}

    def touched_tiers(self) -> set[str]:
        """Return the tiers of stopped jobs, as their comments have them."""
        jobs = self.site.halls["hall-a"].jobs.values()
        return {job.comment.split()[0] for job in jobs if job.state == "STOPPED"}

    def caps(self) -> int:
        """Return how many nodes are capped."""
        board = self.site.halls["hall-a"]
        return sum(board.cap_of(node) is not None for node in range(board.hall.spec.nodes))


@pytest.fixture
async def hall(tmp_path: Path) -> AsyncIterator[Hall]:
    """A hall in real time, served on loopback."""
    clock = asyncio.get_running_loop().time
    site = Site(1, clock, lambda: 1_800_000_000.0 + clock())
    token = tmp_path / "token"
    await asyncio.to_thread(token.write_text, TOKEN)
    async with serve(site, token=TOKEN) as endpoints:
        url = endpoints.halls["hall-a"]
        yield Hall(
            site,
            SlurmConfig(
                url=url,
                user_name="vppd",
                token_file=token,
                cap_url=f"{url}/vppd-sim/v1",
                cap_lease=True,
                journal=tmp_path / "journal.json",
            ),
        )


async def settled(cluster: Polled) -> Sample:
    """Return a reading taken after power has followed."""
    await asyncio.sleep(SETTLE_S)
    return await cluster.read()


async def apply(cluster: Controllable, budget_w: float) -> Applied:
    """Apply a budget."""
    return await cluster.apply(Setpoint("hall-a", budget_w, 30.0))


async def test_budgets_are_kept_at_the_meter(hall: Hall) -> None:
    """A small cut is met by caps alone, a deep one by stops too; measured power stays within the budget; all is restored."""
    async with connect(hall.config) as cluster:
        free = await cluster.read()
        assert free.power_w is not None
        assert free.available_w is not None
        assert free.power_w == pytest.approx(free.available_w)
        running = hall.states()["RUNNING"]

        budget_w = 0.9 * free.power_w
        assert (await apply(cluster, budget_w)).power_w == budget_w
        capped = await settled(cluster)
        assert hall.caps() > 0
        assert hall.states()["STOPPED"] == 0
        assert capped.power_w is not None
        assert 0.93 * budget_w <= capped.power_w <= 1.01 * budget_w
        assert capped.available_w == pytest.approx(free.available_w, rel=0.03)

        budget_w = free.power_w - 0.95 * sum(free.tier_shed_w)
        assert (await apply(cluster, budget_w)).power_w == budget_w
        deep = await settled(cluster)
        assert deep.power_w is not None
        assert 0.93 * budget_w <= deep.power_w <= 1.01 * budget_w
        assert hall.touched_tiers() == {"vpp:tier=2", "vpp:tier=3"}
        assert deep.available_w == pytest.approx(free.available_w, rel=0.03)

        await cluster.release()
        after = await settled(cluster)
        assert (hall.caps(), hall.states()["STOPPED"], hall.states()["CANCELLED"]) == (0, 0, 0)
        assert hall.states()["RUNNING"] == running
        assert after.power_w == pytest.approx(free.power_w, rel=0.03)


async def test_what_is_offered_can_be_shed(hall: Hall) -> None:
    """The whole of what the tiers are said to shed is shed, no tier 0 among it."""
    async with connect(hall.config) as cluster:
        free = await cluster.read()
        assert free.available_w is not None
        assert free.tier_shed_w[0] == 0.0
        assert all(shed_w > 0.0 for shed_w in free.tier_shed_w[1:])
        assert free.lower_w is not None
        applied = await apply(cluster, free.lower_w)
        assert applied.power_w is not None
        assert math.isclose(applied.power_w, free.lower_w, rel_tol=1e-3)
        least = await settled(cluster)
        assert least.power_w is not None
        assert least.power_w <= free.lower_w * 1.01
