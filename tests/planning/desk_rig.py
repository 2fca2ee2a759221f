"""A trading desk in virtual time: a plant that runs, a ledger in memory, forecasts from the rig, and a market that is the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from tests.grid.plant import sender
from tests.planning.market_rig import config, outlooks, product, timetable
from vppd.core.bidding.bid import Offered, price_per_mwh
from vppd.core.forecast.outlook import Outlook
from vppd.core.state import Decision
from vppd.core.timetable import Timetable
from vppd.model import Event, Obligation
from vppd.planning.trade.desk import Foreseen, Told, TradingDesk
from vppd.planning.trade.offer_form import answer_form, question
from vppd.planning.trade.worker import answered
from vppd.plant import plant_of
from vppd.ports import Window
from vppd.products import ProductConfig
from vppd.register import Register
from vppd.runtime.clock import LoopClock
from vppd.snapshot import Snapshot
from vppd.testing.cycles import START, World
from vppd.testing.fakes import MemoryLedger

CYCLE_S = 10.0
REST = {"ups-a": 0.0, "bess-b": 0.0}
FULL = {"ups-a": 90e3, "bess-b": 450e3}


class SetClock(LoopClock):
    """The loop's time with a clock on the wall that somebody sets."""

    def __init__(self, at: datetime) -> None:
        super().__init__(at)
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        """Return what the wall says."""
        return super().now() + self.ahead


class LoopAlarms:
    """Alarms by the loop's own time."""

    def __init__(self, clock: LoopClock) -> None:
        self._clock = clock
        self._ring: Callable[[], None] | None = None
        self._timers: dict[datetime, asyncio.TimerHandle] = {}
        self.rung = 0

    def open(self, ring: Callable[[], None]) -> None:
        """Ring this."""
        self._ring = ring

    def set(self, moments: Iterable[datetime]) -> None:
        """Ring at these times."""
        wanted = set(moments)
        for moment in self._timers.keys() - wanted:
            self._timers.pop(moment).cancel()
        for moment in wanted - self._timers.keys():
            in_s = max((moment - self._clock.now()).total_seconds(), 0.0)
            self._timers[moment] = asyncio.get_running_loop().call_later(in_s, self._rings)

    def close(self) -> None:
        """Ring no more."""
        self.set(())

    def _rings(self) -> None:
        self.rung += 1
        if self._ring is not None:
            self._ring()


@dataclass
class Room:
    """Everything around the desk; what is written survives ``restart``."""

    market: Mapping[str, Any] = field(default_factory=dict)
    products: Sequence[ProductConfig] = field(default_factory=lambda: (product(),))
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    outlook: dict[str, Outlook] = field(default_factory=lambda: dict(outlooks()))
    obliged: int = 0
    computed: int = 0
    fault: Exception | None = None
    takes_s: float = 0.5
    """How long the worker takes. [s]"""
    reserved: dict[str, tuple[Window, ...]] = field(default_factory=dict)
    desk: TradingDesk = field(init=False)

    def __post_init__(self) -> None:
        names = [one.name for one in self.products]
        self.config = config(**{"products": names, **self.market})
        self.clock = SetClock(START)
        self.world = World(self.config.model_copy(update={"site": self._slow()}))
        self.plant = plant_of(self.world.config)
        self.timetable: Timetable | None = timetable(self.plant, REST, FULL)
        self.settle_in()

    def settle_in(self) -> None:
        """Let the plant run until its power is what its jobs draw."""
        self.world.step(10)

    def _slow(self) -> Any:
        return self.config.site.model_copy(update={"cycle_s": CYCLE_S, "lease_s": 60.0})

    @asynccontextmanager
    async def trading(self) -> AsyncIterator[None]:
        """Trade for the time of the block, on what the ledger holds: each block is a process of its own."""
        self.register, self.alarms = Register(self.ledger), LoopAlarms(self.clock)
        self.register.catch_up()
        self.desk = TradingDesk(
            self.config, self._market(), self.products, self.plant, sender(), self.clock, self.alarms, self.ledger,
            self.register, Foreseen(lambda: self.outlook, lambda: self.timetable),
            Told(self._write, lambda: None, self._note_obliged, self._reserve), self._decide,
        )  # fmt: skip
        tasks = [asyncio.create_task(self.desk.run()), asyncio.create_task(self._cycles())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def until(self, minute: float) -> None:
        """Let time pass until so many minutes after the start."""
        due = START + timedelta(minutes=minute)
        await asyncio.sleep(max((due - self.clock.now()).total_seconds(), 0.0))

    async def award(self, offered: Offered, power_w: float) -> Obligation:
        """Have so much of an offer awarded, as the intake does after its checks."""
        bid = offered.bid
        sold = Obligation(
            str(uuid4()), bid.bid_id, "tso", bid.product, bid.resource, bid.direction, bid.interval, power_w,
            f"{price_per_mwh(bid.steps[-1]):f}", bid.currency, bid.dispatch, bid.activation_s, bid.sustain_s,
        )  # fmt: skip
        body = {
            "command_id": sold.award_id, "issuer": "tso", "verdict": "accepted", "reason": "", "digest": sold.award_id,
            "orders": [], "receipts": [], "seq": 1, "award": sold.to_body(),
        }  # fmt: skip
        async with self.register.trading:
            await self.ledger.append(Event("orders", "command_received", self.clock.now(), body))
            self.register.catch_up()
        return sold

    def offers(self) -> list[Offered]:
        """Return the book, the first slot first."""
        return sorted(self.register.offers.values(), key=lambda offered: offered.bid.interval.start)

    def told(self, stream: str = "bids") -> list[Event]:
        """Return what is in the ledger of a stream."""
        return [entry.event for entry in self.ledger.recorded if entry.event.stream == stream]

    def _market(self) -> Any:
        return self.config.market

    async def _cycles(self) -> None:
        while True:
            self.world.at = self.clock.now()
            self.desk.take(*self._cycle())
            await asyncio.sleep(CYCLE_S)

    def _cycle(self) -> tuple[Snapshot, Decision]:
        decision = self.world.step()
        self.world.at = self.clock.now()
        return Snapshot(
            self.world.at, self.world.mono_s, self.world.readings.copy(), tuple(self.world.orders)
        ), decision

    def _write(self, event: Event) -> None:
        asyncio.get_running_loop().create_task(self._written(event)).add_done_callback(lambda task: task.result())

    async def _written(self, event: Event) -> None:
        await self.ledger.append(event)
        self.register.catch_up()

    async def _decide(self, module: str, form: Mapping[str, Any], limit_s: float) -> Any:
        assert module == "vppd.planning.trade.worker"
        self.computed += 1
        await asyncio.sleep(self.takes_s)
        if self.fault is not None:
            raise self.fault
        return answer_form(answered(question(form)))

    def _note_obliged(self) -> None:
        self.obliged += 1

    def _reserve(self, asset_id: str, windows: Sequence[Window]) -> None:
        self.reserved[asset_id] = tuple(windows)
