"""Keeps an asset's latest value fresh: asks a polled device on a fixed beat, listens to one that speaks by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass
from typing import Never

import structlog

from vppd.errors import Garbled, Unreachable
from vppd.model import Sample
from vppd.ports import Polled, Streaming
from vppd.runtime.clock import Clock, tick_after, within

log = structlog.get_logger()

GARBLED_MOST = 3
"""So many senseless answers in a row mean that the link itself is out of step."""

Store = Callable[[Sample, float, float], None]
"""Takes a sample, the time of the reply and the time of the question. [s]"""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a device is asked, and how long it may take."""

    every_s: float
    limit_s: float
    """Outer time limit of one read: longer than the driver's own, and a guard only. [s]"""
    phase_s: float = 0.0
    """Where in ``every_s`` its beat lies, so that a thousand devices are not asked at once. [s]"""


async def poll(name: str, device: Polled, pace: Pace, clock: Clock, store: Store) -> Never:
    """Ask at once, then on the beat, until the link is lost. Raises Unreachable, Refused or (repeated) Garbled."""
    beat_s, garbled = clock.mono_s(), 0
    start_s = beat_s + pace.phase_s
    while True:
        asked_s = clock.mono_s()
        try:
            sample = await within(pace.limit_s, device.read(), "no answer to a read")
        except Garbled as error:
            garbled += 1
            if garbled == 1:
                log.warning("reading_garbled", asset=name, reason=str(error))
            if garbled >= GARBLED_MOST:
                raise
        else:
            garbled = 0
            store(sample, clock.mono_s(), asked_s)
        now_s = clock.mono_s()
        # A timer may ring a moment early: the beat just served is never the next one.
        beat_s = tick_after(start_s, pace.every_s, max(now_s, beat_s))
        await asyncio.sleep(beat_s - now_s)


async def follow(device: Streaming, clock: Clock, store: Store) -> Never:
    """Store every sample as it comes. Raises Unreachable when the stream ends, and whatever the stream raises."""
    samples = device.samples()
    async with _closed_at_the_end(samples):
        async for sample in samples:
            mono_s = clock.mono_s()
            store(sample, mono_s, mono_s)
    raise Unreachable("the device's stream has ended")


async def watch(name: str, device: object, pace: Pace, clock: Clock, store: Store) -> Never:
    """Keep reading a device in the way it can be read. Raises DeviceError; TypeError when it offers neither way."""
    if isinstance(device, Streaming):
        await follow(device, clock, store)
    if isinstance(device, Polled):
        await poll(name, device, pace, clock, store)
    raise TypeError(f"the adapter of {name} yields a {type(device).__name__}, which is neither Polled nor Streaming")


def _closed_at_the_end(samples: AsyncIterator[Sample]) -> AbstractAsyncContextManager[object]:
    """Close a generator when its reader goes, not when it is collected."""
    return aclosing(samples) if isinstance(samples, AsyncGenerator) else nullcontext()
