"""What others foresee: every feed is asked or listened to, read, checked and put into the history, where forecasts find it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import datetime, timedelta
from random import Random
from typing import Any

import numpy as np
import structlog

from vppd.config.forecast import ForecastFeedConfig
from vppd.config.grid import BrokerConfig
from vppd.core.forecast.outlook import MEDIAN_FRAC, resampled
from vppd.errors import ConfigError, DeviceError, Garbled, Unreachable
from vppd.ledger.history import History, Issue
from vppd.ledger.history_reader import reading
from vppd.planning.forecasts.feed_record import at_levels
from vppd.planning.forecasts.feeds_format import Terms, parsed
from vppd.planning.forecasts.feeds_sources import (
    Content,
    FileSource,
    HttpSource,
    Source,
    broker_settings,
    http_client,
    topic_contents,
)
from vppd.planning.forecasts.feeds_tariffs import Tariffs, TariffSource
from vppd.runtime.clock import Clock
from vppd.runtime.supervise import Backoff
from vppd.snapshot import Plant

FIRST_AGAIN_S, LAST_AGAIN_S = 5.0, 300.0
"""A feed that cannot be reached is tried again after so long at first, and at last. [s]"""
MEASURED = ("load/", "generation/", "compute/")
"""Series whose truth is measured; that of the others is what their first feed that knows said of the present."""

log = structlog.get_logger()


class Feeds:
    """Listens to all feeds for as long as ``run`` runs."""

    def __init__(
        self,
        configs: Sequence[ForecastFeedConfig],
        plant: Plant,
        history: History,
        clock: Clock,
        *,
        site: str,
        broker: BrokerConfig | None = None,
        tariffs: Tariffs | None = None,
        rng: Random | None = None,
    ) -> None:
        """Prepare; ``broker`` is that of feeds without their own, ``tariffs`` what an OpenADR server tells. Raises ConfigError for certificates that cannot be used."""
        self.changed = asyncio.Event()
        """Set when a feed has said something new."""
        self._history, self._clock, self._tariffs = history, clock, tariffs or Tariffs(lambda: None)
        self._feeds = [_Feed(config, _most(config.series, plant), history, clock, self.changed) for config in configs]
        self._brokers = {
            config.name: broker_settings(chosen, f"vppd-{site}-{config.name}")
            for config in configs
            if config.kind == "mqtt" and (chosen := config.broker or broker) is not None
        }
        self._clients = {config.name: http_client(config) for config in configs if config.kind == "http"}
        self._rng = rng or Random()  # noqa: S311 - spreads attempts, guards nothing

    async def run(self) -> None:
        """Ask and listen, for ever; what was said before a restart counts until something newer comes."""
        await asyncio.to_thread(self._remember)
        async with AsyncExitStack() as stack:
            for client in self._clients.values():
                await stack.enter_async_context(client)
            async with asyncio.TaskGroup() as group:
                for feed in self._feeds:
                    group.create_task(self._listen(feed) if feed.config.kind == "mqtt" else self._poll(feed))

    def quotes(self, at: datetime) -> dict[str, float]:
        """Return what the feeds of prices and carbon say of a moment, by series [its units]: of several the first that knows."""
        found: dict[str, float] = {}
        for feed in self._feeds:
            series = feed.config.series
            if series not in found and not series.startswith(MEASURED) and (value := feed.value(at)) is not None:
                found[series] = value
        return found

    def view(self) -> list[dict[str, Any]]:
        """Return how each feed is, as plain JSON values."""
        now = self._clock.now()
        return [feed.view(now) for feed in self._feeds]

    def _remember(self) -> None:
        """Look up what was said last before we were started."""
        try:
            with reading(self._history.path) as reader:
                for feed in self._feeds:
                    feed.remember(reader.newest_issue(feed.config.name, feed.config.series, self._clock.now()))
        except (ConfigError, DeviceError) as error:
            log.info("feeds_not_remembered", reason=str(error))  # a first start has no history to look into

    async def _poll(self, feed: _Feed) -> None:
        source = self._source(feed.config)
        again = Backoff(first_s=min(FIRST_AGAIN_S, feed.config.poll_s), most_s=max(LAST_AGAIN_S, feed.config.poll_s))
        failures = 0
        while True:
            failures, wait_s = await self._look(feed, source, again, failures)
            await source.rest(wait_s)

    async def _look(self, feed: _Feed, source: Source, again: Backoff, failures: int) -> tuple[int, float]:
        """Look once; return the failures in a row and how long to wait. [s]"""
        try:
            content = await source.look()
            if content is None:
                feed.same()
            else:
                await feed.take(content)
        except Unreachable as error:
            feed.failed(error)
            return failures + 1, again.wait_s(failures + 1, self._rng)
        except DeviceError as error:
            source.forget()
            feed.failed(error)
        return 0, feed.config.poll_s

    async def _listen(self, feed: _Feed) -> None:
        if feed.config.name not in self._brokers:
            feed.failed(Unreachable(f"feed {feed.config.name!r} has no broker"))
            return
        contents = topic_contents(self._brokers[feed.config.name], feed.config.topic, self._clock)
        async with aclosing(contents):
            async for content in contents:
                try:
                    await feed.take(content)
                except DeviceError as error:
                    feed.failed(error)

    def _source(self, config: ForecastFeedConfig) -> Source:
        if config.kind == "http":
            return HttpSource(self._clients[config.name], config, self._clock)
        if config.kind == "openadr":
            return TariffSource(self._tariffs, config, self._clock)
        assert config.path is not None
        return FileSource(config.path)


class _Feed:
    """One feed: what it said last, and what is wrong with it."""

    def __init__(
        self, config: ForecastFeedConfig, most_w: float, history: History, clock: Clock, changed: asyncio.Event
    ) -> None:
        self.config = config
        blank = config.kind == "openadr"
        self._terms = Terms(config.name, config.series, config.unit, config.format, most_w, may_be_blank=blank)
        self._history, self._clock, self._changed = history, clock, changed
        self._newest: Issue | None = None
        self._data = b""
        self._fault = ""

    def remember(self, issue: Issue | None) -> None:
        """Take up what was said before a restart."""
        self._newest = issue

    async def take(self, content: Content) -> None:
        """Read content and put it into the history. Raises Garbled."""
        if content.data == self._data:
            self._tell(content.fault)
            return
        now = self._clock.now()
        issue = await asyncio.to_thread(parsed, self._terms, content.data, content.changed_at, now)
        if self._newest is not None and issue.issued_at < self._newest.issued_at:
            raise Garbled(
                f"feed {self.config.name!r}: what came is older than what is known already: {_iso(issue.issued_at)}"
            )
        self._data, self._newest = content.data, issue
        self._history.issue(issue)
        self._changed.set()
        self._tell(content.fault)

    def same(self) -> None:
        """Note that nothing is new: what could be read before still can."""
        self._tell("")

    def failed(self, error: DeviceError) -> None:
        """Note why nothing came; what was said before stays until it is stale."""
        self._tell(str(error))

    def value(self, at: datetime) -> float | None:
        """Return what it says of a moment, None when it does not or is stale. [units of the series]"""
        issue = self._newest
        if issue is None or self._is_stale(issue, at):
            return None
        row = at_levels(issue.levels, issue.values, (MEDIAN_FRAC,)) if issue.levels else issue.values
        step = timedelta(seconds=issue.step_s)
        start = issue.start + (at - issue.start) // step * step
        value = float(resampled(row[0], issue.start, issue.step_s, start, issue.step_s, 1)[0])
        return value if np.isfinite(value) else None

    def view(self, now: datetime) -> dict[str, Any]:
        """Return how it is, as plain JSON values."""
        issue = self._newest
        found = {"name": self.config.name, "series": self.config.series, "kind": self.config.kind, "fault": self._fault}
        if issue is None:
            return found | {"issued_at": None, "stale": None}
        end = issue.start + issue.values.shape[-1] * timedelta(seconds=issue.step_s)
        return found | {
            "issued_at": _iso(issue.issued_at),
            "stale": self._is_stale(issue, now),
            "start": _iso(issue.start),
            "end": _iso(end),
            "step_s": issue.step_s,
            "levels": list(issue.levels),
        }

    def _is_stale(self, issue: Issue, at: datetime) -> bool:
        return at - issue.issued_at > timedelta(seconds=self.config.stale_after_s)

    def _tell(self, fault: str) -> None:
        if fault and fault != self._fault:
            log.warning("feed_failed", feed=self.config.name, reason=fault)
        elif self._fault and not fault:
            log.info("feed_recovered", feed=self.config.name)
        self._fault = fault


def _most(series: str, plant: Plant) -> float:
    """Return the power beyond which a feed is not believed, inf where nothing is known. [W]"""
    what, _, rest = series.partition("/")
    name = rest.partition("/")[0]
    if what in ("generation", "compute") and name in plant.asset_ids:
        i = plant.asset_ids.index(name)
        rated_w = max(abs(float(plant.rated_lower_w[i])), abs(float(plant.rated_upper_w[i])))
        return plant.plausible_frac * rated_w or np.inf
    if what == "load" and name in plant.nodes:
        i = plant.nodes.index(name)
        return plant.plausible_frac * max(abs(float(plant.node_lower_w[i])), abs(float(plant.node_upper_w[i])))
    return np.inf


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
