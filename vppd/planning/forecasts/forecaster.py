"""Forecasts every series of the plant, again and again, in a process of its own; keeps the newest and says how good they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import structlog

from vppd.config.forecast import ForecastConfig, ForecastFeedConfig
from vppd.config.planning import PlanningConfig
from vppd.core.forecast.outlook import Outlook
from vppd.core.forecast.point import METHODS
from vppd.core.forecast.quantiles import LEVELS
from vppd.errors import Garbled, Refused, Unreachable
from vppd.ledger.history import EPOCH, History
from vppd.model import Kind
from vppd.planning.forecasts.answer import numbers_of, outlooks_of
from vppd.planning.forecasts.recorder import Recorder
from vppd.planning.forecasts.view import forecasts_view
from vppd.runtime.apart import apart
from vppd.runtime.clock import Clock
from vppd.snapshot import KINDS, Plant

WORKER = "vppd.planning.forecasts.worker"
LIMIT_S = 300.0
"""A round that takes longer is given up. [s]"""
AGAIN_S = 60.0
"""A round that failed is tried again after so long. [s]"""
APART_S = 20.0
"""News of feeds begin a round of their own, but not sooner than so long after the last one began. [s]"""
HEARD_WITHIN_S = 60.0
"""The first round waits no longer than this for something measured. [s]"""
CHOSEN_S = 6 * 3_600.0
"""All methods are tried on a series so often; in between the best one is kept, which takes a third of the time. [s]"""
FIRST_WORDS_S = 3.0
"""Nor longer than this for feeds that have said nothing yet: what is planned without them would be planned anew at once. [s]"""
AFTER_S = 3.0
"""A round begins so long after its step, so that what was measured is in the history. [s]"""
FEED = "feed:"
ANYWHERE = ("price/import", "price/export", "carbon")
"""Series that are not of the plant."""
CONTRACT = "contract/"
"""Nor are these: only a feed knows of them."""

log = structlog.get_logger()

Think = Callable[[str, Mapping[str, Any], float], Awaitable[Any]]


class Feeds(Protocol):
    """Whoever hears what others foresee."""

    changed: asyncio.Event
    """Set when a feed has said something new; to be cleared by the forecaster."""

    def view(self) -> Sequence[Mapping[str, Any]]:
        """Return how each feed is, as plain JSON values."""
        ...


class News:
    """Rings whenever there are new forecasts; many may wait."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def ring(self) -> None:
        """Wake all who wait."""
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self) -> None:
        """Return at the next ring."""
        await self._next.wait()


class Forecaster:
    """Holds the newest outlook of every series; ``run`` makes new ones for as long as it runs."""

    def __init__(
        self,
        config: ForecastConfig,
        plant: Plant,
        history: History,
        recorder: Recorder,
        feeds: Feeds | None,
        clock: Clock,
        *,
        constants: Mapping[str, float] = MappingProxyType({}),
        think: Think = apart,
    ) -> None:
        """Prepare; ``constants`` are values for series of which nobody says anything [their units]."""
        self.outlook: Mapping[str, Outlook] = MappingProxyType({})
        """The newest forecasts by series; those of which nothing can be said are left out."""
        self.changed = News()
        self.on_change: list[Callable[[], None]] = []
        """Called after every round that gave forecasts."""
        self.rounds = 0
        self.fault = ""
        """Why the last round gave nothing; empty when it did."""
        self._config, self._history, self._recorder = config, history, recorder
        self._feeds, self._clock, self._think = feeds, clock, think
        self._series = _series(plant, recorder.names, config.feeds, constants)
        self._numbers = history.path.with_name("forecasts.npy")
        self._after_s = AFTER_S + 2.0 * plant.cycle_s
        self._took_s = 0.0
        self._chosen: dict[str, tuple[str, float]] = {}
        self._told: Sequence[Mapping[str, Any]] = ()
        self._shown: dict[str, Any] = {"made_at": None, "series": []}

    async def run(self) -> None:
        """Make forecasts at every step of the grid and when a feed has news, for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARD_WITHIN_S):
                await self._recorder.heard.wait()
        await self._first_words()
        while True:
            if self._feeds is not None:
                self._feeds.changed.clear()
            await self.round()
            await self._pause()

    async def _first_words(self) -> None:
        """Return when every feed has said something, or soon."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_WORDS_S):
                while self._feeds is not None and any(feed["issued_at"] is None for feed in self._feeds.view()):
                    self._feeds.changed.clear()
                    await self._feeds.changed.wait()

    async def round(self) -> None:
        """Make forecasts once; when that fails the old ones stay, and ``fault`` says why."""
        began_s, now = self._clock.mono_s(), self._clock.now()
        await self._history.flush()
        document = self._document(now)
        try:
            said = await self._think(WORKER, document, LIMIT_S)
            numbers = await asyncio.to_thread(numbers_of, self._numbers)
            start = datetime.fromisoformat(document["start"])
            outlook = outlooks_of(said["series"], numbers, now, start, document["step_s"])
        except (Unreachable, Refused, Garbled) as error:
            self._tell(str(error))
            return
        self._tell("")
        self._tell_sources(outlook, said["series"])
        self.outlook, self._told = MappingProxyType(outlook), said["series"]
        self._took_s, self.rounds = self._clock.mono_s() - began_s, self.rounds + 1
        self._choose(document["chosen"], began_s)
        self._shown = await asyncio.to_thread(forecasts_view, now, self._took_s, self._told, outlook)
        self.changed.ring()
        for told in self.on_change:
            told()

    def view(self) -> dict[str, Any]:
        """Return the newest forecasts with their sources and scores, and how feeds and history are, as plain JSON values."""
        return self._shown | {
            "every_s": self._config.every_s,
            "rounds": self.rounds,
            "fault": self.fault,
            "history": {"fault": self._history.fault, "dropped": self._history.dropped},
            "feeds": list(self._feeds.view()) if self._feeds is not None else [],
        }

    def _document(self, now: datetime) -> dict[str, Any]:
        """Return what the worker is asked, as plain JSON values."""
        config, mono_s = self._config, self._clock.mono_s()
        return {
            "history": str(self._history.path),
            "answer": str(self._numbers),
            "now": now.isoformat(),
            "start": _on_grid(now, config.step_s).isoformat(),
            "step_s": config.step_s,
            "steps": round(config.horizon_h * 3600.0 / config.step_s),
            "levels": list(LEVELS),
            "time_zone": config.time_zone,
            "history_days": config.history_days,
            "series": self._series,
            "present": self._recorder.present(),
            "chosen": {name: method for name, (method, since_s) in self._chosen.items() if mono_s - since_s < CHOSEN_S},
            "spoke": {name: found.source for name, found in self.outlook.items()},
        }

    def _choose(self, before: Mapping[str, str], mono_s: float) -> None:
        """Remember which of our methods did best, where all have been tried; a series that is still cold is tried again."""
        for one in self._told:
            own = one.get("instead") or one
            score = own.get("score")
            if score is not None and score["samples"] and own["method"] in METHODS and one["name"] not in before:
                self._chosen[one["name"]] = (own["method"], mono_s)

    async def _pause(self) -> None:
        """Return when the next round is due: at its time, soon after a feed had news, or soon after a fault."""
        now, every_s = self._clock.now(), self._config.every_s
        last = _on_grid(now - timedelta(seconds=self._after_s), every_s)
        due_s = (last - now).total_seconds() + every_s + self._after_s
        if self.fault:
            due_s = min(due_s, AGAIN_S)
        apart_s = min(APART_S, due_s)
        await asyncio.sleep(apart_s)
        if self._feeds is None:
            await asyncio.sleep(due_s - apart_s)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(due_s - apart_s):
                await self._feeds.changed.wait()

    def _tell_sources(self, outlook: Mapping[str, Outlook], told: Sequence[Mapping[str, Any]]) -> None:
        """Log when a feed falls silent or speaks again; a change between our own methods is nothing to act on."""
        for one in told:
            before, now = self.outlook.get(one["name"]), outlook.get(one["name"])
            sources = [found.source if found else "" for found in (before, now)]
            if before is not None and sources[0] != sources[1] and any(name.startswith(FEED) for name in sources):
                log.warning(
                    "forecast_source", series=one["name"], before=sources[0], now=sources[1], reason=one["reason"]
                )

    def _tell(self, fault: str) -> None:
        if fault and not self.fault:
            log.warning("forecasts_failed", reason=fault)
        elif self.fault and not fault:
            log.info("forecasts_made_again")
        self.fault = fault


def constants_of(planning: PlanningConfig | None) -> dict[str, float]:
    """Return the prices that hold where no feed says otherwise. [per Wh]"""
    if planning is None:
        return {}
    return {
        "price/import": planning.price_import_per_mwh / 1e6,
        "price/export": planning.price_export_per_mwh / 1e6,
    }


def _on_grid(at: datetime, step_s: float) -> datetime:
    """Return the beginning of the step that ``at`` lies in, counted from 1970."""
    step = timedelta(seconds=step_s)
    return EPOCH + (at - EPOCH) // step * step


def _series(
    plant: Plant, names: Sequence[str], feeds: Sequence[ForecastFeedConfig], constants: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return what is to be forecast, prices first, in the words of the worker."""
    said: dict[str, list[dict[str, Any]]] = {}
    for feed in feeds:
        terms = {"name": feed.name, "stale_after_s": feed.stale_after_s, "trusted": feed.trust == "always"}
        said.setdefault(feed.series, []).append(terms)
    outside = [name for name in ANYWHERE if name in said or name in constants]
    outside += [name for name in said if name.startswith(CONTRACT)]
    most_w, sun = _most(plant), KINDS.index(Kind.PV)
    sunny = {f"generation/{plant.asset_ids[i]}" for i in np.flatnonzero(plant.kind == sun)}
    return [
        {
            "name": name,
            "lower": None if name.startswith(("load/", "price/")) else 0.0,
            "upper": most_w.get(name),
            "constant": constants.get(name),
            "feeds": said.get(name, []),
            "sunny": name in sunny,
        }
        for name in (*outside, *names)
    ]


def _most(plant: Plant) -> dict[str, float]:
    """Return the most that PV and wind can give by their nameplates. [W]"""
    kinds = tuple(KINDS.index(kind) for kind in (Kind.PV, Kind.WIND))
    return {
        f"generation/{name}": abs(float(plant.rated_lower_w[i]))
        for i, name in enumerate(plant.asset_ids)
        if plant.kind[i] in kinds
    }
