"""The dispatcher's link of a daemon: what comes in over its broker, what goes out, and what stands against new orders."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from vppd.config.grid import GridConfig
from vppd.config.load import Config
from vppd.core.failsafe import SITE_RULES, Severity
from vppd.core.state import Decision
from vppd.grid.intake import Desk, Memory, take_all
from vppd.grid.outbox import Outbox
from vppd.grid.reporter import Hints, Reporter
from vppd.grid.routes import subscriptions
from vppd.grid.setup import broker_of, feed_terms, registry_of, sender_of, site_of
from vppd.grid.transport import MqttChannel
from vppd.grid.verdict import Accepted, Conditions
from vppd.ledger.projections import Owed
from vppd.model import Signal
from vppd.ports import Ledger
from vppd.runtime.clock import Clock
from vppd.runtime.cycle import Inbox
from vppd.runtime.health import Vitals


class Records(Memory, Protocol):
    """What the ledger adds up to."""

    @property
    def owed(self) -> tuple[Owed, ...]:
        """Messages still owed to the dispatcher, oldest first."""
        ...


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
