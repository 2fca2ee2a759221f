"""A device from its connection to the table and the actuator, through loss and recovery."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.runtime.rig import CLOCK, LEASE_S, Book
from vppd.errors import Unreachable
from vppd.model import Kind, Outcome, Sample, Setpoint
from vppd.ports import Planner
from vppd.runtime.actuator import Actuator
from vppd.runtime.cluster_actuator import ClusterActuator
from vppd.runtime.curtailer import Curtailer
from vppd.runtime.curtailer import Terms as CurtailTerms
from vppd.runtime.intents import Terms
from vppd.runtime.link import Connect, Device, attend
from vppd.runtime.poller import Pace
from vppd.runtime.table import LatestValues
from vppd.testing.fakes import FakeDevice, ScriptedStream

pytestmark = pytest.mark.looptime
PACE = Pace(every_s=1.0, limit_s=2.0)


@asynccontextmanager
async def attended(
    table: LatestValues, asset_id: str, connect: Connect, actuator: Actuator | None
) -> AsyncIterator[None]:
    """Attend a device for the length of the block; a bug comes out."""
    task = asyncio.ensure_future(attend(Device(asset_id, connect, PACE, actuator), table, CLOCK, Random(1)))
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def actuator_of(table: LatestValues, book: Book) -> Actuator:
    """Return an actuator for the only asset."""
    terms = Terms(Kind.UPS, tolerance_w=1_000.0, limit_s=2.0, fresh_s=3.0)
    return Actuator("ups-1", terms, CLOCK, book, lambda bad: table.set_rejected(0, bad), touched=False)


async def test_a_device_is_read_commanded_lost_and_found_again() -> None:
    """One setpoint through a broken link: unknown, then read, then confirmed - and the table tells all of it."""
    table, book, device = LatestValues(["ups-1"]), Book(), FakeDevice(CLOCK.mono_s)
    actuator = actuator_of(table, book)

    async def live(lasts_s: int) -> None:
        for _ in range(lasts_s):
            actuator.aim(Setpoint("ups-1", -50_000.0, LEASE_S))
            await asyncio.sleep(1.0)

    async with attended(table, "ups-1", device.connect, actuator):
        await live(3)
        assert table.frame().power_w[0] == -50_000.0
        assert book.news == [Outcome.CONFIRMED]
        device.read_fault = device.write_fault = Unreachable("cable pulled")
        await live(10)
        assert not table.frame().online[0]
        assert CLOCK.mono_s() - table.frame().mono_s[0] > 9.0
        device.read_fault = device.write_fault = None
        await live(20)
        assert table.frame().online[0]
        assert table.frame().power_w[0] == -50_000.0
        assert len(book.intents) == 1
        assert not table.frame().rejected[0]


async def test_a_device_that_is_not_there_counts_as_tried() -> None:
    """A plant with one dead device still gets ready."""
    table, device = LatestValues(["a"]), FakeDevice(CLOCK.mono_s)
    device.read_fault = Unreachable("no route")
    async with attended(table, "a", device.connect, None):
        await asyncio.wait_for(table.all_tried(), 1.0)
        assert not table.frame().online[0]


async def test_a_stream_that_says_nothing_counts_as_tried_after_its_limit() -> None:
    """And it is not taken for online."""
    table = LatestValues(["a"])

    @asynccontextmanager
    async def connect() -> AsyncIterator[object]:
        yield ScriptedStream([])

    async with attended(table, "a", connect, None):
        began_s = CLOCK.mono_s()
        await table.all_tried()
        assert CLOCK.mono_s() - began_s == pytest.approx(PACE.limit_s)
        assert not table.frame().online[0]


async def test_a_streaming_device_fills_the_table() -> None:
    """As it speaks."""
    table = LatestValues(["a"])

    @asynccontextmanager
    async def connect() -> AsyncIterator[object]:
        yield ScriptedStream([(1.0, Sample(power_w=5.0))])

    async with attended(table, "a", connect, None):
        await asyncio.sleep(1.5)
        assert table.frame().power_w[0] == 5.0
        assert table.frame().online[0]


async def test_a_device_that_cannot_be_commanded_is_flagged_not_fatal() -> None:
    """The configuration wants control, the device offers none: it is isolated and read."""
    table, book = LatestValues(["ups-1"]), Book()
    inner = FakeDevice(CLOCK.mono_s, default_w=7.0)

    class ReadOnly:
        async def read(self) -> Sample:
            return await inner.read()

    @asynccontextmanager
    async def connect() -> AsyncIterator[object]:
        yield ReadOnly()

    with capture_logs() as logs:
        async with attended(table, "ups-1", connect, actuator_of(table, book)):
            await asyncio.sleep(2.0)
            assert table.frame().rejected[0]
            assert table.frame().power_w[0] == 7.0
    assert [e["event"] for e in logs] == ["device_takes_no_setpoints"]


async def test_a_bug_in_the_adapter_takes_the_daemon_down() -> None:
    """It comes out of the group with the poller's and actuator's tasks ended."""
    table, book = LatestValues(["ups-1"]), Book()

    class Broken(FakeDevice):
        async def read(self) -> Sample:
            raise ZeroDivisionError

    @asynccontextmanager
    async def connect() -> AsyncIterator[object]:
        yield Broken(CLOCK.mono_s)

    with pytest.raises(ExceptionGroup) as caught:
        await attend(Device("ups-1", connect, PACE, actuator_of(table, book)), table, CLOCK, Random(1))
    assert caught.group_contains(ZeroDivisionError)


async def test_a_thousand_devices_spread_and_stop_at_once() -> None:
    """An hour of a thousand points would be long; ten seconds of them are enough to see every one read ten times."""
    n, rng = 1_000, Random(3)
    table = LatestValues([f"a{i}" for i in range(n)])
    devices = [FakeDevice(CLOCK.mono_s, default_w=float(i)) for i in range(n)]
    tasks = [
        asyncio.ensure_future(
            attend(Device(f"a{i}", device.connect, Pace(1.0, 2.0, rng.random())), table, CLOCK, Random(i))
        )
        for i, device in enumerate(devices)
    ]
    await asyncio.sleep(10.0)
    assert np.array_equal(table.frame().power_w, np.arange(n, dtype=float))
    assert {device.reads for device in devices} <= {10, 11}
    for task in tasks:
        task.cancel()
    done, pending = await asyncio.wait(tasks, timeout=1.0)
    assert not pending
    assert all(task.cancelled() for task in done)


async def test_a_cluster_gets_its_planner_at_every_connection() -> None:
    """The same one each time, before it is first read; without a planner it goes by its own lights."""
    table, order = LatestValues(["hall"]), list[object]()
    planner = Curtailer("hall", CurtailTerms(), CLOCK.mono_s)

    class Cluster:
        def plan_with(self, given: Planner) -> None:
            order.append(given)

        async def read(self) -> Sample:
            order.append("read")
            if order.count("read") == 2:
                raise Unreachable("gone")
            return Sample(power_w=1.0)

    @asynccontextmanager
    async def connect() -> AsyncIterator[object]:
        yield Cluster()

    device = Device("hall", connect, PACE, None, planner)
    task = asyncio.ensure_future(attend(device, table, CLOCK, Random(1)))
    await asyncio.sleep(5.0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert order[:2] == [planner, "read"]
    assert order.count(planner) == 2


async def test_a_cluster_is_given_back_when_its_jobs_are_back() -> None:
    """Until then it gets an open budget; a planner with nothing to bring back holds up nothing."""
    book, device, waits = Book(), FakeDevice(CLOCK.mono_s), [True]
    terms = Terms(Kind.CLUSTER, tolerance_w=1_000.0, limit_s=2.0, fresh_s=3.0)
    opened = Setpoint("hall", 500_000.0, LEASE_S, "power comes back step by step")
    actuator = ClusterActuator("hall", terms, CLOCK, book, lambda bad: None, opened, lambda: waits[0])
    task = asyncio.ensure_future(actuator.run(device))
    actuator.aim(Setpoint("hall", 100_000.0, LEASE_S, "order-1"))
    await asyncio.sleep(1.0)
    actuator.let_go()
    await asyncio.sleep(1.0)
    assert [intent.power_w for intent in book.intents] == [100_000.0, 500_000.0]
    waits[0] = False
    actuator.let_go()
    await asyncio.sleep(1.0)
    assert [intent.power_w for intent in book.intents] == [100_000.0, 500_000.0, None]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
