"""A daemon and an OpenADR server: events move the meter, over loss, return and kill -9, and reports come back."""

from __future__ import annotations

import asyncio
import sys
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.faults.mortal import MortalDaemon
from tests.faults.small_plant import LEASE_S, LOAD_W, SmallPlant, small_plant, write_config
from tests.grid.dispatcher import Key
from tests.grid.openadr3_vtn import CLIENT, SECRET, TestVtn, vtn
from tests.servers.mosquitto import Mosquitto
from tests.support import ROOT, free_port
from vppd.demo.tomlwriter import dump
from vppd.ledger.reader import read_ledger

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(180)]
PATIENCE_S = 40.0
LIMIT_KW, SUBSCRIPTION_KW = 220.0, 260.0
KEPT_FRAC = 0.02
FOR_EVER = {"start": "0001-01-01T00:00:00Z", "duration": "P9999Y"}


@dataclass
class Room:
    """A daemon, its plant, the server, and the notifier's broker."""

    daemon: MortalDaemon
    plant: SmallPlant
    server: TestVtn
    broker: Mosquitto
    folder: Path
    http: str
    figures: dict[str, str] = field(default_factory=dict)

    @property
    def meter_w(self) -> float:
        """What the feed really draws. [W]"""
        return LOAD_W + sum(battery.power_w for battery in self.plant.batteries.values())

    @property
    def orders(self) -> list[dict[str, Any]]:
        """Orders that the ledger has of the server, releases apart, in order of acceptance."""
        with read_ledger(self.folder / "state" / "ledger.db") as ledger:
            events = [entry.event.body for entry in ledger.events()]
        found = [order for body in events if body.get("protocol") == "openadr3" for order in body["orders"]]
        return [order for order in found if order["kind"] != "release"]

    async def until(self, what: str, is_so: Callable[[], bool], within_s: float = PATIENCE_S) -> float:
        """Wait until it is so, and return how long that took. [s]"""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while not is_so():
            if loop.time() - began_s > within_s:
                pytest.fail(f"{what}: not within {within_s:g} s, meter at {self.meter_w:.0f} W\n{self.log()}")
            await asyncio.sleep(0.02)
        return loop.time() - began_s

    async def kept(self, limit_kw: float) -> float:
        """Wait until the meter is within a limit, and near it, and return how long that took. [s]"""
        low_w, high_w = 0.95e3 * limit_kw, (1.0 + KEPT_FRAC) * 1e3 * limit_kw
        return await self.until(f"{limit_kw:g} kW", lambda: low_w <= self.meter_w <= high_w)

    async def free(self) -> float:
        """Wait until nothing is held back, and return how long that took. [s]"""
        return await self.until("given back", lambda: all(b.now.at_rest for b in self.plant.batteries.values()))

    async def view(self) -> dict[str, Any]:
        """Return what the daemon shows of the link."""
        async with httpx.AsyncClient(trust_env=False) as client:
            found: dict[str, Any] = (await client.get(f"http://{self.http}/api/v1/openadr")).json()
        return found

    async def shows(self, what: str, test: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the daemon shows something of the link, and return the view."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + PATIENCE_S
        while not test(found := await self.view()):
            if loop.time() > until_s:
                pytest.fail(f"{what} is not shown: {found}\n{self.log()}")
            await asyncio.sleep(0.1)
        return found

    def add(self, event_id: str, kind: str, power_kw: float, **more: Any) -> None:
        """Store an event at the server."""
        self.server.at = datetime.now(UTC)
        self.server.add_event(event_id, kind, power_kw, **more)

    async def ring(self, what: str) -> None:
        """Have the notifier speak."""
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.connect(self.broker.host, self.broker.port)
        client.loop_start()
        info = client.publish(f"programs/p-1/events/{what}", b'{"object_type": "EVENT"}', 1, retain=True)
        await asyncio.to_thread(info.wait_for_publish, PATIENCE_S)
        client.disconnect()
        client.loop_stop()

    def log(self) -> str:
        """Return the end of the daemon's log."""
        return (self.folder / "vppd.log").read_text(encoding="utf-8")[-6000:]


def span(begin_s: float, length_s: float) -> dict[str, str]:
    """Return a period that begins so many seconds from now."""
    start = datetime.now(UTC) + timedelta(seconds=begin_s)
    return {"start": start.isoformat(), "duration": f"PT{length_s:g}S"}


def configure(folder: Path, plant: SmallPlant, server: TestVtn, port: int, *, grid: int | None, **openadr: Any) -> Path:
    """Write the configuration of a daemon with an OpenADR server, with a dispatcher at a port or without one."""
    path = write_config(folder, plant, grid or 1, port, Key("tso-1"))
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    if grid is None:
        del document["grid"]
    secret = folder / "openadr.secret"
    secret.write_text(SECRET, encoding="utf-8")
    secret.chmod(0o600)
    document["openadr"] = {
        "url": server.url,
        "client_id": CLIENT,
        "client_secret_file": secret.name,
        "insecure_lab": True,
        "grants": [{"resource": "*", "kinds": ["limit", "release"], "max_power_w": 1e6}],
        **openadr,
    }
    path.write_text(dump(document), encoding="utf-8")
    return path


@asynccontextmanager
async def room(
    folder: Path,
    *,
    grid: bool = False,
    forecast: dict[str, Any] | None = None,
    before: Callable[[TestVtn], None] = lambda _: None,
    **openadr: Any,
) -> AsyncIterator[Room]:
    """Yield a daemon that is ready; ``before`` fills the server."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(vtn())
        broker = stack.enter_context(Mosquitto(folder / "mosquitto"))
        server.notifier = f"mqtt://{broker.host}:{broker.port}"
        server.at = datetime.now(UTC)
        server.add_program("limits")
        before(server)
        plant = await stack.enter_async_context(small_plant(lambda: None))
        port = free_port()
        path = configure(folder, plant, server, port, grid=broker.port if grid else None, **openadr)
        if forecast is not None:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
            path.write_text(dump(document | {"forecast": forecast}), encoding="utf-8")
        command = [str(Path(sys.executable).with_name("vppd")), "run", "-c", str(path)]
        daemon = await stack.enter_async_context(MortalDaemon(command, folder / "vppd.log", ROOT))
        found = Room(daemon, plant, server, broker, folder, f"127.0.0.1:{port}")
        await found.until("ready", daemon.ready.is_set, 60.0)
        yield found


async def test_events_move_the_meter(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """A late joiner, the doorbell, kill -9 in the middle, deletion, and a report of what was drawn."""

    def running(server: TestVtn) -> None:
        server.add_event("running", "IMPORT_CAPACITY_LIMIT", LIMIT_KW, intervalPeriod=span(-60.0, 3600.0))

    async with room(tmp_path, before=running, poll_s=300.0, lost_after_s=600.0) as r:
        r.figures["late join"] = f"{await r.kept(LIMIT_KW):.1f} s after ready"
        await r.shows("a doorbell", lambda view: view["notifier"]["connections"] > 0)
        await _survive_a_kill(r)
        often: dict[str, Any] = {"frequency": 1, "repeat": -1}
        wanted = [often | {"payloadType": kind} for kind in ("DEMAND", "USAGE", "OPERATING_STATE")]
        wanted.append(often | {"payloadType": "DEMAND", "targets": ["main-a", "bat-1", "bat-2"]})
        r.server.add_event("report", "PRICE", 1, intervalPeriod=span(1.0, 6.0), reportDescriptors=wanted)
        await r.ring("create")
        await r.until("reports", lambda: len(r.server.reports) >= len(wanted))
        _check(r)
        r.server.delete_event("running")
        await r.ring("delete")
        r.figures["given back"] = f"{await r.free():.1f} s after the doorbell rang for a deletion"
        r.add("new", "IMPORT_CAPACITY_LIMIT", LIMIT_KW, intervalPeriod=FOR_EVER)
        began_s = asyncio.get_running_loop().time()
        await r.ring("create")
        await r.until("a write", lambda: not all(b.now.at_rest for b in r.plant.batteries.values()))
        r.figures["doorbell"] = f"{asyncio.get_running_loop().time() - began_s:.2f} s from the event to the first write"
        await r.kept(LIMIT_KW)
        assert await r.daemon.stop(30.0) == 0, r.log()
        assert all(b.now.at_rest for b in r.plant.batteries.values())
        sys.stderr.write(f"{r.figures}\n")
        record_property("openadr", r.figures)


async def _survive_a_kill(r: Room) -> None:
    """Kill the daemon in the middle of the event, the server gone too: no device comes to rest, and no second order is made."""
    before, changes = r.orders, {name: len(b.followed) for name, b in r.plant.batteries.items()}
    assert len(before) == 1
    r.server.down = True
    r.daemon.kill()
    r.daemon.start()
    await r.until("ready again", r.daemon.ready.is_set, 60.0)
    alone = await r.shows("trouble", lambda view: "503" in view["trouble"])
    assert (alone["known"], alone["orders"], len(r.orders)) == (False, [], 1)
    await r.kept(LIMIT_KW)
    r.server.down = False
    await r.shows("the server", lambda view: view["known"] and view["notifier"]["connections"] > 0)
    await r.kept(LIMIT_KW)
    for name, battery in r.plant.batteries.items():
        assert not any(followed.at_rest for followed in battery.followed[changes[name] :])
    gap_s = max(battery.longest_gap_s for battery in r.plant.batteries.values())
    assert gap_s < LEASE_S
    assert r.orders == before
    r.figures["kill -9"] = f"longest time between renewals {gap_s:.1f} s, the same order {before[0]['order_id'][:8]}"


def _check(r: Room) -> None:
    """Check the reports of one interval under the limit: of the site, and of the feed and the batteries that hold it."""
    told, by_name = dict[str, Any](), dict[str, Any]()
    for report in r.server.reports:
        values = {
            entry["resourceName"]: entry["intervals"][0]["payloads"][0]["values"][0] for entry in report["resources"]
        }
        told |= {report["payloadDescriptors"][0]["payloadType"]: values["dc1"]} if "dc1" in values else {}
        by_name |= values
    stored_kw = by_name["bat-1"] + by_name["bat-2"]
    assert by_name["main-a"] == pytest.approx(LIMIT_KW, rel=0.05)
    assert LOAD_W / 1e3 + stored_kw == pytest.approx(LIMIT_KW, rel=0.05)
    assert told["DEMAND"] == pytest.approx(LIMIT_KW, rel=0.05)
    assert told["USAGE"] == pytest.approx(LIMIT_KW * 6.0 / 3600.0, rel=0.05)
    assert told["OPERATING_STATE"] == "RUNNING_CURTAILED"
    r.figures["reports"] = str(told)


async def test_without_the_server_the_subscription_holds(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """With the server gone the limit goes on to its end, then the subscription holds; its return gives the rest back."""

    def filled(server: TestVtn) -> None:
        server.add_event("always", "IMPORT_CAPACITY_SUBSCRIPTION", SUBSCRIPTION_KW, intervalPeriod=FOR_EVER)
        server.add_event("tight", "IMPORT_CAPACITY_LIMIT", LIMIT_KW, intervalPeriod=span(-60.0, 72.0))

    async with room(tmp_path, before=filled, poll_s=1.0, lost_after_s=4.0, timeout_s=1.0, notifier=False) as r:
        await r.kept(LIMIT_KW)
        r.server.down = True
        view = await r.shows("loss", lambda view: view["lost"])
        assert {"fallback"} <= {note["reason"] for note in view["notes"]}, view["notes"]
        r.figures["loss"] = f"subscription {await r.kept(SUBSCRIPTION_KW):.1f} s after the loss was seen"
        assert min(b.now.setpoint_w or 0.0 for b in r.plant.batteries.values()) < 0.0
        r.server.down = False
        r.figures["return"] = f"given back after {await r.free():.1f} s"
        assert not (await r.view())["lost"]
        sys.stderr.write(f"{r.figures}\n")
        record_property("openadr", r.figures)


async def test_a_reload_takes_a_grant_away(tmp_path: Path) -> None:
    """Beside a dispatcher: a reload in the middle of an event changes what the server may order, and says so."""

    def running(server: TestVtn) -> None:
        server.add_event("running", "IMPORT_CAPACITY_LIMIT", LIMIT_KW, intervalPeriod=span(-60.0, 3600.0))

    async with room(tmp_path, grid=True, before=running, poll_s=2.0, lost_after_s=600.0) as r:
        await r.kept(LIMIT_KW)
        path = tmp_path / "vppd.toml"
        text = path.read_text(encoding="utf-8")
        head, table = text[: text.index("[openadr]")], text[text.index("[openadr]") :]
        assert "1000000.0" in table
        path.write_text(head + table.replace("1000000.0", "100000.0"), encoding="utf-8")
        r.daemon.reload()
        await r.free()
        view = await r.shows("a note", lambda view: any(n["reason"] == "unauthorised" for n in view["notes"]))
        assert view["orders"] == []
        path.write_text(text, encoding="utf-8")
        r.daemon.reload()
        await r.kept(LIMIT_KW)


async def test_prices_of_the_server_are_foreseen(tmp_path: Path) -> None:
    """A price that the server tells is the forecast of ``price/import``, as the word of the feed, until it is taken back."""
    feed = {"name": "vtn", "series": "price/import", "kind": "openadr"}
    told = {"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": "PRICE", "units": "KWH", "currency": "EUR"}

    def priced(server: TestVtn) -> None:
        server.add_event("price", "PRICE", 0.25, intervalPeriod=span(-600.0, 7200.0), payloadDescriptors=[told])

    async with room(tmp_path, forecast={"feeds": [feed]}, before=priced, poll_s=1.0, notifier=False) as r:
        view = await foreseen(r, lambda view: any(row["source"] == "feed:vtn" for row in view["series"]))
        r.server.delete_event("price")
        gone = await foreseen(r, lambda view: bool(view["feeds"][0]["fault"]))
    assert "tells no PRICE" in gone["feeds"][0]["fault"]
    row = next(row for row in view["series"] if row["source"] == "feed:vtn")
    assert row["name"] == "price/import"
    assert row["values"][1][:3] == pytest.approx([0.25e-3] * 3)
    assert view["feeds"][0]["fault"] == ""


async def foreseen(r: Room, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until the forecasts are as wanted, and return them. Raises TimeoutError."""
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(PATIENCE_S):
        while not is_so(found := (await client.get(f"http://{r.http}/api/v1/forecasts")).json()):
            await asyncio.sleep(0.1)
    return dict(found)
