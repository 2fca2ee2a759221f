"""Agents that cap the power of nodes: GET and POST ``{cap_url}/nodes/{name}`` with ``{"cap_w": W or null}``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import httpx

from adapters._caps import Cap
from vppd.errors import DeviceError, Garbled, Refused, Unreachable

_AT_ONCE = 16


class CapAgents:
    """The agents of all nodes behind one address."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def look(self, names: Iterable[str]) -> dict[str, Cap]:
        """Return what the agents say; a node whose agent does not answer is left out."""
        found: dict[str, Cap] = {}

        async def one(name: str) -> None:
            try:
                found[name] = await self._ask(name, None)
            except DeviceError:
                return

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(one(name))
        return found

    async def put(self, name: str, cap_w: float | None, valid_for_s: float | None) -> Cap:
        """Set or lift a cap and return what the agent then says. Raises Unreachable, Refused or Garbled."""
        return await self._ask(name, {"cap_w": cap_w, **({} if valid_for_s is None else {"valid_for_s": valid_for_s})})

    async def _ask(self, name: str, body: dict[str, float | None] | None) -> Cap:
        url = f"{self._url}/nodes/{name}"
        try:
            async with self._gate:
                reply = await (self._client.get(url) if body is None else self._client.post(url, json=body))
        except httpx.RequestError as error:
            raise Unreachable(f"the cap agent of {name} does not answer: {error or type(error).__name__}") from error
        if reply.is_error:
            raise Refused(f"the cap agent of {name} refuses: HTTP {reply.status_code}")
        try:
            return _cap(reply.json())
        except (ValueError, TypeError, KeyError) as error:
            raise Garbled(f"the cap agent of {name} makes no sense") from error


def _cap(said: dict[str, Any]) -> Cap:
    cap_w = said["cap_w"]
    return Cap(None if cap_w is None else float(cap_w), float(said.get("min_cap_w") or 0.0))
