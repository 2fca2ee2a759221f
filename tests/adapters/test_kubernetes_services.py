"""Replicas of an inference service fall no further than its latency allows, and come back before it is broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from adapters import kubernetes
from adapters._inference import LatencyGuard
from adapters._inference_config import InferenceConfig
from tests.adapters.kubernetes_rig import GPU_W, IDLE_W, cluster, limit, until
from tests.adapters.kubernetes_stub import Stub
from tests.support import free_port

SERVICE = {"metrics_url": "http://{address}:1/metrics", "ttft_p95_s": 1.0, "timeout_s": 0.2}


class Told(LatencyGuard):
    """A guard that says what it is told to."""

    floor = 3

    def __init__(self, config: Mapping[str, InferenceConfig], client: httpx.AsyncClient) -> None:
        super().__init__(config, client)
        self.ready: Mapping[str, Sequence[str]] = {}

    async def look(self, now_s: float, ready: Mapping[str, Sequence[str]] | None = None) -> None:
        """Note which pods are there."""
        self.ready = ready or {}

    def least_replicas(self, name: str, replicas: int) -> int:
        """Return what was told."""
        return min(self.floor, replicas)


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> list[Told]:
    """The guards that were made."""
    made: list[Told] = []

    @asynccontextmanager
    async def watching(config: Mapping[str, InferenceConfig]) -> AsyncIterator[Told]:
        async with httpx.AsyncClient() as client:
            made.append(Told(config, client))
            yield made[0]

    monkeypatch.setattr(kubernetes, "watching", watching)
    return made


@pytest.mark.parametrize("name", ["chat", "default/chat"])
async def test_latency_bounds_the_fall_and_brings_replicas_back(tmp_path: Path, guards: list[Told], name: str) -> None:
    """Only as many replicas go as the guard lets go; when it wants them back they come at once, whatever the budget."""
    inference = {name: SERVICE}
    async with cluster(tmp_path, lambda stub: stub.deployment("chat", 3, 4), inference=inference, tend_s=600.0) as (
        stub,
        device,
    ):
        assert (await device.read()).tier_shed_w == pytest.approx((0.0, 0.0, 0.0, GPU_W))
        applied = await limit(device, IDLE_W + 2 * GPU_W)
        assert applied.power_w == pytest.approx(IDLE_W + 3 * GPU_W)
        assert len(stub.pods("chat")) == 3
        await until(lambda: list(guards[0].ready.get(name, ())) == 3 * ["127.0.0.1"])
        guards[0].floor = 4
        await until(lambda: len(stub.pods("chat")) == 4)


@pytest.mark.parametrize("ready", [True, False])
async def test_a_service_that_is_not_seen_keeps_its_replicas(tmp_path: Path, ready: bool) -> None:
    """Where no metrics can be read, or no pod is ready to be asked, nobody goes; other work gives instead."""

    def prepare(stub: Stub) -> None:
        stub.deployment("chat", 3, 4)
        stub.job("train", 2, 2)
        for i, pod in enumerate(stub.pods("chat")):
            pod["status"]["podIP"] = f"127.0.0.{20 + i}"
            pod["status"]["conditions"] = pod["status"]["conditions"] if ready else []

    service = {**SERVICE, "metrics_url": f"http://{{address}}:{free_port()}/metrics"}
    async with cluster(tmp_path, prepare, inference={"chat": service}) as (stub, device):
        await asyncio.sleep(0.1)
        applied = await limit(device, IDLE_W + 3 * GPU_W)
        assert (len(stub.pods("chat")), len(stub.pods("train"))) == (4, 0)
        assert "short by" in applied.detail
