"""The Slurm adapter under the daemon's own planner, over a cluster in memory and in virtual time, with books of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adapters._slurm_config import SlurmConfig
from adapters.slurm import SlurmCluster
from tests.adapters.slurm_fake import IDLE_W, JOB_W, FakeSlurm
from tests.adapters.slurm_rig import apply, configured, connected
from vppd.runtime.curtailer import Curtailer, Terms

pytestmark = [pytest.mark.looptime]
TOLERANCE_FRAC = (0.0, 0.10, 0.25, 0.50)
WINDOW_S = 300
NODE_W = IDLE_W + JOB_W
NODES = 12
RAMP_S = 30


@dataclass
class Books:
    """What every job really lost, second by second, and what the meter really showed."""

    slurm: FakeSlurm
    lost_s: dict[int, list[float]] = field(default_factory=dict)
    power_w: list[float] = field(default_factory=list)

    def look(self) -> None:
        """Write a second down."""
        self.power_w.append(sum(self.slurm.power_w(node) for node in self.slurm.nodes))
        for job in self.slurm.jobs.values():
            cap_w = self.slurm.cap_w.get(job.node)
            level_frac = 1.0 if cap_w is None else min(1.0, (cap_w - IDLE_W) / JOB_W)
            slow_frac = 0.958 * (1.0 - level_frac) ** 1.358
            self.lost_s.setdefault(job.id, []).append(1.0 if job.state == "STOPPED" else slow_frac)

    def overdrawn(self) -> dict[int, float]:
        """Return by job what its worst window lost beyond its tier. [s]"""
        found = {}
        for job_id, lost_s in self.lost_s.items():
            tier = int(self.slurm.jobs[job_id].comment[9])
            worst_s = max(sum(lost_s[i : i + WINDOW_S]) for i in range(max(len(lost_s) - WINDOW_S, 1)))
            if worst_s > TOLERANCE_FRAC[tier] * WINDOW_S + 1e-6:
                found[job_id] = worst_s
        return found


def hall() -> FakeSlurm:
    """Return nodes with a job each, of all tiers in turn."""
    slurm = FakeSlurm(nodes=tuple(f"n{i}" for i in range(NODES)))
    for i, node in enumerate(slurm.nodes):
        slurm.add(i % 4, node=node)
    return slurm


@pytest.fixture
def config(tmp_path: Path) -> SlurmConfig:
    """Limits of pauses that fit the short windows of these tests."""
    limits: dict[str, Any] = {"max_pause_s": {2: 60.0, 3: 150.0}, "node_max_w": NODE_W, "cap_floor_frac": 0.0}
    return configured(tmp_path).model_copy(update=limits)


def planned(cluster: SlurmCluster, horizon_s: Callable[[], float]) -> Curtailer:
    """Hand the daemon's planner to a cluster."""
    planner = Curtailer("hall", Terms(window_s=WINDOW_S, ramp_s=RAMP_S), asyncio.get_running_loop().time, horizon_s)
    cluster.plan_with(planner)
    return planner


@pytest.mark.parametrize("caps", [True, False], ids=["caps and stops", "stops alone"])
async def test_a_budget_is_kept_and_no_tier_overdrawn(config: SlurmConfig, caps: bool) -> None:
    """For two windows the meter stays within the budget after the ramp, no job loses more than its tier in any window, and all comes back."""
    slurm = hall()
    books, loop = Books(slurm), asyncio.get_running_loop()
    lasts_s = 2 * WINDOW_S
    if caps:
        config = config.model_copy(update={"cap_url": "http://slurm/caps"})
    async with connected(slurm, config) as cluster:
        ends_s = loop.time() + lasts_s
        planned(cluster, lambda: max(ends_s - loop.time(), 0.0))
        free = await cluster.read()
        budget_w = NODES * NODE_W - 0.6 * sum(free.tier_shed_w)
        for second in range(lasts_s):
            if second % 10 == 0:
                await apply(cluster, budget_w)
            await asyncio.sleep(1.0)
            books.look()
        late_w = books.power_w[RAMP_S:]
        assert max(late_w) <= budget_w + 1.0, [i for i, w in enumerate(late_w) if w > budget_w + 1.0]
        assert min(late_w) > 0.9 * budget_w
        await cluster.release()
        for _ in range(20):
            await asyncio.sleep(1.0)
            books.look()
        assert books.power_w[-1] == NODES * NODE_W
    assert books.overdrawn() == {}
    assert bool(slurm.cap_w) == caps
    assert all(max(lost_s) == 0.0 for i, lost_s in books.lost_s.items() if "tier=0" in slurm.jobs[i].comment)


async def test_what_the_planner_offers_is_what_the_adapter_can_do(config: SlurmConfig) -> None:
    """Of what the planner says can be shed nothing is refused by the adapter's own guards."""
    slurm = hall()
    async with connected(slurm, config) as cluster:
        planned(cluster, lambda: 60.0)
        sample = await cluster.read()
        assert sample.available_w is not None
        assert sample.tier_shed_w[0] == sample.tier_shed_w[1] == 0.0
        assert min(sample.tier_shed_w[2:]) > 0.0
        budget_w = sample.available_w - 0.9 * sum(sample.tier_shed_w)
        applied = await apply(cluster, budget_w)
        assert applied.power_w == budget_w, applied.detail
        assert "not stopped" not in applied.detail
