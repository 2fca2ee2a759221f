"""Opens what a Slurm cluster needs beside Slurm: who caps its nodes, and who measures them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx

from adapters._agent_caps import agent_caps
from adapters._caps import Cap, NodeCaps
from adapters._dcgm import dcgm_power
from adapters._node_power import MeteredNodes, NodePower, WholeNodes
from adapters._redfish_pool import BmcPool, open_pool
from adapters._slurm_caps import CapAgents
from adapters._slurm_config import AgentNodeCaps, BmcNodeCaps, HttpCaps, SlurmConfig


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


class _Bmcs:
    """The pool, for nodes that it may not have."""

    def __init__(self, pool: BmcPool) -> None:
        self._pool = pool
        self._names = frozenset(pool.names)

    async def look(self, names: Iterable[str]) -> dict[str, Cap]:
        return await self._pool.look(name for name in names if name in self._names)

    async def put(self, name: str, cap_w: float | None, valid_for_s: float | None) -> Cap:
        return await self._pool.put(name, cap_w, valid_for_s)

    def power_w(self, name: str) -> float | None:
        return self._pool.power_w(name) if name in self._names else None


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
            case BmcNodeCaps() as pool:
                caps = bmcs = _Bmcs(await stack.enter_async_context(open_pool(pool)))
                power = MeteredNodes(bmcs, 0.0)
        if config.power_source == "dcgm":
            power = await stack.enter_async_context(dcgm_power(config.dcgm, client))
        elif config.power_source in ("slurm", "model"):
            power = None
        who = config.capped_by
        yield Sources(caps, power, who is not None and who.lease, remembers=not isinstance(who, HttpCaps))
