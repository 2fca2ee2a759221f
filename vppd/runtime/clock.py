"""The only place that asks the time: monotonic seconds for ages and deadlines, aware UTC for records."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import math
import time
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from vppd.errors import Unreachable

T = TypeVar("T")

STA_UNSYNC = 0x0040
"""Bit of ``timex.status``: the kernel's clock is not synchronised (adjtimex(2))."""


class Clock(Protocol):
    """Two readings that must not be mixed up."""

    def mono_s(self) -> float:
        """Return monotonic time; it agrees with the running loop's ``time()``. [s]"""
        ...

    def now(self) -> datetime:
        """Return the present as aware UTC."""
        ...


class SystemClock:
    """The machine's clocks: ``time.monotonic``, unless the running loop brings a time of its own (a virtual one).

    asyncio's and uvloop's ``time()`` are the same clock, uvloop's in whole milliseconds.
    """

    def mono_s(self) -> float:
        """Return monotonic time. [s]"""
        virtual = _virtual_loop()
        return virtual.time() if virtual is not None else time.monotonic()

    def now(self) -> datetime:
        """Return the present as aware UTC."""
        return datetime.now(UTC)


class FakeClock:
    """A clock that moves when told; wall and monotonic time move together until ``step``."""

    def __init__(self, at: datetime = datetime(2026, 1, 1, tzinfo=UTC), mono_s: float = 0.0) -> None:
        self._at, self._mono_s = at, mono_s

    def mono_s(self) -> float:
        """Return monotonic time. [s]"""
        return self._mono_s

    def now(self) -> datetime:
        """Return the present as aware UTC."""
        return self._at

    def advance(self, for_s: float) -> None:
        """Let time pass. [s]"""
        self._mono_s += for_s
        self._at += timedelta(seconds=for_s)

    def step(self, by_s: float) -> None:
        """Set the wall clock forward or back; monotonic time does not notice. [s]"""
        self._at += timedelta(seconds=by_s)


class LoopClock:
    """A clock whose wall time follows the running loop's own time: under a virtual loop, a whole virtual world."""

    def __init__(self, at: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._at = at
        self._start_s = self.mono_s()

    def mono_s(self) -> float:
        """Return the loop's time. [s]"""
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        """Return the present as aware UTC."""
        return self._at + timedelta(seconds=self.mono_s() - self._start_s)


def tick_after(start_s: float, every_s: float, now_s: float) -> float:
    """Return the next beat of the grid ``start_s + k * every_s`` after now; missed beats are skipped. [s]"""
    # Within a millionth of a period before a beat is on that beat: rounding must not serve it twice.
    count = math.floor((now_s - start_s) / every_s + 1e-6) + 1
    beat_s = start_s + every_s * count
    return beat_s if beat_s > now_s else start_s + every_s * (count + 1)


async def within(limit_s: float, work: Awaitable[T], failure: str) -> T:
    """Return what ``work`` gives; at the limit it is cancelled, which drops its connection. Raises Unreachable."""
    guard = asyncio.timeout(limit_s)
    try:
        async with guard:
            return await work
    except TimeoutError as error:
        if not guard.expired():
            raise
        raise Unreachable(f"{failure} within {limit_s:g} s") from error


class StepDetector:
    """Tells when the wall clock was set: it then differs from monotonic time by more than slewing explains.

    A suspended machine looks the same, and is treated the same.
    """

    def __init__(self, clock: Clock, limit_s: float = 2.0, settle_s: float = 60.0) -> None:
        self._clock, self._limit_s, self._settle_s = clock, limit_s, settle_s
        self._checked_s, self._offset_s = self._look()
        self._stepped_s = -math.inf

    def is_steady(self) -> bool:
        """Say whether the clock has run evenly for ``settle_s``; ask at least every few minutes."""
        mono_s, offset_s = self._look()
        off_s = offset_s - self._offset_s
        if abs(off_s) > self._limit_s:
            self._stepped_s, self._offset_s = mono_s, offset_s
        else:
            # Follows at twice the kernel's fastest slew of 500 ppm, so that many small steps still add up to a big one.
            reach_s = _SLEW_FRAC * (mono_s - self._checked_s)
            self._offset_s += max(-reach_s, min(reach_s, off_s))
        self._checked_s = mono_s
        return mono_s - self._stepped_s >= self._settle_s

    def _look(self) -> tuple[float, float]:
        mono_s = self._clock.mono_s()
        return mono_s, self._clock.now().timestamp() - mono_s


_SLEW_FRAC = 0.001


class _Timex(ctypes.Structure):
    """The head of ``struct timex``; the rest is room for what the kernel writes behind it."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    ]


def kernel_status() -> int | None:
    """Return ``timex.status`` of the kernel's clock; None where it may not be asked (a sandbox) or has no such call."""
    ask = getattr(ctypes.CDLL(None, use_errno=True), "adjtimex", None)
    if ask is None:
        return None
    answer = _Timex()
    if ask(ctypes.byref(answer)) < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS, errno.EACCES, errno.EINVAL):
        return None
    return int(answer.status)


def clock_synchronised(status: int | None) -> bool:
    """Say whether the kernel holds its clock for synchronised, given ``kernel_status()``; unknown counts as yes."""
    return status is None or not status & STA_UNSYNC


def _virtual_loop() -> asyncio.BaseEventLoop | None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    overridden = isinstance(loop, asyncio.BaseEventLoop) and type(loop).time is not asyncio.BaseEventLoop.time
    return loop if overridden and isinstance(loop, asyncio.BaseEventLoop) else None
