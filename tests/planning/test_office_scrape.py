"""The whole planning side at work, read over HTTP as Prometheus reads it, with the alarms that we ship for it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.grid.plant import sender
from tests.planning import past
from tests.planning.market_rig import config
from tests.scrape import Scrape, names, scrape
from tests.support import ROOT
from vppd.api.app import METRICS_TYPE, build_app
from vppd.api.serve import serve
from vppd.config.load import Config
from vppd.consequences import LastDecision
from vppd.dispatch_link import link_figures
from vppd.ledger.history import open_history
from vppd.panel import Panel
from vppd.planning.office import Office, Reach
from vppd.register import Register
from vppd.runtime.clock import SystemClock
from vppd.runtime.cycle import Inbox
from vppd.runtime.figures import health_figures
from vppd.runtime.health import Vitals
from vppd.runtime.journal import Journal
from vppd.runtime.metrics import Metrics
from vppd.runtime.told import Told
from vppd.snapshot import Snapshot
from vppd.testing.cycles import World
from vppd.testing.fakes import MemoryLedger

pytestmark = pytest.mark.integration
RULES = ROOT / "deploy" / "prometheus" / "vppd.rules.yml"
PATIENCE_S = 60.0
PRODUCT = """
name = "quick"
title = "Quick"
market = "m"
direction = "reduce"
activation_s = 300.0
sustain_s = 900.0
delivery_interval_s = 900.0
min_bid_w = 10e3
bid_step_w = 1e3
gate = { before_delivery_s = 60.0 }
sources = ["s"]
"""


def configured(folder: Path) -> Config:
    """Return a site that sells a product whose next gate is always in play."""
    (folder / "products").mkdir()
    (folder / "products" / "quick.toml").write_text(PRODUCT, encoding="utf-8")
    found = config(products_dir=folder / "products", lead_s=3000.0)
    site = found.site.model_copy(update={"state_dir": folder})
    return found.model_copy(update={"site": site})


def remembered(folder: Path) -> None:
    """Let four days have been measured."""
    began = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=4)
    steps = (datetime.now(UTC) - began) // timedelta(minutes=5)
    past.write(folder / "history.db", began, {"load/main-a": 200e3 + past.busy(began, steps, 10e3, 1)})


@asynccontextmanager
async def served(panel: Panel) -> AsyncIterator[str]:
    """Serve what people see of the daemon; the block gets the address of its metrics."""
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(serve(build_app(panel), "127.0.0.1:0", address.set_result))
    try:
        yield f"http://{await address}/metrics"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def cycles(world: World, office: Office) -> None:
    """Let the plant run, a cycle every tenth of a second by the clock on the wall."""
    while True:
        decision = world.step()
        world.at = datetime.now(UTC)
        office.observe(Snapshot(world.at, world.mono_s, world.readings.copy()), decision)
        await asyncio.sleep(0.1)


@asynccontextmanager
async def at_work(folder: Path) -> AsyncIterator[Panel]:
    """Have a site forecast, plan and offer for the length of the block."""
    chosen, clock, ledger = configured(folder), SystemClock(), MemoryLedger()
    remembered(folder)
    register, world, metrics = Register(ledger), World(chosen), Metrics()
    vitals = Vitals(clock.mono_s, 60.0, committed=metrics.committed)
    metrics.add(*health_figures(vitals), link_figures({"dispatch": lambda: True, "openadr": lambda: False}))
    metrics.watch(world.plant.asset_ids, lambda: world.readings)
    for node in world.plant.nodes:
        metrics.shortfall.labels(node).set(0.0)
    vitals.ledger(faulty=False)
    world.at = clock.now()
    async with open_history(folder / "history.db") as history:
        reach = Reach(lambda _: None, lambda: None, lambda *_: None)
        office = Office(chosen, world.plant, clock, history, ledger, register, sender(), reach)
        metrics.add(*office.figures)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work, name=name) for name, work in office.work()]
            tasks.append(group.create_task(cycles(world, office)))
            told = Told(Journal(ledger, vitals.ledger, register.catch_up, clock.now), clock.now, metrics.wrote)
            yield Panel(
                world.plant, LastDecision(), Inbox(), vitals, metrics, clock, ledger, register, told, {}
            )  # fmt: skip
            for task in tasks:
                task.cancel()


async def read(address: str, until: tuple[str, ...]) -> tuple[str, Scrape]:
    """Return the page once it tells of something. Raises TimeoutError."""
    async with httpx.AsyncClient() as client, asyncio.timeout(PATIENCE_S):
        while True:
            answer = await client.get(address)
            found = scrape(answer.text)
            if until in found:
                assert answer.headers["content-type"] == METRICS_TYPE
                return answer.text, found
            await asyncio.sleep(0.2)


def rules() -> list[dict[str, Any]]:
    """Return the rules that we ship."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


async def test_a_site_at_work_tells_of_all_it_plans_and_of_all_that_alarms_ask_for(tmp_path: Path) -> None:
    """Forecasts, a plan and an offer, computed by their own processes and read over HTTP."""
    async with at_work(tmp_path) as panel, served(panel) as address:
        text, found = await read(address, ("vppd_offers", "up", "quick", "offered"))
    assert 0.0 <= found["vppd_forecast_age_seconds", "load/main-a"] < PATIENCE_S
    assert 0.0 < found["vppd_forecast_pinball_watts", "load/main-a"] < 20e3
    assert found["vppd_forecast_source_info", "price/import", "constant"] == 1.0
    assert 0.5 < found["vppd_forecast_covered_ratio", "0.9", "load/main-a"] <= 1.0
    assert found["vppd_plan_in_force",] == 1.0
    assert found["vppd_plan_status", "optimal"] == 1.0
    assert found["vppd_plan_status", "none"] == 0.0
    assert 0.0 <= found["vppd_plan_age_seconds",] < PATIENCE_S
    assert 0.0 < found["vppd_plan_solve_seconds",] < PATIENCE_S
    assert 0.0 < found["vppd_plan_import_watts",] < 1.2e6
    for part in ("forecasts", "plan", "offers"):
        assert found["vppd_planning_round_seconds_count", part] >= 1
        assert found["vppd_planning_rounds_failed_total", part] == 0
    assert found["vppd_link_up", "openadr"] == 0.0
    assert found["vppd_ledger_commits_total", "ok"] == 1
    asked = {name for rule in rules() for name in re.findall(r"\bvppd_[a-z_]+", rule["expr"])}
    assert asked <= names(text)


def test_the_alarms_are_rules_that_prometheus_reads() -> None:
    """Each says what it means and how bad it is; where promtool is installed it has the last word."""
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
    if (promtool := shutil.which("promtool")) is not None:
        subprocess.run([promtool, "check", "rules", str(RULES)], check=True, capture_output=True)
