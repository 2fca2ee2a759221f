"""From a setpoint to the last acknowledgement of a thousand node agents on one Mosquitto, with telemetry at 1 Hz.

The agents are one process with a connection each and the agent's own decisions; this process is the daemon's side: the adapter with
its samples. Run: ``python -m tests.bench.bench_agents [ORDERS [AGENTS]]``; it prints one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import uvloop

from adapters.gpu_agents import ADAPTER, GpuAgents
from tests.servers.agent_swarm import GPUS, raise_file_limit
from tests.servers.mosquitto import Mosquitto
from vppd.model import Sample, Setpoint

AGENTS = 1_000
ORDERS = 200
ALLOWED_MS = 1_000.0
"""p99 from the setpoint to the last acknowledgement. [ms]"""
SITE = "dc1"
NODE_W = GPUS * 650.0 + 1_500.0
DEPTHS = (0.68, 0.75, 0.82, 0.9)
"""Parts of full power that an order allows; two that follow each other differ, so every node is told something new."""
SPACING_S = (0.3, 0.9)
ACK_S = 30.0
"""Patience on a busy machine: what is late is measured, not cut off. [s]"""
FILES = 8_192
BROKER = "max_inflight_messages 1000\nmax_queued_messages 10000\nset_tcp_nodelay true\n"
"""What a site with so many agents sets. It also speaks MQTT 3.1.1: the properties of MQTT 5 cost half as much again."""


@dataclass(frozen=True, slots=True)
class Far:
    """The other processes."""

    broker: psutil.Process
    agents: psutil.Process

    def used_s(self) -> dict[str, float]:
        """Return the processor time of everybody so far. [s]"""
        everybody = {"daemon": psutil.Process(), "broker": self.broker, "agents": self.agents}
        return {name: sum(process.cpu_times()[:2]) for name, process in everybody.items()}


@contextmanager
def far(folder: Path, agents: int) -> Iterator[tuple[Mosquitto, Far]]:
    """Start broker and agents; they are all connected then."""
    command = [sys.executable, "-m", "tests.servers.agent_swarm"]
    with Mosquitto(folder / "mosquitto", settings=BROKER) as broker:
        where = [broker.host, str(broker.port), SITE, str(agents)]
        process = subprocess.Popen([*command, *where], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            assert process.stdout.readline().strip() == "ready"
            yield broker, Far(psutil.Process(broker.pid), psutil.Process(process.pid))
        finally:
            process.terminate()
            process.communicate(timeout=60)


class Heard:
    """Reads the adapter's samples, as the daemon does."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    async def follow(self, device: GpuAgents) -> None:
        """Read for ever."""
        samples = cast("AsyncGenerator[Sample]", device.samples())
        try:
            async for sample in samples:
                self.samples.append(sample)
        finally:
            await samples.aclose()


@asynccontextmanager
async def near(broker: Mosquitto) -> AsyncIterator[tuple[GpuAgents, Heard]]:
    """Connect the adapter and read its samples."""
    table = {"host": broker.host, "port": broker.port, "protocol": "3.1.1", "site": SITE, "tier": 3}
    patience = {"ack_timeout_s": ACK_S, "timeout_s": ACK_S, "stale_s": ACK_S}
    async with ADAPTER.connect(ADAPTER.config.model_validate(table | patience)) as device:
        assert isinstance(device, GpuAgents)
        heard = Heard()
        task = asyncio.create_task(heard.follow(device))
        try:
            yield device, heard
        finally:
            task.cancel()
            await asyncio.wait({task})


async def order(device: GpuAgents, agents: int, orders: int) -> list[float]:
    """Give orders at random moments; return how long each took until the last agent had acknowledged. [s]"""
    chance, depth, took_s = random.Random(1), 1.0, list[float]()
    for _ in range(orders):
        depth = chance.choice([d for d in DEPTHS if d != depth])
        began_s = time.monotonic()
        applied = await device.apply(Setpoint("gpus", depth * agents * NODE_W, 120.0))
        took_s.append(time.monotonic() - began_s)
        assert applied.detail == f"{agents} of {agents} nodes held", applied
        await asyncio.sleep(chance.uniform(*SPACING_S))
    return took_s


async def run(orders: int, agents: int, folder: Path) -> dict[str, float]:
    """Return the figures of a run."""
    with far(folder, agents) as (broker, others):
        async with near(broker) as (device, heard):
            deadline_s = time.monotonic() + 60.0
            while len(heard.samples) < 3 or heard.samples[-1].fault:
                assert time.monotonic() < deadline_s, "the agents do not come up"
                await asyncio.sleep(0.1)
            quiet = await spent(others, asyncio.sleep(3.0))
            waited_s, ran_s = scheduled_s()
            began_s, used_s = time.monotonic(), others.used_s()
            took_s = await order(device, agents, orders)
            lasted_s = time.monotonic() - began_s
            used_s = {name: s - used_s[name] for name, s in others.used_s().items()}
            waited_s, ran_s = (now - then for now, then in zip(scheduled_s(), (waited_s, ran_s), strict=True))
    p50_s, p99_s = np.percentile(took_s, (50, 99))
    extra_s = {name: max(used_s[name] - lasted_s * quiet[name], 0.0) / orders for name in used_s}
    return {
        "points": agents,
        "orders": orders,
        "order_p50_ms": 1e3 * p50_s,
        "order_p99_ms": 1e3 * p99_s,
        "limit_order_p99_ms": ALLOWED_MS,
        "order_max_ms": 1e3 * max(took_s),
        "cpu_per_order_ms": 1e3 * sum(extra_s.values()),
        "daemon_cpu_per_order_ms": 1e3 * extra_s["daemon"],
        "daemon_idle_core_frac": quiet["daemon"],
        "telemetry_per_s": float(agents),
        "machine_stretch": (waited_s + ran_s) / ran_s,
    }


async def spent(others: Far, meanwhile: Any) -> Mapping[str, float]:
    """Return the part of a core that everybody uses meanwhile."""
    began_s, used_s = time.monotonic(), others.used_s()
    await meanwhile
    lasted_s = time.monotonic() - began_s
    return {name: (now_s - used_s[name]) / lasted_s for name, now_s in others.used_s().items()}


def scheduled_s() -> tuple[float, float]:
    """Return how long this process has waited for a processor, and how long it has run. [s]"""
    ran, waited, _ = Path("/proc/self/schedstat").read_text(encoding="ascii").split()
    return int(waited) / 1e9, int(ran) / 1e9


def measure(orders: int, agents: int = AGENTS) -> dict[str, float]:
    """Return the figures of a run in a loop of its own."""
    raise_file_limit(FILES)
    with tempfile.TemporaryDirectory() as folder, closing(uvloop.new_event_loop()) as loop:
        return loop.run_until_complete(run(orders, agents, Path(folder)))


def say(found: Mapping[str, float]) -> None:
    """Print the figures."""
    print(json.dumps({"bench": "agents", **{key: round(value, 3) for key, value in found.items()}}))


if __name__ == "__main__":
    say(measure(*(int(word) for word in sys.argv[1:3])) if len(sys.argv) > 1 else measure(ORDERS))
