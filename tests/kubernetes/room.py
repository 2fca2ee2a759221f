"""A namespace with work in it, and how to connect to it."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from typing import Any

from adapters._k8s_config import KubernetesConfig
from adapters.kubernetes import KubernetesCluster, connect
from tests.servers.kubernetes import VPPD, KubernetesServer, until
from vppd.model import Applied, Setpoint

Body = dict[str, Any]
GPU_W = 700.0 - 65.0 + 0.5 * 4.0
"""What one pod with one GPU and half a CPU draws."""
APPS, BATCH, CORE = "/apis/apps/v1", "/apis/batch/v1", "/api/v1"


class Room:
    """One namespace of a running server."""

    def __init__(self, server: KubernetesServer, name: str) -> None:
        self.server, self.name = server, name

    def path(self, api: str, plural: str, name: str = "") -> str:
        """Return a path in the namespace."""
        return f"{api}/namespaces/{self.name}/{plural}" + (f"/{name}" if name else "")

    def connect(self, token: str = VPPD, **settings: object) -> AbstractAsyncContextManager[KubernetesCluster]:
        """Connect to the namespace as vppd would."""
        return connect(KubernetesConfig.model_validate(self.connection(token, **settings)))

    def connection(self, token: str = VPPD, **settings: object) -> dict[str, object]:
        """Return the connection table: nothing waits for long, and idle nodes draw nothing."""
        quick = {"tend_s": 0.5, "stagger_s": 0.0, "orphan_lease_s": 2.0, "timeout_s": 10.0, "rediscover_s": 1.0}
        file = str(self.server.kubeconfig(token))
        own = {"kubeconfig": file, "namespaces": [self.name], "node_idle_w": 0.0, "gpu_idle_w": 65.0}
        return {**own, "node_selector": "nobody=has-it", **quick, **settings}

    # ---- work ------------------------------------------------------------------------------------------------------

    def deployment(self, name: str, tier: int | None, replicas: int, plural: str = "deployments") -> str:
        """Make a Deployment or StatefulSet, wait for its pods, and return its path."""
        extra = {"serviceName": name, "podManagementPolicy": "Parallel"} if plural == "statefulsets" else {}
        spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, **extra}
        self._make(APPS, plural, name, tier, spec)
        self.wait(name, replicas)
        return self.path(APPS, plural, name)

    def job(self, name: str, tier: int | None, parallelism: int, labels: dict[str, str] | None = None) -> str:
        """Make a Job, wait for its pods, and return its path."""
        spec = {"parallelism": parallelism, "completions": parallelism + 4}
        self._make(BATCH, "jobs", name, tier, spec, labels)
        self.wait(name, parallelism)
        return self.path(BATCH, "jobs", name)

    def pod(self, name: str, labels: dict[str, str]) -> None:
        """Make a bare pod, as the operator of a custom resource would, and wait for it."""
        body = {"metadata": {"name": name, "labels": {"app": name, **labels}}, "spec": _pod("Never")}
        self.server.make(self.path(CORE, "pods"), body)
        self.wait(name, 1)

    def custom(self, group: str, plural: str, kind: str, name: str, tier: int, spec: Body | None = None) -> str:
        """Make a custom resource and return its path."""
        meta = {"name": name, "labels": {"vpp.flex-tier": str(tier)}}
        body = {"apiVersion": group, "kind": kind, "metadata": meta, "spec": spec or {}}
        self.server.make(self.path(f"/apis/{group}", plural), body)
        return self.path(f"/apis/{group}", plural, name)

    def _make(
        self, api: str, plural: str, name: str, tier: int | None, spec: Body, labels: dict[str, str] | None = None
    ) -> None:
        tiers = {"vpp.flex-tier": str(tier)} if tier is not None else {}
        meta = {"name": name, "labels": {**tiers, **(labels or {})}}
        template = {"metadata": {"labels": {"app": name}}, "spec": _pod("Never" if plural == "jobs" else "Always")}
        self.server.make(self.path(api, plural), {"metadata": meta, "spec": {**spec, "template": template}})

    # ---- what there is ---------------------------------------------------------------------------------------------

    def running(self, name: str) -> int:
        """Return how many pods of a workload run and are not about to end."""
        return self.server.running(self.name, app=name)

    def wait(self, name: str, count: int) -> None:
        """Wait until so many pods of a workload run."""
        until(lambda: self.running(name) == count, f"{name} has {count} pods", seen=lambda: self.running(name))

    def spec(self, path: str) -> Body:
        """Return the spec of an object."""
        spec: Body = self.server.get(path)["spec"]
        return spec

    def note(self, path: str) -> Body | None:
        """Return the note of what an object was, None when it is not held."""
        text = (self.server.get(path)["metadata"].get("annotations") or {}).get("vpp.held")
        return None if text is None else json.loads(text)

    def writers(self, path: str) -> set[str]:
        """Return who has ever written to an object."""
        return {str(entry["manager"]) for entry in self.server.get(path)["metadata"]["managedFields"]}

    def clear(self) -> None:
        """Take all work away, so that the next test has the machine for itself."""
        for api, plural in ((APPS, "deployments"), (APPS, "statefulsets"), (BATCH, "jobs"), (CORE, "pods")):
            self.server.call("DELETE", self.path(api, plural), {"propagationPolicy": "Background"})


def _pod(restart: str) -> Body:
    resources = {"limits": {"nvidia.com/gpu": "1"}, "requests": {"cpu": "500m"}}
    container = {"name": "work", "image": "none", "resources": resources}
    return {"containers": [container], "restartPolicy": restart, "terminationGracePeriodSeconds": 1}


async def limit(device: KubernetesCluster, budget_w: float, lease_s: float = 60.0) -> Applied:
    """Apply a budget."""
    return await device.apply(Setpoint("cluster", budget_w, lease_s))


async def draws(device: KubernetesCluster, power_w: float, for_s: float = 30.0) -> None:
    """Wait until the cluster draws so much by its running pods."""
    async with asyncio.timeout(for_s):
        while abs(((await device.read()).power_w or 0.0) - power_w) > 1.0:
            await asyncio.sleep(0.1)


async def within(for_s: float, what: str, claim: Any) -> None:
    """Wait until a claim about the server holds; the server is asked from another thread."""
    deadline_s = asyncio.get_running_loop().time() + for_s
    while not await asyncio.to_thread(claim):
        assert asyncio.get_running_loop().time() < deadline_s, f"not within {for_s:g} s: {what}"
        await asyncio.sleep(0.1)
