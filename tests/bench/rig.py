"""What a bench of the whole daemon needs: a real Mosquitto, the plant in a process of its own, and ``vppd run``."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import psutil

from tests.grid.dispatcher import Key
from tests.servers.mosquitto import Mosquitto
from tests.support import free_port
from vppd.demo.tomlwriter import Value, dump

UP_S = 120.0
ISSUER, FEED = "tso", "main"
CYCLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Rig:
    """Everything at work."""

    folder: Path
    broker: Mosquitto
    key: Key
    """The issuer's."""
    plant: Mapping[str, Any]
    """plant.json."""
    daemon: psutil.Process

    @property
    def ledger(self) -> Path:
        """The daemon's ledger."""
        return self.folder / "state" / "ledger.db"

    @property
    def telemetry(self) -> Path:
        """The daemon's recorded frames."""
        return self.folder / "state" / "telemetry.db"

    def acks(self) -> dict[str, list[tuple[float, float | None]]]:
        """Return what the plant noted; it is there once the rig has closed."""
        return cast("dict[str, list[tuple[float, float | None]]]", json.loads((self.folder / "acks.json").read_text()))


@contextmanager
def rig(folder: Path, points: int, ports: int, poll_s: float = 1.0) -> Iterator[Rig]:
    """Start broker, plant and daemon; on leaving they have ended, and what they noted is in the folder."""
    key, own = Key("tso-1"), Key("dc1-1")
    put(folder / "issuer.pub.pem", key.public_pem())
    put(folder / "own.pem", own.private_pem())
    with Mosquitto(folder / "mosquitto") as broker, _plant(folder, points, ports) as plant:
        listen = f"127.0.0.1:{free_port()}"
        text = dump(_config(folder, broker, plant, listen, poll_s))
        (folder / "vppd.toml").write_text(text, encoding="utf-8")
        with _daemon(folder) as daemon:
            _until_ready(daemon, folder, listen)
            yield Rig(folder, broker, key, plant, psutil.Process(daemon.pid))


def put(path: Path, content: bytes) -> None:
    """Write a private file."""
    path.touch(mode=0o600)
    path.write_bytes(content)


@contextmanager
def _plant(folder: Path, points: int, ports: int) -> Iterator[Mapping[str, Any]]:
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.plant", str(folder), str(points), str(ports)])
    try:
        path, deadline_s = folder / "plant.json", time.monotonic() + UP_S
        while not path.exists():
            assert process.poll() is None, "the plant has ended"
            assert time.monotonic() < deadline_s, "the plant does not come up"
            time.sleep(0.05)
        yield json.loads(path.read_text(encoding="utf-8"))
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def _daemon(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(Path(sys.executable).with_name("vppd")), "run", "-c", str(folder / "vppd.toml")]
    with (folder / "daemon.log").open("wb") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(40)


def _until_ready(daemon: subprocess.Popen[bytes], folder: Path, listen: str) -> None:
    """Return when every device answers and the dispatch link is up."""
    deadline_s = time.monotonic() + UP_S
    while True:
        said = (folder / "daemon.log").read_text(encoding="utf-8", errors="replace")
        assert daemon.poll() is None, f"the daemon has ended:\n{said[-3000:]}"
        assert time.monotonic() < deadline_s, f"the daemon does not get ready:\n{said[-3000:]}"
        try:
            state = httpx.get(f"http://{listen}/api/v1/state", timeout=5.0)
        except httpx.HTTPError:
            time.sleep(0.2)
            continue
        answers = state.status_code == 200 and all(a["power_w"] is not None for a in state.json()["assets"])
        if answers and "dispatch_link_up" in said:
            return
        time.sleep(0.2)


def _config(folder: Path, broker: Mosquitto, plant: Mapping[str, Any], listen: str, poll_s: float) -> dict[str, Value]:
    fast_w_per_s = 1e9
    return {
        "site": {
            "id": "dc1",
            "agent_id": "dc1-agent",
            "state_dir": str(folder / "state"),
            "socket": str(folder / "vppd.sock"),
            "cycle_s": CYCLE_S,
            "margin_frac": 0.0,
            "import_max_w": 1e9,
            "ramp_down_w_per_s": fast_w_per_s,
            "ramp_up_w_per_s": fast_w_per_s,
            "require_synchronised_clock": False,
        },
        "feeds": [{"tag": FEED, "meter": "poi", "import_max_w": 1e9}],
        "assets": [
            asset | {"poll_s": poll_s} for asset in (_meter(plant), *(_storage(plant, p) for p in plant["points"]))
        ],
        "grid": _grid(folder, broker),
        "http": {"listen": listen},
    }


def _meter(plant: Mapping[str, Any]) -> dict[str, Value]:
    connection = {"host": plant["host"], "port": plant["meter"], "unit_id": 1}
    return {"id": "poi", "kind": "meter", "feed": FEED, "adapter": "modbus-sunspec", "connection": connection}


def _storage(plant: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Value]:
    return {
        "id": point["id"],
        "kind": "battery",
        "feed": FEED,
        "adapter": "modbus-sunspec",
        "connection": {
            "host": plant["host"],
            "port": point["port"],
            "unit_id": point["unit_id"],
            "reserve_frac": 0.1,
        },
        "rated_charge_w": 100e3,
        "rated_discharge_w": 100e3,
        "capacity_wh": 200e3,
        "reserve_frac": 0.1,
        "soc_target_frac": 0.5,
    }


def _grid(folder: Path, broker: Mosquitto) -> dict[str, Value]:
    return {
        "broker": {"host": broker.host, "port": broker.port, "insecure_lab": True},
        "signing": {"kid": "dc1-1", "key_file": str(folder / "own.pem")},
        "issuers": [
            {
                "id": ISSUER,
                "keys": [{"kid": "tso-1", "alg": "ES256", "public_key_file": str(folder / "issuer.pub.pem")}],
                "grants": [{"resource": "*", "kinds": ["limit", "release"], "max_power_w": 1e9}],
            }
        ],
    }
