"""GPU power as dcgm-exporter tells it: scraped in the background, so that nobody waits for a node that is silent."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated

import httpx
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vppd.errors import Garbled, Refused, Unreachable

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_MOST_W = 1e5
"""More than any GPU draws: DCGM says 2^47 and more where it has no value. [W]"""
_REST_MOST_S = 60.0
_NODE = "{node}"


class DcgmConfig(BaseModel):
    """Where the exporters are, and what a node draws beside its GPUs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    url: str = "http://{node}:9400/metrics"
    """With ``{node}``: one exporter per node; without: one page for all of them, told apart by ``label``."""
    label: str = "Hostname"
    """Label that names the node, on a page for all; the part before the first dot is enough."""
    field: str = "DCGM_FI_DEV_POWER_USAGE"
    """The GPU's power. [W]"""
    node_rest_w: Annotated[float, Field(ge=0.0)] = 1550.0
    """What a node draws beside its GPUs: CPUs, fans, network. [W]"""
    every_s: Annotated[float, Field(ge=0.5)] = 2.0
    stale_s: Annotated[float, Field(gt=0.0)] = 15.0
    """A node whose exporter was last heard so long ago is not measured."""
    timeout_s: Annotated[float, Field(gt=0.0)] = 2.0
    at_once: Annotated[int, Field(ge=1, le=64)] = 32

    @model_validator(mode="after")
    def _lasting(self) -> DcgmConfig:
        if self.stale_s < self.every_s + self.timeout_s:
            raise ValueError("stale_s must be at least every_s + timeout_s")
        return self


class DcgmPower:
    """The exporters of one cluster. ``NodePower``."""

    def __init__(self, config: DcgmConfig, client: httpx.AsyncClient) -> None:
        self._config = config
        self._client = client
        self._names: frozenset[str] = frozenset()
        self._seen: dict[str, tuple[float, float]] = {}
        """By node: power [W], and when it was heard (monotonic [s])."""
        self._gpus: dict[str, int] = {}
        """By node: the most GPUs it has told of; fewer are not the whole node."""
        self._again_s: dict[str, float] = {}
        self._rest_s: dict[str, float] = {}
        self._asked, self._news = asyncio.Event(), asyncio.Event()
        self._scraping: asyncio.Task[None] | None = None

    async def look(self, names: Iterable[str]) -> dict[str, float]:
        """Return the power of nodes heard lately; the first time it waits for one round. [W]"""
        if self._scraping is not None and self._scraping.done():
            self._scraping.result()
        asked = frozenset(names)
        if not asked <= self._names:
            self._names |= asked
            self._news.clear()
            self._asked.set()
            await _within(self._config.timeout_s, self._news)
        oldest_s = _now_s() - self._config.stale_s
        return {name: self._seen[name][0] for name in asked if name in self._seen and self._seen[name][1] >= oldest_s}

    def start(self) -> None:
        """Scrape from now on."""
        self._scraping = asyncio.create_task(self._keep_scraping(), name="dcgm")

    async def stop(self) -> None:
        """Scrape no more."""
        if self._scraping is not None:
            self._scraping.cancel()
            await asyncio.wait({self._scraping})

    async def _keep_scraping(self) -> None:
        while True:
            began_s = _now_s()
            self._asked.clear()
            await self._round(self._names, began_s)
            if not self._asked.is_set():
                self._news.set()
            await _within(max(self._config.every_s - (_now_s() - began_s), 0.1), self._asked)

    async def _round(self, names: frozenset[str], now_s: float) -> None:
        gate = asyncio.Semaphore(self._config.at_once)
        keys = names if _NODE in self._config.url else ({""} if names else set())

        async def one(key: str) -> None:
            async with gate:
                await self._scrape(key)

        async with asyncio.TaskGroup() as group:
            for key in keys:
                if now_s >= self._again_s.get(key, -math.inf):
                    group.create_task(one(key))

    async def _scrape(self, node: str) -> None:
        """Take one page; an exporter that does not answer is left alone for longer each time."""
        try:
            power_w = await self._page(node)
        except (Unreachable, Refused, Garbled):
            rest_s = min(max(2.0 * self._rest_s.get(node, 0.0), self._config.every_s), _REST_MOST_S)
            self._rest_s[node], self._again_s[node] = rest_s, _now_s() + rest_s
            return
        self._rest_s.pop(node, None)
        self._again_s.pop(node, None)
        now_s = _now_s()
        for host, gpus_w in power_w.items():
            for name in [node] if node else self._called(host):
                self._gpus[name] = max(self._gpus.get(name, 0), len(gpus_w))
                if gpus_w and len(gpus_w) == self._gpus[name] and all(map(_is_power, gpus_w)):
                    self._seen[name] = (sum(gpus_w) + self._config.node_rest_w, now_s)

    async def _page(self, node: str) -> dict[str, list[float]]:
        url = self._config.url.replace(_NODE, node)
        try:
            reply = await self._client.get(url, timeout=self._config.timeout_s)
        except httpx.RequestError as error:
            raise Unreachable(f"{url} does not answer: {error or type(error).__name__}") from error
        if reply.is_error:
            raise Refused(f"{url}: HTTP {reply.status_code}")
        label = "" if _NODE in self._config.url else self._config.label
        return gpu_power_w(reply.text, self._config.field, label, self._config.stale_s, _date(reply))

    def _called(self, host: str) -> list[str]:
        short = host.partition(".")[0]
        return [name for name in self._names if host == name or short == name.partition(".")[0]]


def gpu_power_w(
    page: str, field: str, label: str, stale_s: float = math.inf, said_at: datetime | None = None
) -> dict[str, list[float]]:
    """Return what each GPU draws, by the value of ``label`` (empty: all under one). [W]

    NaN where DCGM has no value, or an older one than ``stale_s`` by the page's own time stamps.
    """
    found: dict[tuple[str, str], float] = {}
    sample = re.compile(rf"^{re.escape(field)}\{{(.*)\}}\s+(\S+)(?:\s+(\d+))?\s*$", re.MULTILINE)
    for labels, text, stamp in sample.findall(page):
        said = dict(_LABEL.findall(labels))
        # Every MIG instance repeats the power of its whole GPU.
        gpu = said.get("UUID") or said.get("gpu") or labels
        old = bool(stamp) and said_at is not None and said_at.timestamp() - int(stamp) / 1e3 > stale_s
        found[said.get(label, "") if label else "", gpu] = math.nan if old else _number_w(text)
    hosts: dict[str, list[float]] = {}
    for (host, _), gpu_w in found.items():
        hosts.setdefault(host, []).append(gpu_w)
    return hosts


@asynccontextmanager
async def dcgm_power(config: DcgmConfig, client: httpx.AsyncClient) -> AsyncIterator[DcgmPower]:
    """Scrape in the background for as long as this is open."""
    power = DcgmPower(config, client)
    power.start()
    try:
        yield power
    finally:
        await power.stop()


async def _within(for_s: float, event: asyncio.Event) -> None:
    """Wait for an event, and no longer than so long. [s]"""
    try:
        async with asyncio.timeout(for_s):
            await event.wait()
    except TimeoutError:
        return


def _number_w(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _is_power(gpu_w: float) -> bool:
    return 0.0 <= gpu_w < _MOST_W


def _date(reply: httpx.Response) -> datetime | None:
    """Return when a page was told, by the exporter's own clock."""
    try:
        at = parsedate_to_datetime(reply.headers.get("date", ""))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
