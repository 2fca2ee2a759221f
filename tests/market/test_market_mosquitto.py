"""``vppd market-sim`` as a process, on a real broker, with a scripted power plant at the other end."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.grid.schemas import check
from tests.market.plant import VPP, Keys, Plant, bid_of, keys_in
from tests.servers.mosquitto import Mosquitto
from vppd.grid.wander import signals
from vppd.model import Outbound

pytestmark = pytest.mark.integration
PATIENCE_S = 60.0
AWARDS = f"vpp/v1/{VPP}/issuer/market/+/+"
SIGNALS = f"vpp/v1/{VPP}/issuer/market/regulation"


@dataclass
class Afield:
    """A plant on the broker that answers by itself, but only while ``answers``."""

    plant: Plant
    client: mqtt.Client
    answers: bool = True
    got: list[tuple[str, bytes]] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)
    """Regulation signals, which nobody answers."""

    def say(self, message: Outbound) -> None:
        """Publish."""
        self.client.publish(message.topic, message.payload, message.qos)

    def hear(self, topic: str, payload: bytes) -> None:
        """Answer what the market says."""
        if topic.endswith("/receipt"):
            return
        if topic == SIGNALS:
            self.levels.append(check(Outbound(topic, payload, 0))["signal"])
            return
        self.got.append((topic, payload))
        if self.answers:
            for message in self.plant.answer(topic, payload, datetime.now(UTC)):
                self.say(message)


@asynccontextmanager
async def afield(broker: Mosquitto, keys: Keys) -> AsyncIterator[Afield]:
    """Hold a plant on the broker."""
    client, subscribed = mqtt.Client(CallbackAPIVersion.VERSION2), asyncio.Event()
    held, loop = Afield(Plant(keys), client), asyncio.get_running_loop()

    def heard(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        loop.call_soon_threadsafe(held.hear, message.topic, bytes(message.payload))

    client.on_subscribe = lambda _c, _d, _mid, _codes, _properties: _tell(loop, subscribed)
    client.on_message = heard
    client.connect(broker.host, broker.port)
    client.subscribe([(AWARDS, 1), (SIGNALS, 0)])
    client.loop_start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await subscribed.wait()
        yield held
    finally:
        client.disconnect()
        client.loop_stop()
        client.on_message = client.on_subscribe = None


def _tell(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)


@dataclass
class Run:
    """The market as a process."""

    argv: list[str]
    results: Path
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and return once it listens."""
        self.results.unlink(missing_ok=True)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "vppd.market", *self.argv, stdout=asyncio.subprocess.PIPE
        )
        await until(self.results.exists, "the market did not start")

    async def wait(self) -> str:
        """Return what it printed, after it has ended by itself with status 0."""
        assert self.process is not None
        async with asyncio.timeout(PATIENCE_S):
            out, _ = await self.process.communicate()
        assert self.process.returncode == 0, out.decode()
        return out.decode()

    async def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None
        self.process.kill()
        await self.process.communicate()

    def read(self) -> dict[str, Any]:
        """Return the results as they are now."""
        found: dict[str, Any] = json.loads(self.results.read_text(encoding="utf-8"))
        return found


@asynccontextmanager
async def market(broker: Mosquitto, keys: Keys, folder: Path, *more: str) -> AsyncIterator[Run]:
    """Hold a market that ends with the test."""
    argv = ["--broker", f"{broker.host}:{broker.port}", "--seller", f"{VPP}:dc1-agent:{keys.jwks}"]
    argv += ["--key", str(keys.market.private), "--json", str(folder / "results.json"), *more]
    run = Run(argv, folder / "results.json")
    await run.start()
    try:
        yield run
    finally:
        if run.process is not None and run.process.returncode is None:
            await run.kill()


async def until(ready: Callable[[], object], what: str) -> None:
    """Wait until ``ready`` says yes."""
    deadline_s = asyncio.get_running_loop().time() + PATIENCE_S
    while not ready():
        assert asyncio.get_running_loop().time() < deadline_s, what
        await asyncio.sleep(0.05)


def soon(lead_s: float) -> datetime:
    """Return a full millisecond so long from now."""
    at = datetime.now(UTC) + timedelta(seconds=lead_s)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_from_the_offer_to_the_money(mosquitto: Mosquitto, tmp_path: Path, protocol: str) -> None:
    """An offer on the wire is cleared among others at its gate, awarded, receipted, delivered, stated and paid."""
    keys = keys_in(tmp_path)
    # Others' prices vary by the slot, which is now: the cap is so high that none is too dear.
    more = ("--mqtt", protocol, "--need", "60 %", "--slots", "1", "--competitors", "2", "--price-cap", "1e6")
    async with afield(mosquitto, keys) as plant, market(mosquitto, keys, tmp_path, *more) as run:
        gate = soon(1.0)
        bid = bid_of(1, (50e3, 40.0), (400e3, 80.0), start=gate + timedelta(seconds=2), end=gate + timedelta(seconds=5))
        plant.say(plant.plant.offer(bid, gate))
        await until(lambda: any(award["state"] == "accepted" for award in run.read()["awards"]), "no award came")
        (award,) = run.read()["awards"]
        plant.say(plant.plant.statement(award["award_id"], award["power_w"] * 3 / 3600, datetime.now(UTC)))
        said = await run.wait()
        found = run.read()
    (slot,), (award,) = found["slots"], found["awards"]
    assert sum(slot["taken_w"].values()) == slot["need_w"]
    assert award["power_w"] == slot["taken_w"][f"{VPP}/{bid.bid_id}"] <= 400_000
    assert award["account"]["delivered_wh"] == award["account"]["obliged_wh"]
    assert found["totals"]["statements"] == found["totals"]["awards"] == 1
    assert "accepted" in said


async def test_both_ways_with_a_signal(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """A symmetric offer is awarded at the scarcity price, ordered as regulation, and followed by signals until it is over."""
    keys = keys_in(tmp_path)
    more = ("--need", "up:none", "--need", "symmetric:1 MW", "--scarcity-price", "333", "--slots", "1")
    async with afield(mosquitto, keys) as plant, market(mosquitto, keys, tmp_path, *more) as run:
        gate = soon(1.0)
        start = gate + timedelta(seconds=1.5)
        bid = bid_of(start=start, end=start + timedelta(seconds=4), direction="symmetric", dispatch="order")
        plant.say(plant.plant.offer(bid, gate))
        await until(lambda: any(a["order_state"] == "accepted" for a in run.read()["awards"]), "no order was accepted")
        (award,) = run.read()["awards"]
        begin, end = (datetime.fromisoformat(award[name]) for name in ("order_start", "order_end"))
        await until(lambda: plant.levels and datetime.now(UTC) > end, "no signal came")
        plant.say(
            plant.plant.order_statement(
                award["order_id"], datetime.now(UTC), kind="regulation", metered_wh=1.0, compliant_frac=1.0
            )
        )
        said = await run.wait()
        found = run.read()
    (slot,), (award,) = found["slots"], found["awards"]
    assert (slot["scarce"], slot["price"], slot["direction"]) == (True, "333.0", "symmetric")
    course = signals(f"1 {award['award_id']}", math.ceil((end - begin).total_seconds() / 2.0))
    assert [level for level in course if level in plant.levels] == plant.levels
    assert award["account"]["delivered_wh"] == award["account"]["obliged_wh"] != "0.000"
    assert "symmetric" in said


async def test_a_market_that_is_killed_goes_on_where_it_was(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """An award without a receipt goes out again after kill -9, the very same; an offer made meanwhile is in the book."""
    keys = keys_in(tmp_path)
    more = ("--need", "10 MW", "--slots", "2", "--state", str(tmp_path / "state.json"))
    async with afield(mosquitto, keys) as plant, market(mosquitto, keys, tmp_path, *more) as run:
        plant.answers, gate = False, soon(1.0)
        plant.say(plant.plant.offer(bid_of(1, start=gate + timedelta(minutes=5)), gate))
        await until(lambda: plant.got, "no award came")
        await run.kill()
        plant.answers, late = True, soon(5.0)
        plant.say(plant.plant.offer(bid_of(2, start=late + timedelta(minutes=5)), late))
        await run.start()
        await until(lambda: run.read()["totals"]["accepted"] == 2, "not both were awarded")
        for award in run.read()["awards"]:
            plant.say(plant.plant.statement(award["award_id"], 1e6, datetime.now(UTC)))
        await run.wait()
    firsts = [payload for _, payload in plant.got if payload == plant.got[0][1]]
    assert len(firsts) >= 2
    assert len({data["award_id"] for _, data in plant.plant.got}) == 2
