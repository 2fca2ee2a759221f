"""The planning side of a daemon in one piece: what is foreseen, planned and sold, each as far as it is configured."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from prometheus_client.registry import Collector

from vppd.config.load import Config
from vppd.config.market import MarketConfig
from vppd.core.forecast.outlook import Outlook
from vppd.core.state import Decision
from vppd.core.timetable import Timetable
from vppd.grid.envelope import Sender
from vppd.grid.openadr3.orders import Tariff
from vppd.ledger.history import History
from vppd.model import Event, Obligation
from vppd.planning.forecasts.feeds import Feeds
from vppd.planning.forecasts.feeds_tariffs import Tariffs
from vppd.planning.forecasts.figures import forecast_figures
from vppd.planning.forecasts.forecaster import Forecaster, constants_of
from vppd.planning.forecasts.recorder import Recorder
from vppd.planning.plan.figures import plan_figures
from vppd.planning.plan.planner import Planner
from vppd.planning.rounds import Rounds
from vppd.planning.trade.alarms import ScheduledAlarms
from vppd.planning.trade.desk import Foreseen, Records, Told, TradingDesk
from vppd.planning.trade.figures import trade_figures
from vppd.ports import Ledger, Window
from vppd.products import sold
from vppd.runtime.clock import Clock
from vppd.snapshot import Floats, Plant, Snapshot

ENDING_FIRST = ("desk",)
"""Tasks that end before anything is released: nothing is offered of a site that is being given back."""


class Register(Records, Protocol):
    """What has been offered and sold, with what is to be shown of it."""

    def bids(self, at: datetime) -> Mapping[str, object]:
        """Return offers and obligations as plain JSON values."""
        ...


@dataclass(frozen=True, slots=True)
class Reach:
    """Whom the planning side reaches in the daemon; all of it returns at once."""

    write: Callable[[Event], None]
    """Puts an event into the journal."""
    owed: Callable[[], None]
    """Something is to be published."""
    reserve: Callable[[str, Sequence[Window]], None]
    """What a cluster's scheduler should keep free."""


class Office:
    """Sees every cycle, and is asked by every cycle what the plan prefers; without a table ``[forecast]`` it does nothing."""

    def __init__(
        self,
        config: Config,
        plant: Plant,
        clock: Clock,
        history: History | None,
        ledger: Ledger,
        records: Register,
        sender: Sender | None,
        reach: Reach,
        tariffs: Callable[[], Sequence[Tariff] | None] = lambda: None,
    ) -> None:
        """Prepare what is configured; ``tariffs`` is what an OpenADR server tells, None while it is away. Raises ConfigError for bad product files and certificates that cannot be used."""
        self._clock, self._records = clock, records
        self._rounds = Rounds(clock.mono_s)
        self._recorder: Recorder | None = None
        self._feeds: Feeds | None = None
        self._forecaster: Forecaster | None = None
        self._planner: Planner | None = None
        self._desk: TradingDesk | None = None
        if config.forecast is None or history is None:
            return
        broker = config.grid.broker if config.grid else None
        told = Tariffs(tariffs, config.market.currency if config.market else "")
        self._feeds = Feeds(
            config.forecast.feeds, plant, history, clock, site=config.site.id, broker=broker, tariffs=told
        )
        self._recorder = Recorder(plant, history, self._feeds.quotes)
        self._forecaster = Forecaster(
            config.forecast, plant, history, self._recorder, self._feeds, clock,
            constants=constants_of(config.planning), think=self._rounds.of("forecasts"),
        )  # fmt: skip
        if config.planning is not None:
            self._planner = Planner(
                config.planning, config.forecast.step_s, plant, self.outlook, self._sold_at, clock,
                solve=self._rounds.of("plan", lambda answer: answer["cost"] is not None),
                file=config.site.state_dir / "plan.json", zone=ZoneInfo(config.forecast.time_zone),
            )  # fmt: skip
            self._forecaster.on_change.append(self._planner.wake)
        if config.market is not None and self._planner is not None and sender is not None:
            self._desk = self._open_desk(config, config.market, self._planner, plant, ledger, sender, reach)
            self._forecaster.on_change.append(self._desk.wake)

    def _open_desk(
        self,
        config: Config,
        market: MarketConfig,
        planner: Planner,
        plant: Plant,
        ledger: Ledger,
        sender: Sender,
        reach: Reach,
    ) -> TradingDesk:
        """Return the desk; an award that comes or is over makes a new plan. Raises ConfigError for bad product files."""
        return TradingDesk(
            config, market, sold(market), plant, sender, self._clock, ScheduledAlarms(), ledger, self._records,
            Foreseen(self.outlook, lambda: planner.timetable),
            Told(reach.write, reach.owed, planner.wake, reach.reserve), self._rounds.of("offers"),
        )  # fmt: skip

    def outlook(self) -> Mapping[str, Outlook]:
        """Return the newest forecasts by series."""
        return self._forecaster.outlook if self._forecaster is not None else {}

    def timetable(self) -> Timetable | None:
        """Return the plan in force, None without one."""
        return self._planner.timetable if self._planner is not None else None

    def preferred_w(self, at: datetime) -> Floats | None:
        """Return what the plan wishes of each asset now, (n,), NaN for nothing; None without a plan to follow. [W]"""
        return self._planner.preferred_w(at) if self._planner is not None else None

    def observe(self, snapshot: Snapshot, decision: Decision) -> None:
        """Take one cycle in."""
        for who in (self._recorder, self._planner, self._desk):
            if who is not None:
                who.take(snapshot, decision)

    def work(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        """Return the tasks by name; those in ``ENDING_FIRST`` have to end before anything is released."""
        named = (("feeds", self._feeds), ("forecasts", self._forecaster), ("plan", self._planner), ("desk", self._desk))
        return [(name, who.run()) for name, who in named if who is not None]

    @property
    def views(self) -> dict[str, Callable[[], object]]:
        """What there is to show, by name."""
        found: dict[str, Callable[[], object]] = {}
        if self._forecaster is not None:
            found["forecasts"] = self._forecaster.view
        if self._planner is not None:
            found["plan"] = self._planner.view
        if self._desk is not None:
            found["market"] = self._desk.view
            found["bids"] = lambda: self._records.bids(self._clock.now())
        return found

    @property
    def figures(self) -> tuple[Collector, ...]:
        """What Prometheus reads of it."""
        now = self._clock.now
        found: tuple[Collector, ...] = () if self._forecaster is None else self._rounds.figures
        if self._forecaster is not None:
            found += forecast_figures(self._forecaster, now)
        if self._planner is not None:
            found += plan_figures(self._planner, now)
        if self._desk is not None:
            found += trade_figures(self._records, self._desk, now)
        return found

    def _sold_at(self, at: datetime) -> Sequence[Obligation]:
        return self._records.obligations_at(at)
