"""The composition root: a configuration becomes a running daemon. The only module that knows everybody."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import structlog
import uvloop

from vppd import dispatch_link as links
from vppd.api.app import Views, build_app
from vppd.api.serve import serve
from vppd.config.load import Config, examine
from vppd.config.market import MarketConfig
from vppd.config.table import InvalidConfig, Problem
from vppd.consequences import Consequences, LastDecision
from vppd.core.state import Decision, State
from vppd.errors import ConfigError, Garbled
from vppd.grid.openadr3.config import openadr_problems
from vppd.grid.setup import grid_problems
from vppd.ledger.history import History, open_history
from vppd.ledger.sqlite import SqliteLedger, open_ledger
from vppd.ledger.telemetry import Retention, TelemetryStore, frames, open_telemetry
from vppd.model import Order
from vppd.panel import Panel
from vppd.planning.office import ENDING_FIRST, Office, Reach
from vppd.plant import plant_of
from vppd.products import sold
from vppd.register import Register
from vppd.runtime.actuator import release_all
from vppd.runtime.clock import StepDetector, SystemClock, clock_synchronised, kernel_status
from vppd.runtime.curtailers import curtailers_of
from vppd.runtime.cycle import Cycle, Inbox
from vppd.runtime.devices import Devices
from vppd.runtime.figures import health_figures
from vppd.runtime.health import Vitals
from vppd.runtime.horizons import Horizons
from vppd.runtime.journal import Journal
from vppd.runtime.logs import configure
from vppd.runtime.memory import settle_memory
from vppd.runtime.metrics import Metrics
from vppd.runtime.record import Replay
from vppd.runtime.registry import Connect, Unusable, connections
from vppd.runtime.resumption import closed
from vppd.runtime.signals import Signals
from vppd.runtime.told import Told
from vppd.runtime.watchdog import Notifier
from vppd.snapshot import Snapshot

READY_WITHIN_S = 10.0
"""Devices that have not answered by then are started without. [s]"""
RELEASE_WITHIN_S = 10.0
"""Time for giving every device back at the end. [s]"""
DECIDING = (*links.DECIDING, *ENDING_FIRST, "cycle")
"""Tasks that end before anything is released: the next beat would take a device back."""
EXIT_LEDGER = 4

log = structlog.get_logger()


def checked(path: Path) -> Config:
    """Return the configuration, adapters' settings and keys checked too. Raises InvalidConfig with all mistakes."""
    config, problems = examine(path)
    if config is not None:
        try:
            connections(config.assets)
        except Unusable as error:
            problems += error.problems
        if config.grid is not None:
            problems += grid_problems(config, config.grid)
        if config.openadr is not None:
            problems += openadr_problems(config, config.openadr)
        if config.market is not None:
            problems += _product_problems(config.market)
    if config is None or problems:
        raise InvalidConfig(path, problems)
    return config


def _product_problems(market: MarketConfig) -> tuple[Problem, ...]:
    try:
        sold(market)
    except InvalidConfig as error:
        return error.problems
    return ()


def connects_of(config: Config, path: Path) -> Mapping[str, Connect]:
    """Return how to open each asset. Raises InvalidConfig with all mistakes in adapters' settings."""
    try:
        return connections(config.assets)
    except Unusable as error:
        raise InvalidConfig(path, error.problems) from error


def replayed(path: Path) -> Replay:
    """Return what deciding every recorded cycle again came to. Raises ConfigError or Garbled."""
    replay = Replay()
    for frame in frames(path):
        replay.feed(frame.kind, frame.blob)
    return replay


def run_daemon(path: Path) -> None:
    """Run until SIGTERM or SIGINT. Raises ConfigError; exits with 4 when the ledger is corrupt."""
    try:
        uvloop.run(_run(path))
    except (Garbled, BaseExceptionGroup) as error:
        if not _is_corruption(error):
            raise
        log.critical("ledger_corrupt", error=str(error))
        raise SystemExit(EXIT_LEDGER) from error


def _is_corruption(error: BaseException) -> bool:
    """Say whether a corrupt ledger, and nothing else, ended the daemon: devices' senseless answers never get here."""
    return isinstance(error, Garbled) or (isinstance(error, BaseExceptionGroup) and error.split(Garbled)[1] is None)


async def _run(path: Path) -> None:
    config = checked(path)
    configure(config.log, SystemClock(), as_json=not sys.stderr.isatty(), to_journal="JOURNAL_STREAM" in os.environ)
    state_dir = config.site.state_dir
    retention = Retention(keep_s=config.site.record_keep_days * 86_400.0)
    async with (
        open_ledger(state_dir / "ledger.db") as ledger,
        open_telemetry(state_dir / "telemetry.db", retention) as telemetry,
    ):
        signals = Signals()
        while True:
            async with _history(config) as history:
                daemon = Daemon(config, path, ledger, telemetry, history)
                await daemon.run(signals)
            if daemon.successor is None:
                return
            config = daemon.successor


def _history(config: Config) -> AbstractAsyncContextManager[History | None]:
    """Return what forecasts rest on, open; None where nothing is forecast."""
    if config.forecast is None:
        return nullcontext()
    return open_history(config.site.state_dir / "history.db", config.forecast.history_days)


class Daemon:
    """One configuration at work, from start-up to release."""

    def __init__(
        self, config: Config, path: Path, ledger: SqliteLedger, telemetry: TelemetryStore, history: History | None
    ) -> None:
        self.successor: Config | None = None
        """The configuration to go on with; None when it is over."""
        self._config, self._path, self._ledger, self._telemetry = config, path, ledger, telemetry
        self._clock, self._metrics = SystemClock(), Metrics()
        self._notifier = Notifier.from_environment(os.environ, os.getpid(), self._clock)
        self._plant = plant_of(config)
        self._register = Register(ledger)
        self._vitals = Vitals(self._clock.mono_s, config.site.link_lost_after_s, committed=self._metrics.committed)
        self._journal = Journal(ledger, self._vitals.ledger, self._register.catch_up, self._clock.now)
        self._inbox, self._last = Inbox(), LastDecision()
        self._told = Told(self._journal, self._clock.now, self._metrics.wrote)
        horizons = Horizons(self._plant, lambda: self._last.decision, self._clock, config.site.cycle_s)
        self._curtailers = curtailers_of(config, self._clock, horizons.left_s, horizons.is_short)
        self._devices = Devices(
            config, connects_of(config, path), self._plant, self._clock, self._told,
            planners=self._curtailers, comes_back=self._comes_back,
        )  # fmt: skip
        self._metrics.watch(self._plant.asset_ids, self._devices.table.frame)
        self._cycle: Cycle | None = None
        self._links = links.GridLinks(
            config, self._plant, ledger, self._register, self._inbox, self._vitals, self._clock,
            decision=lambda: self._last.decision, hints=self._hints, judged=self._metrics.judged,
            outlooks=lambda: self._office.outlook(),
            plans=lambda: self._office.timetable(),
        )  # fmt: skip
        self._office = Office(
            config, self._plant, self._clock, history, ledger, self._register, self._links.sender,
            Reach(self._journal.write, self._links.wake, self._devices.reserve), self._links.tariffs,
        )  # fmt: skip
        self._metrics.add(*health_figures(self._vitals), *self._links.figures, *self._office.figures)

    async def run(self, signals: Signals) -> None:
        """Work until told to stop or to go on with another configuration. Raises Garbled when the ledger is corrupt."""
        self._register.catch_up()
        self._vitals.operator_release = self._register.released
        self._inbox.orders.extend(self._resumable())
        self._devices.inherit(self._register.open_intents)
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(work, name=name) for name, work in self._work()}
            await self._until_told(signals)
            released: frozenset[str] = frozenset()
            if self.successor is None:  # a successor goes on at once with every device as it is
                released = await self._finish([task for name, task in tasks.items() if name in DECIDING])
            for task in tasks.values():
                task.cancel()
        self._curtailers.close(released)

    def _resumable(self) -> list[Order]:
        """Return the open orders that this plant can carry out; those about something gone are closed and said so."""
        kept, gone = links.carried_on(self._register.orders, self._config, self._plant)
        for order, reason in gone:
            log.error("order_not_carried_on", order_id=order.order_id, resource=order.resource, reason=reason)
            self._journal.write(closed(order, reason, self._clock.now()))
        return kept

    def _work(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        views: Views = self._links.views | self._office.views
        consequences = Consequences(
            plant=self._plant,
            actuators=self._devices.actuators,
            write=self._journal.write,
            post=self._links.post,
            record=self._telemetry.record if self._config.site.record else None,
            reporter=self._links.reporter,
            sender=self._links.sender,
            after=[self._last.take, self._observe, self._links.observe, self._office.observe],
        )
        panel = Panel(
            self._plant, self._last, self._inbox, self._vitals, self._metrics, self._clock, self._ledger, self._register,
            self._told, self._curtailers,
        )  # fmt: skip
        work = [
            ("devices", self._devices.run()),
            ("journal", self._journal.run()),
            ("accounts", self._curtailers.run()),
            ("clock", self._watch_clock()),
        ]
        work += [
            ("cycle", self._decide(consequences)),
            ("socket", serve(build_app(panel, panel, views), self._config.site.socket)),
        ]
        if self._config.http is not None:
            work.append(("http", serve(build_app(panel, views=views), self._config.http.listen)))
        self._links.wake()  # what an earlier process owed goes out as soon as there is a link
        return work + self._links.work() + self._office.work()

    async def _decide(self, consequences: Consequences) -> None:
        """Wait until every device has been tried, then run the beat."""
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN_S):
                await self._devices.table.all_tried()
        self._vitals.ready = True
        state = State.first(self._plant, self._register.progress)
        consequences.state = state
        self._cycle = Cycle(
            self._clock, self._inbox, self._devices.table.frame, self._vitals.health, consequences,
            self._office.preferred_w, self._register.obligations_at,
        )  # fmt: skip
        settle_memory()
        log.info(
            "started", site=self._config.site.id, orders=len(self._inbox.orders), untried=self._devices.table.untried
        )
        await self._cycle.run(self._plant, state)

    def _observe(self, snapshot: Snapshot, decision: Decision) -> None:
        assert self._cycle is not None
        beat = self._cycle.beat
        self._metrics.cycled(beat.took_s, beat.late_s)
        self._metrics.severity.set(decision.site_severity)
        for i, name in enumerate(self._plant.nodes):
            self._metrics.shortfall.labels(name).set(float(decision.shortfall_w[i]))
        if beat.cycles == 1:
            self._notifier.ready(f"{self._plant.nodes[0]}: {len(snapshot.orders)} orders")
        self._notifier.alive()

    def _hints(self, tag: str) -> Sequence[tuple[str, float]]:
        node = self._plant.nodes.index(tag)
        return self._devices.shed_first(i for i in range(len(self._plant.asset_ids)) if self._plant.node[i] == node)

    def _comes_back(self, asset_id: str) -> bool:
        """Say whether a cluster's jobs are still being brought back; the operator's release waits for nothing."""
        return not self._vitals.operator_release and self._curtailers[asset_id].comes_back

    async def _watch_clock(self) -> None:
        """Keep the facts up that nobody reports by himself."""
        steps = StepDetector(self._clock)
        while True:
            synchronised = clock_synchronised(kernel_status()) or not self._config.site.require_synchronised_clock
            self._vitals.clock_ok = steps.is_steady() and synchronised
            self._vitals.link(self._links.connected)
            await asyncio.sleep(1.0)

    async def _until_told(self, signals: Signals) -> None:
        while await signals.wants_reload():
            if self._reload():
                return

    def _reload(self) -> bool:
        """Read the configuration again; True when the whole daemon has to begin anew with it."""
        self._notifier.reloading()
        try:
            found = checked(self._path)
        except ConfigError as error:
            log.error("reload_refused", error=str(error))
            self._notifier.ready("the new configuration was refused; the old one stays in force")
            return False
        if links.differs_in_links_only(self._config, found):
            log.info("reloaded")
            self._config = found
            self._links.renew(found)
            self._notifier.ready("issuers and grants have been replaced")
            return False
        if self._is_under_order():
            # Beginning anew gives clusters back for a moment: not while the grid counts on them.
            log.error("reload_refused", error="an order is in force, and more than issuers and grants has changed")
            self._notifier.ready("an order is in force; reload again when it has ended")
            return False
        log.info("reloaded")
        self.successor = found
        return True

    def _is_under_order(self) -> bool:
        return self._last.decision is not None and bool(self._last.decision.demands)

    async def _finish(self, deciding: Sequence[asyncio.Task[None]]) -> frozenset[str]:
        """Stop deciding and give every device back; return the assets that have confirmed it."""
        self._notifier.stopping()
        for task in deciding:
            task.cancel()
        await asyncio.wait(deciding)
        late = await release_all(self._devices.actuators.values(), RELEASE_WITHIN_S)
        if late:
            log.error("not_released", assets=late)
        with suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await self._journal.flushed()
        return frozenset(self._plant.asset_ids) - set(late)
