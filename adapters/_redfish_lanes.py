"""How many requests may be under way, so that slow BMCs never keep quick ones waiting; and the pace of each BMC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PATIENCE_S = 0.5
"""A request that takes longer makes room for another while it goes on waiting."""
_STRAYS_PER_PLACE = 8


class Lanes:
    """Two lanes of places: one for BMCs that answer quickly, one for those known to be slow."""

    def __init__(self, at_once: int) -> None:
        self._quick = asyncio.Semaphore(at_once)
        self._slow = asyncio.Semaphore(at_once)
        self._room = at_once * _STRAYS_PER_PLACE
        self.under_way = 0
        self.most_under_way = 0

    @asynccontextmanager
    async def place(self, slow: bool) -> AsyncIterator[None]:
        """Wait for a place and keep it, for PATIENCE_S at most as long as there is room for those that wait longer."""
        lane = self._slow if slow else self._quick
        await lane.acquire()
        strayed = False

        def stray() -> None:
            nonlocal strayed
            if self._room > 0:
                self._room -= 1
                strayed = True
                lane.release()

        timer = asyncio.get_running_loop().call_later(PATIENCE_S, stray)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            yield
        finally:
            self.under_way -= 1
            timer.cancel()
            if strayed:
                self._room += 1
            else:
                lane.release()


class Pace:
    """Lets requests through one BMC at a time: a few at once, then so many a second, and none before the BMC wants any."""

    def __init__(self, requests_per_s: float, burst: int) -> None:
        self._every_s = 1.0 / requests_per_s
        self._ahead_s = (burst - 1) * self._every_s
        self._spent_until_s = 0.0
        self._not_before_s = 0.0

    def hold_off(self, for_s: float) -> None:
        """Let nothing through for a while: the BMC has asked for that. [s]"""
        self._not_before_s = max(self._not_before_s, asyncio.get_running_loop().time() + for_s)

    async def wait(self) -> None:
        """Return when the next request may go."""
        loop = asyncio.get_running_loop()
        rest_s = max(self._spent_until_s - self._ahead_s, self._not_before_s) - loop.time()
        if rest_s > 0.0:
            await asyncio.sleep(rest_s)
        self._spent_until_s = max(self._spent_until_s, loop.time()) + self._every_s
