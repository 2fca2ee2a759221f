"""The OpenADR 3.1 VEN: keeps the server's events in hand, and says what they ask whenever that changes.

REST is the truth. A notification is a doorbell: what it says is not believed, it only makes us fetch at once. While the server does
not answer the events in hand go on; ``reconcile`` and ``carry_out`` make orders of the plan, on disk before they are in force.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from vppd.config.openadr import OpenAdrConfig
from vppd.errors import DeviceError, Refused
from vppd.grid.commit import committed
from vppd.grid.openadr3.changes import Changes, reconcile
from vppd.grid.openadr3.model import Event, Program
from vppd.grid.openadr3.orders import PROTOCOL, Book, Plan, plan
from vppd.grid.openadr3.payloads import Terms
from vppd.grid.openadr3.reading import Reading, Unread
from vppd.grid.openadr3.rest import Vtn
from vppd.model import Event as LedgerEvent
from vppd.model import Order
from vppd.ports import Ledger

REST_S = 0.25
"""Least time between two fetches, however often the doorbell rings. [s]"""
RETRY_FIRST_S = 1.0
AHEAD = timedelta(hours=6)
"""Orders are given so long before they begin: each one that is open costs every cycle a little."""
PLAN_KEPT = timedelta(minutes=5)
"""While nothing is changed at the server, a plan is made anew so often, for what comes into its horizon."""

log = structlog.get_logger()


class Clock(Protocol):
    """The two readings of ``runtime.clock``."""

    def mono_s(self) -> float:
        """Return monotonic time. [s]"""
        ...

    def now(self) -> datetime:
        """Return the present as aware UTC."""
        ...


@dataclass(frozen=True, slots=True)
class News:
    """A plan, and whether it rests on what the server has said."""

    plan: Plan
    at: datetime
    known: bool
    """False: the server has not answered since we started, so nothing that is open may be taken for unwanted."""


class Ven:
    """One server's programs as seen from this site."""

    def __init__(
        self,
        vtn: Vtn,
        config: OpenAdrConfig,
        terms: Terms,
        clock: Clock,
        deliver: Callable[[News], Awaitable[None]],
    ) -> None:
        self._vtn, self._config, self._terms, self._clock, self._deliver = vtn, config, terms, clock, deliver
        self._bell = asyncio.Event()
        self._answered_s, self._fetched_s = clock.mono_s(), -REST_S
        self._failures, self._known = 0, False
        self._reasons: frozenset[tuple[str, str, str]] = frozenset()
        self._programs = Reading(Program, config.naive_zone)
        self._events: dict[str, Reading[Event]] = {}
        self._planned: tuple[Book, bool, datetime, Plan] | None = None
        self.book = Book()
        """The server's objects as fetched last."""
        self.fetches = 0
        """Complete fetches so far."""
        self.fetched_at: datetime | None = None
        """When the newest complete fetch was."""
        self.trouble = ""
        """Why the newest fetch failed; empty when it did not."""

    @property
    def terms(self) -> Terms:
        """Return what has been agreed with the server."""
        return self._terms

    @property
    def lost(self) -> bool:
        """Say whether the server has not answered for too long."""
        return self._clock.mono_s() - self._answered_s >= self._config.lost_after_s

    def ring(self) -> None:
        """Fetch at once: the notifier spoke, or has just been connected."""
        self._bell.set()

    def grid_outage(self) -> None:
        """Void all limits until they have been fetched again; the subscription holds meanwhile."""
        self.book = replace(self.book, discarded=True)
        self.ring()

    async def listen(self, notifications: AsyncIterator[object]) -> None:
        """Ring for every notification, for as long as they come."""
        async for _ in notifications:
            self.ring()

    async def run(self) -> None:
        """Fetch and deliver for ever; what fails is tried again."""
        while True:
            self._bell.clear()
            if self.book.discarded:
                await self._tell()
            await self._try_fetch()
            await self._tell()
            await self._wait()

    async def fetch(self) -> None:
        """Replace the events in hand by the server's, all or none. Raises Unreachable, Refused or Garbled."""
        self._fetched_s = self._clock.mono_s()
        programs, unread = self._programs.read_all(await self._vtn.programs())
        ours = [p for p in programs if not self._config.programs or p.program_name in self._config.programs]
        self._events = {p.id: self._events.get(p.id) or Reading(Event, self._config.naive_zone) for p in ours}
        odd: dict[str, Unread] = {entry.id: entry for entry in unread}
        events: dict[str, Event] = {}
        for program in ours:
            found, unread = await self._events_of(program)
            events |= found
            odd |= {entry.id: entry for entry in unread}
        self._take(ours, events, odd)

    def _take(self, programs: Sequence[Program], events: Mapping[str, Event], odd: Mapping[str, Unread]) -> None:
        """Keep what was fetched; a book that says the same as before stays the same object."""
        at = self._clock.now()
        seen = {event_id: self.book.seen.get(event_id, at) for event_id in events}
        new = {event_id for event_id in events if event_id not in self.book.seen} if self.fetched_at else set[str]()
        absent = {i: at for i, at in self.book.absent.items() if i in events} | dict.fromkeys(
            new, self.fetched_at or at
        )
        book = Book(tuple(programs), tuple(events.values()), tuple(odd.values()), seen, absent=absent)
        self.book = self.book if book == self.book else book
        self.fetches, self.fetched_at = self.fetches + 1, at

    async def _events_of(self, program: Program) -> tuple[dict[str, Event], tuple[Unread, ...]]:
        """Return a program's events by id, and what makes no sense; a server may give us those of others as well."""
        said = await self._vtn.events(program.id)
        found, unread = await asyncio.to_thread(self._events[program.id].read_all, said)
        return {event.id: event for event in found if event.program_id == program.id}, unread

    def plan(self) -> Plan:
        """Return what the events in hand ask now."""
        return self._plan(self.book, self.lost, self._clock.now())

    def _plan(self, book: Book, lost: bool, at: datetime) -> Plan:
        return plan(replace(book, lost=lost), self._terms, at, self._terms.site.vpp_id)

    async def _newest_plan(self) -> Plan:
        """Return the plan of before while nothing has changed that matters; a new one is made beside the loop."""
        book, lost, at = self.book, self.lost, self._clock.now()
        if self._planned is not None:
            of, was_lost, made_at, found = self._planned
            if of is book and was_lost == lost and timedelta() <= at - made_at < PLAN_KEPT:
                return found
        found = await asyncio.to_thread(self._plan, book, lost, at)
        self._planned = (book, lost, at, found)
        return found

    async def _try_fetch(self) -> None:
        try:
            await self.fetch()
        except DeviceError as error:
            self._failures += 1
            if str(error) != self.trouble:
                level = log.error if isinstance(error, Refused) else log.warning
                level("openadr_fetch_failed", issuer=self._terms.issuer, error=str(error), kind=type(error).__name__)
            self.trouble = str(error)
        else:
            if self._failures:
                log.info("openadr_fetch_works_again", issuer=self._terms.issuer, failures=self._failures)
            self._answered_s, self._known = self._clock.mono_s(), True
            self._failures, self.trouble = 0, ""

    async def _tell(self) -> None:
        found = await self._newest_plan()
        reasons = frozenset((note.event_id, note.payload_type, note.why.value) for note in found.notes)
        for note in found.notes:
            if (note.event_id, note.payload_type, note.why.value) not in self._reasons:
                log.info(
                    "openadr_signal_not_applied",
                    issuer=self._terms.issuer,
                    event_id=note.event_id,
                    payload_type=note.payload_type,
                    reason=note.why.value,
                    detail=note.sentence,
                )
        self._reasons = reasons
        await self._deliver(News(found, self._clock.now(), self._known))

    async def _wait(self) -> None:
        """Wait for the doorbell, the next poll, the next try after a failure, or the moment the server counts as lost."""
        config, now_s = self._config, self._clock.mono_s()
        limit_s = config.poll_s
        if self._failures:
            limit_s = min(limit_s, RETRY_FIRST_S * 2.0 ** min(self._failures - 1, 10))
        if not self.lost:
            limit_s = min(limit_s, max(self._answered_s + config.lost_after_s - now_s, REST_S))
        try:
            async with asyncio.timeout(limit_s):
                await self._bell.wait()
        except TimeoutError:
            return
        await asyncio.sleep(max(0.0, self._fetched_s + REST_S - self._clock.mono_s()))


@dataclass(frozen=True, slots=True)
class Desk:
    """What carrying out a plan works with."""

    ledger: Ledger
    opened: Callable[[], Sequence[Order]]
    """Open orders, of everybody, as the ledger has them."""
    catch_up: Callable[[], None]
    """Have ``opened`` take in what has been committed."""
    hold: Callable[[], str]
    """Why no orders are taken now; empty when they are."""
    take: Callable[[Sequence[Order]], None]
    """Put orders in force."""
    faulty: Callable[[bool], None]
    """Tell the failsafe whether commits fail."""


async def carry_out(desk: Desk, issuer: str, news: News, ahead: timedelta = AHEAD) -> Changes:
    """Make the open orders what the plan wants until ``ahead``: first on disk, then in force. Raises Garbled when the ledger is corrupt."""
    near = [order for order in news.plan.orders if order.interval.start < news.at + ahead]
    changes = reconcile(near, desk.opened(), issuer, news.at, desk.hold())
    if not news.known:
        changes = replace(changes, releases=())
    orders = (*changes.releases, *changes.orders)
    if orders and await committed(desk.ledger, entry(orders, issuer, news.at), desk.faulty):
        desk.catch_up()
        desk.take(orders)
        log.info("openadr_orders", issuer=issuer, released=len(changes.releases), added=len(changes.orders))
    return changes


def entry(orders: Sequence[Order], issuer: str, at: datetime) -> LedgerEvent:
    """Return the ledger's record of orders that a plan led to; like a dispatcher's command, without receipts."""
    bodies = [order.to_body() for order in orders]
    digest = hashlib.sha256(json.dumps(bodies, sort_keys=True).encode()).hexdigest()
    body = {
        "command_id": digest[:32],
        "issuer": issuer,
        "topic": "",
        "protocol": PROTOCOL,
        "type": "openadr3.events",
        "authenticated": True,
        "digest": digest,
        "jws_digest": "",
        "traceparent": "",
        "verdict": "accepted",
        "reason": "",
        "detail": "",
        "orders": bodies,
        "receipts": [],
    }
    return LedgerEvent("orders", "command_received", at, body, key=f"{PROTOCOL}/{digest}")
