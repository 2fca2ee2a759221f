"""A feed whose only load is a real Slurm: a meter that sees which job processes really run, the daemon, and a dispatcher."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import httpx
import paho.mqtt.client as paho
import psutil
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.grid.dispatcher import Key, event, watts
from tests.servers.mosquitto import Mosquitto
from tests.servers.slurm import SlurmServer, steady_port, until
from vppd.demo.tomlwriter import Value, dump
from vppd.sim.faults import Outage
from vppd.sim.generation import MeterUnit
from vppd.sim.modbus import HOST, ModbusPort, serve_modbus
from vppd.sim.physics import FeedState

BASE_W, IDLE_W, JOB_W = 30_000.0, 5_000.0, 20_000.0
"""The rest of the room; a node with nothing on it; a job of one CPU. [W]"""
NODES, CPUS = 2, 2
_LOOK_S = 0.3
AGAIN_S = 5.0
"""A dispatcher sends a command again when it has no receipt for so long: the second has no effect of its own. [s]"""


class Watch(Protocol):
    """What the meter asks."""

    @property
    def power_w(self) -> float:
        """Return what the feed draws. [W]"""
        ...

    def look(self) -> None:
        """Look again."""
        ...


class Witness:
    """Looks at the processes of the machine, not at what Slurm or the daemon say of them."""

    def __init__(self, server: SlurmServer) -> None:
        self.drawing: frozenset[int] = frozenset()
        """Jobs of which some process can run now."""
        self._server = server

    def look(self) -> None:
        """Look again."""
        found = set()
        for process in psutil.process_iter():
            try:
                its = process.environ()
                runs = process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            if runs and its.get("SLURM_CONF") == str(self._server.conf) and "SLURM_JOB_ID" in its:
                found.add(int(its["SLURM_JOB_ID"]))
        self.drawing = frozenset(found)

    @property
    def power_w(self) -> float:
        """Return what the meter sees. [W]"""
        return BASE_W + NODES * IDLE_W + JOB_W * len(self.drawing)


class Meter:
    """The SunSpec meter of the feed, fed by the witness; a context manager with a thread of its own."""

    def __init__(self, witness: Watch) -> None:
        self.port = 0
        self._witness = witness
        self._up, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(10.0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(10.0)

    async def _serve(self) -> None:
        clock = asyncio.get_running_loop().time
        unit = MeterUnit("meter-a", lambda: FeedState(0.0, 0.0, BASE_W, self._witness.power_w), clock)
        async with AsyncExitStack() as stack:
            self.port = await stack.enter_async_context(serve_modbus(ModbusPort({1: unit}, {1: Outage(clock)})))
            self._up.set()
            while not self._over.is_set():
                await asyncio.to_thread(self._witness.look)
                await asyncio.sleep(_LOOK_S)


class Daemon:
    """``vppd run -c`` in a process of its own, as often as wanted; a context manager."""

    def __init__(self, config: Path, http: str) -> None:
        self._command = [str(Path(sys.executable).with_name("vppd")), "run", "-c", str(config)]
        self._log, self._http = config.with_name("vppd.log"), http
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30.0)

    def start(self) -> None:
        """Start it and return once it decides and every device answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._is_up, "vppd decides", 60.0, lambda: self._log.read_text(encoding="utf-8")[-3000:])

    def kill(self) -> None:
        """End it as kill -9 does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10.0)

    def log(self) -> str:
        """Return what it has said."""
        return self._log.read_text(encoding="utf-8")

    def state(self) -> dict[str, Any]:
        """Return what it knows of the site."""
        found: dict[str, Any] = httpx.get(f"http://{self._http}/api/v1/state", timeout=10.0).raise_for_status().json()
        return found

    def asset(self, name: str = "hall") -> dict[str, Any]:
        """Return what it knows of one asset."""
        return next(asset for asset in self.state()["assets"] if asset["id"] == name)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()[-3000:]
        try:
            state = self.state()
        except (httpx.TransportError, httpx.HTTPStatusError):
            return False
        return bool(state["ready"]) and all(asset["online"] for asset in state["assets"])


@dataclass
class Dispatcher:
    """A plain MQTT client with the issuer's key; a context manager."""

    broker: Mosquitto
    key: Key
    said: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    """What came from the daemon: topic and data."""
    _seq: int = 0

    def __enter__(self) -> Self:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe([("vpp/v1/dc1/#", 1), ("grid/v1/#", 1)])
        self._client.on_message = lambda _client, _userdata, message: self._hear(message)
        self._client.connect(self.broker.host, self.broker.port)
        self._client.loop_start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client.on_connect = self._client.on_message = None

    def load_target(self, power_w: float | None, for_s: float | None = None) -> None:
        """Set, or lift, the feed's load target, for some time or until it is replaced; return when accepted. [W, s]"""
        constraint = None if power_w is None else watts(power_w)
        interval = {} if for_s is None else {"start_time": _at(), "end_time": _at(for_s)}
        data = {"targets": [{"interval": interval, "feed_tags": ["main-a"], "load_constraint": constraint}]}
        self._insist("grid/v1/isv/tso/loadtarget/set", "grid.loadtarget.set.v1", data)

    def limit(self, power_w: float, for_s: float) -> None:
        """Limit the feed for some time from now; return when that has been accepted. [W]"""
        self._order("limit", for_s, power=watts(power_w))

    def reduce(self, power_w: float, for_s: float) -> None:
        """Take so much off what the feed draws, for some time from now; return when that has been accepted. [W]"""
        self._order("reduce", for_s, power=watts(power_w))

    def release(self) -> None:
        """End all orders on the feed; return when that has been accepted."""
        self._order("release", 60.0)

    def data_of(self, topic: str) -> list[Mapping[str, Any]]:
        """Return the data of all messages on a topic."""
        return [data for where, data in self.said if where == topic]

    def _order(self, kind: str, for_s: float, **rest: object) -> None:
        self._seq += 1
        data = {
            "order_id": str(uuid.uuid4()),
            "seq": self._seq,
            "expires_at": _at(60.0),
            "resource": "main-a",
            "kind": kind,
            "interval": {"start_time": _at(), "end_time": _at(for_s)},
            **rest,
        }
        self._insist("vpp/v1/dc1/issuer/tso/order/set", "vpp.order.set.v1", data)

    def _insist(self, topic: str, kind: str, data: Mapping[str, Any]) -> None:
        envelope = event(kind, self.key.jws(data), time=_at())
        said = json.dumps(envelope)
        sent_s = float("-inf")

        def is_accepted() -> bool:
            nonlocal sent_s
            if time.monotonic() - sent_s > AGAIN_S and self._client.is_connected():
                self._client.publish(topic, said, 1)
                sent_s = time.monotonic()
            return "accepted" in verdicts()

        def verdicts() -> list[str]:
            receipts = self.data_of("vpp/v1/dc1/issuer/tso/receipt")
            return [r["status"] for r in receipts if r.get("command_id") == envelope["id"]]

        until(is_accepted, f"{kind} is accepted", 30.0, verdicts)

    def _hear(self, message: paho.MQTTMessage) -> None:
        if message.payload[:1] != b"{" or re.search(r"/(set|telemetry|flexibility)$", message.topic):
            return
        part = json.loads(message.payload)["data"].split(".")[1]
        self.said.append((message.topic, json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))))


def _at(ahead_s: float = 0.0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=ahead_s)).isoformat()


def write_config(
    folder: Path,
    server: SlurmServer,
    broker: Mosquitto,
    meter: int,
    issuer: Key,
    cluster: Mapping[str, Value],
    rated_w: float = NODES * (IDLE_W + CPUS * JOB_W),
    curtail: Mapping[str, Value] | None = None,
) -> tuple[Path, str]:
    """Write ``vppd.toml`` with its keys; return its path and where the API will listen."""
    agent, http = Key("agent-1"), f"{HOST}:{steady_port()}"
    (folder / "agent.pem").write_bytes(agent.private_pem())
    (folder / "agent.pem").chmod(0o600)
    (folder / "tso.pem").write_bytes(issuer.public_pem())
    limits: dict[str, Value] = {"import_max_w": 200_000.0, "export_max_w": 0.0}
    slurm: dict[str, Value] = {
        "url": server.url,
        "token_file": str(server.token_file()),
        "command_line": True,
        "slurm_conf": str(server.conf),
        "node_idle_w": IDLE_W,
        "node_max_w": IDLE_W + CPUS * JOB_W,
        "journal": str(folder / "hall.journal"),
        **cluster,
    }
    on_feed: dict[str, Value] = {"feed": "main-a"}
    document: dict[str, Value] = {
        "site": {
            "id": "dc1",
            "agent_id": "dc1-agent",
            "state_dir": str(folder / "state"),
            "socket": str(folder / "vppd.sock"),
            "require_synchronised_clock": False,
            "ramp_down_w_per_s": 20_000.0,
            "ramp_up_w_per_s": 20_000.0,
            **limits,
        },
        "feeds": [{"tag": "main-a", "meter": "meter-a", **limits}],
        "assets": [
            {
                "id": "meter-a",
                "kind": "meter",
                "adapter": "modbus-sunspec",
                **on_feed,
                "connection": {"host": HOST, "port": meter},
            },
            {
                "id": "hall",
                "kind": "cluster",
                "adapter": "slurm",
                **on_feed,
                "rated_w": rated_w,
                "curtail": curtail or {},
                "connection": slurm,
            },
        ],
        "grid": {
            "broker": {"host": broker.host, "port": broker.port, "insecure_lab": True},
            "signing": {"kid": agent.kid, "alg": "ES256", "key_file": "agent.pem"},
            "issuers": [
                {
                    "id": "tso",
                    "keys": [{"kid": issuer.kid, "alg": "ES256", "public_key_file": "tso.pem"}],
                    "grants": [{"resource": "*", "kinds": ["limit", "reduce", "release"], "max_power_w": 200_000.0}],
                }
            ],
        },
        "http": {"listen": http},
    }
    path = folder / "vppd.toml"
    path.write_text(dump(document), encoding="utf-8")
    return path, http


def soon(claim: Callable[[], bool], what: str, for_s: float, seen: Callable[[], object]) -> float:
    """Wait until a claim holds and return how long that took. [s]"""
    began_s = time.monotonic()
    until(claim, what, for_s, seen)
    return time.monotonic() - began_s
