"""The links of a daemon to the grid: the dispatcher's broker, an OpenADR server, and what stands against new orders from either."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from vppd.config.grid import GridConfig
from vppd.config.load import Config
from vppd.core.failsafe import SITE_RULES, Severity
from vppd.core.forecast.outlook import Outlook
from vppd.core.state import Decision
from vppd.core.timetable import Timetable
from vppd.grid.envelope import Sender
from vppd.grid.intake import Desk, Memory, take_all
from vppd.grid.openadr3.link import OpenAdrLink
from vppd.grid.openadr3.orders import PROTOCOL, Tariff
from vppd.grid.openadr3.ven import Desk as OpenAdrDesk
from vppd.grid.outbox import Outbox
from vppd.grid.reporter import Hints, Reporter
from vppd.grid.routes import subscriptions
from vppd.grid.setup import broker_of, feed_terms, registry_of, sender_of, site_of
from vppd.grid.site import EVERYTHING
from vppd.grid.transport import MqttChannel
from vppd.grid.verdict import Accepted, Conditions
from vppd.ledger.projections import Owed
from vppd.model import Order, Outbound, Signal
from vppd.ports import Ledger
from vppd.runtime.clock import Clock
from vppd.runtime.cycle import Inbox
from vppd.runtime.figures import Figure, Row
from vppd.runtime.health import Vitals
from vppd.runtime.resumption import why_not
from vppd.snapshot import Plant, Snapshot


class Records(Memory, Protocol):
    """What the ledger adds up to."""

    @property
    def orders(self) -> tuple[Order, ...]:
        """Orders that are open, of everybody."""
        ...

    @property
    def owed(self) -> tuple[Owed, ...]:
        """Messages still owed to the dispatcher, oldest first."""
        ...


DECIDING = ("intake", "openadr")
"""Tasks of the links that put orders in force."""


class DispatchLink:
    """Takes orders from the dispatcher's broker into the inbox, and publishes what is owed and what is news."""

    def __init__(
        self,
        config: Config,
        grid: GridConfig,
        ledger: Ledger,
        records: Records,
        inbox: Inbox,
        vitals: Vitals,
        clock: Clock,
        *,
        decision: Callable[[], Decision | None],
        hints: Hints,
        judged: Callable[[str], None],
    ) -> None:
        """Prepare the link; ``decision`` is the newest one. Raises ConfigError when keys or certificates cannot be used."""
        self._ledger, self._records, self._inbox, self._vitals, self._clock = ledger, records, inbox, vitals, clock
        self._decision, self._judged = decision, judged
        self._registry = registry_of(config, grid)
        self.sender = sender_of(config, grid)
        """Signs what we publish."""
        site = config.site
        topics = subscriptions(site_of(config))
        self._channel = MqttChannel(broker_of(config, grid), site.id, topics, clock.mono_s)
        self.outbox = Outbox(self._channel, ledger, lambda: records.owed, records.catch_up, clock.now)
        """What waits to go out."""
        self.reporter = Reporter(self.sender, feed_terms(config), site.heartbeat_s, site.telemetry_s, hints)
        """Makes news of decisions."""

    @property
    def connected(self) -> bool:
        """Say whether the link is up."""
        return self._channel.connected

    def replace_issuers(self, config: Config, grid: GridConfig) -> None:
        """Judge from now on by other issuers and grants. Raises ConfigError when their keys cannot be read."""
        self._registry = registry_of(config, grid)

    def work(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        """Return the tasks of the link by name; ``intake`` puts orders in force."""
        intake = take_all(self._desk())
        return [("link", self._channel.run()), ("outbox", self.outbox.run()), ("intake", intake)]

    def _desk(self) -> Desk:
        return Desk(
            channel=self._channel,
            ledger=self._ledger,
            memory=self._records,
            sender=self.sender,
            now=self._clock.now,
            registry=lambda: self._registry,
            conditions=lambda: conditions(self._decision(), self._vitals),
            deliver=self._deliver,
            answer=self.outbox.wake,
            resend=self.outbox.resend,
            faulty=self._vitals.ledger,
            judged=self._judged,
        )

    def _deliver(self, verdict: Accepted) -> None:
        if verdict.regulation is not None:
            said = verdict.regulation
            self._inbox.signal(Signal(said.issuer, said.level_frac, self._clock.mono_s()))
        self.reporter.heard(verdict.orders)
        self._inbox.take(verdict.orders)


class GridLinks:
    """All that a configuration has of links to the grid: a dispatcher's broker, an OpenADR server, both or neither."""

    def __init__(
        self,
        config: Config,
        plant: Plant,
        ledger: Ledger,
        records: Records,
        inbox: Inbox,
        vitals: Vitals,
        clock: Clock,
        *,
        decision: Callable[[], Decision | None],
        hints: Hints,
        judged: Callable[[str], None],
        outlooks: Callable[[], Mapping[str, Outlook]] = dict,
        plans: Callable[[], Timetable | None] = lambda: None,
    ) -> None:
        """Prepare the links; ``outlooks`` returns the newest forecasts by series, ``plans`` the newest plan. Raises ConfigError."""
        self.dispatch: DispatchLink | None = None
        self.openadr: OpenAdrLink | None = None
        if config.grid is not None:
            self.dispatch = DispatchLink(
                config, config.grid, ledger, records, inbox, vitals, clock,
                decision=decision, hints=hints, judged=judged,
            )  # fmt: skip
        if config.openadr is not None:

            def hold() -> str:
                found = conditions(decision(), vitals)
                return found.hold or ("" if found.clock_ok else "the clock of this machine is not synchronised")

            desk = OpenAdrDesk(ledger, lambda: records.orders, records.catch_up, hold, inbox.take, vitals.ledger)
            self.openadr = OpenAdrLink(
                config.openadr, site_of(config), plant, clock, desk, outlooks, config.site.state_dir, plans
            )

    @property
    def connected(self) -> bool:
        """Say whether the dispatcher's link is up, or there is none to be."""
        return self.dispatch is None or self.dispatch.connected

    @property
    def sender(self) -> Sender | None:
        """What signs our messages, None without a dispatcher."""
        return self.dispatch.sender if self.dispatch else None

    @property
    def reporter(self) -> Reporter | None:
        """What makes news of decisions, None without a dispatcher."""
        return self.dispatch.reporter if self.dispatch else None

    @property
    def views(self) -> dict[str, Callable[[], object]]:
        """What there is to show, by name."""
        return {"openadr": self.openadr.view} if self.openadr else {}

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What Prometheus reads of the links."""
        up: dict[str, Callable[[], bool]] = {}
        if (dispatch := self.dispatch) is not None:
            up["dispatch"] = lambda: dispatch.connected
        if (openadr := self.openadr) is not None:
            up["openadr"] = lambda: openadr.current
        return (link_figures(up),)

    def post(self, *messages: Outbound, latest_only: bool = False) -> None:
        """Publish news, if there is a dispatcher to tell."""
        if self.dispatch is not None:
            self.dispatch.outbox.post(*messages, latest_only=latest_only)

    def wake(self) -> None:
        """Publish what is owed at once."""
        if self.dispatch is not None:
            self.dispatch.outbox.wake()

    def observe(self, snapshot: Snapshot, decision: Decision) -> None:
        """Take what was decided."""
        if self.openadr is not None:
            self.openadr.observe(snapshot, decision)

    def work(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        """Return the tasks of the links by name; those in ``DECIDING`` put orders in force."""
        found = self.dispatch.work() if self.dispatch else []
        return found + ([("openadr", self.openadr.run())] if self.openadr else [])

    def tariffs(self) -> Sequence[Tariff] | None:
        """Return the prices and carbon intensities that an OpenADR server tells, None while it is away or there is none."""
        return self.openadr.tariffs if self.openadr is not None and self.openadr.current else None

    def renew(self, config: Config) -> None:
        """Go on with a configuration that differs in what ``differs_in_links_only`` allows. Raises ConfigError."""
        if self.dispatch is not None and config.grid is not None:
            self.dispatch.replace_issuers(config, config.grid)
        if self.openadr is not None and config.openadr is not None:
            self.openadr.renew(config.openadr)


def link_figures(up: Mapping[str, Callable[[], bool]]) -> Figure:
    """Return what Prometheus reads of links, by their names."""

    def rows() -> Iterator[Row]:
        return (((name,), float(is_up())) for name, is_up in up.items())

    return Figure("vppd_link_up", "Whether a link to the grid is up.", ("link",), rows)


def differs_in_links_only(old: Config, new: Config) -> bool:
    """Say whether all that has changed is who may order what, or how an OpenADR server is reached that stays the same issuer."""
    same: dict[str, object] = {}
    if new.grid is not None and old.grid is not None:
        same["grid"] = new.grid.model_copy(update={"issuers": old.grid.issuers})
    if new.openadr is not None and old.openadr is not None and new.openadr.issuer == old.openadr.issuer:
        same["openadr"] = old.openadr
    return new.model_copy(update=same) == old


def carried_on(orders: Iterable[Order], config: Config, plant: Plant) -> tuple[list[Order], list[tuple[Order, str]]]:
    """Return which orders an earlier process left behind are carried on, and which are not, with the reason."""
    known = {*plant.nodes, *plant.asset_ids, EVERYTHING}
    issuers = {PROTOCOL: config.openadr.issuer if config.openadr else ""}
    kept, gone = [], []
    for order in orders:
        if reason := why_not(order, known, issuers):
            gone.append((order, reason))
        else:
            kept.append(order)
    return kept, gone


def conditions(decision: Decision | None, vitals: Vitals) -> Conditions:
    """Return what stands against new orders: the rows of the failsafe table that hold them up."""
    if decision is None:
        return Conditions(clock_ok=vitals.clock_ok)
    rows = {rule.name: rule for rule in SITE_RULES}
    holding = [rows[name] for name in decision.site_causes if rows[name].severity >= Severity.HOLD]
    hold = "; ".join(rule.condition for rule in holding if rule.name not in ("clock", "link_lost"))
    if vitals.operator_release:
        hold = "the operator has released the plant"
    return Conditions(clock_ok=vitals.clock_ok, hold=hold)
