"""A cluster's scheduler is told of what was sold: on change, after a connection, and again when it failed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from tests.runtime.rig import CLOCK
from vppd.errors import Unreachable
from vppd.model import Applied
from vppd.ports import Reservable, Window
from vppd.runtime.link import Device, attend
from vppd.runtime.poller import Pace
from vppd.runtime.table import LatestValues
from vppd.runtime.windows import RETRY_S, Windows
from vppd.testing.fakes import FakeDevice

PACE = Pace(every_s=1.0, limit_s=2.0)
TEN = datetime(2026, 6, 10, 10, tzinfo=UTC)


def window(hour: int, power_w: float = 1e3) -> Window:
    """Return a window of an hour."""
    return Window(TEN + timedelta(hours=hour), TEN + timedelta(hours=hour + 1), power_w)


class Scheduler:
    """Takes reservations, or cannot be reached."""

    def __init__(self) -> None:
        self.calls: list[tuple[Window, ...]] = []
        self.failures = 0

    async def reserve(self, windows: Sequence[Window]) -> tuple[Applied, ...]:
        """Note what is asked for."""
        self.calls.append(tuple(windows))
        if self.failures:
            self.failures -= 1
            raise Unreachable("no answer")
        return tuple(Applied(w.power_w) for w in windows)


async def for_a_while(windows: Windows, scheduler: Reservable, for_s: float) -> None:
    """Keep a connected cluster told for some time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(for_s):
            await windows.keep(scheduler)


@pytest.mark.looptime
async def test_nothing_is_touched_before_somebody_knows() -> None:
    """At the start nobody knows yet what has been sold: an earlier process's reservations stay."""
    scheduler = Scheduler()
    await for_a_while(Windows("hall"), scheduler, 100.0)
    assert scheduler.calls == []


@pytest.mark.looptime
async def test_only_changes_are_told_and_every_connection_hears_all() -> None:
    """The same windows again are no news; a new connection hears them once more."""
    scheduler, windows = Scheduler(), Windows("hall")
    windows.want([window(0)])
    windows.want([window(0)])
    await for_a_while(windows, scheduler, 100.0)
    assert scheduler.calls == [(window(0),)]
    assert windows.kept == (Applied(1e3),)
    await for_a_while(windows, scheduler, 100.0)
    assert len(scheduler.calls) == 2
    windows.want([])
    await for_a_while(windows, scheduler, 100.0)
    assert scheduler.calls[-1] == ()


@pytest.mark.looptime
async def test_a_failure_is_tried_again_until_it_is_taken() -> None:
    """The link stays up; so many pauses later the windows are kept."""
    scheduler, windows = Scheduler(), Windows("hall")
    scheduler.failures = 3
    windows.want([window(0), window(1)])
    await for_a_while(windows, scheduler, 3.5 * RETRY_S)
    assert len(scheduler.calls) == 4
    assert len(windows.kept) == 2


@pytest.mark.looptime
async def test_what_is_wanted_meanwhile_replaces_what_failed() -> None:
    """A retry never tells what is not wanted any more, and does not wait for its turn."""
    scheduler, windows = Scheduler(), Windows("hall")
    scheduler.failures = 1
    windows.want([window(0)])
    loop = asyncio.get_running_loop()
    loop.call_later(1.0, windows.want, [window(1)])
    await for_a_while(windows, scheduler, 5.0)
    assert scheduler.calls == [(window(0),), (window(1),)]


class Cluster(FakeDevice):
    """A cluster whose scheduler can be told of windows."""

    def __init__(self) -> None:
        super().__init__(CLOCK.mono_s)
        self.scheduler = Scheduler()

    async def reserve(self, windows: Sequence[Window]) -> tuple[Applied, ...]:
        """Note what is asked for."""
        return await self.scheduler.reserve(windows)


@pytest.mark.looptime
async def test_an_attended_cluster_is_told_after_each_connection() -> None:
    """Lost and found again, it hears of all windows once more; a device that cannot be told is left in peace."""
    cluster, windows = Cluster(), Windows("hall")
    windows.want([window(0)])
    table = LatestValues(["hall", "meter"])
    hall = Device("hall", cluster.connect, PACE, windows=windows)
    meter = Device("meter", FakeDevice(CLOCK.mono_s).connect, PACE, windows=Windows("meter"))
    tasks = [asyncio.ensure_future(attend(device, table, CLOCK, Random(1))) for device in (hall, meter)]
    await asyncio.sleep(5.0)
    assert cluster.scheduler.calls == [(window(0),)]
    cluster.read_fault = Unreachable("cable pulled")
    await asyncio.sleep(5.0)
    cluster.read_fault = None
    await asyncio.sleep(60.0)
    assert len(cluster.scheduler.calls) >= 2
    assert table.frame().online.all()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
