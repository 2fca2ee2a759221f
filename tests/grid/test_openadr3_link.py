"""The link of a daemon to a real server on loopback: held-up orders, an outage, another configuration, and what it shows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.grid.openadr3_vtn import TestVtn, vtn
from tests.grid.test_openadr3 import config
from vppd.api.app import encode
from vppd.api.console_openadr import openadr_table
from vppd.config.openadr import OpenAdrConfig
from vppd.grid.openadr3.link import OpenAdrLink
from vppd.grid.openadr3.ven import Desk
from vppd.grid.site import Site
from vppd.ledger.sqlite import open_ledger
from vppd.model import Order, OrderKind
from vppd.register import Register
from vppd.runtime.clock import SystemClock
from vppd.snapshot import Snapshot
from vppd.testing.cycles import World

pytestmark = pytest.mark.integration
FOR_EVER = {"start": "0001-01-01T00:00:00Z", "duration": "P9999Y"}
SITE = Site("dc1", "agent", ("main-a", "main-b"))


class Held:
    """A link, its server, what it has put in force, and why it may not."""

    def __init__(self, server: TestVtn, settings: OpenAdrConfig, register: Register, ledger: Any) -> None:
        self.server, self.settings, self.register, self.hold = server, settings, register, ""
        self.taken: list[Order] = []
        self.world = World()
        desk = Desk(
            ledger, lambda: register.orders, register.catch_up, lambda: self.hold, self.taken.extend, lambda _: None
        )
        self.link = OpenAdrLink(settings, SITE, self.world.plant, SystemClock(), desk)

    @property
    def kinds(self) -> list[OrderKind]:
        """Return the kinds of what has been put in force, in order."""
        return [order.kind for order in self.taken]

    def cycle(self, *, on_battery: bool = False) -> None:
        """Let the link see one decision."""
        w = self.world
        decision = w.step()
        readings = w.readings.copy()
        readings = replace(readings, on_battery=np.full(len(w.plant.asset_ids), on_battery))
        self.link.observe(Snapshot(w.at, w.mono_s, readings, (), (), w.health), decision)

    async def until(self, what: Callable[[], bool]) -> None:
        """Wait until it is so, cycles going on. Raises TimeoutError."""
        async with asyncio.timeout(30):
            while not what():
                await asyncio.sleep(0.02)

    def reasons(self) -> set[str]:
        """Return why signals are not applied."""
        return {note["reason"] for note in self.link.view()["notes"]}


@asynccontextmanager
async def held(folder: Path, hold: str = "", **more: Any) -> AsyncIterator[Held]:
    """Hold a link to a server with one limit, without a notifier."""
    async with vtn() as server, open_ledger(folder / "ledger.db") as ledger:
        server.at = datetime.now(UTC) - timedelta(minutes=1)
        server.add_program("limits")
        server.add_event("tight", "IMPORT_CAPACITY_LIMIT", 500, intervalPeriod=FOR_EVER)
        settings = config(server, folder, poll_s=3600.0, lost_after_s=7200.0, notifier=False, **more)
        found = Held(server, settings, Register(ledger), ledger)
        found.hold = hold
        running = asyncio.create_task(found.link.run())
        try:
            yield found
        finally:
            running.cancel()
            await asyncio.wait((running,))


async def test_what_was_held_up_is_taken_when_the_hold_ends(tmp_path: Path) -> None:
    """While no orders are taken the event waits with a reason; the first decision without a hold takes it, not the next poll."""
    async with held(tmp_path, hold="the operator has released the plant") as h:
        await h.until(lambda: "held" in h.reasons())
        h.cycle()
        assert h.taken == []
        h.hold = ""
        h.cycle()
        await h.until(lambda: h.kinds == [OrderKind.LIMIT])
        await h.until(lambda: "held" not in h.reasons())


async def test_an_outage_of_the_grid_voids_limits_where_that_is_agreed(tmp_path: Path) -> None:
    """When every UPS has been on battery and is back, limits are void, and fetched again at once."""
    async with held(tmp_path, discard_after_outage=True) as h:
        await h.until(lambda: h.kinds == [OrderKind.LIMIT])
        h.cycle(on_battery=True)
        h.cycle()
        await h.until(lambda: h.kinds[:3] == [OrderKind.LIMIT, OrderKind.RELEASE, OrderKind.LIMIT])


async def test_an_outage_leaves_limits_alone_otherwise(tmp_path: Path) -> None:
    """Without that agreement an outage, or a test of the UPS, changes nothing."""
    async with held(tmp_path) as h:
        await h.until(lambda: h.kinds == [OrderKind.LIMIT])
        h.cycle(on_battery=True)
        h.cycle()
        assert h.link._ven is not None
        assert not h.link._ven.book.discarded


async def test_another_configuration_keeps_what_is_in_force(tmp_path: Path) -> None:
    """A renewed link makes no second order of an event; without the grant it takes the order back."""
    async with held(tmp_path) as h:
        await h.until(lambda: h.kinds == [OrderKind.LIMIT])
        h.link.renew(h.settings.model_copy(update={"client_name": "other"}))
        await h.until(lambda: h.server.asked["POST /auth/token"] == 2 and h.link.view()["known"])
        await h.until(lambda: h.link.view()["fetches"] == 1)
        assert h.kinds == [OrderKind.LIMIT]
        h.link.renew(h.settings.model_copy(update={"grants": ()}))
        await h.until(lambda: h.kinds == [OrderKind.LIMIT, OrderKind.RELEASE])
        assert "unauthorised" in h.reasons()


async def test_a_release_under_way_is_not_made_twice(tmp_path: Path) -> None:
    """Until the cycle has closed a released order, another fetch releases it no second time."""
    async with held(tmp_path) as h:
        await h.until(lambda: h.kinds == [OrderKind.LIMIT])
        h.server.delete_event("tight")
        for fetches in (2, 3):
            assert h.link._ven is not None
            h.link._ven.ring()
            await h.until(lambda fetches=fetches: h.link.view()["fetches"] == fetches)  # type: ignore[misc]
        assert h.kinds == [OrderKind.LIMIT, OrderKind.RELEASE]


async def test_what_is_shown_is_plain(tmp_path: Path) -> None:
    """The view is JSON, before the first answer and after, names the plan, and prints."""
    async with held(tmp_path) as h:
        assert h.link.view()["known"] is False
        openadr_table(h.link.view())
        h.server.add_event("price", "PRICE", 0.2, intervalPeriod=FOR_EVER)
        await h.until(lambda: h.link.view()["known"] and h.kinds == [OrderKind.LIMIT])
        assert h.link._ven is not None
        h.link._ven.ring()
        await h.until(lambda: bool(h.link.tariffs))
        shown = json.loads(encode(h.link.view()))
        assert [(o["event_id"], o["power_w"], o["end"]) for o in shown["orders"]] == [("tight", 500e3, None)]
        assert [t["value"] for t in shown["tariffs"]] == [0.2]
        assert (shown["programs"], shown["events"], shown["lost"], shown["trouble"]) == (["limits"], 2, False, "")
        openadr_table(shown)
