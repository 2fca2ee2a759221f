"""``python -m vppd.sim`` as others start it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.servers.mosquitto import Mosquitto
from tests.support import ROOT


@contextmanager
def simulated(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the simulator as a process; whatever happens it is ended."""
    command = [sys.executable, "-m", "vppd.sim", "--dir", str(folder), *arguments]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a JSON file holds, None when there is none."""
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def read_token(path: str) -> str:
    """Return the token, which nobody else may read."""
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    return Path(path).read_text().strip()


async def appears(path: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Return the JSON file once it is there."""
    for _ in range(300):
        if (content := read_json(path)) is not None:
            return content
        assert process.poll() is None, "the simulator ended"
        await asyncio.sleep(0.05)
    pytest.fail(f"no {path.name}")


async def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Return exit status and standard output after SIGTERM."""
    process.send_signal(signal.SIGTERM)
    out, _ = await asyncio.to_thread(process.communicate, None, 10.0)
    return process.returncode, out


async def test_it_says_where_everything_is(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """site.json names every asset with a live endpoint; SIGTERM ends the process cleanly and silently."""
    broker = f"{mosquitto.host}:{mosquitto.port}"
    with simulated(tmp_path, "--seed", "7", "--speed", "5", "--broker", broker) as process:
        site = await appears(tmp_path / "site.json", process)
        assert (site["schema"], site["pid"], site["seed"], site["speed"]) == (1, process.pid, 7, 5.0)
        assert site["bms"] == {"host": mosquitto.host, "port": mosquitto.port, "protocol": "3.1.1"}
        kinds = {device["id"]: device["kind"] for device in site["devices"]}
        assert kinds == {
            **{"poi-a": "meter", "poi-b": "meter", "ups-a": "ups", "bess-b": "battery", "pv-b": "pv"},
            **{"hall-a": "cluster", "hall-b": "cluster"},
            **{"cooling-a": "load", "racks-a": "load", "cooling-b": "load", "racks-b": "load"},
        }
        hall = next(d["connection"] for d in site["devices"] if d["id"] == "hall-a")
        headers = {"X-SLURM-USER-NAME": hall["user_name"], "X-SLURM-USER-TOKEN": read_token(hall["token_file"])}
        async with httpx.AsyncClient(headers=headers) as http:
            assert (await http.get(f"{hall['url']}/slurm/v0.0.38/ping")).json()["pings"][0]["ping"] == "UP"
            assert len((await http.get(f"{hall['cap_url']}/nodes")).json()["nodes"]) == 32
            truth = (await http.get(f"{site['control_url']}/vppd-sim/v1/state")).json()
        assert truth["plant_t_s"] == pytest.approx(5.0 * truth["t_s"])
        assert await ended(process) == (0, b"")


async def test_bare_points_leave_their_counts(tmp_path: Path) -> None:
    """--points serves units for benches and leaves what was written to them."""
    with simulated(tmp_path, "--points", "4", "--ports", "2") as process:
        places = (await appears(tmp_path / "points.json", process))["points"]
        assert len({(place["port"], place["unit_id"]) for place in places}) == 4
        assert (await ended(process))[0] == 0
    counts = json.loads((tmp_path / "writes.json").read_text())
    assert counts["point-0003"]["writes"] == 0


@pytest.mark.slow
async def test_the_whole_site_is_cheap(tmp_path: Path) -> None:
    """Polled once a second everywhere, the site takes less than 15 % of a core."""
    with simulated(tmp_path) as process:
        site = await appears(tmp_path / "site.json", process)
        before_s, seconds = sum(psutil.Process(process.pid).cpu_times()[:2]), 10
        await poll(site, seconds)
        used_s = sum(psutil.Process(process.pid).cpu_times()[:2]) - before_s
        await ended(process)
    share = used_s / seconds
    assert share < 0.15, f"{share:.1%} of a core, load {os.getloadavg()[0]:.1f}"


async def poll(site: dict[str, Any], seconds: int) -> None:
    """Ask every device for a block of registers, every hall for jobs and nodes, once a second."""
    ports = [d["connection"]["port"] for d in site["devices"] if d["adapter"] == "modbus-sunspec"]
    halls = [d["connection"] for d in site["devices"] if d["adapter"] == "slurm"]
    token = read_token(halls[0]["token_file"])
    lines = [await asyncio.open_connection("127.0.0.1", port) for port in ports]
    async with httpx.AsyncClient(headers={"X-SLURM-USER-TOKEN": token}) as http:
        for _ in range(seconds):
            for reader, writer in lines:
                writer.write(bytes.fromhex("000100000006 01 03 9c46 0064".replace(" ", "")))
                await reader.readexactly(209)
            for hall in halls:
                for path in ("jobs", "nodes"):
                    (await http.get(f"{hall['url']}/slurm/v0.0.38/{path}")).raise_for_status()
            await asyncio.sleep(1.0)
    for _, writer in lines:
        writer.close()
