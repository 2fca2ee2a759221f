"""Opens what a Slurm cluster needs beside Slurm: who caps its nodes, and who measures them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx

from adapters._agent_caps import agent_caps
from adapters._caps import NodeCaps
from adapters._dcgm import dcgm_power
from adapters._node_power import MeteredNodes, NodePower, WholeNodes
from adapters._slurm_caps import CapAgents
from adapters._slurm_config import AgentNodeCaps, HttpCaps, SlurmConfig


@dataclass(frozen=True, slots=True)
class Sources:
    """What stands beside Slurm."""

    caps: NodeCaps | None = None
    power: NodePower | None = None
    """None: Slurm itself tells, or the model."""
    lease: bool = False
    """Caps fall back by themselves when nobody renews them."""
    remembers: bool = False
    """To lift a cap brings back what was before it."""


@asynccontextmanager
async def sources(config: SlurmConfig, client: httpx.AsyncClient) -> AsyncIterator[Sources]:
    """Open them all. Raises Unreachable, Refused or ConfigError."""
    async with AsyncExitStack() as stack:
        caps: NodeCaps | None = None
        power: NodePower | None = None
        match config.capped_by:
            case HttpCaps(url=url):
                caps = CapAgents(client, url)
            case AgentNodeCaps() as bus:
                agents = await stack.enter_async_context(agent_caps(bus))
                caps = WholeNodes(agents, bus.node_rest_w)
                power = MeteredNodes(agents, bus.node_rest_w)
        if config.power_source == "dcgm":
            power = await stack.enter_async_context(dcgm_power(config.dcgm, client))
        elif config.power_source in ("slurm", "model"):
            power = None
        who = config.capped_by
        yield Sources(caps, power, who is not None and who.lease, remembers=not isinstance(who, HttpCaps))
