"""A served site for the tests of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from vppd.sim.serve import Endpoints, serve
from vppd.sim.site import Site

TOKEN = "open-sesame"


@dataclass(frozen=True, slots=True)
class ServedSite:
    """A running site, where it listens, and a client for its HTTP parts."""

    site: Site
    endpoints: Endpoints
    http: httpx.AsyncClient

    def slurm(self, path: str, hall: str = "hall-a", version: str = "v0.0.38") -> str:
        """Return the URL of a slurmrestd path."""
        return f"{self.endpoints.halls[hall]}/slurm/{version}/{path}"

    def cap(self, node: str, hall: str = "hall-a") -> str:
        """Return the URL of a node's power cap."""
        return f"{self.endpoints.halls[hall]}/vppd-sim/v1/nodes/{node}"

    def control(self, path: str) -> str:
        """Return the URL of a control path."""
        return f"{self.endpoints.control_url}/vppd-sim/v1/{path}"


@pytest.fixture
async def served_site() -> AsyncIterator[ServedSite]:
    """The default site on loopback, without a building bus."""
    clock = asyncio.get_running_loop().time
    site = Site(1, clock, lambda: 1_800_000_000.0 + clock())
    headers = {"X-SLURM-USER-NAME": "vppd", "X-SLURM-USER-TOKEN": TOKEN}
    async with serve(site, token=TOKEN) as endpoints, httpx.AsyncClient(headers=headers, timeout=5.0) as http:
        yield ServedSite(site, endpoints, http)
