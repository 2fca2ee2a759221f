"""A Kubernetes adapter connected to the stub, and what tests do with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from adapters._k8s_config import KubernetesConfig
from adapters.kubernetes import KubernetesCluster, connect
from tests.adapters.kubernetes_stub import Stub, stub_server
from vppd.model import Applied, Setpoint

GPU_W = 700.0 - 65.0 + 2 * 4.0
"""What one pod with one GPU and two CPUs draws."""
IDLE_W = 400.0 + 8 * 65.0


@asynccontextmanager
async def cluster(
    folder: Path, prepare: Callable[[Stub], object] = lambda stub: None, *, kueue: bool = True, **settings: object
) -> AsyncIterator[tuple[Stub, KubernetesCluster]]:
    """Serve a stub and connect to it."""
    async with stub_server(folder) as (stub, path):
        if not kueue:
            del stub.kinds["/apis/kueue.x-k8s.io/v1beta1"]
        prepare(stub)
        async with connect(config(path, **settings)) as device:
            yield stub, device


def config(path: Path, **settings: object) -> KubernetesConfig:
    """Return a configuration for tests: nothing waits for long."""
    quick = {"tend_s": 0.2, "stagger_s": 0.0, "timeout_s": 2.0, "orphan_lease_s": 0.5}
    return KubernetesConfig.model_validate({"kubeconfig": path, **quick, **settings})


async def limit(device: KubernetesCluster, budget_w: float, lease_s: float = 30.0) -> Applied:
    """Apply a budget."""
    return await device.apply(Setpoint("cluster", budget_w, lease_s))


async def until(claim: Callable[[], object], for_s: float = 15.0) -> None:
    """Wait until a claim holds."""
    async with asyncio.timeout(for_s):
        while not claim():
            await asyncio.sleep(0.02)


def replicas(stub: Stub, path: str) -> int:
    """Return the replicas an object is to have."""
    return int(stub.objects[path]["spec"]["replicas"])
