"""Puts on disk what a message asks for before anything else is done about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from vppd.errors import Refused, Unreachable
from vppd.model import Event
from vppd.ports import Ledger

RETRY_S = 1.0

log = structlog.get_logger()


async def committed(ledger: Ledger, event: Event, faulty: Callable[[bool], None]) -> bool:
    """Put an event on disk, however long it takes; False when it is there already. ``faulty`` is told how the ledger does."""
    while True:
        try:
            await ledger.append(event)
        except Refused:
            return False
        except Unreachable as error:
            log.error("ledger_commit_failed", error=str(error))
            faulty(True)
            await asyncio.sleep(RETRY_S)
        else:
            faulty(False)
            return True
