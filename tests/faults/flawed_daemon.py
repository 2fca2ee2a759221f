"""The daemon with one bug put in, so that the tests can be seen to notice: ``python -m tests.faults.flawed_daemon BUG -c FILE``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vppd.app import run_daemon
from vppd.grid import intake
from vppd.grid.admit import admit
from vppd.grid.intake import Desk
from vppd.grid.receipts import receipts
from vppd.grid.verdict import Accepted
from vppd.model import Order, OrderKind
from vppd.register import Register

LATE_S = 0.2


async def _take_all_hastily(desk: Desk) -> None:
    """Act, answer and acknowledge first, commit a little later."""
    async for message in desk.channel.messages():
        verdict = admit(message, desk.now(), desk.registry(), desk.memory, desk.conditions())
        if not isinstance(verdict, Accepted):
            continue
        desk.deliver(verdict)
        for receipt in receipts(verdict, desk.now(), desk.sender):
            await desk.channel.publish(receipt)
        await desk.channel.ack(message)
        await asyncio.sleep(LATE_S)
        await intake._commit(desk, verdict)


def _hasty(patch: pytest.MonkeyPatch) -> None:
    """Receipts are published and messages acknowledged before the commit."""
    patch.setattr("vppd.dispatch_link.take_all", _take_all_hastily)


def _repeating(patch: pytest.MonkeyPatch) -> None:
    """After a restart, orders that were released are carried out again."""

    def orders(self: Register) -> tuple[Order, ...]:
        bodies = (recorded.event.body for recorded in self._ledger.events("orders"))
        found = [Order.from_body(order) for body in bodies for order in body.get("orders", ())]
        return tuple(order for order in found if order.kind is not OrderKind.RELEASE)[-4:]

    patch.setattr(Register, "orders", property(orders))


def _forgetful(patch: pytest.MonkeyPatch) -> None:
    """After a restart, orders in force are forgotten."""
    patch.setattr(Register, "orders", ())


BUGS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "hasty": _hasty,
    "repeating": _repeating,
    "forgetful": _forgetful,
}

if __name__ == "__main__":
    BUGS[sys.argv[1]](pytest.MonkeyPatch())
    run_daemon(Path(sys.argv[3]))
