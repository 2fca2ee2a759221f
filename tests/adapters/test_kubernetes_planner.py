"""The Kubernetes adapter with a planner handed over, and under the conformance suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from adapters import kubernetes
from tests.adapters.kubernetes_rig import GPU_W, IDLE_W, cluster, limit, until
from tests.adapters.kubernetes_stub import Stub, stub_server
from vppd.ports import Plannable
from vppd.testing.conformance import AdapterConformance, Rig
from vppd.workload import Curtailment, Knob, Workload


class Halves:
    """A planner that halves the replicas of everything and pauses what can be paused."""

    def plan(self, workload: Workload, budget_w: float, now_s: float) -> Curtailment:
        """Return the same for every budget."""
        levels = {job.id: 0.45 for job in workload.jobs if job.knob is Knob.REPLICAS}
        return Curtailment(levels, frozenset(job.id for job in workload.jobs if job.pausable), budget_w)

    def shed_w(self, workload: Workload) -> tuple[float, ...]:
        """Return something to be known by."""
        return 0.0, 1.0, 2.0, 3.0


async def test_a_planner_that_is_handed_over_decides(tmp_path: Path) -> None:
    """Its levels are carried out in whole replicas, rounded down; a job need not rest then: the planner keeps accounts."""

    def prepare(stub: Stub) -> None:
        stub.deployment("chat", 1, 5)
        stub.job("train", 2, 2)

    async with cluster(tmp_path, prepare) as (stub, device):
        assert isinstance(device, Plannable)
        device.plan_with(Halves())
        assert (await device.read()).tier_shed_w == (0.0, 1.0, 2.0, 3.0)
        await limit(device, IDLE_W)
        assert (len(stub.pods("chat")), len(stub.pods("train"))) == (2, 0)
        await device.release()
        train = next(p for p in stub.objects if p.endswith("/train"))
        assert stub.objects[train]["metadata"]["annotations"] == {}


class Turns:
    """A planner that pauses whom it is told to."""

    paused: frozenset[str] = frozenset()

    def plan(self, workload: Workload, budget_w: float, now_s: float) -> Curtailment:
        """Return that."""
        saved_w = sum(job.full_w for job in workload.jobs if job.id in self.paused)
        return Curtailment(paused=self.paused, expected_w=workload.full_w - saved_w)

    def shed_w(self, workload: Workload) -> tuple[float, ...]:
        """Return nothing."""
        return 0.0, 0.0, 0.0, 0.0


async def test_who_takes_turns_waits_until_the_other_has_ended(tmp_path: Path) -> None:
    """A job whose place another one takes goes on when the other's pods are gone: the budget holds in between."""

    def prepare(stub: Stub) -> None:
        stub.job("first", 3, 2)
        stub.job("second", 3, 2)

    async with cluster(tmp_path, prepare) as (stub, device):
        turns, budget_w = Turns(), IDLE_W + 2 * GPU_W
        device.plan_with(turns)
        turns.paused = frozenset({"Job/default/first"})
        await limit(device, budget_w)
        stub.lingers = True
        turns.paused = frozenset({"Job/default/second"})
        for _ in range(2):
            await limit(device, budget_w)
            assert stub.pods("first") == []
        stub.bury()
        await until(lambda: len(stub.pods("first")) == 2)
        assert stub.pods("second") == []
        sample = await device.read()
        assert sample.power_w == pytest.approx(budget_w)


class TestConformance(AdapterConformance):
    """The contract of the ports."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    @asynccontextmanager
    async def rig(self) -> AsyncIterator[Rig]:
        """Yield a stub with one flexible service."""
        async with stub_server(self.folder) as (stub, path):
            stub.deployment("chat", 3, 4)
            setpoint_w = IDLE_W + 2 * GPU_W

            async def end_lease() -> None:
                await asyncio.sleep(0.4)
                await until(lambda: not stub.held())

            yield Rig(
                kubernetes.ADAPTER,
                {"kubeconfig": str(path), "timeout_s": 0.5, "tend_s": 0.2, "stagger_s": 0.0},
                hush=stub.silent.set,
                setpoint_w=setpoint_w,
                follows_w=lambda: setpoint_w if stub.held() else None,
                lease_s=0.3,
                end_lease=end_lease,
            )
