"""Raises the stage - broker, site, daemon - and takes it down again."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from vppd.demo.children import Child, Children, children, until
from vppd.demo.meters import Address, Meter
from vppd.demo.plantfile import Keys, make_keys, write_config, write_demo_json
from vppd.demo.room import Room
from vppd.grid.issuer_line import Broker

UP_S = 30.0
READY_S = 60.0
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    folder: Path
    once: bool = False
    script: bool = True
    daemon: bool = True
    speed: float = 1.0
    seed: int = 1
    http: str = ""
    """host:port of the daemon's API; empty for a free port on loopback."""
    broker: Broker | None = None
    """Somebody else's broker; None for the embedded one."""
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Set:
    """Everything that runs, and how to reach it."""

    site: dict[str, Any]
    line: Broker
    http: str | None
    keys: Keys
    meters: dict[str, Meter]
    storage_on: dict[str, str]
    """Feed tag of each storage unit."""
    room: Room
    client: httpx.AsyncClient
    processes: Children
    demo_json: Path
    daemon: Child | None


@asynccontextmanager
async def raised(options: Options) -> AsyncIterator[Set]:
    """Hold a running broker, site and daemon; all of it ends on leaving. Raises Failed when something does not come up."""
    async with children(options.folder) as processes, httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
        line = options.broker or await _broker(processes)
        site = await _site(processes, options, line)
        keys = make_keys(options.folder)
        listen = options.http or f"{LOOPBACK}:{free_port()}"
        config = write_config(options.folder, site, line, listen, keys)  # also for a daemon that somebody else starts
        daemon = await _daemon(processes, config, listen, client) if options.daemon else None
        http = listen if daemon else None
        pid = daemon.pid if daemon else None
        yield Set(
            site=site,
            line=line,
            http=http,
            keys=keys,
            meters=_meters(site),
            storage_on={d["id"]: d["feed"] for d in site["devices"] if "reserve_frac" in d},
            room=Room(client, site["control_url"], _reserves(site)),
            client=client,
            processes=processes,
            demo_json=write_demo_json(options.folder, site, line, http, keys, pid),
            daemon=daemon,
        )


def free_port() -> int:
    """Return a TCP port on loopback that nobody used a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


async def _broker(processes: Children) -> Broker:
    port, path = free_port(), processes.folder / "broker.ready"
    path.unlink(missing_ok=True)
    argv = ["--port", str(port), "--ready", str(path)]
    child = await processes.start("broker", [sys.executable, "-m", "vppd.demo.broker", *argv])

    async def ready() -> bool:
        return await asyncio.to_thread(path.exists)

    await until("the embedded broker", ready, child, UP_S)
    return Broker(LOOPBACK, port, "3.1.1")


async def _site(processes: Children, options: Options, line: Broker) -> dict[str, Any]:
    path = options.folder / "site.json"
    path.unlink(missing_ok=True)
    argv = ["--dir", str(options.folder), "--seed", str(options.seed), "--speed", str(options.speed)]
    argv += ["--broker", f"{line.host}:{line.port}", "--mqtt", line.protocol]
    child = await processes.start("site", [sys.executable, "-m", "vppd.sim", *argv])

    async def ready() -> bool:
        return await asyncio.to_thread(path.exists)

    await until("the simulated site", ready, child, UP_S)
    site: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return site


async def _daemon(processes: Children, config: Path, http: str, client: httpx.AsyncClient) -> Child:
    child = await processes.start("daemon", [_vppd(), "run", "-c", str(config)])

    async def ready() -> bool:
        try:
            return (await client.get(f"http://{http}/readyz")).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    await until("the daemon", ready, child, READY_S)
    return child


def _vppd() -> str:
    """Return the installed command beside this Python: the daemon is the one that production runs."""
    return str(Path(sysconfig.get_path("scripts")) / "vppd")


def _meters(site: dict[str, Any]) -> dict[str, Meter]:
    at = {device["id"]: device.get("connection", {}) for device in site["devices"]}
    places = {tag: at[feed["meter"]] for tag, feed in site["feeds"].items()}
    return {tag: Meter(Address(p["host"], p["port"], p["unit_id"])) for tag, p in places.items()}


def _reserves(site: dict[str, Any]) -> dict[str, float]:
    return {d["id"]: d["reserve_frac"] for d in site["devices"] if "reserve_frac" in d}
