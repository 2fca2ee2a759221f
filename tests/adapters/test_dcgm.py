"""GPU power from pages such as dcgm-exporter's, served by real servers on loopback."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from pydantic import ValidationError

from adapters._dcgm import DcgmConfig, DcgmPower, dcgm_power, gpu_power_w
from adapters._slurm_config import SlurmConfig
from adapters.slurm import connect_through
from tests.adapters.slurm_fake import IDLE_W, JOB_W, FakeSlurm

FIELD = "DCGM_FI_DEV_POWER_USAGE"
REST_W = 1500.0
FAST = {"every_s": 0.5, "stale_s": 1.6, "timeout_s": 0.3, "node_rest_w": REST_W}


def page(*gpus: tuple[str, str, str], stamp: str = "") -> str:
    """Return a page of GPUs: host, UUID and value."""
    head = f"# HELP {FIELD} Power draw (in W).\n# TYPE {FIELD} gauge\n"
    others = 'DCGM_FI_DEV_SM_CLOCK{gpu="0",UUID="GPU-a",Hostname="n1"} 1980\n'
    line = '{field}{{gpu="0",UUID="{gpu}",pci_bus_id="00000000:1B:00.0",modelName="NVIDIA H100 80GB HBM3",Hostname="{host}"}} {value}{stamp}\n'
    return head + "".join(line.format(field=FIELD, host=h, gpu=g, value=v, stamp=stamp) for h, g, v in gpus) + others


@asynccontextmanager
async def serving(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """Serve every path with this answer; yield the address."""
    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Exporters:
    """Pages by node; a node may be silent or slow."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.slow: set[str] = set()
        self.asked: list[str] = []
        self.over = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer with the node's page."""
        node = request.path.strip("/")
        self.asked.append(node)
        if node in self.slow:
            await self.over.wait()
        if node not in self.pages:
            raise web.HTTPServiceUnavailable
        return web.Response(text=self.pages[node])


@asynccontextmanager
async def scraping(exporters: Exporters, path: str = "/{node}", **more: object) -> AsyncIterator[DcgmPower]:
    """Scrape these exporters."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(exporters.answer))
        stack.callback(exporters.over.set)
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        config = DcgmConfig.model_validate({**FAST, "url": url + path, **more})
        yield await stack.enter_async_context(dcgm_power(config, client))


async def eventually(power: DcgmPower, names: list[str], wanted: dict[str, float], for_s: float = 20.0) -> None:
    """Wait until that is what is said of the nodes."""
    deadline_s = time.monotonic() + for_s
    while (found := await power.look(names)) != pytest.approx(wanted):
        assert time.monotonic() < deadline_s, found
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(page(("n1", "GPU-a", "655.1"), ("n1", "GPU-b", "68.2")), {"n1": [655.1, 68.2]}, id="two GPUs"),
        pytest.param(page(("n1", "GPU-a", "1"), ("n2", "GPU-c", "2")), {"n1": [1.0], "n2": [2.0]}, id="two hosts"),
        pytest.param(page(("n1", "GPU-a", "300"), ("n1", "GPU-a", "300")), {"n1": [300.0]}, id="MIG repeats its GPU"),
        pytest.param(page(("n1", "GPU-a", "6.5e+02")), {"n1": [650.0]}, id="exponent"),
        pytest.param("", {}, id="nothing"),
        pytest.param("<html>no</html>", {}, id="something else"),
        pytest.param(f'{FIELD}_OTHER{{Hostname="n1"}} 5\n', {}, id="another field"),
    ],
)
def test_pages(text: str, found: dict[str, list[float]]) -> None:
    """GPUs are told apart by UUID and hosts by the label; what is no such line does not count."""
    assert gpu_power_w(text, FIELD, "Hostname") == found


@pytest.mark.parametrize("value", ["NaN", "what", "1.40737488355328e+14", "-1"])
async def test_a_value_dcgm_does_not_have_is_missing(value: str) -> None:
    """A node of which one GPU has no value is not measured at all: never a sum without it, never 0."""
    exporters = Exporters()
    exporters.pages = {"n1": page(("n1", "GPU-a", "600"), ("n1", "GPU-b", value)), "n2": page(("n2", "GPU-c", "500"))}
    async with scraping(exporters) as power:
        await eventually(power, ["n1", "n2"], {"n2": 500.0 + REST_W})


def test_old_values_are_missing_by_the_pages_own_time() -> None:
    """A page with time stamps that are too old by its own clock tells nothing."""
    at = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)
    stamp = f" {round((at.timestamp() - 20.0) * 1000)}"
    text = page(("n1", "GPU-a", "600"), stamp=stamp)
    assert gpu_power_w(text, FIELD, "Hostname", 30.0, at) == {"n1": [600.0]}
    assert math.isnan(gpu_power_w(text, FIELD, "Hostname", 10.0, at)["n1"][0])


async def test_one_exporter_per_node() -> None:
    """GPUs and the rest of the node add up; a silent, an empty and an unknown node are missing."""
    exporters = Exporters()
    exporters.pages = {"n1": page(("x", "GPU-a", "650"), ("x", "GPU-b", "70")), "n2": page()}
    async with scraping(exporters) as power:
        await eventually(power, ["n1", "n2", "n3"], {"n1": 720.0 + REST_W})


async def test_one_page_for_all() -> None:
    """On one page nodes are told apart by the label, long names and short ones alike."""
    exporters = Exporters()
    exporters.pages = {"all": page(("n1.dc.example", "GPU-a", "650"), ("n2", "GPU-b", "70"), ("other", "GPU-c", "5"))}
    async with scraping(exporters, "/all") as power:
        await eventually(power, ["n1", "n2", "n3"], {"n1": 650.0 + REST_W, "n2": 70.0 + REST_W})


async def test_stale_is_missing_and_comes_back() -> None:
    """A node whose exporter falls silent is missing after a while, and is there again when it speaks."""
    exporters = Exporters()
    exporters.pages = {"n1": page(("n1", "GPU-a", "600"))}
    async with scraping(exporters) as power:
        await eventually(power, ["n1"], {"n1": 600.0 + REST_W})
        exporters.pages, spoken = {}, exporters.pages
        await eventually(power, ["n1"], {})
        exporters.pages = spoken
        await eventually(power, ["n1"], {"n1": 600.0 + REST_W})


async def test_a_lost_gpu_makes_the_node_unmeasured() -> None:
    """A node that tells of fewer GPUs than before is not measured: the sum would lack one."""
    exporters = Exporters()
    exporters.pages = {"n1": page(("n1", "GPU-a", "600"), ("n1", "GPU-b", "500"))}
    async with scraping(exporters) as power:
        await eventually(power, ["n1"], {"n1": 1100.0 + REST_W})
        exporters.pages = {"n1": page(("n1", "GPU-a", "600"))}
        await eventually(power, ["n1"], {})


async def test_slow_nodes_hold_up_nobody() -> None:
    """With more hanging exporters than are asked at once the others are fresh all the time, and the hanging ones are asked ever less."""
    exporters = Exporters()
    good = [f"n{i}" for i in range(20)]
    bad = [f"dead{i}" for i in range(10)]
    exporters.pages = {name: page((name, "GPU-a", "600")) for name in good}
    exporters.slow = set(bad)
    async with scraping(exporters, at_once=8, stale_s=8.0) as power:
        await eventually(power, good + bad, dict.fromkeys(good, 600.0 + REST_W))
        for _ in range(20):
            await asyncio.sleep(0.1)
            assert len(await power.look(good + bad)) == len(good)
    assert exporters.asked.count("dead0") < exporters.asked.count("n0")


async def test_slurm_by_dcgm(tmp_path: Path) -> None:
    """A cluster whose power source is dcgm reads what the exporters say; a node without one follows the model."""
    slurm = FakeSlurm(nodes=("n1", "n2"))
    for node in ("n1", "n2"):
        for _ in range(4):
            slurm.add(3, node=node)
    token = tmp_path / "token"
    token.write_text("good")
    exporters = Exporters()
    exporters.pages = {"n1": page(("n1", "GPU-a", "4321"))}
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(exporters.answer))
        exporter_client = httpx.AsyncHTTPTransport(trust_env=False)
        client = httpx.AsyncClient(
            mounts={"all://slurm": httpx.MockTransport(slurm), "all://127.0.0.1": exporter_client}, trust_env=False
        )
        await stack.enter_async_context(client)
        config = SlurmConfig.model_validate(
            {
                "url": "http://slurm",
                "token_file": token,
                "power_source": "dcgm",
                "dcgm": {**FAST, "url": url + "/{node}"},
                "node_idle_w": IDLE_W,
                "node_max_w": IDLE_W + 4 * JOB_W,
            }
        )
        cluster = await stack.enter_async_context(connect_through(client, config))
        deadline_s = time.monotonic() + 20.0
        wanted_w = 4321.0 + REST_W + IDLE_W + 4 * JOB_W
        while (sample := await cluster.read()).power_w != pytest.approx(wanted_w):
            assert time.monotonic() < deadline_s, sample
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("wrong", [{"stale_s": 1.0}, {"every_s": 0.0}, {"at_once": 0}, {"colour": "red"}])
def test_refused_configurations(wrong: dict[str, object]) -> None:
    """A configuration by which every node would always be stale, or with words unknown, is refused."""
    with pytest.raises(ValidationError):
        DcgmConfig.model_validate(wrong)
