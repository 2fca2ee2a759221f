"""One node as an operator has it: a configuration, ``vppd agent`` as a process of its own, and a dispatcher on the broker."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as mqtt
import psutil
from paho.mqtt.enums import CallbackAPIVersion

from tests.agent.stub import Stub

DEADLINE_S = 20.0
SITE = "dc1"


def until(holds: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return what ``holds`` returns once it is true; fail after the deadline. [s]"""
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        if found := holds():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {deadline_s:g} s: {what}")


class Dispatcher:
    """Gives orders to one node and keeps what its agent says."""

    def __init__(self, port: int, node: str, *, client: mqtt.Client | None = None) -> None:
        self.prefix = f"vpp/agent/v1/{SITE}/{node}"
        self.statuses: list[dict[str, Any]] = []
        self.telemetry: dict[str, Any] = {}
        self.telemetries = 0
        self.availability = ""
        self._seq = 0
        self._subscribed: queue.Queue[int] = queue.Queue()
        self._mqtt = client or mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._mqtt.on_connect = lambda client, _d, _f, _r, _p: client.subscribe(f"{self.prefix}/#", 1)
        self._mqtt.on_subscribe = lambda _c, _d, mid, _r, _p: self._subscribed.put(mid)
        self._mqtt.on_message = lambda _c, _d, message: self._hear(message.topic, message.payload)
        self._mqtt.reconnect_delay_set(1, 1)
        self._mqtt.connect("127.0.0.1", port)
        self._mqtt.loop_start()
        self._subscribed.get(timeout=DEADLINE_S)

    def order(self, *, retain: bool = False, **command: Any) -> dict[str, Any]:
        """Send ``cap/set`` and return the acknowledgement."""
        self._seq += 1
        message = {"id": str(uuid.uuid4()), "from": "vppd", "seq": self._seq, "lease_s": 30.0, **command}
        self.send(json.dumps(message), retain=retain)
        return self.wait(lambda s: s["id"] == message["id"], f"an answer to {message}")

    def send(self, payload: str, *, retain: bool = False) -> None:
        """Send anything to ``cap/set``."""
        self._mqtt.publish(f"{self.prefix}/cap/set", payload, 1, retain).wait_for_publish(DEADLINE_S)

    def wait(self, wanted: Callable[[dict[str, Any]], bool], what: str, since: int = 0) -> dict[str, Any]:
        """Return the first status from number ``since`` on that is wanted."""
        found: dict[str, Any] = until(lambda: next((s for s in self.statuses[since:] if wanted(s)), None), what)
        return found

    def next_telemetry(self, count: int = 1) -> dict[str, Any]:
        """Return the telemetry after so many more have come."""
        due = self.telemetries + count
        until(lambda: self.telemetries >= due, "telemetry")
        return self.telemetry

    def close(self) -> None:
        """Hang up."""
        self._mqtt.disconnect()
        self._mqtt.loop_stop()
        self._mqtt.on_connect = self._mqtt.on_subscribe = self._mqtt.on_message = None

    def _hear(self, topic: str, payload: bytes | bytearray) -> None:
        what = topic.removeprefix(self.prefix + "/")
        if what == "cap/status" and payload:
            self.statuses.append(json.loads(payload))
        elif what == "telemetry":
            self.telemetry, self.telemetries = json.loads(payload), self.telemetries + 1
        elif what == "availability":
            self.availability = payload.decode()


class Node:
    """A machine with GPUs; ``start`` its agent."""

    def __init__(self, folder: Path, gpus: Stub, port: int, name: str = "", client: mqtt.Client | None = None) -> None:
        self.gpus, self.port = gpus, port
        self.name = name or f"n{uuid.uuid4().hex[:8]}"
        self.config, self.state = folder / "agent.toml", folder / "state"
        self.more = ""
        self.broker = f'host = "127.0.0.1"\nport = {port}\ninsecure_lab = true\nbackoff_most_s = 1.0\n'
        self.powercap = folder / "powercap"
        self._log = folder / "agent.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.orders = Dispatcher(port, self.name, client=client)
        """Who gives orders here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        self.orders.close()

    @property
    def log(self) -> str:
        """What the agent has said on standard error."""
        return self._log.read_text(encoding="utf-8") if self._log.exists() else ""

    @property
    def usage(self) -> psutil.Process:
        """The agent as the kernel sees it."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def start(self, within_s: float = DEADLINE_S, **environment: str) -> None:
        """Start the agent and return once it is online. [s]"""
        self.write()
        before = len(self.orders.statuses)
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self.line(), env=self.gpus.environment | environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._process = process
        until(lambda: len(self.orders.statuses) > before or process.poll() is not None, "the agent is online", within_s)
        assert process.poll() is None, self.log

    def write(self) -> None:
        """Write the configuration."""
        text = f'site = "{SITE}"\nnode = "{self.name}"\nstate_dir = "{self.state}"\ntelemetry_s = 0.2\n{self.more}\n'
        cpus = f'[cpus]\ncontrol = true\npowercap = "{self.powercap}"\n'
        self.config.write_text(f"{text}[broker]\n{self.broker}{cpus}", encoding="utf-8")

    def line(self, *options: str) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-c", "from vppd.cli import main; main()", "agent", "-c", str(self.config), *options]

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run ``vppd agent`` with options to its end."""
        return subprocess.run(
            self.line(*options), env=self.gpus.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def signal(self, number: signal.Signals) -> None:
        """Send the agent a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Return how the agent ended."""
        assert self._process is not None
        return self._process.wait(DEADLINE_S)

    def kill(self) -> None:
        """End the agent as the out-of-memory killer would; nothing happens when it does not run."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait(DEADLINE_S)
