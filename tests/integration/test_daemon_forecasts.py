"""Forecasts of a running daemon: from a meter on Modbus and a file of prices to the API, through kill -9 and a feed that is gone."""

from __future__ import annotations

import asyncio
import json
import sys
import tomllib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.faults.mortal import MortalDaemon
from tests.faults.small_plant import LOAD_W, SmallPlant, small_plant
from tests.planning import past
from vppd.core.forecast.point import METHODS
from vppd.demo.tomlwriter import dump
from vppd.errors import DeviceError
from vppd.ledger.history import Issue, open_history
from vppd.ledger.history_reader import reading
from vppd.sim.modbus import HOST

pytestmark = pytest.mark.integration
VPPD = Path(sys.executable).parent / "vppd"
PATIENCE_S = 60.0


@pytest.fixture
async def plant() -> AsyncIterator[SmallPlant]:
    """A meter that sees a load that does not change."""
    async with small_plant(lambda: None) as plant:
        yield plant


def midnight(days: int) -> datetime:
    """Return a midnight so many days ago (UTC)."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=days)


def prices(folder: Path) -> Path:
    """Write day-ahead prices that begin today, one for each hour. [per MWh]"""
    path = folder / "spot.csv"
    lines = (f"{(midnight(0) + timedelta(hours=h)).isoformat()},{50 + h}" for h in range(72))
    path.write_text("start,value\n" + "\n".join(lines), encoding="utf-8")
    return path


def configured(folder: Path, plant: SmallPlant, port: int) -> Path:
    """Write the configuration of a site that foresees and trades with nobody."""
    at = {"host": HOST, "port": plant.meter_port}
    limits = {"import_max_w": 1e6, "export_max_w": 1e6}
    document: dict[str, Any] = {
        "site": {
            "id": "dc1",
            "agent_id": "dc1-agent",
            "state_dir": str(folder / "state"),
            "socket": str(folder / "vppd.sock"),
            "require_synchronised_clock": False,
            **limits,
        },
        "feeds": [{"tag": "main-a", "meter": "meter-a", **limits}],
        "assets": [{"id": "meter-a", "kind": "meter", "feed": "main-a", "adapter": "modbus-sunspec", "connection": at}],
        "http": {"listen": f"{HOST}:{port}"},
        "forecast": {
            "step_s": 3600.0,
            "horizon_h": 24.0,
            "feeds": [
                {"name": "spot", "series": "price/import", "kind": "file", "path": "spot.csv", "unit": "per_mwh"}
                | {"format": "csv", "poll_s": 1.0}
            ],
        },
    }
    path = folder / "vppd.toml"
    path.write_text(dump(document), encoding="utf-8")
    return path


def remembered(folder: Path, days: int = 9) -> None:
    """Let the site have run for some days with the load it has now."""
    steps = (datetime.now(UTC) - midnight(days)) // timedelta(minutes=5)
    load = LOAD_W + past.busy(midnight(days), steps, 1e3, 1)
    (folder / "state").mkdir(mode=0o700)
    past.write(folder / "state" / "history.db", midnight(days), {"load/main-a": load})


async def shown(port: int, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the forecasts as the API shows them, once they are as wanted. Raises TimeoutError."""
    async with httpx.AsyncClient(timeout=10.0) as client, asyncio.timeout(PATIENCE_S):
        while True:
            try:
                view: dict[str, Any] = (await client.get(f"http://{HOST}:{port}/api/v1/forecasts")).json()
            except (httpx.HTTPError, DeviceError):
                view = {"series": [], "feeds": []}
            if until(view):
                return view
            await asyncio.sleep(0.1)


def source(view: dict[str, Any], name: str) -> str:
    """Return who foresees a series."""
    return next((str(row["source"]) for row in view["series"] if row["name"] == name), "")


async def test_what_is_measured_and_said_is_foreseen(tmp_path: Path, plant: SmallPlant, free_port: int) -> None:
    """History and feed become quantiles with a score; after kill -9 both are still known, although the file is gone."""
    document, config = prices(tmp_path), configured(tmp_path, plant, free_port)
    remembered(tmp_path)
    async with MortalDaemon([str(VPPD), "run", "-c", str(config)], tmp_path / "log", tmp_path) as daemon:

        def ready(view: dict[str, Any]) -> bool:
            assert daemon.code is None, (tmp_path / "log").read_text(encoding="utf-8")[-2000:]
            return source(view, "price/import") == "feed:spot" and bool(source(view, "load/main-a"))

        view = await shown(free_port, ready)
        load = next(row for row in view["series"] if row["name"] == "load/main-a")
        assert load["source"] in {"seasonal", "similar-day", "persistence"}
        assert load["score"]["samples"] > 100
        assert np.asarray(load["values"]) == pytest.approx(LOAD_W, rel=0.01)
        cost = next(row for row in view["series"] if row["name"] == "price/import")
        assert cost["values"][1][0] == pytest.approx((50 + datetime.fromisoformat(cost["start"]).hour) * 1e-6)
        said = await printed(config)
        assert "load/main-a" in said
        assert "feed:spot" in said

        await asyncio.to_thread(document.unlink)
        daemon.kill()
        await asyncio.to_thread((tmp_path / "state" / "forecasts.npy").unlink)
        daemon.start()
        view = await shown(free_port, ready)
        view = await shown(free_port, lambda view: "cannot be read" in view["feeds"][0]["fault"])
        assert view["feeds"][0]["stale"] is False
        assert source(view, "price/import") == "feed:spot"
    with reading(tmp_path / "state" / "history.db") as reader:
        assert np.isfinite(reader.array("load/main-a", midnight(1), 3600.0, 24)).all()
        assert reader.newest_issue("spot", "price/import", datetime.now(UTC)) is not None


async def printed(config: Path) -> str:
    """Return what ``vppd forecasts`` prints."""
    process = await asyncio.create_subprocess_exec(
        str(VPPD), "forecasts", "-c", str(config), stdout=asyncio.subprocess.PIPE, env={"COLUMNS": "200", "PATH": ""}
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


async def test_the_first_minute_of_a_new_site(tmp_path: Path, plant: SmallPlant, free_port: int) -> None:
    """With no history at all the load is held at what is measured now, and its error is not known."""
    prices(tmp_path)
    config = configured(tmp_path, plant, free_port)
    async with MortalDaemon([str(VPPD), "run", "-c", str(config)], tmp_path / "log", tmp_path):
        view = await shown(free_port, lambda view: source(view, "load/main-a") == "persistence")
    load = next(row for row in view["series"] if row["name"] == "load/main-a")
    assert np.asarray(load["values"]) == pytest.approx(LOAD_W, rel=0.01)
    assert load["score"] == {"pinball": None, "coverage": [None] * 3, "samples": 0}
    assert "less than a day" in json.dumps(load["reason"])


def foreseen(path: Path, values: list[float], hours: float = 0.0) -> None:
    """Write what a feed says now of the hours from so many hours ago on. [W]"""
    now = datetime.now(UTC)
    start = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours)
    said = {"issued_at": now.isoformat(), "start": start.isoformat(), "step_s": 3600, "values": values}
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(said), encoding="utf-8")
    beside.replace(path)


async def promised(folder: Path, errors: dict[str, float], days: int = 20) -> None:
    """Let feeds have said the load for some weeks, each wrong by a factor that it draws anew each time. [W]"""
    rng = np.random.default_rng(4)
    path = folder / "state" / "history.db"
    with reading(path) as reader:
        load = reader.array("load/main-a", midnight(days), 3600.0, days * 24)
    async with open_history(path) as history:
        for k in range(0, days * 24 - 24, 2):
            at = midnight(days) + timedelta(hours=k)
            for name, size in errors.items():
                said = load[None, k : k + 24] * (1.0 + size * rng.normal())
                history.issue(Issue(name, "load/main-a", at, at, 3600.0, (), said))
            if k % 100 == 0:
                await history.flush()


async def test_of_two_feeds_the_better_one_speaks_until_it_is_silent(
    tmp_path: Path, plant: SmallPlant, free_port: int
) -> None:
    """A running daemon takes the feed that was right, shows the record of both, and falls back on itself, not on the bad one."""
    remembered(tmp_path, days=24)
    await promised(tmp_path, {"guess": 0.3, "wise": 0.0})
    config = configured(tmp_path, plant, free_port)
    feed = {"series": "load/main-a", "kind": "file", "unit": "w", "poll_s": 1.0}
    document = tomllib.loads(config.read_text(encoding="utf-8"))
    document["forecast"]["feeds"] = [feed | {"name": name, "path": f"{name}.json"} for name in ("guess", "wise")]
    config.write_text(dump(document), encoding="utf-8")
    for name, factor in (("guess", 1.5), ("wise", 1.0)):
        foreseen(tmp_path / f"{name}.json", [LOAD_W * factor] * 30)
    async with MortalDaemon([str(VPPD), "run", "-c", str(config)], tmp_path / "log", tmp_path) as daemon:
        view = await shown(free_port, lambda view: source(view, "load/main-a") == "feed:wise")
        row = next(row for row in view["series"] if row["name"] == "load/main-a")
        guess, wise = row["feeds"]
        assert (guess["speaks"], wise["speaks"]) == (False, True)
        assert wise["times_own"] < 0.5
        assert guess["times_own"] > 2.0
        assert "feed 'guess' is overruled" in row["reason"]
        said = await printed(config)
        assert "waits" in next(line for line in said.splitlines() if line.startswith("guess"))
        assert "speaks" in next(line for line in said.splitlines() if line.startswith("wise"))

        daemon.kill()
        foreseen(tmp_path / "wise.json", [LOAD_W] * 2, hours=5.0)  # nothing of the time to come
        daemon.start()
        view = await shown(free_port, lambda view: source(view, "load/main-a") in METHODS)
        row = next(row for row in view["series"] if row["name"] == "load/main-a")
        assert "feed 'wise' says nothing of the time to come" in row["reason"]
