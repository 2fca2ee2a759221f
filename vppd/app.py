"""The composition root: a configuration becomes a running daemon. The only module that knows everybody."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
import uvloop

from vppd.api.app import build_app
from vppd.api.serve import serve
from vppd.config.load import Config, examine
from vppd.config.table import InvalidConfig
from vppd.consequences import Consequences, LastDecision
from vppd.core.failsafe import SITE_RULES, Severity
from vppd.core.state import Decision, State
from vppd.errors import ConfigError, Garbled
from vppd.grid.envelope import Sender
from vppd.grid.intake import Desk, take_all
from vppd.grid.outbox import Outbox
from vppd.grid.reporter import Reporter
from vppd.grid.routes import subscriptions
from vppd.grid.setup import broker_of, feed_terms, grid_problems, registry_of, sender_of, site_of
from vppd.grid.site import EVERYTHING, Registry
from vppd.grid.transport import MqttChannel
from vppd.grid.verdict import Accepted, Conditions
from vppd.ledger.sqlite import SqliteLedger, open_ledger
from vppd.ledger.telemetry import Retention, TelemetryStore, frames, open_telemetry
from vppd.model import Event, Order, Signal
from vppd.panel import Panel
from vppd.plant import plant_of
from vppd.register import Register
from vppd.runtime.actuator import release_all
from vppd.runtime.clock import StepDetector, SystemClock, clock_synchronised, kernel_status
from vppd.runtime.curtailers import curtailers_of
from vppd.runtime.cycle import Cycle, Inbox
from vppd.runtime.devices import Devices
from vppd.runtime.health import Vitals
from vppd.runtime.horizons import Horizons
from vppd.runtime.journal import Journal
from vppd.runtime.logs import configure
from vppd.runtime.memory import settle_memory
from vppd.runtime.metrics import Metrics
from vppd.runtime.record import Replay
from vppd.runtime.registry import Connect, Unusable, connections
from vppd.runtime.told import Told
from vppd.runtime.watchdog import Notifier
from vppd.snapshot import Snapshot

READY_WITHIN_S = 10.0
"""Devices that have not answered by then are started without. [s]"""
RELEASE_WITHIN_S = 10.0
"""Time for giving every device back at the end. [s]"""
DECIDING = ("intake", "cycle")
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
    if config is None or problems:
        raise InvalidConfig(path, problems)
    return config


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
        orders = _Signals()
        while True:
            daemon = Daemon(config, path, ledger, telemetry)
            await daemon.run(orders)
            if daemon.successor is None:
                return
            config = daemon.successor


class _Signals:
    """What the service manager asks for."""

    def __init__(self) -> None:
        self.stop, self.reload = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)


class Daemon:
    """One configuration at work, from start-up to release."""

    def __init__(self, config: Config, path: Path, ledger: SqliteLedger, telemetry: TelemetryStore) -> None:
        self.successor: Config | None = None
        """The configuration to go on with; None when it is over."""
        self._config, self._path, self._ledger, self._telemetry = config, path, ledger, telemetry
        self._clock, self._metrics = SystemClock(), Metrics()
        self._notifier = Notifier.from_environment(os.environ, os.getpid(), self._clock)
        self._plant = plant_of(config)
        self._register = Register(ledger)
        self._vitals = Vitals(self._clock.mono_s, config.site.link_lost_after_s)
        self._journal = Journal(ledger, self._vitals.ledger, self._register.catch_up, self._clock.now)
        self._inbox, self._last = Inbox(), LastDecision()
        self._told = Told(self._journal, self._clock.now)
        horizons = Horizons(self._plant, lambda: self._last.decision, self._clock, config.site.cycle_s)
        self._curtailers = curtailers_of(config, self._clock, horizons.left_s, horizons.is_short)
        self._devices = Devices(
            config, connects_of(config, path), self._plant, self._clock, self._told,
            planners=self._curtailers, comes_back=self._comes_back,
        )  # fmt: skip
        self._metrics.watch(self._plant.asset_ids, self._devices.table.frame)
        self._cycle: Cycle | None = None
        self._registry: Registry | None = None

    async def run(self, signals: _Signals) -> None:
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
        known = {*self._plant.nodes, *self._plant.asset_ids, EVERYTHING}
        at = self._clock.now()
        for order in self._register.orders:
            if order.resource not in known:
                log.error("order_without_resource", order_id=order.order_id, resource=order.resource)
                gone = {
                    "order_id": order.order_id,
                    "state": "aborted",
                    "reason": "its resource is no longer configured",
                }
                self._journal.write(Event("orders", "order_state", at, gone))
        return [order for order in self._register.orders if order.resource in known]

    def _work(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        channel, outbox, sender, reporter = self._link()
        consequences = Consequences(
            plant=self._plant,
            actuators=self._devices.actuators,
            write=self._journal.write,
            post=outbox.post if outbox else _to_nobody,
            record=self._telemetry.record if self._config.site.record else None,
            reporter=reporter,
            sender=sender,
            after=[self._last.take, self._observe],
        )
        panel = Panel(
            self._plant, self._last, self._inbox, self._vitals, self._metrics, self._clock, self._ledger, self._register,
            self._told, self._curtailers,
        )  # fmt: skip
        work = [
            ("devices", self._devices.run()),
            ("journal", self._journal.run()),
            ("accounts", self._curtailers.run()),
            ("clock", self._watch_clock(channel)),
        ]
        work += [
            ("cycle", self._decide(consequences)),
            ("socket", serve(build_app(panel, panel), self._config.site.socket)),
        ]
        if self._config.http is not None:
            work.append(("http", serve(build_app(panel), self._config.http.listen)))
        if channel and outbox and sender and reporter:
            desk = self._desk(channel, outbox, sender, reporter)
            work += [("link", channel.run()), ("outbox", outbox.run()), ("intake", take_all(desk))]
        return work

    async def _decide(self, consequences: Consequences) -> None:
        """Wait until every device has been tried, then run the beat."""
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN_S):
                await self._devices.table.all_tried()
        self._vitals.ready = True
        state = State.first(self._plant, self._register.progress)
        consequences.state = state
        self._cycle = Cycle(self._clock, self._inbox, self._devices.table.frame, self._vitals.health, consequences)
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

    def _link(self) -> tuple[MqttChannel | None, Outbox | None, Sender | None, Reporter | None]:
        grid = self._config.grid
        if grid is None:
            return None, None, None, None
        site = self._config.site
        self._registry = registry_of(self._config, grid)
        sender = sender_of(self._config, grid)
        channel = MqttChannel(
            broker_of(self._config, grid), site.id, subscriptions(site_of(self._config)), self._clock.mono_s
        )
        outbox = Outbox(channel, self._ledger, lambda: self._register.owed, self._register.catch_up, self._clock.now)
        reporter = Reporter(sender, feed_terms(self._config), site.heartbeat_s, site.telemetry_s, self._hints)
        return channel, outbox, sender, reporter

    def _desk(self, channel: MqttChannel, outbox: Outbox, sender: Sender, reporter: Reporter) -> Desk:
        def deliver(verdict: Accepted) -> None:
            if verdict.regulation is not None:
                said = verdict.regulation
                self._inbox.signal(Signal(said.issuer, said.level_frac, self._clock.mono_s()))
            reporter.heard(verdict.orders)
            self._inbox.take(verdict.orders)

        def registry() -> Registry:
            assert self._registry is not None
            return self._registry

        return Desk(
            channel=channel,
            ledger=self._ledger,
            memory=self._register,
            sender=sender,
            now=self._clock.now,
            registry=registry,
            conditions=self._conditions,
            deliver=deliver,
            answer=outbox.wake,
            resend=outbox.resend,
            faulty=self._vitals.ledger,
            judged=self._metrics.judged,
        )

    def _conditions(self) -> Conditions:
        """Return what stands against new orders: the rows of the failsafe table that hold them up."""
        decision = self._last.decision
        if decision is None:
            return Conditions(clock_ok=self._vitals.clock_ok)
        rows = {rule.name: rule for rule in SITE_RULES}
        holding = [rows[name] for name in decision.site_causes if rows[name].severity >= Severity.HOLD]
        hold = "; ".join(rule.condition for rule in holding if rule.name not in ("clock", "link_lost"))
        if self._vitals.operator_release:
            hold = "the operator has released the plant"
        return Conditions(clock_ok=self._vitals.clock_ok, hold=hold)

    def _hints(self, tag: str) -> Sequence[tuple[str, float]]:
        node = self._plant.nodes.index(tag)
        return self._devices.shed_first(i for i in range(len(self._plant.asset_ids)) if self._plant.node[i] == node)

    def _comes_back(self, asset_id: str) -> bool:
        """Say whether a cluster's jobs are still being brought back; the operator's release waits for nothing."""
        return not self._vitals.operator_release and self._curtailers[asset_id].comes_back

    async def _watch_clock(self, channel: MqttChannel | None) -> None:
        """Keep the facts up that nobody reports by himself."""
        steps = StepDetector(self._clock)
        while True:
            synchronised = clock_synchronised(kernel_status()) or not self._config.site.require_synchronised_clock
            self._vitals.clock_ok = steps.is_steady() and synchronised
            self._vitals.link(channel is None or channel.connected)
            await asyncio.sleep(1.0)

    async def _until_told(self, signals: _Signals) -> None:
        while not signals.stop.is_set():
            told = [asyncio.ensure_future(event.wait()) for event in (signals.stop, signals.reload)]
            try:
                await asyncio.wait(told, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for waiting in told:
                    waiting.cancel()
            if signals.reload.is_set():
                signals.reload.clear()
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
        if self._differs_in_issuers_only(found):
            log.info("reloaded")
            self._config = found
            self._registry = registry_of(found, found.grid) if found.grid else None
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

    def _differs_in_issuers_only(self, found: Config) -> bool:
        old = self._config
        if found.grid is None or old.grid is None:
            return found == old
        grid = found.grid.model_copy(update={"issuers": old.grid.issuers})
        return found.model_copy(update={"grid": grid}) == old

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


def _to_nobody(*_: object, **__: object) -> None:
    """There is no dispatcher to tell."""
