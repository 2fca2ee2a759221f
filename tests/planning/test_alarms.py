"""Alarms by the machine's clock: APScheduler rings at a time, also when it comes late, and at no time that was taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from vppd.planning.trade.alarms import ScheduledAlarms
from vppd.runtime.clock import SystemClock

PATIENCE_S = 20.0


class Bell:
    """Counts."""

    def __init__(self) -> None:
        self.rung = 0
        self._rings = asyncio.Event()

    def ring(self) -> None:
        """Count one."""
        self.rung += 1
        self._rings.set()

    async def heard(self) -> None:
        """Return once it has rung since the last call."""
        async with asyncio.timeout(PATIENCE_S):
            await self._rings.wait()
        self._rings.clear()


@pytest.fixture
async def bell() -> Bell:
    """A bell."""
    return Bell()


@pytest.fixture
async def alarms(bell: Bell) -> AsyncIterator[ScheduledAlarms]:
    """Alarms that ring the bell."""
    made = ScheduledAlarms()
    made.open(bell.ring)
    yield made
    made.close()
    await asyncio.sleep(0)


def soon(for_s: float) -> datetime:
    """Return a time so far ahead (or back)."""
    return SystemClock().now() + timedelta(seconds=for_s)


async def test_it_rings_at_its_time(alarms: ScheduledAlarms, bell: Bell) -> None:
    """Not before, and once."""
    due = soon(0.15)
    alarms.set([due, soon(3600.0)])
    await bell.heard()
    assert SystemClock().now() >= due
    assert bell.rung == 1
    assert len(alarms.waiting) == 1


async def test_what_has_passed_rings_at_once(alarms: ScheduledAlarms, bell: Bell) -> None:
    """A gate that came while the machine slept, hours ago, is heard of all the same."""
    alarms.set([soon(-7200.0)])
    await bell.heard()
    assert bell.rung == 1
    assert not alarms.waiting


async def test_only_the_newest_times_count(alarms: ScheduledAlarms, bell: Bell) -> None:
    """A time that was taken back does not ring; setting the same times again changes nothing."""
    far = datetime(2100, 1, 1, tzinfo=UTC)
    alarms.set([soon(3600.0), far])
    alarms.set([far])
    alarms.set([far])
    assert list(alarms.waiting) == [far]
    alarms.set([])
    assert list(alarms.waiting) == []
    assert bell.rung == 0


async def test_a_timer_that_was_set_before_the_clock_was_is_put_right(alarms: ScheduledAlarms, bell: Bell) -> None:
    """Setting the times anew looks at the clock again: a scheduler whose timer is far too late still rings at once."""
    due = soon(0.1)
    alarms.set([due])
    await asyncio.sleep(0.02)
    alarms._scheduler._stop_timer()  # what a jump of the clock amounts to: the timer will not come in time
    while SystemClock().now() < due:
        await asyncio.sleep(0.02)
    assert bell.rung == 0
    alarms.set([due])
    await bell.heard()
