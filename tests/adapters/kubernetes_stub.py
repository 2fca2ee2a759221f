"""A small API server in memory: what a recent Kubernetes does with Deployments, Jobs (``spec.suspend``), pods and nodes, over HTTP.

It stands in where the real server of the tests (1.20) is too old, and where no real one has been built. Controllers act at once:
a scaled or suspended object has its pods adjusted before the answer is sent.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

Body = dict[str, Any]
APPS, BATCH, HPAS = "/apis/apps/v1", "/apis/batch/v1", "/apis/autoscaling/v1"
KINDS = {
    APPS: ("deployments", "statefulsets"),
    BATCH: ("jobs",),
    HPAS: ("horizontalpodautoscalers",),
    "/apis/kueue.x-k8s.io/v1beta1": ("workloads", "localqueues", "clusterqueues"),
    "/apis/ray.io/v1": ("rayclusters", "rayjobs"),
}


class Stub:
    """Objects by path, and what happens to them."""

    def __init__(self, node_gpus: int = 8) -> None:
        self.objects: dict[str, Body] = {}
        self.kinds = dict(KINDS)
        self.version = 100
        self.silent = asyncio.Event()
        self.over = asyncio.Event()
        self.drops: set[str] = set()
        """Plurals whose ``spec.suspend`` is dropped without a word, as servers before 1.21 do."""
        self.refuses: dict[tuple[str, str], int] = {}
        """(method, path) -> HTTP status."""
        self.before_patch: Callable[[str], None] = lambda path: None
        self.lingers = False
        """Pods that end stay until ``bury`` is called."""
        self.requests: list[tuple[str, str]] = []
        self.url, self.token = "", "first"
        self._watchers: set[asyncio.Queue[Body]] = set()
        ready = {"conditions": [{"type": "Ready", "status": "True"}], "capacity": {"nvidia.com/gpu": str(node_gpus)}}
        self.put("/api/v1/nodes/node1", {"metadata": {"name": "node1"}, "status": ready})

    # ---- the hand of the test --------------------------------------------------------------------------------------

    def put(self, path: str, body: Body) -> Body:
        """Store an object as it is, and let the controllers act."""
        folder, _, name = path.rpartition("/")
        meta = body.setdefault("metadata", {})
        meta.setdefault("name", name)
        meta.setdefault("uid", f"uid{path}")
        if "/namespaces/" in folder:
            meta.setdefault("namespace", folder.split("/namespaces/")[1].split("/")[0])
        self._stamp(body)
        self.objects[path] = body
        self._control(path, body)
        return body

    def deployment(self, name: str, tier: int | None, replicas: int, gpus: int = 1, **annotations: str) -> str:
        """Make a Deployment with its pods and return its path."""
        path = f"{APPS}/namespaces/default/deployments/{name}"
        self.put(path, workload(name, tier, gpus, {"replicas": replicas}, annotations))
        return path

    def job(self, name: str, tier: int | None, parallelism: int = 1, labels: Mapping[str, str] | None = None) -> str:
        """Make a Job with its pods and return its path."""
        path = f"{BATCH}/namespaces/default/jobs/{name}"
        body = workload(name, tier, 1, {"parallelism": parallelism})
        body["metadata"]["labels"] |= labels or {}
        self.put(path, body)
        return path

    def change(self, path: str, patch: Body) -> Body:
        """Change an object as somebody else would."""
        body: Body = merge(copy.deepcopy(self.objects[path]), patch)
        self._stamp(body)
        self.objects[path] = body
        self._control(path, body)
        return body

    def pods(self, app: str) -> list[Body]:
        """Return the pods of one workload."""
        return [b for p, b in self.objects.items() if "/pods/" in p and b["metadata"]["labels"].get("app") == app]

    def bury(self) -> None:
        """Let pods that end be gone."""
        for path in [p for p, b in self.objects.items() if "deletionTimestamp" in b["metadata"]]:
            self._tell("DELETED", self.objects.pop(path))

    def held(self) -> list[str]:
        """Return the paths of all objects that carry a note."""
        return [p for p, body in self.objects.items() if "vpp.held" in (body["metadata"].get("annotations") or {})]

    # ---- HTTP ------------------------------------------------------------------------------------------------------

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        if self.silent.is_set():
            await self.over.wait()
            raise web.HTTPServiceUnavailable
        self.requests.append((request.method, request.path))
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"message": "Unauthorized"}, status=401)
        status = self.refuses.get((request.method, request.path))
        if status:
            return web.json_response({"message": "as the test wants it"}, status=status)
        if request.method == "PATCH":
            return self._patched(request.path, await request.json())
        if request.query.get("watch"):
            return await self._watched(request)
        body = self._got(request.path, request.query.get("labelSelector", ""))
        return web.json_response(body or {"message": "not found"}, status=200 if body else 404)

    def _got(self, path: str, selector: str) -> Body | None:
        if path == "/apis":
            pairs = [(p.split("/")[2], p.split("/")[3]) for p in self.kinds]
            return {"groups": [{"name": group, "versions": [{"version": version}]} for group, version in pairs]}
        if path in self.kinds:
            return {"resources": [{"name": plural} for plural in self.kinds[path]]}
        if path in self.objects:
            return self.objects[path]
        folder, _, plural = path.rpartition("/")
        inside = [b for p, b in self.objects.items() if p.startswith(folder + "/") and p.split("/")[-2] == plural]
        items = [body for body in inside if _chosen(body["metadata"].get("labels") or {}, selector)]
        return {"metadata": {"resourceVersion": str(self.version)}, "items": items}

    def _patched(self, path: str, patch: Body) -> web.Response:
        self.before_patch(path)
        if path not in self.objects:
            return web.json_response({"message": "not found"}, status=404)
        wanted = patch.get("metadata", {}).pop("resourceVersion", None)
        if wanted not in (None, self.objects[path]["metadata"]["resourceVersion"]):
            return web.json_response({"message": "the object has been modified"}, status=409)
        if path.split("/")[-2] in self.drops:
            patch.get("spec", {}).pop("suspend", None)
        return web.json_response(self.change(path, patch))

    async def _watched(self, request: web.Request) -> web.StreamResponse:
        news: asyncio.Queue[Body] = asyncio.Queue()
        self._watchers.add(news)
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while body := await news.get():
                await response.write(json.dumps(body).encode() + b"\n")
        except ConnectionResetError:
            pass  # whoever watched has gone
        finally:
            self._watchers.discard(news)
        return response

    def end(self) -> None:
        """Let go of everybody who waits."""
        self.over.set()
        for watcher in self._watchers:
            watcher.put_nowait({})

    # ---- the controllers -------------------------------------------------------------------------------------------

    def _control(self, path: str, body: Body) -> None:
        plural = path.split("/")[-2]
        if plural in ("deployments", "statefulsets", "jobs"):
            spec = body["spec"]
            wanted = spec.get("replicas", spec.get("parallelism", 1))
            self._scale(body, 0 if spec.get("suspend") else wanted)

    def _scale(self, body: Body, wanted: int) -> None:
        app = body["metadata"]["name"]
        have = [
            p
            for p, b in self.objects.items()
            if "/pods/" in p and b["metadata"]["labels"].get("app") == app and "deletionTimestamp" not in b["metadata"]
        ]
        for path in have[wanted:]:
            if self.lingers:
                self.objects[path]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
                self._tell("MODIFIED", self.objects[path])
            else:
                self._tell("DELETED", self.objects.pop(path))
        for i in range(len(have), wanted):
            self.version += 1
            name = f"{app}-{self.version}-{i}"
            meta = {"name": name, "namespace": "default", "labels": {"app": app}}
            status = {"phase": "Running", "podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
            pod = {"metadata": meta, "spec": body["spec"]["template"]["spec"], "status": status}
            self._tell("ADDED", self.put(f"/api/v1/namespaces/default/pods/{name}", pod))

    def _tell(self, kind: str, body: Body) -> None:
        for watcher in self._watchers:
            watcher.put_nowait({"type": kind, "object": body})

    def _stamp(self, body: Body) -> None:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)


def workload(name: str, tier: int | None, gpus: int, spec: Body, annotations: dict[str, str] | None = None) -> Body:
    """Return an object with a pod template; ``tier`` None: not opted in."""
    resources = {"limits": {"nvidia.com/gpu": str(gpus)}, "requests": {"cpu": "2"}}
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "x", "resources": resources}]},
    }
    labels = {"vpp.flex-tier": str(tier)} if tier is not None else {}
    meta = {"name": name, "labels": labels, "annotations": dict(annotations or {})}
    return {"metadata": meta, "spec": {**spec, "selector": {"matchLabels": {"app": name}}, "template": template}}


def merge(target: Any, patch: Any) -> Any:
    """Return a JSON merge patch (RFC 7396) applied."""
    if not isinstance(patch, dict):
        return patch
    target = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = merge(target.get(key), value)
    return target


def _chosen(labels: dict[str, str], selector: str) -> bool:
    if " in (" in selector:
        key, _, values = selector.partition(" in (")
        return labels.get(key) in values.rstrip(")").split(",")
    return not selector or selector in labels


@asynccontextmanager
async def stub_server(folder: Path, node_gpus: int = 8) -> AsyncIterator[tuple[Stub, Path]]:
    """Serve a stub on loopback; yields it and a kubeconfig for it."""
    stub = Stub(node_gpus)
    runner = web.ServerRunner(web.Server(_handler(stub), handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    path = folder / "kubeconfig"
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "stub",
        "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "stub"}}],
        "clusters": [{"name": "stub", "cluster": {"server": stub.url}}],
        "users": [{"name": "stub", "user": {"tokenFile": str(folder / "token")}}],
    }
    path.write_text(json.dumps(body))
    (folder / "token").write_text(stub.token)
    try:
        yield stub, path
    finally:
        stub.end()
        await runner.cleanup()
        await asyncio.sleep(0.01)  # connections that were closed a moment ago


def _handler(stub: Stub) -> Callable[[web.BaseRequest], Any]:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.BaseRequest)
        return await stub.answer(request)  # type: ignore[arg-type]

    return handle
