"""The one place that speaks to an API server: credentials and transport of kubernetes-asyncio, its errors in our words.

Imported only when a cluster is opened: the library is an extra, and loading it takes most of a second.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import yaml
from kubernetes_asyncio.client.api_client import ApiClient
from kubernetes_asyncio.client.configuration import Configuration
from kubernetes_asyncio.config import ConfigException, load_incluster_config
from kubernetes_asyncio.config.kube_config import load_kube_config

from adapters._k8s_config import KubernetesConfig
from adapters._k8s_link import Answer, Conflict, Forbidden, Missing, Outdated
from vppd.errors import DeviceError, Garbled, Refused, Unreachable

_PAGE = 500
_WATCH_S = 60
"""A watch is renewed so often: a connection that died in silence is found out."""
_GRACE_S = 15.0
_CLEAR_NO = {403: Forbidden, 404: Missing, 409: Conflict, 410: Outdated}
_UNKNOWN_TOKEN = 401
_BUSY = (408, 425, 429)


class Client:
    """Requests to one API server."""

    def __init__(self, config: KubernetesConfig, api: ApiClient) -> None:
        self._config = config
        self._api = api
        self._at_once = asyncio.Semaphore(config.at_once)

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """Return what the server says. Raises Unreachable, Refused or Garbled."""
        return await self._ask("GET", path, query or {}, None)

    async def patch(self, path: str, body: Mapping[str, Any]) -> Answer:
        """Apply a JSON merge patch and return the object as the server has stored it. Raises Unreachable, Refused or Garbled."""
        return await self._ask("PATCH", path, {"fieldManager": self._config.holder}, body)

    async def pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Answer]:
        """Yield a list page by page. Raises Unreachable, Refused or Garbled."""
        more = ""
        while True:
            paged = {**query, "limit": str(_PAGE)} | ({"continue": more} if more else {})
            try:
                answer = await self.get(path, paged)
            except Outdated as error:
                raise Unreachable(f"{path}: the list grew old while it was read") from error
            yield answer
            more = (answer.body.get("metadata") or {}).get("continue") or ""
            if not more:
                return

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield (type, object) of each change until the server ends the stream. Raises Unreachable, Refused or Garbled."""
        asked = {**query, "watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(_WATCH_S)}
        try:
            async with await self._call("GET", path, asked, None, _WATCH_S + _GRACE_S) as response:
                _check(response.status, await response.read() if response.status >= 300 else b"")
                async for line in response.content:
                    event = _json(line)
                    if event.get("type") == "ERROR":
                        _check(int(event.get("object", {}).get("code", 500)), line)
                    yield str(event.get("type", "")), event.get("object", {})
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"{path}: {error or type(error).__name__}") from error
        except ValueError as error:  # a line that never ends
            raise Garbled(f"{path}: {error}") from error

    async def _ask(self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None) -> Answer:
        status, date, content = await self._said(method, path, query, body)
        if status == _UNKNOWN_TOKEN:  # it may have been renewed in its file meanwhile
            await _credentials(self._config, self._api.configuration)
            status, date, content = await self._said(method, path, query, body)
        _check(status, content)
        return Answer(_json(content), _date_s(date))

    async def _said(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> tuple[int, str, bytes]:
        try:
            async with self._at_once, await self._call(method, path, query, body, self._config.timeout_s) as response:
                return response.status, response.headers.get("Date", ""), await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"{path}: {error or type(error).__name__}") from error

    async def _call(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None, timeout_s: float
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        response: aiohttp.ClientResponse = await self._api.call_api(
            path,
            method,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=timeout_s,
        )
        return response


@asynccontextmanager
async def client(config: KubernetesConfig) -> AsyncIterator[Client]:
    """Open a connection with the configured credentials. Raises Refused or Unreachable."""
    settings = Configuration()
    settings.connection_pool_maxsize = config.at_once + max(len(config.namespaces), 1)  # each is watched
    await _credentials(config, settings)
    try:
        api = ApiClient(settings)
    except (OSError, ssl.SSLError) as error:
        raise Refused(f"the certificates for the API server cannot be used: {error}") from error
    async with api:
        yield Client(config, api)


async def _credentials(config: KubernetesConfig, settings: Configuration) -> None:
    try:
        if config.in_cluster:
            load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
            return
        assert config.kubeconfig is not None
        if not await asyncio.to_thread(config.kubeconfig.is_file):
            raise Refused(f"kubeconfig: there is no file {config.kubeconfig}")
        await load_kube_config(
            str(config.kubeconfig), context=config.context or None, client_configuration=settings, persist_config=False
        )
    except (ConfigException, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        # the library stumbles over files that are YAML and no kubeconfig
        raise Refused(f"no credentials for the cluster: {error}") from error
    except OSError as error:
        raise Unreachable(f"no credentials for the cluster: {error}") from error


def _check(status: int, content: bytes) -> None:
    """Raise what an HTTP status means."""
    if status < 300:
        return
    try:
        why = str(json.loads(content).get("message", ""))
    except (ValueError, AttributeError):
        why = content[:200].decode("utf-8", "replace")
    kind: type[DeviceError] = _CLEAR_NO.get(status, Unreachable if status in _BUSY or status >= 500 else Refused)
    raise kind(f"HTTP {status}: {why}")


def _json(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError as error:
        raise Garbled(f"the API server sent no JSON: {content[:80]!r}") from error
    if not isinstance(body, dict):
        raise Garbled(f"the API server sent {type(body).__name__}, not an object")
    return body


def _date_s(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except ValueError:
        return None
