"""A running demo on a stock Mosquitto, with a dispatcher beside it and meters read by a stock client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP

from tests.integration.dispatch_wire import PATIENCE_S, Dispatcher, validate
from tests.servers.mosquitto import Mosquitto

VPPD = str(Path(sys.executable).with_name("vppd"))
UP_S = 90.0
RESTS_W = 5e3
"""Storage that discharges less than this is given back. [W]"""
STILL_FRAC = 0.01
"""Two means of a meter that differ by less are the same. [0-1]"""


class Meters:
    """The meters at the point of interconnection, read by a stock SunSpec client every half second."""

    def __init__(self, feeds: Mapping[str, Any]) -> None:
        self._devices = {tag: opened(feed["meter"]) for tag, feed in feeds.items()}
        self.samples: dict[str, list[tuple[float, float]]] = {tag: [] for tag in feeds}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.5):
            for tag, device in self._devices.items():
                model = device.models[203][0]
                model.read()
                self.samples[tag].append((time.monotonic(), float(model.W.cvalue)))

    def mean_w(self, tag: str, last_s: float) -> float:
        """Return the mean of the last seconds. [W]"""
        since_s = time.monotonic() - last_s
        return _mean_w([sample for sample in self.samples[tag] if sample[0] >= since_s])

    def site_w(self, last_s: float) -> float:
        """Return the mean of all feeds together. [W]"""
        return sum(self.mean_w(tag, last_s) for tag in self.samples)

    def highest_w(self, tag: str, since_s: float, window_s: float = 10.0) -> float:
        """Return the highest average over a full window that begins at ``since_s`` or later. [W]"""
        late = [(at_s, w) for at_s, w in self.samples[tag] if at_s >= since_s]
        averages = []
        for at_s, _ in late:
            inside = [w for t, w in late if at_s <= t < at_s + window_s]
            if late[-1][0] >= at_s + window_s:
                averages.append(sum(inside) / len(inside))
        assert averages, "no full window was measured"
        return max(averages)

    def close(self) -> None:
        """Stop reading."""
        self._over.set()
        self._thread.join(10.0)
        for device in self._devices.values():
            device.close()


def _mean_w(samples: Sequence[tuple[float, float]]) -> float:
    return sum(power_w for _, power_w in samples) / len(samples)


def opened(at: Mapping[str, Any]) -> Any:
    """Return a stock SunSpec client that has scanned the device."""
    device = SunSpecModbusClientDeviceTCP(at["unit"], ipaddr=at["host"], ipport=at["port"], timeout=5.0)
    device.scan()
    return device


class Running:
    """``vppd demo --no-script`` in a process, and what a test wants of it."""

    def __init__(self, folder: Path, broker: Mosquitto, protocol: str) -> None:
        self.folder, self.protocol, self.config = folder, protocol, folder / "vppd.toml"
        address = f"{broker.host}:{broker.port}"
        argv = ["demo", "--no-script", "--broker", address, "--mqtt", protocol, "--state-dir", str(folder)]
        self._demo = self._start("demo.out", *argv)
        self._restarted: subprocess.Popen[bytes] | None = None
        self.demo: dict[str, Any] = {}
        self.control_url, self.daemon_pid, self.up_s = "", 0, 0.0

    def __enter__(self) -> Self:
        try:
            self._wait_for(self._demo, (self.folder / "demo.json").exists)
        except AssertionError:
            self.stop()
            raise
        self.demo = json.loads((self.folder / "demo.json").read_text(encoding="utf-8"))
        self.control_url = json.loads((self.folder / "site.json").read_text(encoding="utf-8"))["control_url"]
        self.daemon_pid = int(self.demo["daemon_pid"])
        self.up_s = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _start(self, log: str, *argv: str) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / log).open("ab") as out:
            return subprocess.Popen([VPPD, *argv], stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def _wait_for(self, process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + UP_S
        while not ready():
            assert process.poll() is None, self.log()
            assert time.monotonic() < deadline_s, self.log()
            time.sleep(0.1)

    def log(self) -> str:
        """Return the ends of all logs."""
        found = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        return "\n".join(f"--- {path.name}\n{path.read_text(encoding='utf-8')[-1500:]}" for path in found)

    def stop(self) -> None:
        """End the demo with everything in it, the restarted daemon first."""
        for process in (self._restarted, self._demo):
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(60)

    def signal_daemon(self, number: signal.Signals) -> None:
        """Send the daemon a signal."""
        os.kill(self.daemon_pid, number)

    def daemon_gone(self, within_s: float) -> bool:
        """Wait until the daemon has ended; False when it has not in time."""
        deadline_s = time.monotonic() + within_s
        while time.monotonic() < deadline_s:
            if self._restarted is not None:
                self._restarted.poll()
            with suppress(ProcessLookupError):
                os.kill(self.daemon_pid, 0)
                time.sleep(0.05)
                continue
            return True
        return False

    def restart_daemon(self) -> None:
        """Start the daemon as the service manager would, and return once it is ready."""
        self._restarted = self._start("daemon.log", "run", "-c", str(self.config))
        self.daemon_pid = self._restarted.pid
        self._wait_for(self._restarted, self._is_ready)

    def _is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://{self.demo['http']}/readyz", trust_env=False).status_code == httpx.codes.OK
        return False

    def cli(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command of vppd."""
        return subprocess.run([VPPD, *argv], capture_output=True, text=True, timeout=60, check=False)

    def ask(self, command: str) -> Any:
        """Return what ``vppd COMMAND -c FILE --json`` prints."""
        done = self.cli(command, "-c", str(self.config), "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def truth(self) -> dict[str, Any]:
        """Return what is really so at the simulated site."""
        found: dict[str, Any] = httpx.get(f"{self.control_url}/vppd-sim/v1/state", trust_env=False).json()
        return found

    def counts(self) -> dict[str, dict[str, Any]]:
        """Return every write that a device or hall has taken, heartbeats apart, and what it follows now."""
        truth = self.truth()
        device = ("writes", "transitions", "reversions", "refused", "setpoint_w")
        hall = ("stops", "continues", "cancels", "updates", "cap_writes", "stopped", "held", "caps_w")
        return {
            **{name: {k: d.get(k) for k in device} for name, d in truth["devices"].items()},
            **{name: {k: h[k] for k in hall} for name, h in truth["halls"].items()},
        }

    def held(self) -> list[str]:
        """Return what is still held back at the site."""
        truth = self.truth()
        found = [name for name, d in truth["devices"].items() if d.get("setpoint_w") not in (None, 0.0)]
        return found + [name for name, hall in truth["halls"].items() if self.is_held(hall)]

    @staticmethod
    def is_held(hall: Mapping[str, Any]) -> bool:
        """Say whether any node of a hall is capped or any job stopped or held."""
        capped = any(cap_w is not None for cap_w in hall["caps_w"].values())
        return bool(capped or hall["stopped"] or hall["held"])


def until(what: str, test: Callable[[], bool], within_s: float) -> None:
    """Wait until ``test`` says yes."""
    deadline_s = time.monotonic() + within_s
    while not test():
        assert time.monotonic() < deadline_s, f"{what}: not within {within_s:g} s"
        time.sleep(0.25)


@dataclass(slots=True)
class Room:
    """A running demo, its dispatcher and its meters; ``checked`` counts the messages that have been validated."""

    running: Running
    dispatcher: Dispatcher
    meters: Meters
    checked: int = 0
    lived_s: float = 0.0
    """How long the daemon has been up when it was told to end. [s]"""

    def validate_said(self) -> None:
        """Hold every message since the last time against its schema, its topic, and our public key."""
        said = self.dispatcher.said[self.checked :]
        self.checked += len(said)
        for message in said:
            validate(message, self.running.demo)

    def settled_w(self, within_s: float = 60.0) -> dict[str, float]:
        """Return what each feed draws once nothing is held back and the meters stand still. [W]"""
        until("the site is at rest", self._is_at_rest, within_s)
        return {tag: self.meters.mean_w(tag, 3.0) for tag in self.meters.samples}

    def _is_at_rest(self) -> bool:
        truth = self.running.truth()
        gives = any(d["power_w"] < -RESTS_W for d in truth["devices"].values() if "soc_frac" in d)
        if gives or any(self.running.is_held(hall) for hall in truth["halls"].values()):
            return False
        for samples in self.meters.samples.values():
            before, lately = samples[-10:-5], samples[-5:]
            if len(before) < 5 or abs(_mean_w(lately) - _mean_w(before)) > STILL_FRAC * _mean_w(before):
                return False
        return True


@contextmanager
def raised(folder: Path, protocol: str) -> Iterator[Room]:
    """Hold a broker, a demo, a dispatcher and the meters; whatever is said to the very end is valid."""
    with (
        Mosquitto(folder / "mosquitto") as broker,
        Running(folder / "demo", broker, protocol) as running,
        Dispatcher(running.demo, protocol) as dispatcher,
        closing(Meters(running.demo["feeds"])) as meters,
    ):
        room = Room(running, dispatcher, meters)
        until("the meters are read", lambda: all(meters.samples.values()), PATIENCE_S)
        yield room
        meters.close()
        running.stop()
        room.validate_said()
