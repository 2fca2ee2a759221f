"""What an agent does with time, on a clock that moves when told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.agent.fake import Fake
from vppd.agent.agent import Agent
from vppd.agent.config import AgentConfig, BrokerTable
from vppd.agent.device import Device
from vppd.agent.inventory import Inventory
from vppd.agent.wire import Command, encode_command
from vppd.runtime.clock import FakeClock
from vppd.runtime.watchdog import Notifier


class OneGpu(Inventory):
    """A node with one device in memory."""

    def __init__(self, device: Fake, clock: FakeClock) -> None:
        super().__init__(gpus=False, cpus=False, powercap=Path("/nonexistent"), mono_s=clock.mono_s)
        self.device = device

    def devices(self, *, lost: bool = False) -> dict[str, Device]:
        """Return it."""
        return {self.device.name: self.device}


class Rig:
    """An agent without a broker, told by hand."""

    def __init__(self, folder: Path, spread_s: float = 0.0) -> None:
        self.clock, self.device = FakeClock(), Fake("GPU-a")
        broker = BrokerTable(host="127.0.0.1", insecure_lab=True)
        config = AgentConfig(site="s", node="n", broker=broker, state_dir=folder, restore_spread_s=spread_s)
        self.agent = Agent(config, self.clock, Notifier("", self.clock), OneGpu(self.device, self.clock))
        self.agent._begin()

    def come(self, seq: int, lease_s: float) -> None:
        """Let a command for 400 W arrive. [s]"""
        self.agent._command_came(encode_command(Command("id", "vppd", seq, lease_s, 400.0)), False)

    async def round(self) -> None:
        """Do what the loop does once, beats apart."""
        while self.agent._inbox:
            await self.agent._take(*self.agent._inbox.popleft())
        if self.agent._lease.ended(self.clock.mono_s()):
            await self.agent._let_go("the lease has ended")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A node with one GPU at 700 W."""
    rig = Rig(tmp_path)
    yield rig
    rig.agent._worker.shutdown()


async def test_a_lease_counts_from_when_the_command_came(rig: Rig) -> None:
    """A command that waited 4 s for a slow driver has 6 s of its 10 left."""
    rig.come(1, 10.0)
    rig.clock.advance(4.0)
    await rig.round()
    assert rig.device.limit_w == 400.0
    rig.clock.advance(5.9)
    await rig.round()
    assert rig.device.limit_w == 400.0
    rig.clock.advance(0.2)
    await rig.round()
    assert rig.device.limit_w == 700.0


async def test_a_command_whose_lease_is_over_is_not_begun(rig: Rig) -> None:
    """A command that waited longer than its lease changes nothing, and the next one counts."""
    rig.come(1, 10.0)
    rig.clock.advance(10.0)
    await rig.round()
    assert rig.device.calls == []
    rig.come(2, 10.0)
    await rig.round()
    assert rig.device.limit_w == 400.0


async def test_nodes_let_go_in_their_own_turn(tmp_path: Path) -> None:
    """With a spread of 100 s this node waits its part, always the same by its name, and a command in it still counts."""
    rig = Rig(tmp_path, spread_s=100.0)
    late_s = rig.agent._lease.late_s
    assert 0.0 < late_s < 100.0
    rig.come(1, 10.0)
    await rig.round()
    rig.clock.advance(10.0 + late_s - 0.1)
    await rig.round()
    assert rig.device.limit_w == 400.0
    assert rig.agent._state(rig.clock.mono_s()) == "restoring"
    rig.clock.advance(0.2)
    await rig.round()
    assert rig.device.limit_w == 700.0
    rig.agent._worker.shutdown()
