"""What was offered and awarded, as a restart adds it up: newest revision, sums, statements, and when to forget."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from tests.grid.dispatcher import NOW
from tests.grid.plant import sender
from tests.grid.trade import AWARD_ID, BID_ID, GATE, SLOT, a_bid, an_obligation
from vppd.core.bidding.bid import Bid
from vppd.core.bidding.quote import Step
from vppd.errors import Garbled, Refused
from vppd.grid.award_statement import AwardStatement, award_statement, award_statement_event
from vppd.grid.offers import offer_event, offer_message
from vppd.ledger.projections import Projection
from vppd.ledger.sqlite import open_ledger
from vppd.model import Event, Obligation, Order, OrderKind, Outbound, Recorded
from vppd.register import Register
from vppd.testing.fakes import MemoryLedger

END = SLOT.end or NOW


class Story:
    """A ledger that is written event by event, and what it adds up to."""

    def __init__(self) -> None:
        self.ledger = MemoryLedger()
        self.register = Register(self.ledger)

    async def offer(self, bid: Bid | None = None, state: Any = "offered", at: datetime = NOW) -> None:
        """Write an offer."""
        await self.write(offer_event(bid or a_bid(), state, GATE, at, None))

    async def award(self, found: Obligation | None = None, seq: int = 1, at: datetime = NOW, **more: Any) -> None:
        """Write an accepted award."""
        found = found or an_obligation()
        body = {
            "issuer": "tso", "command_id": f"c{seq}", "verdict": "accepted", "reason": "", "digest": "d", "orders": [],
            "seq": seq, "award": found.to_body(), "receipts": [{"topic": "r", "payload": f"receipt {seq}"}], **more,
        }  # fmt: skip
        await self.write(Event("orders", "command_received", at, body))

    async def write(self, event: Event) -> None:
        """Append, and fold."""
        await self.ledger.append(event)
        self.register.catch_up()


@pytest.fixture
def story() -> Story:
    """An empty ledger."""
    return Story()


async def test_the_newest_revision_counts(story: Story) -> None:
    """Revisions replace one another; what is older changes nothing, in whatever order it was written."""
    await story.offer()
    await story.offer(a_bid(revision=3, steps=(Step(200e3, 1e-6),)))
    await story.offer(a_bid(revision=2))
    found = story.register.offers[BID_ID]
    assert (found.bid.revision, found.bid.power_w, found.state, found.gate_closes_at) == (3, 200e3, "offered", GATE)
    await story.offer(a_bid(revision=3), "withdrawn")
    await story.offer(a_bid(revision=2), "withdrawn")
    await story.write(replace(offer_event(a_bid(revision=3), "offered", GATE, NOW, None), key=""))
    assert story.register.offers[BID_ID].state == "withdrawn"
    assert story.register.offers[BID_ID].left_w == 0.0
    await story.offer(a_bid(revision=4))
    assert story.register.offers[BID_ID].left_w == 400e3
    await story.offer(a_bid(revision=1), "withdrawn")
    assert story.register.offers[BID_ID].left_w == 400e3


async def test_awards_add_up_over_revisions(story: Story) -> None:
    """What is left is what the newest revision offers less all that was awarded before."""
    await story.offer()
    await story.award()
    await story.award(an_obligation(award_id="another", power_w=50e3), seq=2)
    await story.offer(a_bid(revision=2, steps=(Step(360e3, 1e-6),)))
    found = story.register.offers[BID_ID]
    assert (found.awarded_w, found.left_w) == (350e3, 10e3)
    await story.offer(a_bid(revision=3), "withdrawn")
    assert len(story.register.obligations) == 2, "what was awarded is owed, whatever becomes of the rest"


async def test_an_award_raises_the_sequence_and_uses_up_its_id(story: Story) -> None:
    """Also one that is kept ready and has no order; its command is live for as long as anybody asks."""
    await story.award(seq=41)
    register = story.register
    assert (register.last_seq("tso", "command"), register.has_order(AWARD_ID), register.orders) == (41, True, ())
    stored = register.command("tso", "c41")
    assert stored is not None
    assert (stored.live, stored.receipts) == (True, (Outbound("r", b"receipt 41"),))


async def test_one_bid_of_a_group_wins(story: Story) -> None:
    """The first that is awarded, known by its group."""
    await story.offer(a_bid(exclusive_group="evening"))
    assert story.register.winner("evening") is None
    await story.award()
    assert story.register.winner("evening") == BID_ID


async def test_an_obligation_is_unsettled_until_its_statement(story: Story) -> None:
    """At the end of its interval it wants an account: its own, or that of the order that carried it out."""
    await story.award()
    await story.award(an_obligation(award_id="scheduled", dispatch="scheduled"), seq=2)
    register, before = story.register, END - timedelta(seconds=1)
    assert [o.award_id for o in register.obligations_at(before)] == [AWARD_ID, "scheduled"]
    assert (register.obligations_at(END), register.unsettled_at(before)) == ((), ())
    assert len(register.unsettled_at(END)) == 2
    found = AwardStatement(an_obligation(), 1.0)
    await story.write(award_statement_event(found, END, award_statement(found, END, sender())))
    assert [o.award_id for o in register.unsettled_at(END)] == ["scheduled"]
    await story.write(Event("statements", "statement", END, {"order_id": "scheduled"}))
    assert register.unsettled_at(END) == ()
    with pytest.raises(Refused):
        await story.ledger.append(award_statement_event(found, END, None))


async def test_what_is_long_over_is_forgotten(story: Story) -> None:
    """Offers after two days; obligations too once they are settled, else after a month."""
    await story.offer(a_bid(exclusive_group="evening"))
    await story.award()
    await story.award(an_obligation(award_id="settled"), seq=2)
    await story.write(award_statement_event(AwardStatement(an_obligation(award_id="settled"), 1.0), END, None))
    new = a_bid(bid_id="1" + BID_ID[1:], interval=replace(SLOT, end=END + timedelta(days=90)))
    days = {1.9: (2, 2, BID_ID), 2.1: (1, 1, None), 31.9: (1, 1, None), 32.1: (1, 0, None)}
    for revision, (day, expected) in enumerate(days.items(), start=1):
        await story.offer(replace(new, revision=revision), at=END + timedelta(days=day))
        register = story.register
        assert (len(register.offers), len(register.obligations), register.winner("evening")) == expected, day
    assert story.register.has_order(AWARD_ID), "its id stays used"


@pytest.mark.parametrize(
    "change", [{"steps": []}, {"direction": "sideways"}, {"steps": "x"}, {"revision": None, "start": 7}]
)
async def test_an_offer_that_makes_no_sense_is_garbled(story: Story, change: dict[str, Any]) -> None:
    """A ledger that somebody wrote into by hand stops the start, with the number of the event."""
    event = offer_event(a_bid(), "offered", GATE, NOW, None)
    event.body["bid"].update(change)
    await story.ledger.append(event)
    with pytest.raises(Garbled, match="event 1"):
        story.register.catch_up()


async def test_offers_and_obligations_outlive_a_restart(tmp_path: Path) -> None:
    """Through the real ledger: the same offer cannot be written twice, its message stays owed, and all comes back."""
    bid = a_bid(dispatch="scheduled", exclusive_group="evening", sustain_s=900.0)
    order = Order(AWARD_ID, "tso", OrderKind.REDUCE, "dc1", SLOT, 300e3, product="mfrr-up")
    message = offer_message(bid, "offered", GATE, NOW, sender())
    body = {"issuer": "tso", "command_id": "c", "verdict": "accepted", "reason": "", "digest": "d", "seq": 9}
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        await ledger.append(offer_event(bid, "offered", GATE, NOW, message))
        with pytest.raises(Refused):
            await ledger.append(offer_event(bid, "offered", GATE, NOW, message))
        sold = an_obligation(dispatch="scheduled")
        body |= {"orders": [order.to_body()], "award": sold.to_body()}
        await ledger.append(Event("orders", "command_received", NOW, body))
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        register = Register(ledger)
        register.catch_up()
        assert register.offers[BID_ID].bid == bid
        assert (register.offers[BID_ID].awarded_w, register.obligations) == (300e3, (sold,))
        assert (register.orders, register.last_seq("tso", "command")) == ((order,), 9)
        assert [owed.messages for owed in register.owed] == [(message,)]


def test_a_year_of_trading_is_folded_in_seconds() -> None:
    """Every event costs the same, however many there were, and a year's offers are not kept."""
    projection, took_s = Projection(), []
    for part in range(4):
        began_s = perf_counter()
        for n in range(part * 2_500, (part + 1) * 2_500):
            at = NOW + timedelta(minutes=15 * n)
            slot = replace(SLOT, start=at, end=at + timedelta(minutes=15))
            bid = a_bid(bid_id=f"bid-{n}", interval=slot, exclusive_group=f"group-{n}")
            award = an_obligation(award_id=f"award-{n}", bid_id=bid.bid_id, interval=slot)
            body = {"issuer": "tso", "command_id": f"c{n}", "verdict": "accepted", "reason": "", "digest": "d"}
            events = (
                Event("bids", "offered", at, {"bid": bid.to_body(), "gate_closes_at": at.isoformat()}),
                Event("orders", "command_received", at, {**body, "orders": [], "seq": n, "award": award.to_body()}),
                Event("statements", "award", at, {"award_id": award.award_id}),
            )
            for i, event in enumerate(events):
                projection.fold(Recorded(3 * n + i + 1, event, ""))
        took_s.append(perf_counter() - began_s)
    assert len(projection.trades.offers) < 200
    assert len(projection.trades.obligations) < 200
    assert took_s[3] < 4.0 * min(took_s) + 0.5, took_s
