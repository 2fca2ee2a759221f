"""A Slurm cluster whose nodes are measured and capped by their agents, over a real broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from adapters._slurm_config import SlurmConfig
from adapters.slurm import SlurmCluster, connect_through
from tests.adapters.slurm_fake import FakeSlurm
from tests.adapters.slurm_rig import apply
from tests.servers.agent_swarm import GPUS, SwarmAgent, swarm
from tests.servers.mosquitto import Mosquitto

pytestmark = [pytest.mark.integration]
GPU_W, REST_W = 650.0, 1500.0
NODE_W = GPUS * GPU_W + REST_W
NODES = ("n1", "n2", "n3", "n4")


@dataclass(frozen=True, slots=True)
class Hall:
    """Four nodes with a job each, of tiers 0, 3, 3 and 3, and the agents of all of them."""

    slurm: FakeSlurm
    agents: dict[str, SwarmAgent]
    config: SlurmConfig

    def caps_w(self) -> list[float | None]:
        """Return what the agents hold. [W]"""
        return [self.agents[name].cap_w for name in NODES]

    def power_w(self) -> float:
        """Return what the nodes really draw. [W]"""
        return sum(agent.power_w + REST_W for agent in self.agents.values())


@pytest.fixture
async def hall(mosquitto: Mosquitto, tmp_path: Path) -> AsyncIterator[Hall]:
    """The agents speak four times a second."""
    slurm = FakeSlurm(nodes=NODES)
    for tier, node in zip((0, 3, 3, 3), NODES, strict=True):
        slurm.add(tier, node=node, cpus=4)
    token = tmp_path / "token"
    await asyncio.to_thread(token.write_text, "good")
    config = SlurmConfig.model_validate(
        {
            "url": "http://slurm",
            "token_file": token,
            "node_idle_w": 2000.0,
            "node_max_w": GPUS * 700.0 + REST_W,
            "journal": tmp_path / "journal.json",
            "power_source": "agents",
            "caps": {
                "via": "agents",
                "host": mosquitto.host,
                "port": mosquitto.port,
                "site": "dc1",
                "node_rest_w": REST_W,
                "stale_s": 2.0,
                "ack_timeout_s": 3.0,
            },
        }
    )
    async with swarm(mosquitto.host, mosquitto.port, "dc1", NODES, demand_w=GPU_W, telemetry_s=0.25) as agents:
        yield Hall(slurm, agents, config)


@asynccontextmanager
async def connected(hall: Hall) -> AsyncIterator[SlurmCluster]:
    """Connect to Slurm in memory and to the agents through the broker."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(transport=httpx.MockTransport(hall.slurm)))
        yield await stack.enter_async_context(connect_through(client, hall.config))


async def soon(claim: Callable[[], bool], what: str, for_s: float = 20.0) -> None:
    """Wait until a claim holds."""
    deadline_s = time.monotonic() + for_s
    while not claim():
        assert time.monotonic() < deadline_s, what
        await asyncio.sleep(0.05)


async def test_measured_capped_and_given_back(hall: Hall) -> None:
    """What the agents measure is what is read; a budget caps the nodes whose jobs may be slowed, holds there, and is lifted again."""
    async with connected(hall) as cluster:
        assert (await cluster.read()).power_w == pytest.approx(4 * NODE_W)
        budget_w = 4 * NODE_W - 3000.0
        assert (await apply(cluster, budget_w)).power_w == budget_w
        assert hall.caps_w()[0] is None
        assert hall.power_w() <= budget_w + 1.0
        assert hall.power_w() >= budget_w - 100.0
        await asyncio.sleep(1.0)
        sample = await cluster.read()
        assert sample.power_w == pytest.approx(hall.power_w())
        assert sample.available_w == pytest.approx(4 * NODE_W)
        assert not hall.slurm.stopped()
        await cluster.release()
        assert hall.caps_w() == [None] * 4


async def test_a_cap_that_is_lost_is_written_again(hall: Hall) -> None:
    """An agent that has let its cap go, as one that was started anew, is capped again within some seconds."""
    async with connected(hall) as cluster:
        await apply(cluster, 4 * NODE_W - 3000.0, 300.0)  # not renewed for a minute
        lost = hall.agents["n2"]
        lost._holder.restore()
        lost._report("", "started anew")
        assert hall.caps_w()[1] is None
        await soon(lambda: hall.caps_w()[1] is not None, "n2 is capped again")


async def test_others_give_for_a_silent_node(hall: Hall) -> None:
    """When a node falls silent it is named, and the others are capped deeper, so that the budget holds however it goes on."""
    async with connected(hall) as cluster:
        budget_w = 4 * NODE_W - 3000.0
        await apply(cluster, budget_w)
        before_w = hall.caps_w()[2]
        assert before_w is not None
        hall.agents["n2"].is_mute = True

        def deeper() -> bool:
            third_w = hall.caps_w()[2]
            return third_w is not None and third_w < before_w - 100.0

        await soon(deeper, "n3 gives for n2", 40.0)
        assert sum(hall.agents[name].power_w + REST_W for name in ("n1", "n3", "n4")) + NODE_W <= budget_w + 200.0
        hall.agents["n2"].is_mute = False
        await soon(lambda: (hall.caps_w()[2] or 0.0) >= before_w - 1.0, "n3 need not give for n2 any more", 40.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"power_source": "agents"},
        {"power_source": "agents", "caps": {"via": "http", "url": "http://x", "lease": True}},
        {"caps": {"via": "http", "url": "http://x"}},
        {"caps": {"via": "carrier pigeon", "url": "http://x"}},
        {"caps": {"via": "agents", "host": "h"}},
        {"caps": {"via": "http", "url": "http://x", "lease": True}, "cap_url": "http://y"},
    ],
)
def test_refused_configurations(wrong: dict[str, Any]) -> None:
    """Sources that are not there, and caps told twice or not at all, are refused."""
    with pytest.raises(ValidationError):
        SlurmConfig.model_validate({"command_line": True, **wrong})
