"""Keeps one device's link up: connects, backs off, forgives; a bug escapes and takes the daemon down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Generic, Never, TypeVar

import structlog

from vppd.errors import DeviceError, Unreachable
from vppd.runtime.clock import Clock, within

log = structlog.get_logger()

T = TypeVar("T")
Up = Callable[[], None]
"""To be called when the device has really answered: a connection alone proves little."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait between attempts."""

    first_s: float = 1.0
    most_s: float = 30.0
    forgive_after_s: float = 120.0
    """A run that lasted so long clears the record. [s]"""
    connect_s: float = 30.0
    """Time limit for opening or closing the device. [s]"""

    def wait_s(self, failures: int, rng: Random) -> float:
        """Return the wait after so many failures in a row (>= 1): doubled each time, times a random 0.8-1.0. [s]"""
        doublings = min(failures - 1, 30)
        return min(self.first_s * 2.0**doublings, self.most_s) * rng.uniform(0.8, 1.0)


class Link:
    """Whether a device is there, said once per change."""

    def __init__(self, name: str, on_change: Callable[[bool], None]) -> None:
        self.name, self._on_change = name, on_change
        self._is_up: bool | None = None

    def up(self) -> None:
        """Note that the device answers."""
        if self._is_up is not True:
            if self._is_up is False:
                log.info("device_recovered", asset=self.name)
            self._is_up = True
            self._on_change(True)

    def down(self, error: DeviceError) -> None:
        """Note that the device is lost, and why."""
        if self._is_up is not False:
            log.warning("device_lost", asset=self.name, reason=str(error), error=type(error).__name__)
            self._is_up = False
        self._on_change(False)


async def supervise(
    link: Link,
    connect: Callable[[], AbstractAsyncContextManager[T]],
    run: Callable[[T, Up], Awaitable[None]],
    clock: Clock,
    rng: Random,
    backoff: Backoff | None = None,
) -> Never:
    """Connect and run, for ever. A DeviceError is waited out; anything else escapes."""
    backoff, failures = backoff or Backoff(), 0
    while True:
        began_s = clock.mono_s()
        # A task of its own: a TaskGroup inside may leave its task marked as cancelled when a child fails, and then
        # nobody could tell a lost device from a shutdown.
        attempt = asyncio.create_task(_attempt(connect, run, link.up, backoff.connect_s))
        try:
            error = await attempt
        except DeviceError as lost:
            error = lost
        except BaseExceptionGroup as group:
            error = _only_device_errors(group)
        _honour_cancellation()
        failures = 1 if clock.mono_s() - began_s >= backoff.forgive_after_s else failures + 1
        link.down(error)
        await asyncio.sleep(backoff.wait_s(failures, rng))


async def _attempt(
    connect: Callable[[], AbstractAsyncContextManager[T]],
    run: Callable[[T, Up], Awaitable[None]],
    up: Up,
    limit_s: float,
) -> DeviceError:
    """Connect and run once; return what a run that simply ended means."""
    async with Bounded(connect(), limit_s) as device:
        await run(device, up)
    return Unreachable("the link has ended")


class Bounded(Generic[T]):
    """A context manager whose opening and closing may each take a limited time. Raises Unreachable."""

    def __init__(self, inner: AbstractAsyncContextManager[T], limit_s: float) -> None:
        self._inner, self._limit_s = inner, limit_s

    async def __aenter__(self) -> T:
        return await within(self._limit_s, self._inner.__aenter__(), "not connected")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await within(self._limit_s, self._inner.__aexit__(kind, error, trace), "not closed")
        except DeviceError as closing:
            if error is None or error is closing:
                raise
            # What went wrong first must not be covered up: it may be a bug or a cancellation.
            log.warning("device_not_closed", reason=str(closing))
            return False


def _only_device_errors(group: BaseExceptionGroup[BaseException]) -> DeviceError:
    """Return the first error of a group of DeviceErrors alone; re-raise a group that holds anything else."""
    _, bugs = group.split(DeviceError)
    if bugs is not None:
        raise group
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    assert isinstance(first, DeviceError)
    return first


def _honour_cancellation() -> None:
    """Go on with a cancellation that an error raised while it was going through has covered up.

    A TaskGroup drops the CancelledError of its parent when a child fails at the same moment, and so does an adapter
    whose closing fails: without this a shutdown would turn into a reconnection.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
