"""A sold reduction in the whole daemon: offered, awarded, killed, started again, delivered by batteries, stated."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults.mortal import MortalDaemon
from tests.faults.small_plant import SmallPlant, small_plant, write_config
from tests.grid.dispatcher import AWARD_TOPIC, Key, event, inbound, watts
from tests.grid.schemas import check
from tests.grid.trade import a_bid
from tests.grid.wire import Dispatcher
from tests.servers.mosquitto import Mosquitto
from tests.support import ROOT, free_port
from vppd.grid.envelope import Sender
from vppd.grid.ids import RandomIds
from vppd.grid.offers import offer_event, offer_message
from vppd.grid.signing import Signer
from vppd.ledger.sqlite import open_ledger
from vppd.model import Interval, Outbound

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(180)]
VPPD = str(Path(sys.executable).with_name("vppd"))
SOLD_W = 60e3
LASTS = timedelta(seconds=5)
AHEAD_S = range(6, 100, 4)
"""When the bids begin: one of them is far enough away, however slowly this machine starts a daemon. [s]"""
PATIENCE_S = 60.0
MARKET = """
[forecast]
[planning]
[market]
issuer = "tso"
products = ["nordic-mfrr"]
"""


async def offered(folder: Path) -> None:
    """Write into the ledger what a desk would have offered before: 100 kW for some seconds, again and again."""
    signer = Signer.from_pem("agent-1", "ES256", (folder / "agent.pem").read_bytes())
    sender, now = Sender("dc1", "dc1-agent", signer, RandomIds()), datetime.now(UTC)
    (folder / "state").mkdir()
    async with open_ledger(folder / "state" / "ledger.db") as ledger:
        for ahead_s in AHEAD_S:
            start = now + timedelta(seconds=ahead_s)
            bid = a_bid(
                bid_id=str(uuid.uuid4()), product="nordic-mfrr", interval=Interval(start, start + LASTS),
                dispatch="scheduled", min_w=0.0,
            )  # fmt: skip
            await ledger.append(offer_event(bid, "offered", now, now, offer_message(bid, "offered", now, now, sender)))


async def heard(
    market: Dispatcher, kind: str, is_wanted: Callable[[dict[str, Any]], bool], patience_s: float = PATIENCE_S
) -> dict[str, Any]:
    """Return the signed data of the next message of that type that is wanted; all are checked against their schema."""
    async with asyncio.timeout(patience_s):
        while True:
            message = await market.hear(patience_s)
            if message.topic.endswith(kind) and is_wanted(data := check(Outbound("", bytes(message.payload)))):
                return data


async def taken(market: Dispatcher, key: Key) -> str:
    """Award the first bid that begins late enough, and return the award's id once it is accepted."""
    least = datetime.now(UTC) + timedelta(seconds=4)
    offer = await heard(market, "/bid/offer", lambda d: datetime.fromisoformat(d["interval"]["start_time"]) > least)
    same = {name: offer[name] for name in ("bid_id", "revision", "product", "resource", "direction", "interval")}
    award = same | {"award_id": str(uuid.uuid4()), "seq": 1, "power": watts(SOLD_W / 1e3, "kilowatt")}
    award["expires_at"] = offer["interval"]["start_time"]
    envelope = event("vpp.bid.award.v1", key.jws(award), subject="bid", time=datetime.now(UTC).isoformat())
    await market.send(inbound(AWARD_TOPIC, envelope))
    receipt = await heard(market, "/receipt", lambda d: d["status"] != "received")
    assert (receipt["status"], receipt.get("detail")) == ("accepted", None)
    return str(award["award_id"])


async def discharging(plant: SmallPlant) -> None:
    """Return once the batteries give what was sold."""
    async with asyncio.timeout(PATIENCE_S):
        while sum(battery.power_w for battery in plant.batteries.values()) > -0.99 * SOLD_W:
            await asyncio.sleep(0.05)


async def test_what_was_sold_is_delivered_though_the_daemon_dies(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Killed right after the receipt, it delivers in the next life, rests afterwards, and accounts for the award."""
    key = Key("tso-1")
    topics = ("vpp/v1/dc1/bid/offer", "vpp/v1/dc1/issuer/tso/receipt", "vpp/v1/dc1/statement")
    async with small_plant(lambda: None) as plant:
        config = write_config(tmp_path, plant, mosquitto.port, free_port(), key)
        config.write_text(config.read_text(encoding="utf-8") + MARKET, encoding="utf-8")
        await offered(tmp_path)
        with Dispatcher(mosquitto, *topics) as market:
            async with MortalDaemon([VPPD, "run", "-c", str(config)], tmp_path / "vppd.log", ROOT) as daemon:
                award_id = await taken(market, key)
                daemon.kill()
                daemon.start()
                await discharging(plant)
                statement = await heard(market, "/statement", lambda d: d.get("order_id") == award_id)
                assert (statement["kind"], statement["product"]) == ("reduce", "nordic-mfrr")
                assert statement["ordered_power"]["value"] == SOLD_W
                assert statement["shed_wh"] > 0.3 * SOLD_W * LASTS.total_seconds() / 3600.0
                async with asyncio.timeout(PATIENCE_S):
                    while any(not battery.now.at_rest for battery in plant.batteries.values()):
                        await asyncio.sleep(0.05)
                assert await daemon.stop(20.0) == 0
