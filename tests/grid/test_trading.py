"""Whatever is offered, revised, withdrawn, awarded and sent again: no watt is owed twice, and a restart knows it all."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from tests.grid.dispatcher import NOW, when
from tests.grid.plant import sender, with_awards
from tests.grid.schemas import check
from tests.grid.trade import GATE, a_bid, award_message, award_of
from vppd.core.bidding.bid import Bid, unfit_revision
from vppd.core.bidding.quote import Step
from vppd.errors import Refused
from vppd.grid.intake import Desk, take_all
from vppd.grid.offers import offer_event, offer_message
from vppd.grid.verdict import Accepted, Conditions
from vppd.ledger.projections import project
from vppd.model import Inbound, Outbound
from vppd.register import Register
from vppd.testing.fakes import MemoryLedger

IDS = tuple(f"{n:08d}-6d0f-5a51-9a7e-8f5d0b1c2a34" for n in range(4))
GROUPS = ("", "", "evening", "evening")
STEP_W = 100e3


class Queue:
    """A link on which a few messages come, and then no more."""

    def __init__(self, *messages: Inbound) -> None:
        self._messages = messages
        self.acked = 0

    async def messages(self) -> AsyncIterator[Inbound]:
        """Yield them."""
        for message in self._messages:
            yield message

    async def ack(self, _: Inbound) -> None:
        """Count it."""
        self.acked += 1

    async def publish(self, _: Outbound) -> None:
        """Nothing goes out here: what is owed stays in the ledger."""


class Site:
    """A seller: a ledger, what it adds up to, and an intake; ``at`` is its clock."""

    def __init__(self) -> None:
        self.ledger, self.at = MemoryLedger(), NOW
        self.register = Register(self.ledger)
        self.delivered: list[Accepted] = []
        self.resent: list[tuple[Outbound, ...]] = []
        self.hold = ""

    def restart(self) -> None:
        """Forget all but the ledger."""
        self.register = Register(self.ledger)
        self.register.catch_up()

    async def put_up(self, bid: Bid, state: Any) -> bool:
        """Offer, revise or withdraw as a desk does: looked at and committed in one turn; False when it is unfit."""
        async with self.register.trading:
            if unfit_revision(self.register.offered(bid.bid_id), bid, state):
                return False
            message = offer_message(bid, state, GATE, self.at, sender())
            try:
                await self.ledger.append(offer_event(bid, state, GATE, self.at, message))
            except Refused:
                return False
            self.register.catch_up()
            return True

    async def hear(self, *messages: Inbound) -> None:
        """Take messages from the wire."""
        link = Queue(*messages)
        await take_all(
            Desk(
                link, self.ledger, self.register, sender(), lambda: self.at, with_awards,
                lambda: Conditions(hold=self.hold), self.delivered.append, lambda: None, self.resent.append,
                lambda _: None, lambda _: None,
            )
        )  # fmt: skip
        assert link.acked == len(messages)

    def known(self) -> dict[str, Any]:
        """Return all that a restart must know."""
        register = self.register
        awards = [entry.event.body["award"] for entry in self.ledger.recorded if entry.event.body.get("award")]
        return {
            "offers": dict(register.offers),
            "obligations": register.obligations,
            "orders": register.orders,
            "owed": register.owed,
            "winners": {group: register.winner(group) for group in GROUPS},
            "seq": register.last_seq("tso", "command"),
            "ids": {award["award_id"]: register.has_order(award["award_id"]) for award in awards},
        }

    def verdicts(self) -> list[str]:
        """Return how every command was answered: accepted, or the reason why not."""
        bodies = [entry.event.body for entry in self.ledger.recorded if entry.event.kind == "command_received"]
        return [body["reason"] or body["verdict"] for body in bodies]


class Trading(RuleBasedStateMachine):
    """Any sequence of offers, revisions, withdrawals, awards, copies, holds and restarts."""

    sent: Bundle[Inbound] = Bundle("sent")

    @initialize()
    def begin(self) -> None:
        """Start with four bids on the market."""
        self.runner = asyncio.Runner()
        self.site, self.seq = Site(), 0
        self.revisions: dict[int, int] = defaultdict(int)
        for n in range(4):
            self.put_up(n, 4, 0, True, n == 0, False, "offered")

    def teardown(self) -> None:
        """Fold the ledger from every point: what came before and what came after add up to the same."""
        if not hasattr(self, "site"):
            return
        self.runner.close()
        recorded = self.site.ledger.recorded
        whole = project(recorded)
        for count in range(len(recorded)):
            part = project(recorded[:count])
            for entry in recorded[max(count - 2, 0) :]:
                part.fold(entry)
            assert dict(part.trades.offers) == dict(whole.trades.offers)
            assert dict(part.trades.obligations) == dict(whole.trades.obligations)
            assert part.orders == whole.orders

    @rule(
        n=st.integers(0, 3), steps=st.integers(1, 4), least=st.integers(0, 2), divisible=st.booleans(),
        scheduled=st.booleans(), again=st.booleans(), state=st.sampled_from(["offered", "offered", "withdrawn"]),
    )  # fmt: skip
    def offer(self, **terms: Any) -> None:
        """Put up a bid, its next revision or its withdrawal."""
        self.put_up(**terms)

    def put_up(self, n: int, steps: int, least: int, divisible: bool, scheduled: bool, again: bool, state: Any) -> None:
        """Do so, with the revision that is next, or again with the one there is."""
        revision = max(self.revisions[n] + (0 if again else 1), 1)
        bid = a_bid(
            bid_id=IDS[n], revision=revision, steps=tuple(Step(i * STEP_W, i * 10e-6) for i in range(1, steps + 1)),
            min_w=min(least, steps) * STEP_W, divisible=divisible, exclusive_group=GROUPS[n],
            dispatch="scheduled" if scheduled else "order",
        )  # fmt: skip
        if self.runner.run(self.site.put_up(bid, state)):
            self.revisions[n] = revision

    @rule(
        target=sent, n=st.integers(0, 3), tenths=st.sampled_from([1, 10, 10, 15, 20, 20, 30, 40, 41]),
        price=st.sampled_from(["40", "40", "40", None, "20"]),
        revision=st.sampled_from([None, None, None, None, 1, 2]), issuer=st.sampled_from([*["tso"] * 9, "agg"]),
    )  # fmt: skip
    def award(self, n: int, tenths: int, price: str | None, revision: int | None, issuer: str) -> Any:
        """Award some of a bid."""
        self.seq += 1
        amount = {"amount": price, "currency": "EUR"} if price else None
        bid = a_bid(bid_id=IDS[n])
        message = award_message(
            award_of(bid, tenths * STEP_W / 10, price=amount, revision=revision, seq=self.seq, expires_at=when(9e3)),
            issuer,
        )
        self.runner.run(self.site.hear(message))
        return multiple(message)

    @rule(message=sent, first=sent)
    def send_again(self, message: Inbound, first: Inbound) -> None:
        """Send what was sent before once more: whatever it was, nothing new is owed or done."""
        before, done = self.site.known(), len(self.site.delivered)
        before.pop("owed")
        self.runner.run(self.site.hear(message, first, message))
        after = self.site.known()
        after.pop("owed")
        assert after == before
        assert len(self.site.delivered) == done

    @rule(seconds=st.sampled_from([1, 30, 90]))
    def wait(self, seconds: int) -> None:
        """Let time pass; after ten minutes delivery begins."""
        self.site.at += timedelta(seconds=seconds)

    @rule(hold=st.sampled_from(["", "", "the operator has released the plant"]))
    def hold(self, hold: str) -> None:
        """Take no awards, or take them again."""
        self.site.hold = hold

    @rule()
    def restart(self) -> None:
        """Nothing is forgotten and nothing appears."""
        before = self.site.known()
        self.site.restart()
        assert self.site.known() == before

    @invariant()
    def no_watt_is_owed_twice(self) -> None:
        """From the ledger's own text: the awards of a bid stay inside its newest revision, one bid of a group has any."""
        if not hasattr(self, "site"):
            return
        offers: dict[str, dict[str, Any]] = {}
        taken: dict[str, float] = defaultdict(float)
        for entry in self.site.ledger.recorded:
            body = entry.event.body
            if entry.event.stream == "bids":
                offers[body["bid"]["bid_id"]] = body["bid"]
            elif body.get("award"):
                taken[body["award"]["bid_id"]] += body["award"]["power_w"]
        for bid_id, power_w in taken.items():
            assert power_w <= offers[bid_id]["steps"][-1][0] + 1e-6, (bid_id, power_w)
        assert sum(GROUPS[IDS.index(bid_id)] == "evening" for bid_id in taken) <= 1
        owed = {found.bid_id: 0.0 for found in self.site.register.obligations}
        for found in self.site.register.obligations:
            owed[found.bid_id] += found.power_w
        assert owed == dict(taken)
        assert {i: entry.awarded_w for i, entry in self.site.register.offers.items() if entry.awarded_w} == dict(taken)
        assert {self.site.register.winner("evening")} - {None} == {
            i for i in taken if GROUPS[IDS.index(i)] == "evening"
        }
        scheduled = [o.award_id for o in self.site.register.obligations if o.dispatch == "scheduled"]
        assert [order.order_id for order in self.site.register.orders] == scheduled

    @invariant()
    def nothing_is_promised_on_hold_or_too_late(self) -> None:
        """An award that was taken came before delivery began."""
        if hasattr(self, "site"):
            late = [
                e
                for e in self.site.ledger.recorded
                if e.event.body.get("award") and e.event.at >= GATE + timedelta(minutes=5)
            ]
            assert not late


Trading.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
test_no_watt_is_owed_twice = Trading.TestCase


async def test_an_award_meets_the_offer_it_is_judged_by() -> None:
    """While a revision is on its way to disk an award waits, and is then judged by what was revised."""
    site = Site()
    await site.put_up(a_bid(), "offered")
    site.ledger.commit_s = 0.01
    less = a_bid(revision=2, steps=(Step(200e3, 1e-6),), min_w=0.0)
    revising = asyncio.create_task(site.put_up(less, "offered"))
    await asyncio.sleep(0)
    await site.hear(award_message(award_of(a_bid(), 300e3)))
    assert await revising
    assert site.verdicts() == ["mismatch"]
    assert site.register.obligations == ()


async def test_a_revision_meets_the_awards_there_are() -> None:
    """While an award is on its way to disk a revision waits, and is then found unfit."""
    site = Site()
    await site.put_up(a_bid(), "offered")
    site.ledger.commit_s = 0.01
    awarding = asyncio.create_task(site.hear(award_message(award_of(a_bid(), 300e3))))
    await asyncio.sleep(0)
    assert not await site.put_up(a_bid(revision=2, steps=(Step(200e3, 1e-6),), min_w=0.0), "offered")
    await awarding
    assert site.verdicts() == ["accepted"]


async def test_a_flood_of_copies_makes_one_obligation() -> None:
    """Fifty copies of an award, also after a restart: one obligation, one order, the same receipts."""
    site = Site()
    await site.put_up(a_bid(dispatch="scheduled"), "offered")
    message = award_message(award_of(a_bid(), 300e3))
    await site.hear(*[message] * 25)
    site.restart()
    await site.hear(*[message] * 25)
    assert len(site.delivered) == len(site.register.obligations) == len(site.register.orders) == 1
    assert len({json.dumps([m.payload.decode() for m in found]) for found in site.resent}) == 1
    assert [check(m)["status"] for m in site.resent[0]] == ["received", "accepted"]


async def test_a_copy_is_answered_after_its_order_is_over() -> None:
    """A scheduled award's order may be carried out before the dispatcher has its receipt."""
    site = Site()
    await site.put_up(a_bid(dispatch="scheduled"), "offered")
    message = award_message(award_of(a_bid(), 300e3))
    await site.hear(message)
    (order,) = site.register.orders
    state = {"order_id": order.order_id, "state": "completed", "reason": "its interval has ended"}
    await site.ledger.append(replace(site.ledger.recorded[-1].event, kind="order_state", body=state, key=""))
    site.restart()
    await site.hear(message)
    assert [check(m)["status"] for m in site.resent[0]] == ["received", "accepted"]
    assert site.verdicts() == ["accepted"]
