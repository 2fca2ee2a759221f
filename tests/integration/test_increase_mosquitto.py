"""An order to draw more in the whole daemon, over a real broker: receipt, meter, status, statement."""

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
from tests.faults.small_plant import LOAD_W, SmallPlant, small_plant, write_config
from tests.grid.dispatcher import Key, event, inbound, watts
from tests.grid.schemas import check
from tests.grid.wire import Dispatcher
from tests.servers.mosquitto import Mosquitto
from tests.support import ROOT, free_port
from vppd.model import Outbound

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
VPPD = str(Path(sys.executable).with_name("vppd"))
ORDER_TOPIC = "vpp/v1/dc1/issuer/tso/order/set"
TOPICS = ("vpp/v1/dc1/issuer/tso/receipt", "vpp/v1/dc1/order/status", "vpp/v1/dc1/statement")
MORE_W = 60e3
LASTS = timedelta(seconds=6)
PATIENCE_S = 60.0


async def heard(dispatcher: Dispatcher, kind: str, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the signed data of the next message of that type that is wanted; all are checked against their schema."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            message = await dispatcher.hear()
            data = check(Outbound(message.topic, bytes(message.payload)))
            if message.topic.endswith(kind) and is_wanted(data):
                return data


async def order(dispatcher: Dispatcher, key: Key) -> str:
    """Order more power for some seconds from now on, and return the order's id."""
    now = datetime.now(UTC)
    data = {
        "order_id": str(uuid.uuid4()), "seq": 1, "expires_at": (now + timedelta(seconds=30)).isoformat(),
        "resource": "dc1", "kind": "increase", "power": watts(MORE_W / 1e3, "kilowatt"),
        "interval": {"start_time": now.isoformat(), "end_time": (now + LASTS).isoformat()},
    }  # fmt: skip
    envelope = event("vpp.order.set.v1", key.jws(data), subject="order", time=now.isoformat())
    await dispatcher.send(inbound(ORDER_TOPIC, envelope))
    return str(data["order_id"])


async def drawn(plant: SmallPlant, is_enough: Callable[[float], bool]) -> None:
    """Return once the meter shows what is wanted above the load. [W]"""
    async with asyncio.timeout(PATIENCE_S):
        while not is_enough(sum(battery.power_w for battery in plant.batteries.values())):
            await asyncio.sleep(0.05)


async def test_an_increase_is_ordered_drawn_told_and_stated(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """The batteries charge until the order is over, the status says by how much, and the statement how much energy that was."""
    key = Key("tso-1")
    async with small_plant(lambda: None) as plant:
        config = write_config(tmp_path, plant, mosquitto.port, free_port(), key)
        text = config.read_text(encoding="utf-8")
        assert (text.count('"setpoint"'), text.count("[site]\n")) == (1, 1)
        text = text.replace('"setpoint"', '"increase"').replace("[site]\n", f"[site]\nramp_up_w_per_s = {MORE_W}\n")
        config.write_text(text, encoding="utf-8")
        log = tmp_path / "vppd.log"
        with Dispatcher(mosquitto, *TOPICS) as dispatcher:
            async with MortalDaemon([VPPD, "run", "-c", str(config)], log, ROOT) as daemon, asyncio.timeout(PATIENCE_S):
                await daemon.ready.wait()
                order_id = await order(dispatcher, key)
                receipt = await heard(dispatcher, "/receipt", lambda d: d["status"] != "received")
                assert (receipt["status"], receipt["order_id"]) == ("accepted", order_id)
                active = await heard(dispatcher, "/order/status", lambda d: d["order_id"] == order_id)
                assert (active["status"], active["kind"]) == ("active", "increase")
                await drawn(plant, lambda power_w: power_w >= MORE_W)
                told = await heard(dispatcher, "/order/status", lambda d: d["status"] == "completed")
                assert 0.4 * MORE_W <= told["delivered_increase"]["value"] <= 1.1 * MORE_W
                statement = await heard(dispatcher, "/statement", lambda d: d["order_id"] == order_id)
                await drawn(plant, lambda power_w: power_w == 0.0)
                assert await daemon.stop(20.0) == 0
    hours = LASTS.total_seconds() / 3600.0
    assert 0.4 * MORE_W * hours <= statement["added_wh"] <= 1.1 * MORE_W * hours
    assert statement["added_wh"] == pytest.approx(statement["metered_wh"] - statement["baseline_wh"], abs=0.01)
    assert statement["baseline_wh"] == pytest.approx(LOAD_W * hours, rel=0.4)
    assert "shed_wh" not in statement
