"""Beats, limits, steps of the wall clock."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from vppd.errors import Unreachable
from vppd.runtime.clock import (
    STA_UNSYNC,
    FakeClock,
    LoopClock,
    StepDetector,
    SystemClock,
    clock_synchronised,
    kernel_status,
    tick_after,
    within,
)

SECONDS = st.floats(0.0, 1e6, allow_nan=False)
EVERY = st.floats(0.05, 600.0, allow_nan=False)


@given(start_s=SECONDS, every_s=EVERY, later_s=st.floats(0.0, 1e5))
def test_the_next_beat_is_ahead_by_at_most_one_period_and_on_the_grid(
    start_s: float, every_s: float, later_s: float
) -> None:
    """Missed beats are skipped and the grid is rejoined."""
    now_s = start_s + later_s
    beat_s = tick_after(start_s, every_s, now_s)
    assert now_s < beat_s <= now_s + every_s * (1 + 1e-6) + 1e-6
    periods = (beat_s - start_s) / every_s
    assert abs(periods - round(periods)) < 1e-3


@given(start_s=SECONDS, every_s=EVERY)
def test_a_loop_that_keeps_up_hits_every_beat(start_s: float, every_s: float) -> None:
    """From a beat the next one is exactly one period on: no drift over many of them."""
    at_s = start_s
    for count in range(1, 200):
        at_s = tick_after(start_s, every_s, at_s)
        assert at_s == pytest.approx(start_s + count * every_s, abs=1e-6 * every_s + 1e-9 * at_s)


def test_a_stall_of_many_periods_costs_one_beat_not_a_burst() -> None:
    """After 7.3 missed seconds the next beat is the next full one."""
    assert tick_after(100.0, 1.0, 107.3) == 108.0


def test_a_rounding_error_before_a_beat_is_on_the_beat() -> None:
    """Otherwise that beat would be served twice."""
    assert tick_after(0.0, 0.05, 2.1999999999999997) == pytest.approx(2.25)


@pytest.mark.looptime
async def test_the_system_clock_follows_virtual_time() -> None:
    """Under a virtual loop an hour passes at once, and mono_s agrees with the loop."""
    clock, loop = SystemClock(), asyncio.get_running_loop()
    before_s = clock.mono_s()
    await asyncio.sleep(3600)
    assert clock.mono_s() - before_s == pytest.approx(3600)
    assert clock.mono_s() == loop.time()


def test_the_system_clock_agrees_with_uvloop_and_moves_within_a_turn() -> None:
    """A pause between two lines of one turn is seen: a setpoint that grew stale in it must not pass."""

    async def look() -> tuple[float, float]:
        clock, loop = SystemClock(), asyncio.get_running_loop()
        apart_s, mono_s = clock.mono_s() - loop.time(), clock.mono_s()
        until_s = time.monotonic() + 0.02
        while time.monotonic() < until_s:
            pass
        return apart_s, clock.mono_s() - mono_s

    with contextlib.closing(uvloop.new_event_loop()) as loop:
        apart_s, moved_s = loop.run_until_complete(look())
    assert abs(apart_s) < 0.01
    assert moved_s >= 0.02


def test_outside_a_loop_the_system_clock_is_the_monotonic_one() -> None:
    """Nothing needs a loop to ask the time."""
    assert abs(SystemClock().mono_s() - time.monotonic()) < 1.0
    assert SystemClock().now().tzinfo is UTC


@pytest.mark.looptime
async def test_the_loop_clock_moves_wall_time_with_the_loop() -> None:
    """A virtual day is a day on the wall too."""
    clock = LoopClock(datetime(2026, 3, 1, tzinfo=UTC))
    await asyncio.sleep(86_400)
    assert clock.now() == datetime(2026, 3, 2, tzinfo=UTC)


@pytest.mark.looptime
async def test_within_ends_a_silent_call_at_its_limit() -> None:
    """The call is cancelled, and the caller hears Unreachable at the limit."""
    silent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with pytest.raises(Unreachable, match="no answer within 2 s"):
        await within(2.0, silent, "no answer")
    assert asyncio.get_running_loop().time() == pytest.approx(2.0)
    assert silent.cancelled()


async def test_within_leaves_a_foreign_timeout_alone() -> None:
    """A TimeoutError that is not the limit's own is a bug of the callee and stays one."""

    async def broken() -> None:
        raise TimeoutError("leaked by a driver")

    with pytest.raises(TimeoutError, match="leaked"):
        await within(2.0, broken(), "no answer")


async def test_within_lets_cancellation_through() -> None:
    """A cancelled caller is cancelled, not told Unreachable."""
    task = asyncio.ensure_future(within(60.0, asyncio.Event().wait(), "no answer"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("by_s", [3.0, -3.0, 3600.0])
def test_a_step_of_the_wall_clock_is_seen_and_forgotten_after_a_while(by_s: float) -> None:
    """More than 2 s off against monotonic time is a step; 60 steady seconds later all is well."""
    clock = FakeClock()
    steps = StepDetector(clock)
    clock.advance(1.0)
    assert steps.is_steady()
    clock.step(by_s)
    clock.advance(1.0)
    assert not steps.is_steady()
    clock.advance(59.0)
    assert not steps.is_steady()
    clock.advance(2.0)
    assert steps.is_steady()


def test_slewing_is_not_a_step() -> None:
    """500 ppm for a whole day moves the clock by 43 s and is what a time daemon may do."""
    clock = FakeClock()
    steps = StepDetector(clock)
    for _ in range(8_640):
        clock.advance(10.0)
        clock.step(0.005)
        assert steps.is_steady()


def test_many_small_steps_add_up() -> None:
    """Half a second ten times over is five seconds."""
    clock = FakeClock()
    steps = StepDetector(clock)
    seen = []
    for _ in range(10):
        clock.step(0.5)
        clock.advance(1.0)
        seen.append(steps.is_steady())
    assert not all(seen)


@pytest.mark.parametrize(
    ("status", "is_good"),
    [
        pytest.param(None, True, id="unknown"),
        pytest.param(0, True, id="synchronised"),
        pytest.param(STA_UNSYNC, False, id="unsynchronised"),
        pytest.param(STA_UNSYNC | 0x2001, False, id="unsynchronised-with-more-bits"),
        pytest.param(0x2001, True, id="pll-nano"),
    ],
)
def test_the_kernel_says_whether_its_clock_is_synchronised(status: int | None, is_good: bool) -> None:
    """Only a clear no counts as one."""
    assert clock_synchronised(status) is is_good


def test_asking_the_kernel_works_here() -> None:
    """The kernel answers with a status, or may not be asked."""
    status = kernel_status()
    assert status is None or 0 <= status <= 0xFFFF
