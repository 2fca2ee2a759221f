"""A sold increase that is kept ready, in the whole daemon: awarded, called, killed in the middle, started again, stated."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults.mortal import MortalDaemon
from tests.faults.small_plant import SmallPlant, small_plant, write_config
from tests.grid.dispatcher import AWARD_TOPIC, Key, event, inbound, watts
from tests.grid.trade import a_bid
from tests.grid.wire import Dispatcher
from tests.integration.test_award_delivered import MARKET, PATIENCE_S, VPPD, heard
from tests.servers.mosquitto import Mosquitto
from tests.support import ROOT, free_port
from vppd.grid.envelope import Sender
from vppd.grid.ids import RandomIds
from vppd.grid.offers import offer_event, offer_message
from vppd.grid.signing import Signer
from vppd.ledger.sqlite import open_ledger
from vppd.model import Interval

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(180)]
ORDER_TOPIC = "vpp/v1/dc1/issuer/tso/order/set"
SOLD_W = 60e3
LASTS = timedelta(seconds=16)
OVER_S = 60.0
"""Until a slot is over and settled, however slowly this machine starts a daemon. [s]"""
AHEAD_S = range(6, 100, 4)
"""When the bids begin: one of them is far enough away, however slowly this machine starts a daemon. [s]"""


async def offered(folder: Path) -> None:
    """Write into the ledger what a desk would have offered before: to draw 100 kW more, kept ready."""
    signer = Signer.from_pem("agent-1", "ES256", (folder / "agent.pem").read_bytes())
    sender, now = Sender("dc1", "dc1-agent", signer, RandomIds()), datetime.now(UTC)
    (folder / "state").mkdir()
    async with open_ledger(folder / "state" / "ledger.db") as ledger:
        for ahead_s in AHEAD_S:
            start = now + timedelta(seconds=ahead_s)
            bid = a_bid(
                bid_id=str(uuid.uuid4()), product="nordic-mfrr", direction="down", interval=Interval(start, start + LASTS),
                dispatch="order", sustain_s=10.0, min_w=0.0,
            )  # fmt: skip
            await ledger.append(offer_event(bid, "offered", now, now, offer_message(bid, "offered", now, now, sender)))


async def taken(market: Dispatcher, key: Key) -> dict[str, Any]:
    """Award the first bid that begins late enough, and return the award once it is accepted."""
    least = datetime.now(UTC) + timedelta(seconds=3)
    offer = await heard(market, "/bid/offer", lambda d: datetime.fromisoformat(d["interval"]["start_time"]) > least)
    same = {name: offer[name] for name in ("bid_id", "revision", "product", "resource", "direction", "interval")}
    award = same | {"award_id": str(uuid.uuid4()), "seq": 1, "power": watts(SOLD_W / 1e3, "kilowatt")}
    award["expires_at"] = offer["interval"]["start_time"]
    envelope = event("vpp.bid.award.v1", key.jws(award), subject="bid", time=datetime.now(UTC).isoformat())
    await market.send(inbound(AWARD_TOPIC, envelope))
    receipt = await heard(market, "/receipt", lambda d: d["status"] != "received")
    assert (receipt["status"], receipt.get("detail")) == ("accepted", None)
    return award


async def called(market: Dispatcher, key: Key, award: dict[str, Any]) -> None:
    """Order all of the award for its whole slot."""
    now = datetime.now(UTC)
    data = {
        "order_id": str(uuid.uuid4()), "seq": 2, "expires_at": (now + timedelta(seconds=60)).isoformat(),
        "resource": award["resource"], "kind": "increase", "product": award["product"], "power": award["power"],
        "interval": award["interval"],
    }  # fmt: skip
    envelope = event("vpp.order.set.v1", key.jws(data), subject="order", time=now.isoformat())
    await market.send(inbound(ORDER_TOPIC, envelope))


async def until(plant: SmallPlant, is_reached: Callable[[float], bool]) -> None:
    """Return once the batteries' power is as wanted. [W, + = charging]"""
    async with asyncio.timeout(PATIENCE_S):
        while not is_reached(sum(battery.power_w for battery in plant.batteries.values())):
            await asyncio.sleep(0.05)


async def test_an_increase_is_accounted_for_over_a_death(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Killed while it charges, it goes on in the next life; its one statement has what both of them measured."""
    key = Key("tso-1")
    topics = ("vpp/v1/dc1/bid/offer", "vpp/v1/dc1/issuer/tso/receipt", "vpp/v1/dc1/statement")
    async with small_plant(lambda: None) as plant:
        config = write_config(tmp_path, plant, mosquitto.port, free_port(), key)
        text = config.read_text(encoding="utf-8").replace('"setpoint"', '"increase"')
        text = text.replace("[site]\n", f"[site]\nramp_up_w_per_s = {SOLD_W}\n")
        config.write_text(text + MARKET, encoding="utf-8")
        await offered(tmp_path)
        with Dispatcher(mosquitto, *topics) as market:
            async with MortalDaemon([VPPD, "run", "-c", str(config)], tmp_path / "vppd.log", ROOT) as daemon:
                award = await taken(market, key)
                await called(market, key, award)
                await until(plant, lambda power_w: power_w >= 0.99 * SOLD_W)
                await asyncio.sleep(3.0)  # what the first life measures
                daemon.kill()
                daemon.start()
                told = await heard(market, "/statement", lambda d: d.get("award_id") == award["award_id"], OVER_S)
                await until(plant, lambda power_w: power_w == 0.0)
                assert await daemon.stop(20.0) == 0
    assert (told["direction"], told["product"]) == ("down", "nordic-mfrr")
    assert 0.1 < told["complete_frac"] <= 1.0
    assert told["held_frac"] > 0.5
    assert 0.1 * SOLD_W * LASTS.total_seconds() / 3600.0 < told["delivered_wh"] <= told["ordered_wh"]
