"""Watches the latencies of inference services and says how few replicas may stay.

Replicas are the knob, not concurrency: halving the batch of a server saves a quarter of its power and multiplies the
energy of a token, a replica that goes takes all of its power with it while the others fill up. So fewer replicas, packed;
and how few depends on what users feel, which the servers tell (vLLM, SGLang). An adapter that scales replicas calls

    async with watching(config.inference) as guard:      # {name: InferenceConfig}
        await guard.look(now_s, {"chat": pod_addresses})   # as often as it likes: the guard keeps its own pace
        guard.least_replicas("chat", 8)                    # never scale "chat", which has 8, below this

and never goes below the answer. Nothing seen: nobody goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from adapters._inference_config import ADDRESS, InferenceConfig
from adapters._inference_guard import Seen, State, decide
from adapters._inference_metrics import Page, parse
from adapters._inference_window import Record, observed, seen
from vppd.errors import DeviceError, Garbled, Unreachable

MOST_AT_ONCE = 16
LONGEST_PAGE = 4_000_000
"""Bytes: a page of vLLM has some 100 000."""
ACCEPTED = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5"


@asynccontextmanager
async def watching(config: Mapping[str, InferenceConfig]) -> AsyncIterator[LatencyGuard]:
    """Watch these services with a client of our own."""
    async with httpx.AsyncClient(headers={"accept": ACCEPTED}, trust_env=False) as client:
        yield LatencyGuard(config, client)


@dataclass(slots=True)
class _Service:
    """One service and what is known of it."""

    config: InferenceConfig
    record: Record = field(default_factory=Record)
    state: State = field(default_factory=State)
    seen: Seen | None = None
    error: str = ""
    """Why a replica was not seen in the newest look."""


class LatencyGuard:
    """Looks at services, and says how few replicas of each may stay."""

    def __init__(self, config: Mapping[str, InferenceConfig], client: httpx.AsyncClient) -> None:
        self._services = {name: _Service(one) for name, one in config.items()}
        self._client = client
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)

    async def look(self, now_s: float, ready: Mapping[str, Sequence[str]] | None = None) -> None:
        """Read the metrics of every replica, where it is time to; raises nothing that a replica causes.

        ``now_s`` is loop-monotonic. [s] ``ready``: the addresses of each service's ready pods, in the order of their
        ordinals; a service with ``metrics_urls`` needs it only when it has fewer replicas than URLs.
        """
        due = {
            name: service
            for name, service in self._services.items()
            if service.record.looked_s is None or now_s - service.record.looked_s >= service.config.period_s - 1e-6
        }
        async with asyncio.TaskGroup() as group:
            for name, service in due.items():
                addresses = ready.get(name, ()) if ready is not None else None
                group.create_task(self._look_at(service, now_s, _urls(service.config, addresses)))

    def least_replicas(self, name: str, replicas: int) -> int:
        """Return the fewest replicas that may stay of a service that has ``replicas`` when nothing is held back.

        All of them for a service that is not seen; and for one that is not watched, none are kept.
        """
        service = self._services.get(name)
        if service is None:
            return 0
        if service.seen is None:
            return replicas
        return min(replicas, max(service.config.fewest, service.state.floor))

    def why(self, name: str) -> str:
        """Return the reason of the present floor in a short sentence, empty for a service that is not watched."""
        service = self._services.get(name)
        if service is None:
            return ""
        return "; ".join(text for text in (service.state.why or "not seen yet", service.error) if text)

    def seen(self, name: str) -> Seen | None:
        """Return what a service showed at the newest look, None when it has not been looked at."""
        service = self._services.get(name)
        return service.seen if service is not None else None

    async def _look_at(self, service: _Service, now_s: float, urls: Sequence[str]) -> None:
        service.error = ""
        pages = dict(zip(urls, await asyncio.gather(*(self._page(service, url) for url in urls)), strict=True))
        service.record = observed(service.record, now_s, pages, service.config)
        service.seen = seen(service.record, now_s, pages, service.config)
        service.state = decide(service.state, service.seen, service.config)

    async def _page(self, service: _Service, url: str) -> Page | None:
        """Return what a replica says, None when it cannot be had."""
        async with self._slots:
            try:
                async with asyncio.timeout(service.config.timeout_s):
                    return await self._fetched(url)
            except TimeoutError:
                service.error = f"{url}: no answer within {service.config.timeout_s:g} s"
            except DeviceError as error:
                service.error = f"{url}: {error}"
        return None

    async def _fetched(self, url: str) -> Page:
        """Return the page behind a URL. Raises Unreachable or Garbled."""
        try:
            async with self._client.stream("GET", url, timeout=None, follow_redirects=False) as reply:
                if reply.status_code != httpx.codes.OK:
                    raise Unreachable(f"HTTP {reply.status_code}")
                body = bytearray()
                async for part in reply.aiter_bytes():
                    body += part
                    if len(body) > LONGEST_PAGE:
                        raise Garbled("more than any metrics page has")
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise Unreachable(str(error) or type(error).__name__) from error
        return parse(body.decode("utf-8", "replace"), reply.headers.get("content-type", ""))


def _urls(config: InferenceConfig, addresses: Sequence[str] | None) -> Sequence[str]:
    """Return where the replicas tell their metrics."""
    if config.metrics_urls:
        return config.metrics_urls if addresses is None else config.metrics_urls[: len(addresses)]
    return [config.metrics_url.replace(ADDRESS, _host(address)) for address in addresses or ()]


def _host(address: str) -> str:
    """Return an address as URLs have it."""
    return f"[{address}]" if address.count(":") > 1 and not address.startswith("[") else address
