"""One node of a pool: what is wanted of it, what holds, and when a BMC that failed is asked again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from adapters._caps import Cap
from adapters._redfish_bmc import Bmc
from adapters._redfish_journal import Journal, Kept
from adapters._redfish_limits import Prior
from adapters._redfish_link import Stale
from vppd.errors import DeviceError, Refused, Unreachable

_FIRST_REST_S = 2.0
_AGAIN_S = 60.0
"""A BMC that took a cap and does not follow is told again after this time, not at every renewal."""
_SHOWS_S = (1.0, 4.0)
"""So long after a change its power is read again: whoever holds it against the feed's meter needs it as of now."""
_SEARCH = 4.0
"""To find the limits takes so many times as long as to set them."""
SLACK_W = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one node may take, and how long one that failed is left alone."""

    node_timeout_s: float
    retry_most_s: float
    refresh_s: float


class Node:
    """Brings one BMC to what is wanted, one step at a time; the newest wish wins."""

    def __init__(self, name: str, bmc: Bmc, journal: Journal, patience: Patience) -> None:
        self.name = name
        self.bmc = bmc
        self.until_s = math.inf
        """When the cap is to be lifted. [s]"""
        self.seen_s = -math.inf
        """When the BMC last answered a whole look. [s]"""
        self.problem: DeviceError | None = None
        self._journal = journal
        self._patience = patience
        self._wanted_w: float | None = None
        self._settled: tuple[Prior, ...] | None = None
        """What its limits were when the wish had been carried out."""
        self._settled_s = -math.inf
        self._looks_at_s: tuple[float, ...] = ()
        self._silent_until_s = -math.inf
        self._barred_until_s = -math.inf
        self._failures = 0
        self._turn = asyncio.Lock()

    @property
    def kept(self) -> Kept | None:
        """What the journal has of it; None: it is as its owner left it."""
        return self._journal.books.kept.get(self.name)

    @property
    def is_off(self) -> bool:
        """It is not where it is wanted."""
        return self.kept is not None if self._wanted_w is None else self._settled is None

    @property
    def cap(self) -> Cap:
        """What holds, by what was read last."""
        return self.bmc.cap() if self.bmc.limits else Cap(None)

    @property
    def power_w(self) -> float | None:
        """What it draws: what was measured, and no more than a cap that has been read back since. [W]"""
        measured_w, cap_w = self.bmc.power_w, self.cap.cap_w
        if measured_w is None or cap_w is None or self._settled_s <= self.seen_s:
            return measured_w
        return min(measured_w, cap_w)

    @property
    def rests_s(self) -> float:
        """Return for how long nothing is written to it, because it failed a moment ago. [s]"""
        return max(self._silent_until_s, self._barred_until_s) - _now_s()

    def is_due(self) -> bool:
        """Say whether it is time to look again."""
        now_s = _now_s()
        next_s = min(self.seen_s + self._patience.refresh_s, *self._looks_at_s, math.inf)
        return now_s >= next_s and now_s >= self._silent_until_s

    def is_fresh(self, for_s: float) -> bool:
        """Say whether it has been looked at lately. [s]"""
        return _now_s() < self.seen_s + for_s

    def want(self, cap_w: float | None, until_s: float, insist: bool = False) -> None:
        """Take a wish: a cap, or None to have everything as it was before; insist: also if the same was refused a moment ago."""
        self.until_s = until_s if cap_w is not None else math.inf
        if cap_w is None and self.kept is not None:
            self.kept.cap_w = None  # a successor is to go on with lifting, not with the cap
        if cap_w != self._wanted_w or insist:
            self._barred_until_s = -math.inf  # another question may get another answer
        if cap_w != self._wanted_w:
            self._wanted_w, self._settled = cap_w, None

    async def look(self) -> Cap:
        """Read its limits and its power. Raises DeviceError."""
        return await self._step(self._looked, reading=True)

    async def move(self) -> Cap:
        """Bring it to where it is wanted, and return what then holds. Raises DeviceError."""
        return await self._step(self._moved, reading=False)

    # ---- inside ----------------------------------------------------------------------------------------------------

    async def _step(self, doing: Callable[[], Awaitable[Cap]], reading: bool) -> Cap:
        """Do one thing at a time, within the time a node has; what fails is left alone for a while."""
        async with self._turn:
            limit_s = self._patience.node_timeout_s * (1.0 if self.bmc.limits else _SEARCH)
            try:
                async with asyncio.timeout(limit_s):
                    cap = await doing()
            except TimeoutError as error:
                slow = Unreachable(f"{self.name}: not done within {limit_s:g} s")
                self._failed(slow, reading)
                raise slow from error
            except DeviceError as error:
                self._failed(error, reading)
                raise
            if not reading or isinstance(self.problem, Unreachable):
                self.problem = None
            self._failures, self._silent_until_s = 0, -math.inf
            return cap

    def _failed(self, error: DeviceError, reading: bool) -> None:
        """Rest: 2 s at first, then twice as long each time; a clear no is not repeated before the longest rest is over."""
        most_s, self.problem = self._patience.retry_most_s, error
        if isinstance(error, Refused) and not reading:
            self._barred_until_s = _now_s() + most_s
            return
        rest_s = most_s if isinstance(error, Refused) else min(_FIRST_REST_S * 2.0**self._failures, most_s)
        self._failures = min(self._failures + 1, 16)
        self._silent_until_s = _now_s() + rest_s
        self.seen_s = -math.inf  # what it said before is no answer to what it was asked now

    async def _looked(self) -> Cap:
        cap = await self.bmc.look()
        self.seen_s = _now_s()
        self._looks_at_s = tuple(at_s for at_s in self._looks_at_s if at_s > self.seen_s)
        # Somebody else has changed it or the node has been restarted; or it was told a while ago and does not follow.
        lags = not self._follows(cap) and self.seen_s >= self._settled_s + _AGAIN_S
        if lags or self._settled != self.bmc.priors():
            self._settled = None
        return cap

    def _follows(self, cap: Cap) -> bool:
        wanted_w = self._wanted_w
        return wanted_w is None or (cap.cap_w is not None and cap.cap_w <= wanted_w + SLACK_W)

    async def _moved(self) -> Cap:
        while True:
            wanted_w = self._wanted_w
            cap = await (self._lift() if wanted_w is None else self._cap(wanted_w))
            if wanted_w == self._wanted_w:
                self._settled, self._settled_s = self.bmc.priors(), _now_s()
                self._looks_at_s = tuple(self._settled_s + rest_s for rest_s in _SHOWS_S)
                return cap

    async def _lift(self) -> Cap:
        """Put everything back as it was, and only then forget how it was."""
        kept = self.kept
        if kept is None:
            return await self._looked()
        cap = await self.bmc.restore(kept.priors)
        self._journal.books.kept.pop(self.name, None)
        await self._journal.save()
        return cap

    async def _cap(self, wanted_w: float) -> Cap:
        cap = await self._looked()
        if self._settled is not None:
            return cap
        old_cap_w = cap.cap_w if self.kept is None else self.kept.old_cap_w
        if old_cap_w is not None and wanted_w >= old_cap_w - SLACK_W:
            return await self._lift()  # no cap is ever higher than what was there before
        first = self.kept is None
        kept = await self._written_down(cap, wanted_w)
        try:
            return await self.bmc.put(wanted_w, kept.priors, first)
        except Stale as error:
            if first:  # what is written down is not how it was
                self._journal.books.kept.pop(self.name, None)
            raise Unreachable(f"{error}; to be read again") from error

    async def _written_down(self, cap: Cap, wanted_w: float) -> Kept:
        """Return what the journal has of this node once that is on disk. Raises Refused."""
        books, fresh = self._journal.books, self.kept is None
        kept = books.kept.setdefault(self.name, Kept(self.bmc.priors(), cap.cap_w, full_w=self.bmc.power_w))
        if kept.cap_w != wanted_w:
            kept.cap_w = wanted_w
            try:
                await self._journal.save()
            except Refused:
                if fresh:
                    books.kept.pop(self.name, None)
                raise
        return kept


def _now_s() -> float:
    return asyncio.get_running_loop().time()
