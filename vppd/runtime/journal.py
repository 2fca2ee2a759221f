"""Ledger entries the cycle makes without waiting for the disk: in order, retried until they are there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime

import structlog

from vppd.errors import Refused, Unreachable
from vppd.model import Event
from vppd.ports import Ledger
from vppd.runtime.intents import Intent, Report

KEPT = 10_000
"""Entries held in memory while the disk fails; beyond this the oldest are lost, and it is said."""
RETRY_S = 1.0
"""Pause between two tries of a commit that failed. [s]"""

log = structlog.get_logger()


class Journal:
    """One task that writes what is put in."""

    def __init__(
        self, ledger: Ledger, faulty: Callable[[bool], None], committed: Callable[[], None], now: Callable[[], datetime]
    ) -> None:
        self._ledger, self._faulty, self._committed, self._now = ledger, faulty, committed, now
        self._waiting: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def write(self, *events: Event) -> None:
        """Have events written soon, in order."""
        self._waiting.extend(events)
        while len(self._waiting) > KEPT:
            lost = self._waiting.popleft()
            log.error("ledger_entry_lost", stream=lost.stream, kind=lost.kind)
        self._empty.clear()
        self._wake.set()

    async def intent(self, intent: Intent) -> None:
        """Return once the intent is on disk. Raises Unreachable."""
        await self._ledger.append(Event("setpoints", "intent", self._now(), asdict(intent)))

    def outcome(self, report: Report) -> None:
        """Have an outcome written that is another than before."""
        if report.is_news:
            intent, power_w = report.intent, report.power_w
            body = {"intent_id": intent.intent_id, "asset_id": intent.asset_id, "outcome": report.outcome.value}
            self.write(Event("setpoints", "outcome", self._now(), body | {"power_w": power_w, "detail": report.detail}))

    async def flushed(self) -> None:
        """Return when everything put in so far is on disk."""
        await self._empty.wait()

    async def run(self) -> None:
        """Write for ever. Raises Garbled when the ledger is corrupt."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._write(self._waiting[0])
                self._waiting.popleft()
            self._committed()
            self._empty.set()

    async def _write(self, event: Event) -> None:
        while True:
            try:
                await self._ledger.append(event)
            except Refused:
                return  # its key is taken: it was written before a restart
            except Unreachable as error:
                log.error("ledger_commit_failed", error=str(error), waiting=len(self._waiting))
                self._faulty(True)
                await asyncio.sleep(RETRY_S)
            else:
                self._faulty(False)
                return
