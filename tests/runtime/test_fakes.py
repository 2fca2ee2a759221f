"""The stand-ins behave as what they stand for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from vppd.errors import Garbled, Refused, Unreachable
from vppd.model import Event, Inbound, Outbound, Setpoint
from vppd.ports import Controllable, DispatchChannel, Ledger, Polled, Streaming
from vppd.runtime.clock import FakeClock
from vppd.testing.fakes import FakeChannel, FakeDevice, MemoryLedger, ScriptedStream

AT = datetime(2026, 1, 1, tzinfo=UTC)


async def test_a_device_ramps_and_falls_back_when_its_lease_ends() -> None:
    """10 kW a second up, and back down by itself after the lease."""
    clock = FakeClock()
    device = FakeDevice(clock.mono_s, ramp_w_per_s=10_000.0)
    assert (await device.apply(Setpoint("a", -30_000.0, 20.0))).power_w == -30_000.0
    seen_w = []
    for _ in range(5):
        clock.advance(1.0)
        seen_w.append((await device.read()).power_w)
    assert seen_w == [-10_000.0, -20_000.0, -30_000.0, -30_000.0, -30_000.0]
    clock.advance(17.0)
    sample = await device.read()
    assert (sample.power_w, sample.setpoint_w) == (-10_000.0, None)


async def test_devices_are_what_the_ports_ask_for() -> None:
    """By structure, as an adapter's would be."""
    device = FakeDevice(FakeClock().mono_s)
    assert isinstance(device, Polled)
    assert isinstance(device, Controllable)
    assert isinstance(ScriptedStream([]), Streaming)


async def test_the_ledger_keeps_all_or_none_and_a_key_once() -> None:
    """As the real one does."""
    ledger: Ledger = MemoryLedger()
    await ledger.append(Event("orders", "a", AT, key="k"), Event("outbox", "b", AT))
    with pytest.raises(Refused):
        await ledger.append(Event("orders", "c", AT), Event("orders", "d", AT, key="k"))
    assert [r.event.kind for r in ledger.events()] == ["a", "b"]
    assert [r.id for r in ledger.events("outbox")] == [2]
    assert [r.id for r in ledger.events(after=1)] == [2]


async def test_the_ledger_notices_a_changed_event() -> None:
    """The chain breaks where it was changed."""
    ledger = MemoryLedger()
    await ledger.append(Event("orders", "a", AT), Event("orders", "b", AT))
    ledger.recorded[0] = replace(ledger.recorded[0], event=Event("orders", "x", AT))
    with pytest.raises(Garbled, match="event 1"):
        list(ledger.events())


async def test_the_ledger_fails_on_demand() -> None:
    """And keeps nothing then."""
    ledger = MemoryLedger(fault=Unreachable("no space left on device"))
    with pytest.raises(Unreachable):
        await ledger.append(Event("orders", "a", AT))
    assert ledger.recorded == []


async def test_the_channel_delivers_and_keeps() -> None:
    """What was delivered comes in, in order; what was published is there to look at."""
    fake = FakeChannel()
    channel: DispatchChannel = fake
    message = Inbound("t", b"x", 1, False)
    fake.deliver(message)
    async for came in channel.messages():
        await channel.ack(came)
        break
    await channel.publish(Outbound("u", b"y"))
    fake.fault = Unreachable("broker gone")
    with pytest.raises(Unreachable):
        await channel.publish(Outbound("u", b"z"))
    assert (fake.acked, fake.published) == ([message], [Outbound("u", b"y")])
