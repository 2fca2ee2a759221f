"""The plan of a running daemon: prices from a file, batteries on Modbus that follow, and what people see of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.mortal import MortalDaemon
from tests.faults.small_plant import LOAD_W, RATED_W, SPEC, SmallPlant, small_plant
from tests.planning import past
from vppd.demo.tomlwriter import dump
from vppd.sim.modbus import HOST

pytestmark = pytest.mark.integration
VPPD = Path(sys.executable).parent / "vppd"
PATIENCE_S = 90.0


@pytest.fixture
async def plant() -> AsyncIterator[SmallPlant]:
    """A meter and two batteries."""
    async with small_plant(lambda: None) as plant:
        yield plant


def prices(folder: Path) -> None:
    """Write prices of which those of the next hour are dear: too short to give all that is stored. [per MWh]"""
    now = datetime.now(UTC)
    began = now.replace(minute=now.minute // 15 * 15, second=0, microsecond=0)
    rows = (f"{(began + timedelta(minutes=15 * k)).isoformat()},{400 if k < 6 else 40}" for k in range(-1, 192))
    (folder / "spot.csv").write_text("start,value\n" + "\n".join(rows), encoding="utf-8")


def configured(folder: Path, plant: SmallPlant, port: int) -> Path:
    """Write the configuration of a site that plans and trades with nobody."""
    limits = {"import_max_w": 1e6, "export_max_w": 1e6}
    meter: dict[str, Any] = {"id": "meter-a", "kind": "meter", "connection": {"host": HOST, "port": plant.meter_port}}
    batteries: list[dict[str, Any]] = [
        {
            "id": name, "kind": "battery", "rated_charge_w": RATED_W, "rated_discharge_w": RATED_W,
            "capacity_wh": SPEC.capacity_wh, "reserve_frac": SPEC.reserve_frac, "soc_target_frac": 0.5,
            "connection": {"host": HOST, "port": at, "reserve_frac": SPEC.reserve_frac},
        }
        for name, at in plant.ports.items()
    ]  # fmt: skip
    spot = {"name": "spot", "series": "price/import", "kind": "file", "path": "spot.csv", "unit": "per_mwh"}
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
        "assets": [{"feed": "main-a", "adapter": "modbus-sunspec", **asset} for asset in (meter, *batteries)],
        "http": {"listen": f"{HOST}:{port}"},
        "forecast": {"feeds": [spot | {"format": "csv", "poll_s": 1.0}]},
        "planning": {"replan_s": 30.0},
    }
    path = folder / "vppd.toml"
    path.write_text(dump(document), encoding="utf-8")
    return path


def remembered(folder: Path, days: int = 3) -> None:
    """Let the site have run for some days with the load it has now."""
    began = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)
    steps = (datetime.now(UTC) - began) // timedelta(minutes=5)
    (folder / "state").mkdir(mode=0o700)
    past.write(folder / "state" / "history.db", began, {"load/main-a": LOAD_W + past.busy(began, steps, 1e3, 1)})


async def shown(port: int, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the plan as the API shows it, once it is as wanted. Raises TimeoutError."""
    async with httpx.AsyncClient(timeout=10.0) as client, asyncio.timeout(PATIENCE_S):
        while True:
            try:
                answer = await client.get(f"http://{HOST}:{port}/api/v1/plan")
                view: dict[str, Any] = answer.json()
            except httpx.HTTPError:
                view = {}
            if view.get("made_at") and until(view):
                return view
            await asyncio.sleep(0.2)


async def until_w(plant: SmallPlant, is_reached: Callable[[float], bool]) -> None:
    """Return once both batteries together draw as wanted. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_reached(sum(battery.power_w for battery in plant.batteries.values())):
            await asyncio.sleep(0.1)


async def test_batteries_follow_the_prices(tmp_path: Path, plant: SmallPlant, free_port: int) -> None:
    """Dear hours discharge the batteries, by the site's ramp, and people are told so."""
    prices(tmp_path)
    config = configured(tmp_path, plant, free_port)
    remembered(tmp_path)
    async with MortalDaemon([str(VPPD), "run", "-c", str(config)], tmp_path / "log", tmp_path):
        view = await shown(free_port, lambda view: view["in_force"] and not view["missing"])
        assert view["status"] == "optimal"
        assert len(view["steps"]) >= 95
        await until_w(plant, lambda power_w: power_w < -100e3)
        first = next(f for battery in plant.batteries.values() for f in battery.followed if not f.at_rest)
        assert first.setpoint_w is not None
        assert abs(first.setpoint_w) <= 55e3, "the beginning of the plan is no step"

        async with httpx.AsyncClient(timeout=10.0) as client:
            state = (await client.get(f"http://{HOST}:{free_port}/api/v1/state")).json()
            assert "vppd_plan_in_force 1.0" in (await client.get(f"http://{HOST}:{free_port}/metrics")).text
        assert "as the plan has it: nothing else binds" in state["reasons"].values()
        said = await printed(config)
        assert "optimal" in said
        assert "bat-1" in said


async def printed(config: Path) -> str:
    """Return what ``vppd plan`` prints."""
    process = await asyncio.create_subprocess_exec(
        str(VPPD), "plan", "-c", str(config), stdout=asyncio.subprocess.PIPE, env={"COLUMNS": "200", "PATH": ""}
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()
