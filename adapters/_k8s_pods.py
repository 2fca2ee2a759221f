"""The running pods, kept up to date by a watch: a list of all pods each time would be megabytes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Never

from adapters._k8s_config import KubernetesConfig
from adapters._k8s_link import Outdated, Requests
from adapters._k8s_power import Pod, pod_of
from vppd.errors import DeviceError, Unreachable

_RUNNING = {"fieldSelector": "status.phase=Running"}
_AGAIN_S = 0.5


class Pods:
    """Follows the pods of one namespace, or of all."""

    def __init__(self, config: KubernetesConfig, client: Requests, namespace: str) -> None:
        self._config = config
        self._client = client
        self._path = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
        self._pods: dict[str, Pod] = {}
        self._version = ""
        self._news = asyncio.Event()
        self._synced = False
        self._error: DeviceError | None = None

    async def now(self) -> list[Pod]:
        """Return the pods that run now. Raises Unreachable, Refused or Garbled while they cannot be followed."""
        if not self._synced:
            try:
                async with asyncio.timeout(self._config.timeout_s):
                    while not self._synced:
                        self._news.clear()
                        await self._news.wait()
                        if self._error is not None:
                            raise self._error
            except TimeoutError as error:
                raise Unreachable(f"{self._path}: no list within {self._config.timeout_s:g} s") from error
        return list(self._pods.values())

    async def follow(self) -> Never:
        """Keep the list up to date for ever; what fails is begun anew."""
        while True:
            try:
                if not self._synced:
                    await self._list()
                await self._watch()
            except DeviceError as error:
                self._synced = False
                self._error = Unreachable(str(error)) if isinstance(error, Outdated) else error
                self._tell()
                await asyncio.sleep(_AGAIN_S)

    async def _list(self) -> None:
        pods: dict[str, Pod] = {}
        async for page in self._client.pages(self._path, _RUNNING):
            for item in page.body["items"] or ():
                pod = pod_of(self._config, item)
                if pod is not None:
                    pods[pod.uid] = pod
            self._version = str(page.body["metadata"]["resourceVersion"])
        self._pods, self._synced, self._error = pods, True, None
        self._tell()

    async def _watch(self) -> None:
        async for kind, body in self._client.watch(self._path, {**_RUNNING, "resourceVersion": self._version}):
            self._take(kind, body)

    def _take(self, kind: str, body: Mapping[str, Any]) -> None:
        self._version = str(body["metadata"]["resourceVersion"])
        if kind == "BOOKMARK":
            return
        pod = pod_of(self._config, body) if kind != "DELETED" else None
        if pod is None:
            self._pods.pop(str(body["metadata"]["uid"]), None)
        else:
            self._pods[pod.uid] = pod

    def _tell(self) -> None:
        self._news.set()
