"""What MQTT adapters hear, and how they learn that there is something new."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from vppd.errors import DeviceError


@dataclass(frozen=True, slots=True)
class Heard:
    """A message as it came."""

    topic: str
    payload: bytes
    retained: bool
    """The broker had it in store: it tells of the past, not of now."""
    mono_s: float
    """When it came. [s, the loop's clock]"""


class Listener(Protocol):
    """Somebody who wants messages."""

    def hear(self, heard: Heard) -> None:
        """Take a message; called from the loop, must not wait and must not raise."""
        ...

    def lose(self, error: DeviceError) -> None:
        """The link is lost: nothing will be heard any more."""
        ...


class News:
    """Wakes one reader when there is something new, or when the link is lost."""

    def __init__(self) -> None:
        self._something = asyncio.Event()
        self._error: DeviceError | None = None

    def tell(self) -> None:
        """There is something new."""
        self._something.set()

    def lose(self, error: DeviceError) -> None:
        """There will be nothing new: readers get ``error``."""
        self._error = error
        self._something.set()

    def check(self) -> None:
        """Raise what ``lose`` was told, if anything."""
        if self._error is not None:
            raise self._error

    async def wait(self, until_s: float = math.inf) -> bool:
        """Return True when there is something new, False at ``until_s``. [s, the loop's clock]"""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(None if until_s == math.inf else until_s):
                await self._something.wait()
        self.check()
        is_new = self._something.is_set()
        self._something.clear()
        return is_new
