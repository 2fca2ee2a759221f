"""The OpenADR link of a daemon: the server's programs become orders in force, and it gets the reports it asks for.

Works with or without a dispatcher beside it. While the server is away the orders in hand go on; a restart takes up the orders that
are on disk and changes none of them before the server has answered.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from vppd.config.openadr import OpenAdrConfig
from vppd.core.state import Decision
from vppd.grid.openadr3.changes import Changes
from vppd.grid.openadr3.config import terms_of, tls_of
from vppd.grid.openadr3.doorbell import Doorbell, Rings, until_set
from vppd.grid.openadr3.figures import SiteFigures
from vppd.grid.openadr3.foresight import Outlooks, Plans
from vppd.grid.openadr3.orders import Plan, Tariff
from vppd.grid.openadr3.reporter import Reporter
from vppd.grid.openadr3.rest import open_vtn
from vppd.grid.openadr3.schedule import Note
from vppd.grid.openadr3.ven import Clock, Desk, News, Ven, carry_out
from vppd.grid.site import Site
from vppd.model import Kind, Order
from vppd.snapshot import KINDS, Plant, Snapshot

TARIFFS_SHOWN = 200

log = structlog.get_logger()


class OpenAdrLink:
    """Holds the link to one server; ``observe`` it with every decision."""

    def __init__(
        self,
        config: OpenAdrConfig,
        site: Site,
        plant: Plant,
        clock: Clock,
        desk: Desk,
        outlooks: Outlooks = dict,
        folder: Path | None = None,
        plans: Plans = lambda: None,
    ) -> None:
        """Prepare the link. Raises ConfigError when certificates cannot be used.

        ``outlooks`` returns the newest forecasts by series, ``plans`` the newest plan; ``folder`` is where what was measured is kept
        over a restart.
        """
        tls_of(config)
        self._config, self._site, self._clock, self._desk = config, site, clock, desk
        self._ups = [i for i, kind in enumerate(plant.kind) if KINDS[kind] is Kind.UPS]
        self._figures = SiteFigures(plant, clock.now, outlooks, folder, plans)
        self._renewed = asyncio.Event()
        self._ven: Ven | None = None
        self._doorbell: Doorbell | None = None
        self._reporter: Reporter | None = None
        self._news: News | None = None
        self._changes = Changes()
        self._outage = False

    @property
    def tariffs(self) -> tuple[Tariff, ...]:
        """Prices and carbon intensities that the server tells, for whoever plans by them."""
        return self._news.plan.tariffs if self._news is not None else ()

    @property
    def current(self) -> bool:
        """Say whether the server has answered and is not lost: only then it says today what it said."""
        return self._ven is not None and not self._ven.lost and self._news is not None and self._news.known

    def renew(self, config: OpenAdrConfig) -> None:
        """Go on with another configuration of the same issuer: orders in force stay until the server has answered again."""
        if config != self._config:
            self._config = config
            self._renewed.set()

    async def run(self) -> None:
        """Hold the link for ever. Raises Garbled when the ledger is corrupt."""
        while True:
            self._renewed.clear()
            await until_set(self._renewed, self._session(self._config))
            log.info("openadr_renewed", issuer=self._config.issuer)

    def observe(self, snapshot: Snapshot, decision: Decision) -> None:
        """Take a decision: for reports, and to see when orders are taken again and when the grid has come back."""
        self._figures.take(snapshot, decision)
        if self._ven is None:
            return
        if self._changes.notes and not self._desk.hold():
            self._changes = Changes()
            self._ven.ring()
        out = bool(self._ups) and bool(snapshot.readings.on_battery[self._ups].all())
        if self._outage and not out and self._config.discard_after_outage:
            log.warning("openadr_limits_discarded", issuer=self._config.issuer, reason="the grid was out")
            self._ven.grid_outage()
        self._outage = out

    def view(self) -> dict[str, Any]:
        """Return the link, the plan and what is not applied of it, as plain JSON values."""
        plan, reporter = self._news.plan if self._news else Plan(), self._reporter
        return self._server() | {
            "hold": self._desk.hold(),
            "orders": [_order(order) for order in plan.orders],
            "tariffs": [_tariff(tariff) for tariff in plan.tariffs[:TARIFFS_SHOWN]],
            "notes": [_note(note) for note in (*plan.notes, *self._changes.notes)],
            "reports": {"sent": reporter.sent if reporter else 0, "waiting": reporter.waiting if reporter else 0},
        }

    def _server(self) -> dict[str, Any]:
        ven = self._ven
        return {
            "issuer": self._config.issuer,
            "url": self._config.url,
            "lost": ven is not None and ven.lost,
            "known": self._news is not None and self._news.known,
            "fetches": ven.fetches if ven else 0,
            "fetched_at": _stamp(ven.fetched_at) if ven else None,
            "trouble": ven.trouble if ven else "",
            "notifier": _notifier(self._doorbell.rings) if self._doorbell else None,
            "programs": [p.program_name for p in ven.book.programs] if ven else [],
            "events": len(ven.book.events) if ven else 0,
        }

    async def _session(self, config: OpenAdrConfig) -> None:
        async with open_vtn(config, self._clock.mono_s) as vtn:
            self._ven = ven = Ven(vtn, config, terms_of(config, self._site), self._clock, self._deliver)
            if self._reporter is None:
                self._reporter = Reporter(vtn, ven, config, self._figures, self._clock)
            self._reporter.serve(vtn, ven, config)
            name = f"vppd-{self._site.vpp_id}-openadr"
            self._doorbell = Doorbell(vtn, config, name, self._clock.mono_s, ven.ring)
            async with asyncio.TaskGroup() as group:
                group.create_task(ven.run(), name="openadr-events")
                group.create_task(self._reporter.run(), name="openadr-reports")
                if config.notifier:
                    group.create_task(self._doorbell.run(), name="openadr-notifier")

    async def _deliver(self, news: News) -> None:
        self._news = news
        ahead = timedelta(hours=self._config.ahead_h)
        self._changes = await carry_out(self._desk, self._config.issuer, news, ahead)
        if self._ven is not None and self._doorbell is not None:
            self._doorbell.programs(program.id for program in self._ven.book.programs)
        if self._reporter is not None:
            self._reporter.attend()


def _notifier(rings: Rings) -> dict[str, Any]:
    return {
        "address": rings.address,
        "topics": list(rings.topics),
        "connections": rings.connections,
        "messages": rings.messages,
        "trouble": rings.trouble,
    }


def _order(order: Order) -> dict[str, Any]:
    return {
        "event_id": order.group,
        "program": order.product,
        "kind": order.kind.value,
        "resource": order.resource,
        "power_w": order.power_w,
        "start": order.interval.start.isoformat(),
        "end": _stamp(order.interval.end),
    }


def _tariff(tariff: Tariff) -> dict[str, Any]:
    return {
        "event_id": tariff.event_id,
        "payload_type": tariff.payload_type,
        "start": tariff.interval.start.isoformat(),
        "end": _stamp(tariff.interval.end),
        "value": tariff.value,
        "units": tariff.units,
        "currency": tariff.currency,
    }


def _note(note: Note) -> dict[str, str]:
    return {
        "event_id": note.event_id,
        "payload_type": note.payload_type,
        "reason": note.why.value,
        "detail": note.sentence,
    }


def _stamp(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None
