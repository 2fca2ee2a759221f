"""A real Kubernetes 1.20.2 control plane on loopback: etcd, API server, controllers and scheduler, with RBAC; only the kubelet poses.

The binaries come from ``kubernetes_build.sh``; where they are missing the tests skip and say so, also where CI=true. Nothing outside
its own temporary folder is written, and no root is needed. Each part can be ended and started again by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support import ROOT, free_port, require

ADMIN, VPPD = "admin-token", "vppd-token"
BINARIES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
USER = "system:serviceaccount:vppd:vppd"
"""Whom the token of vppd stands for: the service account of deploy/kubernetes/rbac.yaml."""
_TOKENS = f"""\
{ADMIN},admin,admin,"system:masters"
{VPPD},{USER},vppd,"system:serviceaccounts,system:serviceaccounts:vppd"
nobody-token,nobody,nobody,"nobodies"
"""


def cached() -> Path:
    """Return the folder of the built binaries; without them the test skips."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "vppd" / "kubernetes-1.20.2" / "bin"
    if not all((folder / name).exists() for name in BINARIES):
        pytest.skip(f"no Kubernetes API server in {folder}: bash tests/servers/kubernetes_build.sh makes one")
    return folder


class KubernetesServer:
    """One running control plane; its parts are children of this process."""

    def __init__(self, base: Path, binaries: Path, nodes: int, grace_s: float) -> None:
        self.base, self._binaries, self._grace_s = base, binaries, grace_s
        self.nodes = tuple(f"node{i}" for i in range(1, nodes + 1))
        self._etcd, self.port = free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca = base / "certs" / "apiserver.crt"
        self._parts: dict[str, subprocess.Popen[bytes]] = {}
        self._http: httpx.Client | None = None
        (base / "log").mkdir()
        (base / "tokens.csv").write_text(_TOKENS)
        (base / "tokens.csv").chmod(0o600)
        for command in (("genrsa", "-out", "sa.key", "2048"), ("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")):
            subprocess.run(["openssl", *command], cwd=base, check=True, capture_output=True)

    # ---- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start every part and return when a pod could run."""
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{free_port()}"
        addresses = ("--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer)
        cluster = ("--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}", "--unsafe-no-fsync")
        self._spawn("etcd", "etcd", "--data-dir", str(self.base / "etcd"), *addresses, *cluster)
        self.start_api()
        config = self.kubeconfig(ADMIN)
        leader = ("--leader-elect=false", "--port=0", "--bind-address=127.0.0.1", f"--kubeconfig={config}")
        own = (f"--service-account-private-key-file={self.base / 'sa.key'}", "--controllers=*,-ttl,-nodelifecycle")
        pace = ("--horizontal-pod-autoscaler-sync-period=1s", f"--secure-port={free_port()}")
        self._spawn("controllers", str(self._binaries / "kube-controller-manager"), *leader, *own, *pace)
        self._spawn("scheduler", str(self._binaries / "kube-scheduler"), *leader, f"--secure-port={free_port()}")
        kubelet = (sys.executable, "-m", "tests.servers.kubernetes_kubelet", self.url, str(self.ca), ADMIN)
        self._spawn("kubelet", *kubelet, str(self._grace_s), *self.nodes)
        until(lambda: len(self.items("/api/v1/nodes")) == len(self.nodes), "the nodes are there")
        until(lambda: bool(self.items("/api/v1/namespaces/default/serviceaccounts")), "the controllers work")

    def start_api(self) -> None:
        """Start the API server and return when it is ready."""
        keys: tuple[str, ...] = (
            f"--service-account-key-file={self.base / 'sa.pub'}",
            f"--token-auth-file={self.base / 'tokens.csv'}",
        )
        keys += (f"--service-account-signing-key-file={self.base / 'sa.key'}", f"--cert-dir={self.base / 'certs'}")
        keys += ("--service-account-issuer=https://kubernetes.default.svc",)
        where = ("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={self.port}")
        plain = ("--insecure-port=0", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24")
        rights = ("--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount")
        etcd = f"--etcd-servers=http://127.0.0.1:{self._etcd}"
        self._spawn("api", str(self._binaries / "kube-apiserver"), etcd, *keys, *where, *plain, *rights)
        until(self._ready, "the API server is ready", 90.0)

    def end(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End one part: ``api``, ``controllers``, ``scheduler``, ``kubelet`` or ``etcd``."""
        part = self._parts.pop(name)
        part.send_signal(how)
        part.wait(20)

    def freeze(self, name: str) -> None:
        """Let one part hang: it keeps its connections and answers nothing."""
        self._parts[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let it go on."""
        self._parts[name].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End every part."""
        for name in ("kubelet", "scheduler", "controllers", "api", "etcd"):
            if name in self._parts:
                self.end(name)
        if self._http is not None:
            self._http.close()

    # ---- use -------------------------------------------------------------------------------------------------------

    def kubeconfig(self, token: str = VPPD, namespace: str = "default") -> Path:
        """Return a kubeconfig for a token, with a namespace to go by where none is named."""
        path = self.base / f"{token}.{namespace}.kubeconfig"
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}],
            "users": [{"name": "test", "user": {"token": token}}],
        }
        path.write_text(json.dumps(body))
        path.chmod(0o600)
        return path

    def call(self, method: str, path: str, body: object = None, token: str = ADMIN) -> httpx.Response:
        """Ask the API server; a PATCH is a merge patch."""
        if self._http is None:
            self._http = httpx.Client(base_url=self.url, verify=_trusting(self.ca), trust_env=False, timeout=20.0)
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
        return self._http.request(method, path, content=None if body is None else json.dumps(body), headers=headers)

    def get(self, path: str) -> dict[str, Any]:
        """Return an object."""
        return _good(self.call("GET", path))

    def items(self, path: str) -> list[dict[str, Any]]:
        """Return a list."""
        found: list[dict[str, Any]] = self.get(path)["items"]
        return found

    def patch(self, path: str, body: object) -> dict[str, Any]:
        """Change an object as an administrator would."""
        return _good(self.call("PATCH", path, body))

    def make(self, path: str, body: object) -> dict[str, Any]:
        """Create an object."""
        return _good(self.call("POST", path, body))

    def apply(self, manifest: Path) -> None:
        """Create or replace all objects of a YAML file, in order."""
        for body in yaml.safe_load_all(manifest.read_text(encoding="utf-8")):
            if body:
                where = _collection(body)
                if self.call("POST", where, body).status_code == httpx.codes.CONFLICT:
                    self.patch(f"{where}/{body['metadata']['name']}", body)

    def running(self, namespace: str, **labels: str) -> int:
        """Return how many pods with these labels run and are not about to end."""
        return sum(
            pod["status"]["phase"] == "Running"
            and "deletionTimestamp" not in pod["metadata"]
            and labels.items() <= (pod["metadata"].get("labels") or {}).items()
            for pod in self.items(f"/api/v1/namespaces/{namespace}/pods")
        )

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _ready(self) -> bool:
        if self._parts["api"].poll() is not None:
            raise AssertionError("the API server ended: " + (self.base / "log" / "api").read_text()[-2000:])
        try:
            return self.ca.exists() and self.call("GET", "/readyz").text == "ok"
        except (httpx.TransportError, OSError):
            return False

    def _spawn(self, name: str, *command: str) -> None:
        with (self.base / "log" / name).open("ab") as log:
            self._parts[name] = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )


@contextmanager
def running_kubernetes(nodes: int = 2, grace_s: float = 0.2) -> Iterator[KubernetesServer]:
    """Run a control plane with ``nodes`` nodes; skip where it has not been built."""
    binaries = cached()
    require("etcd", "the Kubernetes API server keeps its objects in it (package etcd-server)")
    require("openssl", "the API server needs a key")
    base = Path(tempfile.mkdtemp(prefix="vppd-kubernetes-", dir="/tmp"))
    server = KubernetesServer(base, binaries, nodes, grace_s)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(base, ignore_errors=True)


def until(
    claim: Callable[[], bool], what: str, for_s: float = 60.0, seen: Callable[[], object] = lambda: "no more is known"
) -> None:
    """Wait until ``claim`` holds; fail with ``what`` and what was ``seen`` when it does not in time."""
    deadline_s = time.monotonic() + for_s
    while not claim():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {for_s:g} s: {what}; seen: {seen()}")
        time.sleep(0.1)


def _trusting(ca: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca))


def _good(answer: httpx.Response) -> dict[str, Any]:
    assert answer.is_success, f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
    body: dict[str, Any] = answer.json()
    return body


def _collection(body: dict[str, Any]) -> str:
    group, _, version = str(body["apiVersion"]).rpartition("/")
    folder = f"/apis/{group}/{version}" if group else f"/api/{version}"
    namespace = body["metadata"].get("namespace", "")
    return folder + (f"/namespaces/{namespace}" if namespace else "") + f"/{body['kind'].lower()}s"
