"""The trading desk: before each gate it offers what is sure enough, and keeps whoever must know told of what has been sold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import numpy as np
import structlog

from vppd.config.load import Config
from vppd.config.market import MarketConfig
from vppd.core.bidding.bid import Offered
from vppd.core.failsafe import Severity
from vppd.core.forecast.outlook import Outlook
from vppd.core.state import Decision
from vppd.core.timetable import Timetable
from vppd.errors import Refused, Unreachable
from vppd.grid.envelope import Sender
from vppd.grid.offers import offer_event, offer_message
from vppd.model import Event, Kind
from vppd.planning.trade.alarms import Alarms
from vppd.planning.trade.connection import nodes_of, ramps_of
from vppd.planning.trade.desk_view import desk_view
from vppd.planning.trade.gate_log import GateLog
from vppd.planning.trade.gates import Slot, in_play, next_moments, overlapping, slots
from vppd.planning.trade.offer_form import Answer, Question, answer, question_form
from vppd.planning.trade.quoting import Change, changes, undecided
from vppd.planning.trade.sales import possible_sales, standing, why_not, window_of
from vppd.planning.trade.settling import STREAM, Settled, Settling
from vppd.planning.trade.shelf import Shelf, floored, shelf_of, steps_of
from vppd.ports import Ledger, Window
from vppd.products import ProductConfig, site_of
from vppd.runtime.apart import apart
from vppd.runtime.clock import Clock
from vppd.snapshot import Plant, Snapshot

WORKER = "vppd.planning.trade.worker"
START_S = 20.0
"""Beyond the solver's limit: a busy machine takes its time to start a process. [s]"""
CHECK_S = 5.0
"""So often the clock on the wall is looked at: timers do not notice that it was set, or that the machine slept. [s]"""
PAUSE_S = 10.0
"""At least so long between two rounds, less where gates follow one another fast: what comes together is looked at together. [s]"""
AGAIN_S = 15.0
"""A round that failed is tried again after this. [s]"""
MOMENTS = 16
"""So many of the next moments are scheduled; each round schedules those after it."""
FORESEE_S = 300.0
"""After the start the first forecasts and the first plan are waited for so long. [s]"""
MARGIN_S = 0.5
"""Nothing is changed so shortly before its gate: it would be late. [s]"""

log = structlog.get_logger()


class Records(Settled, Protocol):
    """What has been offered and sold, as the ledger says."""

    @property
    def offers(self) -> Mapping[str, Offered]:
        """What was told to the market last of each bid."""
        ...

    @property
    def trading(self) -> asyncio.Lock:
        """Held from the look at what is there to the commit."""
        ...

    def catch_up(self) -> None:
        """Take in what has been committed since."""
        ...


@dataclass(frozen=True, slots=True)
class Foreseen:
    """Where the desk looks before it offers."""

    outlook: Callable[[], Mapping[str, Outlook]]
    """The newest forecasts by series."""
    timetable: Callable[[], Timetable | None]
    """The newest plan."""


@dataclass(frozen=True, slots=True)
class Told:
    """Whom the desk tells what; all of it returns at once."""

    write: Callable[[Event], None]
    """Puts an event into the journal."""
    owed: Callable[[], None]
    """Something is to be published (``Outbox.wake``)."""
    obliged: Callable[[], None]
    """An award has come or is over (``Planner.wake``)."""
    reserve: Callable[[str, Sequence[Window]], None]
    """What a cluster's scheduler should keep free from now on (``Devices.reserve``)."""


Decide = Callable[[str, Mapping[str, Any], float], Awaitable[Any]]


class TradingDesk:
    """Offers, revises and withdraws before gates close; settles what was sold. Never touches a device."""

    def __init__(
        self,
        config: Config,
        market: MarketConfig,
        products: Sequence[ProductConfig],
        plant: Plant,
        sender: Sender,
        clock: Clock,
        alarms: Alarms,
        ledger: Ledger,
        records: Records,
        foreseen: Foreseen,
        told: Told,
        decide: Decide = apart,
    ) -> None:
        """``products``: those of ``[market]`` (``products.sold``); ``decide`` computes apart from the loop."""
        self._config, self._market, self._plant, self._sender = config, market, plant, sender
        self._clock, self._alarms, self._ledger, self._records = clock, alarms, ledger, records
        self._foreseen, self._told, self._decide = foreseen, told, decide
        self._site = site_of(config)
        self._products = {product.name: product for product in products}
        self._why_not = {name: why_not(product, self._site) for name, product in self._products.items()}
        self._clusters = tuple(a.id for a in config.assets if a.kind is Kind.CLUSTER and a.control)
        self._settling = Settling(records, plant, sender, told.write)
        self.gates = GateLog(market.lead_s)
        """Which gates have closed, and which of them too soon."""
        self._wake, self._seen = asyncio.Event(), asyncio.Event()
        self._away: frozenset[str] = frozenset()
        self._awards: frozenset[str] = frozenset()
        self._windows: dict[str, Mapping[str, Window]] = {}
        self._reserved: dict[str, tuple[Window, ...]] = {}
        self._moments: tuple[datetime, ...] = ()
        self._slots: tuple[Slot, ...] = ()
        self._closed_until: datetime | None = None
        self._answer: Answer | None = None
        self._missing: Mapping[str, str] = {}
        self._trouble = ""

    def wake(self) -> None:
        """Have the offers looked at again: forecasts, the plan or the plant have changed."""
        self._wake.set()

    def take(self, snapshot: Snapshot, decision: Decision) -> None:
        """Look at a cycle: who takes no orders, what has been awarded, whether what was sold is there."""
        away = self._away_of(snapshot, decision)
        awards = frozenset(sold.award_id for sold in self._records.obligations_at(snapshot.at))
        if away != self._away:
            log.info("desk_counts_without", assets=sorted(away))
        if awards != self._awards:
            self._told.obliged()
        if away != self._away or awards != self._awards:
            self._wake.set()
        self._away, self._awards = away, awards
        self._settling.take(snapshot, decision)
        self._seen.set()

    async def run(self) -> None:
        """Trade for ever, beginning with the first cycle. Raises Garbled when the ledger is corrupt."""
        self._settling.restore(self._ledger.events(STREAM))
        await self._seen.wait()
        await self._foreseeing()
        self._alarms.open(self._wake.set)
        try:
            while True:
                self._wake.clear()
                await self._round()
                await self._rest()
        finally:
            self._alarms.close()

    @property
    def running(self) -> list[dict[str, Any]]:
        """Return the accounts of the awards that are running, as plain JSON values."""
        return self._settling.view()

    def view(self) -> dict[str, Any]:
        """Return products, gates, what is offered and why not, and what is missing, as plain JSON values."""
        return desk_view(
            self._clock.now(), self._products, self._why_not, self._slots, self._records.offers, self._answer,
            missing=self._missing, trouble=self._trouble, running=self._settling.view(), reserved=self._reserved,
        )  # fmt: skip

    def _away_of(self, snapshot: Snapshot, decision: Decision) -> frozenset[str]:
        """Return the assets that would not follow an order now; all, when the plant is released."""
        released = decision.site_severity >= Severity.RELEASE or snapshot.health.operator_release
        ids, away = self._plant.asset_ids, decision.severity >= Severity.PROTECT
        return frozenset(ids) if released else frozenset(ids[i] for i in np.flatnonzero(away))

    async def _foreseeing(self) -> None:
        """Wait for the first forecasts and the first plan: after a restart, not knowing is no reason to withdraw what is on offer."""
        for _ in range(round(FORESEE_S)):
            if self._foreseen.outlook() and self._foreseen.timetable() is not None:
                return
            await asyncio.sleep(1.0)
        log.warning("desk_begins_without_forecasts_or_plan")

    async def _rest(self) -> None:
        """Wait for the next moment, or until woken."""
        self._alarms.set(self._moments)
        await asyncio.sleep(min(PAUSE_S, self._market.lead_s / 20.0))
        while not self._wake.is_set() and not any(moment <= self._clock.now() for moment in self._moments):
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._wake.wait()
            self._alarms.set(self._moments)

    async def _round(self) -> None:
        """Compute the offers of the slots in play and tell the market what has changed."""
        now, market = self._clock.now(), self._market
        self._slots = self._find_slots(now)
        self.gates.looked(self._slots, now)
        self._moments = next_moments(self._slots, now, market.lead_s)[:MOMENTS]
        self._say_closed(now)
        play = in_play(self._slots, now, market.lead_s)
        open_ids = undecided(self._records.offers, now)
        asked = self._question(now, play, open_ids)
        self._missing = asked.shelf.missing
        self._reserve(now, asked.shelf)
        given = Answer((), (), {}, "") if not (asked.sales or asked.held) else await self._computed(asked)
        if given is None:
            self._moments = (now + timedelta(seconds=AGAIN_S), *self._moments)
            return
        begun = {sold.award_id for sold in asked.held if sold.interval.start <= now}  # those are measured, see settling
        given = replace(given, short_w={sold: w for sold, w in given.short_w.items() if sold not in begun})
        self._say_short(given)
        self._answer = given
        if await self._publish(given, play, open_ids):
            self.gates.served(now)

    def _find_slots(self, now: datetime) -> tuple[Slot, ...]:
        """Return the slots of all products that are offered, the first to close first."""
        horizon_s = self._market.horizon_h * 3600.0
        found = [
            slot
            for name, product in self._products.items()
            if not self._why_not[name]
            for slot in slots(product, now, horizon_s, self._market.ahead_s)
        ]
        return tuple(sorted(found, key=lambda slot: (slot.gate_closes_at, slot.start, slot.product)))

    def _question(self, now: datetime, play: Sequence[Slot], open_ids: frozenset[str]) -> Question:
        """Return what is to be decided: the slots in play, beside those that could be sold for the same time later on."""
        records, outlook = self._records, self._foreseen.outlook()
        sold = frozenset(key for key, o in records.offers.items() if key not in open_ids and o.awarded_w > 0.0)
        later = [slot for slot in overlapping(self._slots, play) if self._market.expected(slot.product) is not None]
        market, resource = self._market, self._config.site.id
        sales = possible_sales(play, later, self._products, self._site, market, outlook, resource, sold)
        step_s = self._config.forecast.step_s if self._config.forecast else 900.0
        held = standing(records.obligations_at(now), records.offers, now, open_ids, floored(now, step_s))
        intervals = [*(sale.interval for sale in sales), *(sold.interval for sold in held)]
        steps = steps_of(intervals, now, step_s)
        plan, nodes = self._foreseen.timetable(), nodes_of(self._config)
        shelf = shelf_of(self._config.assets, self._site, outlook, plan, steps, self._away, nodes)
        rooms = (*shelf.rooms, *ramps_of(self._config.site, shelf.stocks, (*sales, *held)))
        return Question(sales, replace(shelf, rooms=rooms), held, self._market.time_limit_s)

    async def _computed(self, asked: Question) -> Answer | None:
        """Return the answer of the worker; None when there is none, and it is said why."""
        try:
            given = answer(await self._decide(WORKER, question_form(asked), asked.limit_s + START_S))
        except (Unreachable, Refused) as error:
            if not self._trouble:
                log.error("offers_not_computed", reason=str(error))
            self._trouble = str(error)
            return None
        self._trouble = ""
        return given

    async def _publish(self, given: Answer, play: Sequence[Slot], open_ids: frozenset[str]) -> bool:
        """Put what has changed into the ledger; the outbox sends what is there. False when it has to be done again."""
        async with self._records.trading:
            at = self._clock.now()
            until = at + timedelta(seconds=MARGIN_S)
            if open_ids != undecided(self._records.offers, until):
                # A gate has closed meanwhile, or an award has come: what stands there is no more what the others were reckoned with.
                self._wake.set()
                return False
            found = changes(given.bids, play, self._records.offers, until)
            if not found:
                return True
            try:
                await self._append([self._event(change, at) for change in found])
            except Unreachable as error:
                log.error("offers_not_recorded", reason=str(error))
                self._moments = (at + timedelta(seconds=AGAIN_S), *self._moments)
                return False
            finally:
                self._records.catch_up()
        for change in found:
            bid = change.bid
            log.info(
                f"bid_{change.verb}", bid_id=bid.bid_id, product=bid.product, start=bid.interval.start.isoformat(),
                power_w=bid.power_w, revision=bid.revision,
            )  # fmt: skip
        self._told.owed()
        return True

    async def _append(self, events: Sequence[Event]) -> None:
        """Commit all at once; where one is there already (an earlier process was faster), one by one."""
        try:
            await self._ledger.append(*events)
        except Refused:
            for event in events:
                with suppress(Refused):
                    await self._ledger.append(event)

    def _event(self, change: Change, at: datetime) -> Event:
        message = offer_message(change.bid, change.state, change.gate_closes_at, at, self._sender)
        return offer_event(change.bid, change.state, change.gate_closes_at, at, message)

    def _reserve(self, now: datetime, shelf: Shelf) -> None:
        """Tell clusters what to keep free; a window keeps its share for as long as it lasts."""
        owed = {sold.award_id: sold for sold in self._records.obligations_at(now)}
        for award_id, sold in owed.items():
            if award_id not in self._windows:
                self._windows[award_id] = window_of(sold, shelf, self._site, self._clusters)
        self._windows = {award_id: windows for award_id, windows in self._windows.items() if award_id in owed}
        for cluster in self._clusters:
            wanted = tuple(windows[cluster] for windows in self._windows.values() if cluster in windows)
            if wanted != self._reserved.get(cluster):
                self._reserved[cluster] = wanted
                self._told.reserve(cluster, wanted)

    def _say_closed(self, now: datetime) -> None:
        """Log each gate that has closed since the last round, with what stands behind it."""
        since, self._closed_until = self._closed_until, now
        closed = [o for o in self._records.offers.values() if since is not None and since < o.gate_closes_at <= now]
        for product in sorted({offered.bid.product for offered in closed}):
            standing_w = sum(o.bid.power_w for o in closed if o.bid.product == product and o.state == "offered")
            log.info("gate_closed", product=product, offered_w=standing_w)

    def _say_short(self, given: Answer) -> None:
        """Log what has been sold and is not sure to be there any more, once for each."""
        before = self._answer.short_w if self._answer else {}
        for sold_id, short_w in given.short_w.items():
            if sold_id not in before:
                log.warning("sold_power_not_sure", sold=sold_id, short_w=round(short_w, 1))
