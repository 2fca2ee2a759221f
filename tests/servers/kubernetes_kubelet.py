"""Stands in for the kubelets of some nodes: pods scheduled to them are Running at once, and gone a moment after they are deleted.

    python -m tests.servers.kubernetes_kubelet https://127.0.0.1:PORT CA_FILE TOKEN GRACE_S NODE...

Each node poses as 640 CPUs and 64 GPUs. It outlives restarts of the API server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
from datetime import UTC, datetime
from typing import Any

import aiohttp

CAPACITY = {"cpu": "640", "memory": "512Gi", "pods": "500", "nvidia.com/gpu": "64"}
MERGE, JSON = "application/merge-patch+json", "application/json"


def now() -> str:
    """Return the time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Kubelet:
    """All nodes of the cluster."""

    def __init__(self, http: aiohttp.ClientSession, server: str, grace_s: float, nodes: list[str]) -> None:
        self.http, self.server, self.grace_s, self.nodes = http, server, grace_s, nodes
        self.dying: set[str] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.next_address = 0

    async def call(self, method: str, path: str, body: object = None, content: str = MERGE) -> Any:
        """Ask the API server; what it refuses is tried again by whoever asks."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content}
        async with self.http.request(method, self.server + path, data=data, headers=headers) as answer:
            return await answer.json(content_type=None)

    async def register(self) -> None:
        """Make the nodes known, and Ready."""
        for node in self.nodes:
            meta = {"name": node, "labels": {"kubernetes.io/hostname": node}}
            await self.call("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": meta}, JSON)
            ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now(), "lastTransitionTime": now()}
            ready |= {"reason": "Posing", "message": "no real kubelet"}
            status = {"capacity": CAPACITY, "allocatable": CAPACITY, "conditions": [ready]}
            await self.call("PATCH", f"/api/v1/nodes/{node}/status", {"status": status})
            await self.call("PATCH", f"/api/v1/nodes/{node}", {"spec": {"taints": None}})

    async def remove(self, pod: dict[str, Any], path: str) -> None:
        """Take a deleted pod away after its grace."""
        await asyncio.sleep(min(self.grace_s, pod["metadata"].get("deletionGracePeriodSeconds", 30)))
        with contextlib.suppress(aiohttp.ClientError):
            await self.call("DELETE", path, {"gracePeriodSeconds": 0}, JSON)
        self.dying.discard(pod["metadata"]["uid"])

    async def handle(self, pod: dict[str, Any]) -> None:
        """Start a pod that is new, end one that is deleted."""
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        if meta.get("deletionTimestamp"):
            if meta["uid"] not in self.dying:
                self.dying.add(meta["uid"])
                task = asyncio.create_task(self.remove(pod, path))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
        elif pod["status"]["phase"] == "Pending" and pod["spec"].get("nodeName") in self.nodes:
            self.next_address += 1
            address = f"127.0.{self.next_address // 250}.{self.next_address % 250 + 2}"
            ready = [{"type": "Ready", "status": "True"}]
            status = {"phase": "Running", "startTime": now(), "conditions": ready, "podIP": address}
            await self.call("PATCH", path + "/status", {"status": status})

    async def follow(self) -> None:
        """Look after all pods until the connection is lost."""
        pods = await self.call("GET", "/api/v1/pods")
        for pod in pods["items"]:
            await self.handle(pod)
        since = f"watch=1&resourceVersion={pods['metadata']['resourceVersion']}&timeoutSeconds=60"
        async with self.http.get(f"{self.server}/api/v1/pods?{since}") as stream:
            async for line in stream.content:
                event = json.loads(line)
                if event["type"] in ("ADDED", "MODIFIED"):
                    await self.handle(event["object"])

    async def run(self) -> None:
        """Do so for ever."""
        registered = False
        while True:
            try:
                if not registered:
                    await self.register()
                    registered = True
                await self.follow()
            except (aiohttp.ClientError, OSError, KeyError, ValueError):
                await asyncio.sleep(0.2)


async def main(server: str, ca: str, token: str, grace: str, *nodes: str) -> None:
    """Run until killed."""
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=ca))
    headers = {"Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout) as http:
        await Kubelet(http, server, float(grace), list(nodes)).run()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
