"""A few imagined node agents on a real broker, and the adapter connected to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from adapters.gpu_agents import ADAPTER, GpuAgents
from tests.servers.agent_swarm import SwarmAgent, swarm
from tests.servers.mosquitto import Mosquitto
from vppd.model import Applied, Sample, Setpoint

SITE = "dc1"
TELEMETRY_S = 0.1
PATIENCE_S = 20.0
"""For a busy machine; nothing waits that long otherwise. [s]"""
REST_W = 1_500.0
GPU_W = 650.0
FULL_W = 8 * GPU_W
"""What the GPUs of one node draw. [W]"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The adapter at work, and the far ends of its orders."""

    device: GpuAgents
    samples: AsyncIterator[Sample]
    agents: Mapping[str, SwarmAgent]

    async def apply(self, gpus_w: float, lease_s: float = 30.0) -> Applied:
        """Give the nodes a budget for their GPUs; the rest comes on top. [W; s]"""
        return await self.device.apply(Setpoint("gpus", gpus_w + len(self.agents) * REST_W, lease_s))

    async def sample(self) -> Sample:
        """Return the next Sample."""
        async with asyncio.timeout(PATIENCE_S):
            return await anext(self.samples)

    async def until(self, holds: Callable[[Sample], Any]) -> Sample:
        """Return the first Sample that is as it should be."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds(sample := await self.sample()):
                pass
        return sample

    def caps_w(self) -> list[float | None]:
        """Return what each node's GPUs may draw, None for nodes that hold nothing. [W]"""
        return [agent.cap_w for agent in self.agents.values()]


def connection(broker: Mosquitto, **more: Any) -> dict[str, Any]:
    """Return a connection table with short times."""
    quick = {"sample_s": 0.1, "stale_s": 2.0, "ack_timeout_s": 2.0, "release_within_s": 0.05, "timeout_s": 10.0}
    return {"host": broker.host, "port": broker.port, "site": SITE, "tier": 3, **quick, **more}


@asynccontextmanager
async def connected(broker: Mosquitto, agents: Mapping[str, SwarmAgent], **more: Any) -> AsyncIterator[Cluster]:
    """Connect the adapter."""
    async with AsyncExitStack() as stack:
        config = ADAPTER.config.model_validate(connection(broker, **more))
        device = cast("GpuAgents", await stack.enter_async_context(ADAPTER.connect(config)))
        samples = cast("AsyncGenerator[Sample]", device.samples())
        await stack.enter_async_context(aclosing(samples))
        yield Cluster(device, samples, agents)


@asynccontextmanager
async def cluster(
    broker: Mosquitto, names: Sequence[str] = ("a", "b", "c"), *, demand_w: float = GPU_W, **more: Any
) -> AsyncIterator[Cluster]:
    """Start agents and connect the adapter to them."""
    async with (
        swarm(broker.host, broker.port, SITE, names, demand_w=demand_w, telemetry_s=TELEMETRY_S) as agents,
        connected(broker, agents, **more) as found,
    ):
        yield found


async def eventually(holds: Callable[[], Any]) -> None:
    """Return once something holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)
