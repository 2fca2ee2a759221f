"""Offers, awards and obligations on a real broker and a real ledger, with a market that shares no code with vppd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.grid.dispatcher import NOW, award_data, watts
from tests.grid.plant import sender, with_awards
from tests.grid.schemas import check
from tests.grid.trade import AWARD_ID, BID_ID, GATE, SLOT, a_bid, an_obligation, award_message
from tests.grid.wire import PATIENCE_S, Dispatcher, running, settings
from tests.servers.mosquitto import Mosquitto
from vppd.core.bidding.bid import Bid
from vppd.grid.award_statement import AwardStatement, award_statement, award_statement_event
from vppd.grid.intake import Desk, take_all
from vppd.grid.offers import offer_event, offer_message
from vppd.grid.outbox import Outbox
from vppd.grid.transport import MqttChannel
from vppd.grid.verdict import Conditions
from vppd.ledger.sqlite import SqliteLedger, open_ledger
from vppd.model import Event, Outbound
from vppd.register import Register
from vppd.runtime.cycle import Inbox

pytestmark = pytest.mark.integration
VERSIONS = pytest.mark.parametrize("protocol", ["5", "3.1.1"])
TOPICS = ("vpp/v1/dc1/bid/offer", "vpp/v1/dc1/issuer/tso/receipt", "vpp/v1/dc1/statement")


class Seller:
    """The daemon's parts that sell: register, outbox, intake, and the cycle's inbox."""

    def __init__(self, ledger: SqliteLedger, link: MqttChannel) -> None:
        self.ledger, self.register, self.inbox = ledger, Register(ledger), Inbox()
        self.register.catch_up()
        self.inbox.orders.extend(self.register.orders)
        self.hold = ""
        self.outbox = Outbox(link, ledger, lambda: self.register.owed, self.register.catch_up, lambda: NOW)
        self.desk = Desk(
            link, ledger, self.register, sender(), lambda: NOW, with_awards, lambda: Conditions(hold=self.hold),
            lambda verdict: self.inbox.take(verdict.orders), self.outbox.wake, self.outbox.resend, lambda _: None,
            lambda _: None,
        )  # fmt: skip

    async def put_up(self, bid: Bid, state: Any = "offered") -> None:
        """Offer or withdraw: on disk first, then owed to the market."""
        await self.write(offer_event(bid, state, GATE, NOW, offer_message(bid, state, GATE, NOW, sender())))

    async def write(self, event: Event) -> None:
        """Commit an event, and let what it owes go out."""
        async with self.register.trading:
            await self.ledger.append(event)
            self.register.catch_up()
        self.outbox.wake()

    async def paid(self) -> None:
        """Wait until nothing is owed any more."""
        async with asyncio.timeout(PATIENCE_S):
            while self.register.owed:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def at_work(folder: Path, broker: Mosquitto, protocol: str) -> AsyncIterator[Seller]:
    """Sell for the time of the block, on the ledger in ``folder``."""
    async with open_ledger(folder / "ledger.db") as ledger, running(settings(broker, protocol=protocol)) as link:
        seller = Seller(ledger, link)
        tasks = [asyncio.create_task(work) for work in (seller.outbox.run(), take_all(seller.desk))]
        seller.outbox.wake()
        try:
            yield seller
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def heard(market: Dispatcher) -> dict[str, Any]:
    """Return the signed data of the next message, after it has passed its schema."""
    message = await market.hear()
    return check(Outbound(message.topic, bytes(message.payload)))


def award_from(offer: dict[str, Any], kilowatts: float, **changes: Any) -> dict[str, Any]:
    """Return an award made of nothing but what the offer said."""
    same = {name: offer[name] for name in ("bid_id", "revision", "product", "resource", "direction", "interval")}
    price = {"amount": offer["steps"][-1]["price"], "currency": offer["currency"]}
    return award_data(**same, award_id=AWARD_ID, power=watts(kilowatts, "kilowatt"), price=price, **changes)


@VERSIONS
async def test_from_an_offer_to_an_obligation(tmp_path: Path, mosquitto: Mosquitto, protocol: str) -> None:
    """Offered, awarded, receipted; the order is in the inbox, and all of it outlives the process."""
    with Dispatcher(mosquitto, *TOPICS, protocol=protocol) as market:
        async with at_work(tmp_path, mosquitto, protocol) as seller:
            await seller.put_up(a_bid(dispatch="scheduled"))
            offer = await heard(market)
            assert (offer["bid_id"], offer["state"], offer["dispatch"]) == (BID_ID, "offered", "scheduled")
            award = award_message(award_from(offer, 300.0))
            await market.send(award)
            receipts = [await heard(market), await heard(market)]
            assert [(r["status"], r["order_id"]) for r in receipts] == [("received", AWARD_ID), ("accepted", AWARD_ID)]
            sold = an_obligation(dispatch="scheduled")
            assert seller.register.obligations_at(NOW) == (sold,)
            assert [(o.order_id, o.kind, o.power_w, o.interval) for o in seller.inbox.orders] == [
                (AWARD_ID, "reduce", 300e3, SLOT)
            ]
            await seller.paid()
        async with at_work(tmp_path, mosquitto, protocol) as seller:
            assert seller.register.obligations_at(NOW) == (sold,)
            assert seller.register.offers[BID_ID].left_w == 100e3
            await market.send(award)
            assert [await heard(market), await heard(market)] == receipts, "the very same receipts, from disk"
            assert len(seller.inbox.orders) == len(seller.register.obligations) == 1
            found = AwardStatement(sold, 1.0, delivered_wh=75e3)
            await seller.write(award_statement_event(found, NOW, award_statement(found, NOW, sender())))
            said = await heard(market)
            assert (said["award_id"], said["held_frac"], said["delivered_wh"]) == (AWARD_ID, 1.0, 75e3)
            assert seller.register.unsettled_at(NOW + timedelta(days=1)) == ()


async def test_an_offer_on_disk_reaches_the_market_after_a_crash(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """What was committed and not sent is sent by the next process, once."""
    bid = a_bid()
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        await ledger.append(offer_event(bid, "offered", GATE, NOW, offer_message(bid, "offered", GATE, NOW, sender())))
    with Dispatcher(mosquitto, *TOPICS) as market:
        for _ in range(2):
            async with at_work(tmp_path, mosquitto, "5") as seller:
                await seller.paid()
        assert (await heard(market))["bid_id"] == BID_ID
        assert market.heard.empty()


@pytest.mark.parametrize(
    ("state", "hold", "kilowatts", "reason"),
    [
        ("withdrawn", "", 300.0, "late"),
        ("offered", "the operator has released the plant", 300.0, "hold"),
        ("offered", "", 401.0, "mismatch"),
    ],
)
async def test_a_refused_award_says_why_and_obliges_to_nothing(
    tmp_path: Path, mosquitto: Mosquitto, state: str, hold: str, kilowatts: float, reason: str
) -> None:
    """The market hears received, rejected and the reason; there is no obligation, and a restart knows of none."""
    with Dispatcher(mosquitto, *TOPICS) as market:
        async with at_work(tmp_path, mosquitto, "5") as seller:
            seller.hold = hold
            await seller.put_up(a_bid())
            offer = await heard(market)
            if state == "withdrawn":
                await seller.put_up(replace(a_bid(), revision=2), "withdrawn")
                assert (await heard(market))["state"] == "withdrawn"
            await market.send(award_message(award_from(offer, kilowatts)))
            receipts = [await heard(market), await heard(market)]
            assert [(r["status"], r.get("reason")) for r in receipts] == [("received", None), ("rejected", reason)]
            await seller.paid()
        async with at_work(tmp_path, mosquitto, "5") as seller:
            assert (seller.register.obligations, seller.inbox.orders) == ((), [])
