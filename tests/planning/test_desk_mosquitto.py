"""The whole life of a sale on a real broker and a real ledger: forecast, offer, signed award, obligation, order, statement."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.grid.dispatcher import NOW, award_data, watts
from tests.grid.plant import sender, with_awards
from tests.grid.schemas import check
from tests.grid.trade import AWARD_ID, award_message
from tests.grid.wire import PATIENCE_S, Dispatcher, running, settings
from tests.planning.desk_rig import CYCLE_S, FULL, REST
from tests.planning.market_rig import config, outlooks, product, timetable
from tests.servers.mosquitto import Mosquitto
from vppd.grid.intake import Desk, take_all
from vppd.grid.outbox import Outbox
from vppd.grid.transport import MqttChannel
from vppd.grid.verdict import Conditions
from vppd.ledger.sqlite import SqliteLedger, open_ledger
from vppd.model import OrderKind, Outbound
from vppd.planning.trade.alarms import ScheduledAlarms
from vppd.planning.trade.desk import Foreseen, Told, TradingDesk
from vppd.plant import plant_of
from vppd.register import Register
from vppd.runtime.clock import FakeClock
from vppd.runtime.journal import Journal
from vppd.snapshot import Snapshot
from vppd.testing.cycles import World

pytestmark = pytest.mark.integration
TOPICS = ("vpp/v1/dc1/bid/offer", "vpp/v1/dc1/issuer/tso/receipt", "vpp/v1/dc1/statement")
SOLD_W = 300e3


class House:
    """A daemon without devices: its ledger, its link, its desk with a real worker, and a plant that is moved by hand."""

    def __init__(self, world: World, clock: FakeClock, ledger: SqliteLedger, link: MqttChannel) -> None:
        self.world, self.clock = world, clock
        self.register, self.obliged = Register(ledger), 0
        self.register.catch_up()
        self.journal = Journal(ledger, lambda _: None, self.register.catch_up, clock.now)
        self.outbox = Outbox(link, ledger, lambda: self.register.owed, self.register.catch_up, clock.now)
        self.intake = Desk(
            link, ledger, self.register, sender(), clock.now, with_awards, Conditions, lambda _: None, self.outbox.wake,
            self.outbox.resend, lambda _: None, lambda _: None,
        )  # fmt: skip
        rig = config(lead_s=600.0, time_limit_s=20.0)
        plant = plant_of(world.config)
        plan = timetable(plant, REST, FULL, NOW)
        assert rig.market is not None
        self.desk = TradingDesk(
            rig, rig.market, (product(),), plant, sender(), clock, ScheduledAlarms(), ledger, self.register,
            Foreseen(lambda: outlooks(start=NOW), lambda: plan),
            Told(self.journal.write, self.outbox.wake, self._note_obliged, lambda *_: None),
        )  # fmt: skip

    def work(self) -> Sequence[asyncio.Task[None]]:
        """Start everything."""
        work = (self.journal.run(), self.outbox.run(), take_all(self.intake), self.desk.run())
        return [asyncio.create_task(coroutine) for coroutine in work]

    async def run_until(self, at: datetime) -> None:
        """Let cycles pass until then."""
        while self.clock.now() < at:
            self.clock.advance(CYCLE_S)
            self.world.at = self.clock.now()
            decision = self.world.step()
            self.desk.take(Snapshot(self.clock.now(), self.world.mono_s, self.world.readings.copy()), decision)
            await asyncio.sleep(0)
        await self.journal.flushed()
        self.outbox.wake()

    async def settled(self) -> None:
        """Wait until nothing is owed to the market."""
        async with asyncio.timeout(PATIENCE_S):
            while self.register.owed:
                await asyncio.sleep(0.01)

    def _note_obliged(self) -> None:
        self.obliged += 1


@asynccontextmanager
async def at_work(folder: Path, broker: Mosquitto, world: World, clock: FakeClock) -> AsyncIterator[House]:
    """Trade for the time of the block, on the ledger in ``folder``."""
    async with open_ledger(folder / "ledger.db") as ledger, running(settings(broker)) as link:
        house = House(world, clock, ledger, link)
        tasks = house.work()
        await house.run_until(clock.now() + timedelta(seconds=CYCLE_S))
        try:
            yield house
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended


async def heard(market: Dispatcher) -> dict[str, Any]:
    """Return the signed data of the next message, after it has passed its schema."""
    message = await market.hear()
    return check(Outbound(message.topic, bytes(message.payload)))


def slow_world() -> World:
    """Return a plant with a beat of ten seconds that has come to rest."""
    site = config().site.model_copy(update={"cycle_s": CYCLE_S, "lease_s": 60.0})
    world = World(config().model_copy(update={"site": site}))
    world.step(10)
    return world


async def test_from_a_forecast_to_a_statement(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Offered before the gate, awarded in part, kept ready, ordered, delivered, told once - also over a restart."""
    world, clock = slow_world(), FakeClock(NOW)
    with Dispatcher(mosquitto, *TOPICS) as market:
        async with at_work(tmp_path, mosquitto, world, clock) as house:
            offer = await heard(market)
            assert offer["state"] == "offered"
            assert offer["gate_closes_at"].startswith("2026-03-01T12:05:00")
            same = {
                name: offer[name] for name in ("bid_id", "revision", "product", "resource", "direction", "interval")
            }
            price = {"amount": offer["steps"][-1]["price"], "currency": offer["currency"]}
            award = award_data(**same, award_id=AWARD_ID, power=watts(SOLD_W), price=price)
            await market.send(award_message(award))
            assert [(await heard(market))["status"] for _ in range(2)] == ["received", "accepted"]
            (sold,) = house.register.obligations_at(clock.now())
            assert (sold.power_w, sold.product, sold.interval.start) == (SOLD_W, "quick", NOW + timedelta(minutes=15))
            await house.run_until(NOW + timedelta(minutes=20))
            assert house.obliged == 1
            world.order(OrderKind.REDUCE, "dc1", SOLD_W, for_s=300.0, product="quick")
            await house.run_until(NOW + timedelta(minutes=24))
            await house.settled()
        async with at_work(tmp_path, mosquitto, world, clock) as house:
            await house.run_until(NOW + timedelta(minutes=31))
            await house.settled()
            await house.run_until(NOW + timedelta(minutes=33))
            assert house.register.unsettled_at(clock.now()) == ()
        said = [await heard(market) for _ in range(market.heard.qsize())]
        (told,) = [data for data in said if "held_frac" in data]
        assert told["award_id"] == AWARD_ID
        assert told["held_frac"] == 1.0
        assert told["complete_frac"] > 0.6, "what was not saved before the restart is not claimed"
        assert told["ordered_wh"] == pytest.approx(SOLD_W * 4 / 60, rel=0.3)
        assert told["delivered_wh"] == pytest.approx(told["ordered_wh"], rel=0.2)
