"""From a message to an order in force: committed first, answered once, never acted on twice."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.grid.dispatcher import LOAD_TARGET_TOPIC, NOW, ORDER_TOPIC, event, inbound, order_data, targets
from tests.grid.plant import SITE, key, pinned
from vppd.errors import Unreachable
from vppd.grid.envelope import Sender
from vppd.grid.ids import RandomIds
from vppd.grid.intake import Desk, take_all
from vppd.grid.outbox import Outbox
from vppd.grid.signing import KeyRing, Signer
from vppd.grid.site import Grant, Registry
from vppd.grid.verdict import Accepted, Conditions
from vppd.ledger.sqlite import SqliteLedger, open_ledger
from vppd.model import Event, Inbound, OrderKind, Outbound
from vppd.register import Register


class Wire:
    """A dispatch channel of which both ends are in the test."""

    def __init__(self, *messages: Inbound) -> None:
        self.coming: asyncio.Queue[Inbound] = asyncio.Queue()
        self.acked: list[Inbound] = []
        self.sent: list[Outbound] = []
        self.up = True
        for message in messages:
            self.coming.put_nowait(message)

    async def messages(self) -> AsyncIterator[Inbound]:
        """Yield what the test puts in."""
        while True:
            yield await self.coming.get()
            self.coming.task_done()

    async def ack(self, message: Inbound) -> None:
        """Note the acknowledgement."""
        self.acked.append(message)

    async def publish(self, message: Outbound) -> None:
        """Note what goes out."""
        if not self.up:
            raise Unreachable("the link is down")
        self.sent.append(message)

    def statuses(self) -> list[str]:
        """Return the status of every receipt sent, in order."""
        return [body(m)["status"] for m in self.sent]


def body(message: Outbound) -> dict[str, str]:
    """Return the signed data of a message."""
    jws = json.loads(message.payload)["data"]
    payload = jws.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))  # type: ignore[no-any-return]


class Office:
    """An intake and an outbox over one ledger."""

    def __init__(self, ledger: SqliteLedger, wire: Wire) -> None:
        self.register, self.wire = Register(ledger), wire
        self.register.catch_up()
        self.delivered: list[Accepted] = []
        self.faults: list[bool] = []
        self.verdicts: list[str] = []
        signer = Signer.from_pem("agent-1", "ES256", key("agent-1").private_pem())
        sender = Sender("dc1", "dc1-agent", signer, RandomIds())
        registry = Registry(SITE, KeyRing([pinned("tso", "tso-1")]), {"tso": (Grant("*", frozenset(OrderKind), 1e6),)})
        self.outbox = Outbox(wire, ledger, lambda: self.register.owed, self.register.catch_up, lambda: NOW)
        self.desk = Desk(
            wire, ledger, self.register, sender, lambda: NOW, lambda: registry, Conditions, self.delivered.append,
            self.outbox.wake, self.outbox.resend, self.faults.append, self.verdicts.append,
        )  # fmt: skip

    async def work(self) -> None:
        """Take everything that has come, and answer it."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(take_all(self.desk)), group.create_task(self.outbox.run())]
            await self.wire.coming.join()
            self.outbox.wake()
            async with asyncio.timeout(5):
                while self.wire.up and (self.register.owed or self.outbox.busy):
                    await asyncio.sleep(0.005)
            for task in tasks:
                task.cancel()


def order_message(**changes: object) -> Inbound:
    """Return a signed vpp/v1 order."""
    return inbound(ORDER_TOPIC, event("vpp.order.set.v1", key("tso-1").jws(order_data(**changes)), subject="order"))


async def test_an_order_is_on_disk_before_it_is_receipted_and_acked(tmp_path: Path) -> None:
    """A good order is delivered once, receipted as received then accepted, acknowledged, and survives a restart."""
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        office = Office(ledger, Wire(order_message()))
        await office.work()
        assert office.wire.statuses() == ["received", "accepted"]
        assert len(office.wire.acked) == len(office.delivered) == 1
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        again = Register(ledger)
        again.catch_up()
        assert [o.order_id for o in again.orders] == [office.delivered[0].orders[0].order_id]
        assert not again.owed


async def test_a_duplicate_gets_the_same_receipts_and_no_second_effect(tmp_path: Path) -> None:
    """The same bytes again are answered with the very same receipts and delivered to nobody."""
    message = order_message()
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        office = Office(ledger, Wire(message, message))
        await office.work()
        assert len(office.delivered) == 1
        assert [m.payload for m in office.wire.sent[:2]] == [m.payload for m in office.wire.sent[2:]]


async def test_receipts_owed_go_out_after_a_restart(tmp_path: Path) -> None:
    """Receipts that the broker never took are published by the next process, without a second effect."""
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        office = Office(ledger, Wire(order_message()))
        office.wire.up = False
        await office.work()
        assert office.wire.sent == []
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        office = Office(ledger, Wire())
        await office.work()
        assert office.wire.statuses() == ["received", "accepted"]
        assert office.delivered == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "setpoint", "power": {"value": 9, "unit": "megawatt"}}, "unauthorised"),
        ({"resource": "main-z"}, "unknown_resource"),
        ({"expires_at": "2026-03-01T11:00:00Z"}, "expired"),
    ],
    ids=["unauthorised", "unknown", "expired"],
)
async def test_a_refused_order_is_answered_with_the_reason(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    """A refused order reaches nobody, and its issuer is told why."""
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        office = Office(ledger, Wire(order_message(**changes)))
        await office.work()
        assert office.delivered == []
        assert body(office.wire.sent[-1])["reason"] == reason
        assert len(office.wire.acked) == 1


async def test_a_replaced_target_cannot_be_replayed(tmp_path: Path) -> None:
    """A captured load target that has been released since is refused as a replay."""
    jws = key("tso-1").jws(targets())
    captured = inbound(LOAD_TARGET_TOPIC, event("grid.loadtarget.set.v1", jws))
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        office = Office(ledger, Wire(captured))
        await office.work()
        closed = [
            {"order_id": o.order_id, "state": "completed", "reason": "released"} for o in office.delivered[0].orders
        ]
        await ledger.append(*(Event("orders", "order_state", NOW, entry) for entry in closed))
        office.register.catch_up()
        for message in (captured, inbound(LOAD_TARGET_TOPIC, event("grid.loadtarget.set.v1", jws))):
            office.wire.coming.put_nowait(message)
        await office.work()
        assert len(office.delivered) == 1
        assert [body(m).get("reason") for m in office.wire.sent if body(m)["status"] == "rejected"] == ["replay"] * 2


async def test_a_flood_of_forgeries_is_dropped_and_a_good_order_still_gets_through(tmp_path: Path) -> None:
    """What nobody has signed fills neither the ledger nor the line beyond an allowance."""
    forged = [
        inbound(ORDER_TOPIC, event("vpp.order.set.v1", key("stranger").jws(order_data()), subject="order"))
        for _ in range(200)
    ]
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        office = Office(ledger, Wire(*forged, order_message()))
        await office.work()
        assert len(office.wire.acked) == len(office.verdicts) == 201
        assert office.wire.statuses().count("rejected") == 120
        assert office.wire.statuses()[-2:] == ["received", "accepted"]
        assert len(office.delivered) == 1


async def test_a_release_sent_again_gets_the_same_receipts(tmp_path: Path) -> None:
    """A release is over at once; a copy that was under way, or comes after a restart, is a duplicate and no replay."""
    message = order_message(kind="release", power=None, interval=None)
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        office = Office(ledger, Wire(message))
        await office.work()
        (released,) = office.delivered[0].orders
        over = {"order_id": released.order_id, "state": "completed", "reason": "released"}
        await ledger.append(Event("orders", "order_state", NOW, over))
        first = [m.payload for m in office.wire.sent]
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        office = Office(ledger, Wire(message))
        await office.work()
        assert office.delivered == []
        assert [m.payload for m in office.wire.sent] == first
