"""Polling on a beat, streams, and what becomes of bad answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Never

import pytest
from structlog.testing import capture_logs

from vppd.errors import Garbled, Refused, Unreachable
from vppd.model import Sample
from vppd.runtime.clock import SystemClock
from vppd.runtime.poller import Pace, follow, poll, watch
from vppd.testing.fakes import FakeDevice, ScriptedStream

CLOCK = SystemClock()
pytestmark = pytest.mark.looptime


class Log:
    """Keeps what is stored, as (reply, question) times."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []
        self.samples: list[Sample] = []

    def __call__(self, sample: Sample, mono_s: float, asked_s: float) -> None:
        """Store one."""
        self.samples.append(sample)
        self.times.append((round(mono_s, 6), round(asked_s, 6)))


async def until(at_s: float, work: asyncio.Future[Never]) -> None:
    """Let the work run until that virtual time, then cancel it; its error comes through."""
    await asyncio.wait([work], timeout=at_s - asyncio.get_running_loop().time())
    if not work.done():
        work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


async def test_asks_at_once_then_on_its_own_phase_of_the_beat() -> None:
    """The first reading is not delayed; the others lie on the grid; stamps are those of the replies."""
    stored, device = Log(), FakeDevice(CLOCK.mono_s, answer_s=0.1)
    await until(3.5, asyncio.ensure_future(poll("a", device, Pace(1.0, 0.5, phase_s=0.25), CLOCK, stored)))
    assert stored.times == [(0.1, 0.0), (0.35, 0.25), (1.35, 1.25), (2.35, 2.25), (3.35, 3.25)]


async def test_a_timer_that_rings_early_does_not_serve_a_beat_twice() -> None:
    """Uvloop's timers count whole milliseconds and may ring half of one too soon."""

    class Slow(SystemClock):
        def mono_s(self) -> float:
            return 0.9995 * super().mono_s()

    stored, device = Log(), FakeDevice(CLOCK.mono_s)
    await until(10.2, asyncio.ensure_future(poll("a", device, Pace(1.0, 0.5), Slow(), stored)))
    assert device.reads == 11


async def test_a_slow_answer_costs_beats_but_no_burst() -> None:
    """With 2.5 s an answer every third beat is served, and never two at once."""
    stored, device = Log(), FakeDevice(CLOCK.mono_s, answer_s=2.5)
    await until(9.0, asyncio.ensure_future(poll("a", device, Pace(1.0, 5.0), CLOCK, stored)))
    assert [asked for _, asked in stored.times] == [0.0, 3.0, 6.0]


async def test_a_silent_device_is_given_up_at_the_limit_and_its_read_cancelled() -> None:
    """Unreachable after limit_s: the supervisor reconnects."""
    device = FakeDevice(CLOCK.mono_s)
    device.is_silent = True
    with pytest.raises(Unreachable):
        await poll("a", device, Pace(1.0, 2.0), CLOCK, Log())
    assert CLOCK.mono_s() == pytest.approx(2.0)


async def test_a_garbled_answer_is_dropped_and_said_once_and_three_end_the_link() -> None:
    """One senseless answer is bad luck; three in a row are a link out of step."""
    device, stored = FakeDevice(CLOCK.mono_s), Log()
    device.read_fault = Garbled("sentinel")
    with capture_logs() as logs, pytest.raises(Garbled):
        await poll("a", device, Pace(1.0, 0.5), CLOCK, stored)
    assert (device.reads, stored.times) == (3, [])
    assert [entry["event"] for entry in logs] == ["reading_garbled"]


async def test_garbled_answers_are_forgiven_by_a_good_one() -> None:
    """Two bad, one good, two bad: the link stays."""
    device, stored = FakeDevice(CLOCK.mono_s), Log()
    task: asyncio.Task[Never] = asyncio.ensure_future(poll("a", device, Pace(1.0, 0.5), CLOCK, stored))
    for fault in (Garbled("x"), Garbled("x"), None, Garbled("x"), Garbled("x"), None):
        device.read_fault = fault
        await asyncio.sleep(1.0)
    assert not task.done()
    await until(6.0, task)
    assert stored.times[:2] == [(2.0, 2.0), (5.0, 5.0)]


async def test_a_refusal_ends_the_link() -> None:
    """A clear no is for the supervisor to tell."""
    device = FakeDevice(CLOCK.mono_s)
    device.read_fault = Refused("unit 7 does not exist")
    with pytest.raises(Refused):
        await poll("a", device, Pace(1.0, 0.5), CLOCK, Log())


async def test_a_bug_in_an_adapter_is_not_mistaken_for_a_lost_device() -> None:
    """KeyError comes out as it is."""

    class Broken:
        async def read(self) -> Sample:
            raise KeyError("power")

    with pytest.raises(KeyError):
        await poll("a", Broken(), Pace(1.0, 0.5), CLOCK, Log())


async def test_a_stream_is_stored_as_it_comes_and_its_end_is_a_loss() -> None:
    """Samples are stamped at arrival; a stream that ends has lost its device."""
    stored = Log()
    script = [(1.0, Sample(power_w=1.0)), (2.0, Sample(power_w=2.0))]
    stream = ScriptedStream(script, ending=Unreachable("broker gone"))
    with pytest.raises(Unreachable, match="broker gone"):
        await watch("a", stream, Pace(1.0, 1.0), CLOCK, stored)
    assert stored.times == [(1.0, 1.0), (3.0, 3.0)]


async def test_a_stream_that_just_stops_is_a_loss_too() -> None:
    """Running out of samples is not success."""

    class Short:
        async def samples(self) -> AsyncIterator[Sample]:
            yield Sample(power_w=1.0)

    with pytest.raises(Unreachable, match="has ended"):
        await follow(Short(), CLOCK, Log())


async def test_a_cancelled_stream_is_closed_at_once() -> None:
    """The generator's own clean-up has run when the cancellation returns."""
    closed: list[float] = []

    class Open:
        async def samples(self) -> AsyncIterator[Sample]:
            try:
                yield Sample()
                await asyncio.Event().wait()
            finally:
                closed.append(CLOCK.mono_s())

    await until(1.0, asyncio.ensure_future(follow(Open(), CLOCK, Log())))
    assert closed == [1.0]


async def test_a_device_that_cannot_be_read_is_a_bug() -> None:
    """An adapter that yields something else must not look like a lost device."""
    with pytest.raises(TypeError, match="neither Polled nor Streaming"):
        await watch("a", object(), Pace(1.0, 1.0), CLOCK, Log())
