"""Puts a site on the network: one port per device, one per hall, one for control, and the building bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from vppd.sim.bms import Broker, building_bus
from vppd.sim.control import control_app
from vppd.sim.faults import Outage
from vppd.sim.http import Web, serve_http
from vppd.sim.modbus import ModbusPort, serve_modbus
from vppd.sim.site import STEP_S, Site
from vppd.sim.slurm_rest import SlurmRest

UNIT_ID = 1
USER_NAME = "vppd"
_MOST_STEPS_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where everything listens."""

    control_url: str
    modbus: dict[str, int]
    """Device -> TCP port; the unit id is 1."""
    halls: dict[str, str]
    """Hall -> base URL of its slurmrestd."""
    broker: Broker | None


@asynccontextmanager
async def serve(site: Site, *, token: str, broker: Broker | None = None) -> AsyncIterator[Endpoints]:
    """Run the site and its servers until the context ends; ``token`` opens the halls' REST interface."""
    async with AsyncExitStack() as stack:
        modbus: dict[str, int] = {}
        for name, unit in site.units.items():
            port = ModbusPort({UNIT_ID: unit}, {UNIT_ID: site.outages[name]})
            modbus[name] = await stack.enter_async_context(serve_modbus(port))
        webs: dict[str, Web] = {}
        for name, board in site.halls.items():
            rest = SlurmRest(board, USER_NAME, token, site.outages[name])
            webs[name] = await stack.enter_async_context(serve_http(rest.app(), site.outages[name]))
        control = await stack.enter_async_context(serve_http(control_app(site), Outage(site.clock)))
        for web in (control, *webs.values()):
            stack.callback(web.stop)
        running: list[Callable[[], Coroutine[Any, Any, None]]] = [lambda: run(site)]
        if broker is not None:
            running.append((await stack.enter_async_context(building_bus(site, broker))).run)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(start()) for start in running]
            yield Endpoints(control.url, modbus, {name: web.url for name, web in webs.items()}, broker)
            for task in tasks:
                task.cancel()


async def run(site: Site) -> None:
    """Step the site in wall time until cancelled; after a pause it catches up a little and lets the rest go."""
    due_s = site.clock()
    while True:
        behind = int((site.clock() - due_s) / STEP_S)
        for _ in range(min(behind, _MOST_STEPS_AT_ONCE)):
            site.step()
        due_s += behind * STEP_S
        await asyncio.sleep(max(0.0, due_s + STEP_S - site.clock()))
