"""The market at work: hears offers, clears each slot at its gate, awards, orders what is kept ready, collects statements."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from vppd.grid.fields import stamp
from vppd.grid.issuer import Word
from vppd.grid.offers import OFFER, read_offer
from vppd.grid.reasons import Defect, Reason
from vppd.grid.receipts import RECEIPT
from vppd.grid.strict_json import Json
from vppd.grid.vpp_agent import STATEMENT
from vppd.grid.wander import SIGNAL_S
from vppd.market.accounts import Tariff
from vppd.market.link import Clerk, Wire
from vppd.market.memory import Errand, Memory
from vppd.market.rounds import Deal, Round, Rules, held
from vppd.market.signalling import Signalling

TRIES = 10
"""A command without a receipt goes out so often."""
MOST_IGNORED = 200
KEPT = timedelta(hours=1)
"""Bids are forgotten so long after their slot."""
ORDERED_AS = {"up": "reduce", "down": "increase", "symmetric": "regulation"}
"""Kind of the order that calls what is kept ready, by direction."""
KNOWN_THERE = "known there already"


@dataclass(frozen=True, slots=True)
class Pace:
    """How the market keeps time."""

    grace_s: float = 0.5
    """Offers that were on their way when the gate closed are still taken for so long. [s]"""
    resend_s: float = 3.0
    """Without a receipt a command is sent again after this long. [s]"""
    beat_s: float = 0.2
    activate_frac: float = 1.0
    """How likely an award that is kept ready is ordered. [0-1]"""
    order_after_s: float = 0.0
    """So long after the slot has begun it is ordered. [s]"""
    signal_s: float = SIGNAL_S
    """Time between two regulation signals. [s]"""
    most_slots: int | None = None
    """No more slots are bought."""


@dataclass(slots=True)
class Market:
    """One market, one clock, any number of power plants. All of it belongs to the event loop."""

    rules: Rules
    clerk: Clerk
    wire: Wire
    mono_s: Callable[[], float]
    pace: Pace = field(default_factory=Pace)
    tariff: Tariff = field(default_factory=Tariff)
    memory: Memory = field(default_factory=Memory)
    say: Callable[..., None] = lambda event, **facts: None
    """Told what happens, in words and facts."""
    changed: Callable[[], None] = lambda: None
    """Told that something has changed that is worth keeping."""
    ignored: list[dict[str, Any]] = field(default_factory=list)
    """Offers that did not count, and why."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _signalling: Signalling = field(init=False)

    def __post_init__(self) -> None:
        self._signalling = Signalling(self.clerk, self.wire, self.rules.crowd.seed, self.pace.signal_s)

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Do what is due until it is over."""
        while not is_over():
            self._wake.clear()
            self.tick()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.pace.beat_s):
                    await self._wake.wait()

    def wake(self) -> None:
        """Look at once instead of at the next beat."""
        self._wake.set()

    def tick(self) -> None:
        """Do what is due now: close gates, order what is kept ready, send what has no receipt."""
        at = self.clerk.now()
        for slot in self.memory.book.close(at, self.pace.grace_s):
            if not self.rules.buys(slot):
                continue
            if self.pace.most_slots is not None and len(self.memory.rounds) >= self.pace.most_slots:
                break  # what closes now is not bought any more
            found, deals = held(slot, self.memory.book.offers(slot), self.rules)
            self._cleared(found, deals)
        for deal in self.memory.deals.values():
            if self._is_to_be_ordered(deal, at):
                self._order(deal, at)
        self._send(at)
        self._signalling.tick(self.memory.deals.values(), at)
        self.memory.book.forget(at - KEPT)

    def hear(self, topic: str, payload: bytes) -> None:
        """Take a message from the broker; what is not a power plant's own word is ignored."""
        if not topic.startswith("vpp/v1/"):
            return  # some brokers send retained messages of other topics along
        try:
            vpp, word = self.clerk.read(topic, payload)
            take = {OFFER: self._offer, RECEIPT: self._receipt, STATEMENT: self._statement}.get(word.type)
            if take is not None:
                take(vpp, word)
        except Defect as defect:
            self._ignore({"topic": topic, "reason": str(defect)})
            return
        self.wake()

    def _offer(self, vpp: str, word: Word) -> None:
        offered = read_offer(word.data)
        why = self.memory.book.take(vpp, offered, self.clerk.now(), self.pace.grace_s)
        bid = offered.bid
        if why:
            self._ignore({"vpp": vpp, "bid_id": bid.bid_id, "revision": bid.revision, "reason": why})
            return
        facts = {"vpp": vpp, "bid_id": bid.bid_id, "revision": bid.revision, "power_w": bid.power_w}
        self.say(offered.state, **facts, product=bid.product, start=stamp(bid.interval.start))
        self.changed()

    def _cleared(self, found: Round, deals: list[Deal]) -> None:
        self.memory.rounds.append(found)
        price = None if found.price is None else str(found.price)
        self.say("cleared", slot=str(found.slot), price=price, need_w=found.need_w, awards=len(deals))
        for deal in deals:
            if deal.award_id not in self.memory.deals:
                self.memory.deals[deal.award_id] = deal
                self._errand(deal, "award", award_data(deal), deal.start)
        self.changed()

    def _errand(self, deal: Deal, purpose: str, data: dict[str, Json], not_after: datetime) -> None:
        command = self.clerk.command(deal.vpp, purpose, data)
        self.memory.errands.append(Errand(deal.award_id, purpose, command, not_after))

    def _send(self, at: datetime) -> None:
        """Send the first command of each power plant again until it has its receipt: the sequence must arrive in order."""
        busy: set[str] = set()
        for errand in list(self.memory.errands):
            deal, mono_s = self.memory.deals[errand.award_id], self.mono_s()
            if deal.vpp in busy:
                continue
            if errand.tries >= TRIES or (errand.tries and errand.not_after + KEPT < at):
                self._answered(errand, "unanswered", f"no receipt after {errand.tries} tries")
                continue
            busy.add(deal.vpp)
            if mono_s >= errand.due_s:
                errand.tries, errand.due_s = errand.tries + 1, mono_s + self.pace.resend_s
                self.wire.publish(errand.command.topic, errand.command.payload)

    def _receipt(self, _vpp: str, word: Word) -> None:
        status, command_id = word.data.get("status"), word.data.get("command_id")
        errand = next((e for e in self.memory.errands if e.command.id == command_id), None)
        if errand is None or status not in ("accepted", "rejected"):
            return
        reason = str(word.data.get("reason", ""))
        if reason == Reason.SEQUENCE and errand.tries < TRIES:
            self._again(errand)
        elif reason == Reason.REPLAY:  # a market that has lost its memory awards or orders the same once more
            self._answered(errand, "accepted", KNOWN_THERE)
        else:
            self._answered(errand, str(status), ": ".join(filter(None, (reason, str(word.data.get("detail", ""))))))

    def _again(self, errand: Errand) -> None:
        """Sign the same once more: another of our commands with a later number was faster."""
        deal = self.memory.deals[errand.award_id]
        data = award_data(deal) if errand.purpose == "award" else order_data(deal)
        errand.command = self.clerk.command(deal.vpp, errand.purpose, data)
        errand.due_s = float("-inf")

    def _answered(self, errand: Errand, status: str, reason: str) -> None:
        self.memory.errands.remove(errand)
        deal = self.memory.deals[errand.award_id]
        if errand.purpose == "award":
            deal.state, deal.reason = status, reason
        else:
            deal.order_state, deal.order_reason = status, reason
        self.say(
            f"{errand.purpose}_{status}", award_id=deal.award_id, vpp=deal.vpp, power_w=deal.power_w, reason=reason
        )
        self.changed()

    def _is_to_be_ordered(self, deal: Deal, at: datetime) -> bool:
        if deal.state != "accepted" or deal.dispatch != "order" or deal.order_id:
            return False
        if not deal.start + timedelta(seconds=self.pace.order_after_s) <= at < deal.end:
            return False
        chance = random.Random(deal.award_id).random()  # noqa: S311 - the same award meets the same fate
        return chance < self.pace.activate_frac

    def _order(self, deal: Deal, at: datetime) -> None:
        deal.order_id, deal.order_start = self.clerk.issuer.ids.uuid(), at
        span_s = (deal.end - at).total_seconds()
        deal.order_end = at + timedelta(seconds=min(span_s, deal.sustain_s or span_s))
        if deal.direction == "symmetric":
            deal.swing_frac = self._signalling.swing_frac(deal)
        self._errand(deal, "order", order_data(deal), deal.order_end)
        facts = {"kind": ORDERED_AS[deal.direction], "power_w": deal.power_w, "until": stamp(deal.order_end)}
        self.say("ordered", award_id=deal.award_id, **facts)
        self.changed()

    def _statement(self, vpp: str, word: Word) -> None:
        named = {str(word.data.get(key)) for key in ("award_id", "order_id")} - {"None"}
        for deal in self.memory.deals.values():
            if deal.vpp == vpp and {deal.award_id, deal.order_id} & named:
                kind = "award" if "award_id" in word.data else "order"
                deal.statements[kind] = word.data
                self.say("statement", award_id=deal.award_id, kind=kind, vpp=vpp)
                self.changed()

    def _ignore(self, facts: dict[str, Any]) -> None:
        self.ignored = [*self.ignored[1 - MOST_IGNORED :], facts]
        self.say("ignored", **facts)


def award_data(deal: Deal) -> dict[str, Json]:
    """Return what an award says; the clerk adds sequence and audience."""
    return {
        "award_id": deal.award_id,
        "bid_id": deal.bid_id,
        "revision": deal.revision,
        "expires_at": stamp(deal.start),
        "resource": deal.resource,
        "product": deal.product,
        "direction": deal.direction,
        "power": {"value": deal.power_w, "unit": "watt"},
        "interval": {"start_time": stamp(deal.start), "end_time": stamp(deal.end)},
        "price": {"amount": f"{deal.price:f}", "currency": deal.currency},
    }


def order_data(deal: Deal) -> dict[str, Json]:
    """Return what the order of an award that is kept ready says."""
    assert deal.order_start is not None
    assert deal.order_end is not None
    return {
        "order_id": deal.order_id,
        "expires_at": stamp(deal.order_end),
        "resource": deal.resource,
        "kind": ORDERED_AS[deal.direction],
        "power": {"value": deal.power_w, "unit": "watt"},
        "interval": {"start_time": stamp(deal.order_start), "end_time": stamp(deal.order_end)},
        "product": deal.product,
    }
