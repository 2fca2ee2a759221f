"""The adapter and the real ``vppd agent``: its own process, NVIDIA's Python binding, a stand-in for the driver."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.adapters.agents_rig import PATIENCE_S, connected, eventually
from tests.agent.rig import Node
from tests.agent.stub import Stub, compiled
from tests.servers.mosquitto import Mosquitto

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

REST_W = 1_500.0


async def test_a_budget_reaches_the_driver_and_ends_with_the_lease(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Caps land in the driver and come back in the samples; killed and started again, the agent is told again; unrenewed, all is as before."""
    library = await asyncio.to_thread(compiled, tmp_path)
    with Stub(tmp_path, library) as gpus, Node(tmp_path, gpus, mosquitto.port, "gpu-1") as node:
        await asyncio.to_thread(node.start)
        async with connected(mosquitto, {"gpu-1": None}, stale_s=5.0, ack_timeout_s=10.0) as found:  # type: ignore[dict-item]
            sample = await found.sample()
            assert sample.power_w == sample.available_w == 8 * 650.0 + REST_W
            applied = await found.apply(4_000.0)
            assert applied.power_w == 4_000.0 + REST_W
            assert gpus.limits_w == [500.0] * 8
            sample = await found.until(lambda s: s.power_w == pytest.approx(4_000.0 + REST_W, rel=0.01))
            assert sample.available_w == pytest.approx(8 * 650.0 + REST_W, rel=0.01)
            assert sample.setpoint_w == 4_000.0 + REST_W

            node.kill()
            await asyncio.to_thread(node.start)
            await eventually(lambda: gpus.limits_w == [500.0] * 8)

            await found.apply(4_400.0, lease_s=5.0)
            assert gpus.limits_w == [550.0] * 8
            async with asyncio.timeout(PATIENCE_S):
                await eventually(lambda: gpus.limits_w == [700.0] * 8)
            await found.until(lambda s: s.setpoint_w is None and s.power_w == 8 * 650.0 + REST_W)
