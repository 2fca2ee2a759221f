"""A Slurm cluster whose nodes are measured and capped by their BMCs, over real sockets."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from adapters._slurm_config import SlurmConfig
from adapters.slurm import connect_through
from tests.adapters.redfish_bmcs import PASSWORD, USER, Behaviour, farm
from tests.adapters.slurm_fake import FakeSlurm
from tests.adapters.slurm_rig import apply
from vppd.model import Sample

NODE_W, IDLE_W, MAX_W = 6000.0, 2000.0, 7000.0
NODES = ("n1", "n2", "n3", "n4", "n5")


async def test_measured_capped_and_given_back(tmp_path: Path) -> None:
    """The BMCs' power is read; a budget caps the nodes that may be, around a dead BMC and a node without one; limits are as before."""
    slurm = FakeSlurm(nodes=NODES)
    for tier, node in zip((0, 3, 3, 3, 3), NODES, strict=True):
        slurm.add(tier, node=node, cpus=4)
    for name, text in (("token", "good"), ("password", PASSWORD)):
        await asyncio.to_thread((tmp_path / name).write_text, text)
    how = {name: Behaviour(demand_w=NODE_W) for name in NODES[:4]}
    how["n2"].limit_w, how["n4"].dead = 9000.0, "gone"
    async with AsyncExitStack() as stack:
        bmcs = await stack.enter_async_context(farm(how))
        caps = {
            "via": "redfish",
            "bmcs": bmcs.addresses,
            "user_name": USER,
            "password_file": tmp_path / "password",
            "insecure": True,
            "journal": tmp_path / "bmcs.json",
            "refresh_s": 0.2,
        }
        config = SlurmConfig.model_validate(
            {
                "url": "http://slurm",
                "token_file": tmp_path / "token",
                "node_idle_w": IDLE_W,
                "node_max_w": MAX_W,
                "journal": tmp_path / "journal.json",
                "power_source": "redfish",
                "caps": caps,
            }
        )
        client = await stack.enter_async_context(httpx.AsyncClient(transport=httpx.MockTransport(slurm)))
        async with connect_through(client, config) as cluster:

            async def settled(power_w: float) -> Sample:
                deadline_s = time.monotonic() + 30.0
                while (sample := await cluster.read()).power_w != pytest.approx(power_w):
                    assert time.monotonic() < deadline_s, sample
                    await asyncio.sleep(0.1)
                return sample

            total_w = 3 * NODE_W + 2 * MAX_W
            await settled(total_w)
            applied = await apply(cluster, total_w - 2500.0)
            assert applied.power_w == total_w - 2500.0, applied.detail
            assert "cannot be capped: n4, n5" in applied.detail
            assert bmcs["n1"].cap_w is None
            assert sum(bmcs[name].power_w for name in NODES[:3]) == pytest.approx(3 * NODE_W - 2500.0, abs=25.0)
            assert not slurm.stopped()
            sample = await settled(sum(bmcs[name].power_w for name in NODES[:3]) + 2 * MAX_W)
            assert sample.available_w == pytest.approx(total_w)
            await cluster.release()
            assert (bmcs["n2"].cap_w, bmcs["n1"].cap_w) == (9000.0, None)
            await settled(total_w)
