"""The Kubernetes adapter and the latency guard together: a Deployment loses replicas only while its users do not feel it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters._k8s_config import KubernetesConfig
from adapters.kubernetes import KubernetesCluster, connect
from tests.adapters.inference_fleet import Replica
from tests.adapters.kubernetes_stub import Stub, stub_server
from vppd.model import Setpoint

BOUND_S = 1.0
RATE_PER_S = 400.0
ADDRESSES = ["127.0.0.1", *(f"127.0.0.{i}" for i in range(11, 15))]
"""New pods of the small API server have the first, the pods of the beginning one each of the others."""
LATE_S = 50.0


@dataclass
class Users:
    """A steady stream of requests, shared by the pods that there are, and how long they wait."""

    stub: Stub
    ttft_s: float = 0.1
    status: str = "200 OK"
    servers: dict[str, Replica] = field(default_factory=dict)

    def page(self, address: str) -> bytes:
        """Return a pod's page after its part of the requests since it was last asked."""
        now_s = asyncio.get_running_loop().time()
        server = self.servers.setdefault(address, Replica(address, now_s, "vllm"))
        part = round(RATE_PER_S * (now_s - server.now_s) / max(1, len(self.stub.pods("chat"))))
        server.now_s = now_s
        server.ttft.observe(self.ttft_s, part)
        server.itl.observe(0.02, 10 * part)
        server.queue.observe(0.001, part)
        server.tokens += 10 * part
        return server.metrics().encode()


@asynccontextmanager
async def metrics(users: Users) -> AsyncIterator[int]:
    """Answer for every pod on one port, each at its own address of loopback."""
    async with AsyncExitStack() as stack:
        port = 0
        for address in ADDRESSES:

            async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, here: str = address) -> None:
                await reader.readuntil(b"\r\n\r\n")
                body = users.page(here)
                head = f"HTTP/1.1 {users.status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
                writer.close()

            server = await asyncio.start_server(answer, address, port)
            port = int(server.sockets[0].getsockname()[1])
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
        yield port


def config(path: Path, port: int) -> KubernetesConfig:
    """Return a cluster with one watched service, everything quick."""
    chat = {
        "metrics_url": f"http://{{address}}:{port}/metrics",
        "ttft_p95_s": BOUND_S,
        "settle_s": 0.6,
        "start_s": 0.0,
        "window_s": 1.0,
        "memory_s": 3.0,
        "period_s": 0.2,
        "timeout_s": 2.0,
        "stale_s": 3.0,
    }
    quick = {"tend_s": 0.2, "stagger_s": 0.0, "timeout_s": 2.0, "orphan_lease_s": 0.5}
    return KubernetesConfig.model_validate({"kubeconfig": path, **quick, "inference": {"chat": chat}})


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[Stub, str, Users, KubernetesCluster]]:
    """Serve a cluster with a service of four replicas, and connect to it."""
    async with stub_server(folder) as (stub, path):
        chat = stub.deployment("chat", 3, 4)
        for pod, address in zip(stub.pods("chat"), ADDRESSES[1:], strict=True):
            pod["status"]["podIP"] = address
        users = Users(stub)
        async with metrics(users) as port, connect(config(path, port)) as device:
            yield stub, chat, users, device


async def replicas(stub: Stub, path: str, wanted: set[int], device: KubernetesCluster) -> int:
    """Return the replicas as soon as they are among the wanted ones, while a budget of nothing is renewed."""
    async with asyncio.timeout(LATE_S):
        while (now := int(stub.objects[path]["spec"]["replicas"])) not in wanted:
            await device.apply(Setpoint("cluster", 0.0, 30.0))
            await asyncio.sleep(0.1)
    return now


@pytest.mark.integration
async def test_replicas_go_step_by_step_and_come_back_for_their_users(tmp_path: Path) -> None:
    """Nobody goes unseen; seen well one goes after the other; when users begin to wait all are back, the budget notwithstanding."""
    async with cluster(tmp_path) as (stub, chat, users, device):
        await device.apply(Setpoint("cluster", 0.0, 30.0))
        assert stub.objects[chat]["spec"]["replicas"] == 4, "nothing has been seen yet"
        await replicas(stub, chat, {1, 2, 3}, device)
        await replicas(stub, chat, {1, 2}, device)
        users.ttft_s = 3.0
        assert await replicas(stub, chat, {4}, device) == 4
        await device.release()
        assert stub.held() == []


@pytest.mark.integration
async def test_a_service_in_the_dark_is_given_back(tmp_path: Path) -> None:
    """When the pages fail, all are back before long."""
    async with cluster(tmp_path) as (stub, chat, users, device):
        await replicas(stub, chat, {1, 2, 3}, device)
        users.status = "503 Service Unavailable"
        assert await replicas(stub, chat, {4}, device) == 4
