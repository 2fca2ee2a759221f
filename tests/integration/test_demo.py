"""The demo as a person would run it: everything comes up, does what it says, and is gone afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP

from tests.servers.mosquitto import Mosquitto

pytestmark = pytest.mark.integration
UP_S = 60.0
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start ``vppd demo`` with options, its files in tmp_path/demo, its words in tmp_path/said; it ends with the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(*options: str) -> subprocess.Popen[str]:
        said = (tmp_path / "said").open("w", encoding="utf-8")
        with said:
            process = subprocess.Popen(
                [str(Path(sys.executable).with_name("vppd")), "demo", "--state-dir", str(tmp_path / "demo"), *options],
                stdout=said,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def described(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    """Return demo.json as soon as it is there."""
    path, deadline_s = folder / "demo" / "demo.json", time.monotonic() + UP_S
    while not path.exists():
        assert process.poll() is None, words(folder)
        assert time.monotonic() < deadline_s, words(folder)
        time.sleep(0.1)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def words(folder: Path) -> str:
    """Return what the demo has said, and the ends of its logs."""
    logs = [f"--- {log.name}\n{log.read_text(encoding='utf-8')[-2000:]}" for log in (folder / "demo").glob("*.log")]
    return "\n".join([(folder / "said").read_text(encoding="utf-8"), *logs])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_ends_everything(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    """SIGINT and SIGTERM end the demo with all its processes and status 0."""
    process = start("--no-script")
    described(process, tmp_path)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3
    process.send_signal(number)
    assert process.wait(60) == 0, words(tmp_path)
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive


def test_a_signal_while_it_comes_up_ends_everything(start: Start, tmp_path: Path) -> None:
    """A signal that comes before the stage is up leaves nothing running either."""
    process = start("--no-script")
    while not (tmp_path / "demo" / "site.log").exists():
        assert process.poll() is None
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    assert process.wait(60) == 0, words(tmp_path)
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive


def test_the_site_alone(start: Start, tmp_path: Path) -> None:
    """--no-daemon runs the site alone for --duration; every Modbus device answers a stock SunSpec client."""
    process = start("--no-daemon", "--duration", "25")
    found = described(process, tmp_path)
    assert found["daemon_pid"] is None
    assert found["http"] is None
    assert {d["kind"] for d in found["devices"]} >= {"meter", "ups", "battery", "pv"}
    ready = [str(Path(sys.executable).parent / "vppd"), "check", str(tmp_path / "demo" / "vppd.toml")]
    assert subprocess.run(ready, check=False).returncode == 0, "the file for somebody else's daemon"
    for device in found["devices"]:
        client = SunSpecModbusClientDeviceTCP(device["unit"], ipaddr=device["host"], ipport=device["port"], timeout=5.0)
        try:
            client.scan()
            assert len(client.model_list) >= 2
        finally:
            client.close()
    assert process.wait(60) == 0, words(tmp_path)


def test_demo_json_leads_to_the_daemon(start: Start, tmp_path: Path, mosquitto: Mosquitto) -> None:
    """With a broker of one's own demo.json names it, and the daemon is the production command on the written file."""
    process = start("--no-script", "--broker", f"{mosquitto.host}:{mosquitto.port}")
    found = described(process, tmp_path)
    assert found["broker"] == f"{mosquitto.host}:{mosquitto.port}"
    command = psutil.Process(found["daemon_pid"]).cmdline()
    assert command[-3:] == ["run", "-c", str(tmp_path / "demo" / "vppd.toml")]
    assert os.path.basename(command[-4]) == "vppd"
    assert {key["kid"] for key in json.loads(Path(found["agent_keys"]).read_text(encoding="utf-8"))["keys"]}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_script_passes(start: Start, tmp_path: Path) -> None:
    """All four acts pass: under the target and staying there, nothing below reserve, every job restored."""
    process = start("--once", "--speed", "4")
    status = process.wait(580)
    said = words(tmp_path)
    assert status == 0, said
    assert said.count("passed") == 4


@pytest.mark.parametrize("options", [["--broker", "nonsense"], ["--http", "8080"], ["--mqtt", "4", "--broker", "a:1"]])
def test_bad_options_are_refused(start: Start, tmp_path: Path, options: list[str]) -> None:
    """A mistyped address or protocol is told, with status 2, before anything starts."""
    process = start("--no-daemon", *options)
    assert process.wait(30) == 2
    assert options[0] in (tmp_path / "said").read_text(encoding="utf-8")
