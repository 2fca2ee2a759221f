"""Reconnecting: back-off, one line per loss, bugs and cancellation get through."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Never

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from vppd.errors import DeviceError, Garbled, Refused, Unreachable
from vppd.runtime.clock import SystemClock
from vppd.runtime.supervise import Backoff, Bounded, Link, Up, supervise

CLOCK = SystemClock()
EVEN = Backoff(first_s=1.0, most_s=30.0, forgive_after_s=120.0, connect_s=5.0)


class NoJitter(Random):
    """Chance that always says the upper end."""

    def uniform(self, a: float, b: float) -> float:
        """Return the upper end."""
        return b


class Bench:
    """A supervised device whose life is scripted: how long each run lasts, and what ends it."""

    def __init__(self, *lives: tuple[float, BaseException | None]) -> None:
        self.lives = list(lives)
        self.connected_s: list[float] = []
        self.closed = 0
        self.states: list[bool] = []

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[str]:
        """Open."""
        self.connected_s.append(round(CLOCK.mono_s(), 3))
        try:
            yield "device"
        finally:
            self.closed += 1

    async def run(self, _: str, up: Up) -> None:
        """Live, then die as scripted."""
        lasts_s, ending = self.lives.pop(0)
        if lasts_s > 0:
            up()
        await asyncio.sleep(lasts_s)
        if ending is not None:
            raise ending

    async def supervise(
        self, connect: Callable[[], AbstractAsyncContextManager[str]] | None = None, run: object = None
    ) -> Never:
        """Supervise it."""
        link = Link("ups-1", self.states.append)
        await supervise(link, connect or self.connect, self.run, CLOCK, NoJitter(), EVEN)


async def for_a_while(work: Awaitable[Never], lasts_s: float) -> None:
    """Run and cancel."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(lasts_s):
            await work


@pytest.mark.looptime
async def test_waits_double_from_one_second_to_thirty() -> None:
    """Attempts at 0, 1, 3, 7, 15, 31, then every 30 s."""
    bench = Bench(*[(0.0, Unreachable("no route"))] * 20)
    await for_a_while(bench.supervise(), 100.0)
    assert bench.connected_s == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 61.0, 91.0]
    assert bench.closed == len(bench.connected_s)


@pytest.mark.looptime
async def test_a_long_run_clears_the_record_and_a_short_one_does_not() -> None:
    """After 120 s of service the next wait is one second again."""
    bench = Bench(
        (0, Unreachable("a")), (0, Unreachable("b")), (10, Unreachable("c")), (120, Unreachable("d")), (999, None)
    )
    await for_a_while(bench.supervise(), 300.0)
    assert bench.connected_s == [0.0, 1.0, 3.0, 17.0, 138.0]


@given(failures=st.integers(1, 10_000), seed=st.integers())
def test_every_wait_is_between_four_fifths_of_a_second_and_thirty(failures: int, seed: int) -> None:
    """However long a device is gone, and never at the same moment as all the others."""
    assert 0.8 <= Backoff().wait_s(failures, Random(seed)) <= 30.0


@pytest.mark.looptime
async def test_loss_and_recovery_are_said_once() -> None:
    """Ten failed attempts are one line; the connection alone is no recovery, an answer is."""
    lost = (0.0, Unreachable("no route"))
    bench = Bench((1.0, Unreachable("reset")), *[lost] * 3, (50.0, None), lost, (999.0, None))
    with capture_logs() as logs:
        await for_a_while(bench.supervise(), 200.0)
    assert [e["event"] for e in logs] == ["device_lost", "device_recovered", "device_lost", "device_recovered"]
    assert logs[0]["reason"] == "reset"
    assert logs[0]["asset"] == "ups-1"


@pytest.mark.looptime
async def test_the_first_connection_is_no_recovery() -> None:
    """Nothing is logged about a device that simply works."""
    bench = Bench((5.0, None))
    with capture_logs() as logs:
        await for_a_while(bench.supervise(), 4.0)
    assert (logs, bench.states) == ([], [True])


@pytest.mark.looptime
async def test_a_group_of_device_errors_alone_is_a_device_error() -> None:
    """Poller and actuator may fail together, also in groups within groups."""
    group = ExceptionGroup("x", [Garbled("a"), ExceptionGroup("y", [Unreachable("b")])])
    bench = Bench((0.0, group), (999.0, None))
    await for_a_while(bench.supervise(), 10.0)
    assert bench.connected_s == [0.0, 1.0]


@pytest.mark.parametrize(
    "bug",
    [
        KeyError("power"),
        TimeoutError("leaked"),
        ExceptionGroup("x", [Unreachable("a"), KeyError("power")]),
        ExceptionGroup("x", [ExceptionGroup("y", [ValueError("deep")]), Refused("no")]),
    ],
    ids=["plain", "foreign-timeout", "mixed-group", "nested-group"],
)
@pytest.mark.looptime
async def test_anything_else_escapes(bug: BaseException) -> None:
    """A bug is not waited out: it takes the daemon down, and the device has been closed."""
    bench = Bench((1.0, bug), (999.0, None))
    with pytest.raises(type(bug)) as caught:
        await bench.supervise()
    assert caught.value is bug
    assert bench.closed == 1


@pytest.mark.looptime
async def test_cancellation_during_a_run_gets_through() -> None:
    """And the device is closed first."""
    bench = Bench((999.0, None))
    task = asyncio.ensure_future(bench.supervise())
    await asyncio.sleep(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.closed == 1


@pytest.mark.looptime
async def test_cancellation_during_a_wait_gets_through() -> None:
    """A daemon with a dead device stops as fast as any."""
    bench = Bench(*[(0.0, Unreachable("x"))] * 9)
    task = asyncio.ensure_future(bench.supervise())
    await asyncio.sleep(20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.looptime
async def test_cancellation_covered_up_by_a_failing_child_gets_through() -> None:
    """A TaskGroup drops its parent's cancellation when a child fails while being cancelled."""
    bench = Bench()

    async def fails_on_the_way_out() -> None:
        try:
            await asyncio.sleep(999)
        finally:
            raise Unreachable("reset while closing")

    async def run(_: str, up: Up) -> None:
        up()
        async with asyncio.TaskGroup() as group:
            group.create_task(fails_on_the_way_out())

    task = asyncio.ensure_future(supervise(Link("a", bench.states.append), bench.connect, run, CLOCK, NoJitter()))
    await asyncio.sleep(5)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=100.0)
    assert done
    assert task.cancelled()


@pytest.mark.looptime
async def test_a_child_that_fails_in_a_group_is_a_loss_and_not_a_shutdown() -> None:
    """A TaskGroup whose child fails marks its own task as cancelled: the supervisor must go on all the same."""
    bench = Bench()

    async def fails() -> None:
        await asyncio.sleep(1)
        raise Unreachable("cable pulled")

    async def run(_: str, up: Up) -> None:
        up()
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(asyncio.sleep(999))

    link = Link("a", bench.states.append)
    await for_a_while(supervise(link, bench.connect, run, CLOCK, NoJitter(), EVEN), 20.0)
    assert bench.connected_s == [0.0, 2.0, 5.0, 10.0, 19.0]


@pytest.mark.looptime
async def test_a_close_that_hangs_neither_holds_up_nor_covers_up() -> None:
    """The bug that ended the run comes out, five seconds later."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[str]:
        try:
            yield "device"
        finally:
            await asyncio.Event().wait()

    async def run(_: str, __: Up) -> None:
        raise KeyError("power")

    with pytest.raises(KeyError):
        await supervise(Link("a", lambda _: None), connect, run, CLOCK, NoJitter(), EVEN)
    assert CLOCK.mono_s() == pytest.approx(5.0)


@pytest.mark.looptime
async def test_a_connection_that_hangs_is_a_loss() -> None:
    """Five seconds each, then the back-off."""
    tried: list[float] = []

    @asynccontextmanager
    async def connect() -> AsyncIterator[str]:
        tried.append(CLOCK.mono_s())
        await asyncio.Event().wait()
        yield "device"

    await for_a_while(Bench().supervise(connect), 20.0)
    assert tried == pytest.approx([0.0, 6.0, 13.0])


@pytest.mark.looptime
async def test_bounded_raises_what_closing_raises_when_nothing_went_wrong_before() -> None:
    """A lost close after a good run is a loss."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[str]:
        yield "device"
        raise Unreachable("gone")

    with pytest.raises(DeviceError, match="gone"):
        async with Bounded(connect(), 1.0):
            pass
