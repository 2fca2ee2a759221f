"""The guard looks at real metrics pages over real sockets, and a fleet under a falling budget keeps its bounds."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from adapters._inference import LatencyGuard, watching
from adapters._inference_config import InferenceConfig
from adapters._inference_metrics import Latency
from tests.adapters.inference_fleet import IDLE_W, MINUTE_S, Fleet, trace_sizes
from tests.adapters.test_inference_metrics import OPEN, SGLANG, VLLM
from tests.support import shared

BOUNDS_S = {"ttft": 1.0, "itl": 0.15}
PERIOD_S = 10.0
REPLICAS = 8
CALM_S = (600.0, 1200.0)


def config(**given: object) -> InferenceConfig:
    """Return a service whose pods tell their metrics at their address."""
    keys = {"metrics_url": "http://{address}/metrics", "ttft_p95_s": 1.0, "itl_p95_s": 0.15, "timeout_s": 5.0, **given}
    return InferenceConfig.model_validate(keys)


@dataclass
class Port:
    """A replica's metrics port; what it answers can be changed."""

    body: Callable[[], str]
    status: str = "200 OK"
    content_type: str = "text/plain; version=0.0.4; charset=utf-8"
    silent: bool = False
    asked: int = 0
    address: str = ""


@asynccontextmanager
async def serving(port: Port) -> AsyncIterator[Port]:
    """Answer on a free port of loopback, as HTTP/1.1 with kept connections."""
    open_ones: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones[task] = writer
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                port.asked += 1
                if port.silent:
                    continue
                body = port.body().encode()
                head = f"HTTP/1.1 {port.status}\r\ncontent-type: {port.content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            del open_ones[task]

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, number = server.sockets[0].getsockname()
    port.address = f"{host}:{number}"
    try:
        yield port
    finally:
        server.close()
        for writer in open_ones.values():
            writer.close()
        await asyncio.gather(*open_ones)


@asynccontextmanager
async def service(*ports: Port, **given: object) -> AsyncIterator[tuple[LatencyGuard, dict[str, list[str]]]]:
    """Serve these ports as the pods of the service "chat", and watch it."""
    async with AsyncExitStack() as stack:
        for port in ports:
            await stack.enter_async_context(serving(port))
        guard = await stack.enter_async_context(watching({"chat": config(**given)}))
        yield guard, {"chat": [port.address for port in ports]}


def growing(page: str) -> Callable[[], str]:
    """Return a page whose counters go up each time it is read."""
    asked = iter(range(1, 10_000))

    def body() -> str:
        factor = next(asked)
        lines = []
        for line in page.splitlines():
            name, _, value = line.rpartition(" ")
            counts = not line.startswith("#") and any(mark in name for mark in ("_bucket", "_sum", "_count", "_total"))
            lines.append(f"{name} {float(value) * factor}" if counts else line)
        return "\n".join(lines) + "\n"

    return body


async def looks(guard: LatencyGuard, ready: dict[str, list[str]], count: int, begin_s: float = 0.0) -> float:
    """Look so many times, a period apart; return the time of the last look."""
    at_s = begin_s
    for _ in range(count):
        at_s += 5.0
        await guard.look(at_s, ready)
    return at_s


@pytest.mark.parametrize("page", [pytest.param(VLLM, id="vllm"), pytest.param(SGLANG, id="sglang")])
async def test_pages_are_read_over_http(page: str) -> None:
    """Percentiles and load come from real pages through a real socket."""
    async with service(Port(growing(page)), Port(growing(page)), itl_p95_s=None) as (guard, ready):
        await looks(guard, ready, 10)
        seen = guard.seen("chat")
    assert seen is not None
    assert (seen.present, seen.answered) == (2, 2)
    assert seen.served_per_s is not None
    assert seen.served_per_s > 100.0
    assert seen.p95_s[Latency.TTFT] > 0.1


async def test_openmetrics_is_taken_too() -> None:
    """A server that insists on OpenMetrics is understood."""
    port = Port(lambda: OPEN, content_type="application/openmetrics-text; version=1.0.0; charset=utf-8")
    async with service(port) as (guard, ready):
        await looks(guard, ready, 1)
        seen = guard.seen("chat")
    assert seen is not None
    assert seen.answered == 1


async def test_before_the_first_look_all_stay() -> None:
    """Who has seen nothing lets nobody go; a service that is not watched is not the guard's business."""
    async with watching({"chat": config()}) as guard:
        assert guard.least_replicas("chat", 8) == 8
        assert guard.least_replicas("batch", 8) == 0
        assert guard.why("chat") == "not seen yet"


async def test_a_service_without_a_ready_pod_keeps_all() -> None:
    """Pods that nobody knows of, or none that is ready: there is nothing to go by, so nobody goes."""
    async with watching({"chat": config()}) as guard:
        await guard.look(5.0, {})
        assert guard.least_replicas("chat", 8) == 8
        await guard.look(10.0, {"chat": []})
        assert guard.least_replicas("chat", 8) == 8


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"silent": True}, id="silent"),
        pytest.param({"status": "500 Internal Server Error"}, id="error"),
        pytest.param({"status": "302 Found"}, id="redirect"),
        pytest.param({"body": lambda: "<html></html>"}, id="not-metrics"),
        pytest.param({"body": lambda: "x" * 5_000_000}, id="endless"),
    ],
)
async def test_one_replica_in_the_dark_keeps_all(fault: dict[str, object]) -> None:
    """Silence, an error, nonsense or a flood from one of three: nobody goes, and the reason says which one and why."""
    ports = [Port(growing(VLLM)) for _ in range(3)]
    async with service(*ports, timeout_s=0.3, itl_p95_s=None) as (guard, ready):
        at_s = await looks(guard, ready, 8)
        for key, value in fault.items():
            setattr(ports[1], key, value)
        await guard.look(at_s + 5.0, ready)
        assert guard.least_replicas("chat", 3) == 3
        assert "2 of 3 replicas" in guard.why("chat")
        assert ports[1].address in guard.why("chat")


async def test_a_closed_port_is_a_replica_in_the_dark() -> None:
    """A pod that is ready and refuses the connection counts as not seen."""
    async with service(Port(growing(VLLM))) as (guard, ready):
        await guard.look(5.0, {"chat": [*ready["chat"], "127.0.0.1:1"]})
        assert "1 of 2 replicas" in guard.why("chat")


async def test_the_guard_keeps_its_own_pace() -> None:
    """However often it is called, a replica is asked once in a period."""
    port = Port(growing(VLLM))
    async with service(port, period_s=10.0) as (guard, ready):
        for tenth in range(300):
            await guard.look(tenth / 10.0, ready)
    assert port.asked == 3


async def test_a_list_of_urls_goes_by_ordinal() -> None:
    """Of a list, as many are asked as there are pods: a stateful set lets its last ones go first."""
    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(serving(Port(growing(VLLM)))) for _ in range(3)]
        urls = tuple(f"http://{port.address}/metrics" for port in ports)
        guard = await stack.enter_async_context(watching({"chat": config(metrics_url="", metrics_urls=urls)}))
        await guard.look(5.0)
        await guard.look(10.0, {"chat": ["10.0.0.1", "10.0.0.2"]})
    assert [port.asked for port in ports] == [2, 2, 1]


async def test_no_more_than_sixteen_are_asked_at_once() -> None:
    """A service of many replicas is not asked all at one moment."""
    busy = Counter[str]()

    async def page(request: httpx.Request) -> httpx.Response:
        busy["now"] += 1
        busy["most"] = max(busy["most"], busy["now"])
        await asyncio.sleep(0)
        busy["now"] -= 1
        return httpx.Response(200, text=VLLM)

    async with httpx.AsyncClient(transport=httpx.MockTransport(page)) as client:
        guard = LatencyGuard({"chat": config()}, client)
        await guard.look(5.0, {"chat": [f"10.0.0.{i}:8000" for i in range(60)] + ["fd00::1"]})
        seen = guard.seen("chat")
    assert seen is not None
    assert seen.answered == 61
    assert busy["most"] <= 16


async def test_cancelling_a_look_gets_through() -> None:
    """A look that waits for a silent replica ends at once when it is cancelled."""
    async with service(Port(lambda: VLLM, silent=True), timeout_s=20.0, stale_s=60.0) as (guard, ready):
        looking = asyncio.create_task(guard.look(5.0, ready))
        await asyncio.sleep(0.05)
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(looking, 5.0)


@dataclass
class Outcome:
    """What came of a budget."""

    broken: int
    """Minutes in which a percentile was above its bound."""
    worst_ttft_s: float
    fewest: int
    calm_w: float
    """Mean power while the budget is low and the load is steady, the idle GPUs of those that went included."""


def budget_replicas(at_s: float) -> int:
    """Return what the power budget leaves of eight replicas: it falls to three within four minutes."""
    return math.floor(8.0 - 5.0 * min(1.0, max(0.0, at_s - 60.0) / 240.0))


def rate_per_s(at_s: float) -> float:
    """Return requests per second: half as much again within four minutes from the twentieth on."""
    return 14.4 * (1.0 + 0.5 * min(1.0, max(0.0, at_s - 1200.0) / 240.0))


async def follow(fleet: Fleet, floor: Callable[[float], Awaitable[int]], until_s: float) -> Outcome:
    """Follow the budget down to the floor that is told at each step."""
    at_s, fewest, calm_ws = 0.0, fleet.asked, 0.0
    while at_s < until_s:
        at_s, before_ws = at_s + PERIOD_S, fleet.energy_ws
        fleet.run(at_s)
        if CALM_S[0] < at_s <= CALM_S[1]:
            calm_ws += fleet.energy_ws - before_ws + (REPLICAS - fleet.asked) * IDLE_W * PERIOD_S
        wanted = max(budget_replicas(at_s), await floor(at_s))
        fleet.scale(wanted)
        fewest = min(fewest, wanted)
    minutes = range(1, int(until_s / MINUTE_S))
    broken = [m for m in minutes if any(fleet.true_p95_s(kind, m) > bound_s for kind, bound_s in BOUNDS_S.items())]
    worst_s = max(fleet.true_p95_s("ttft", m) for m in minutes)
    return Outcome(len(broken), worst_s, fewest, calm_ws / (CALM_S[1] - CALM_S[0]))


def fleet_of(flavour: str) -> Fleet:
    """Return eight replicas with a trace's requests."""
    sizes = trace_sizes(shared("data", "AzureLLMInferenceTrace_conv.csv"))
    return Fleet(REPLICAS, sizes, rate_per_s, flavour=flavour)


async def guarded(flavour: str, until_s: float) -> Outcome:
    """Follow the budget with a guard that reads the replicas' pages over HTTP."""
    fleet, addresses = fleet_of(flavour), dict[str, str]()
    async with AsyncExitStack() as stack:
        guard = await stack.enter_async_context(watching({"chat": config(period_s=PERIOD_S, start_s=45.0)}))

        async def floor(at_s: float) -> int:
            for replica in fleet.ready:
                if replica.name not in addresses:
                    port = await stack.enter_async_context(serving(Port(replica.metrics)))
                    addresses[replica.name] = port.address
            await guard.look(at_s, {"chat": [addresses[replica.name] for replica in fleet.ready]})
            return guard.least_replicas("chat", REPLICAS)

        return await follow(fleet, floor, until_s)


async def unguarded(flavour: str, until_s: float) -> Outcome:
    """Follow the budget wherever it goes."""

    async def floor(at_s: float) -> int:
        return 1

    return await follow(fleet_of(flavour), floor, until_s)


@pytest.mark.integration
@pytest.mark.parametrize("flavour", ["vllm", "sglang"])
async def test_a_fleet_under_a_falling_budget_keeps_its_bounds(flavour: str) -> None:
    """Replicas go while the load allows it, and in a surge they are back before a bound is broken."""
    outcome = await guarded(flavour, 1800.0)
    assert outcome.broken == 0, outcome
    assert outcome.fewest <= 6, outcome


async def test_without_the_guard_the_bound_breaks() -> None:
    """The same budget followed blindly breaks the bound for minutes on end, and by far."""
    outcome = await unguarded("vllm", 1800.0)
    assert outcome.broken >= 15, outcome
    assert outcome.worst_ttft_s > 5.0 * BOUNDS_S["ttft"], outcome
