"""Keeps a cluster's scheduler told of the windows that were sold: on every change, and again after every connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Never

import structlog

from vppd.errors import DeviceError
from vppd.model import Applied
from vppd.ports import Reservable, Window

RETRY_S = 30.0
"""Pause after a try that failed. [s]"""

log = structlog.get_logger()


class Windows:
    """The windows of one cluster; outlives its connections."""

    def __init__(self, asset_id: str) -> None:
        self._asset_id = asset_id
        self._wanted: tuple[Window, ...] | None = None
        self._changed = asyncio.Event()
        self._troubled = False
        self.kept: tuple[Applied, ...] = ()
        """What the scheduler keeps free in each window, in the order they were asked for; empty before its answer."""

    def want(self, windows: Sequence[Window]) -> None:
        """Have power kept free in these windows and no others [W]; before the first call nothing is touched."""
        if tuple(windows) != self._wanted:
            self._wanted = tuple(windows)
            self.kept = ()
            self._changed.set()

    async def keep(self, cluster: Reservable) -> Never:
        """Tell a connected cluster now and whenever it changes, for ever; what fails is tried again."""
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._wanted is not None and not await self._tell(cluster, self._wanted):
                with suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S):
                        await self._changed.wait()
                self._changed.set()

    async def _tell(self, cluster: Reservable, windows: tuple[Window, ...]) -> bool:
        try:
            kept = await cluster.reserve(windows)
        except DeviceError as error:
            if not self._troubled:
                log.warning("windows_not_kept", asset=self._asset_id, reason=str(error))
            self._troubled = True
            return False
        self._troubled = False
        if windows == self._wanted:
            self.kept = kept
        log.info("windows_kept", asset=self._asset_id, windows=len(windows), kept=[a.detail for a in kept])
        return True
