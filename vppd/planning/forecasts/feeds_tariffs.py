"""Prices and carbon intensities of the OpenADR server as a feed: what it tells now becomes a document like that of any other feed."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from vppd.config.forecast import HISTORY_STEP_S, ForecastFeedConfig
from vppd.errors import Refused, Unreachable
from vppd.grid.openadr3.orders import Tariff
from vppd.grid.openadr3.tariffs import SERIES, tariff_series
from vppd.planning.forecasts.feeds_sources import Content
from vppd.runtime.clock import Clock
from vppd.snapshot import Floats

MOST_STEPS_AHEAD = 2016
"""Of 5 minutes: a week, the longest that is foreseen."""
WHOLE_S = 3600.0
"""Told from the hour under way on, so that the step under way is known, however long it is. [s]"""
LOOK_S = 1.0
"""Whether the link has news is looked at so often; it costs a comparison. [s]"""
FIRST_S, FIRST_LOOKS = 2.0, 20
"""The first look waits so long for the server's first answer: not to have asked yet is no fault. [s]"""
LATER_STEPS = 3
"""A series that only reaches further is news from so many steps on: open ends move with the clock."""
AGAIN_S = 3600.0
"""What the server still says is said again after so long, so that it does not become stale. [s]"""


@dataclass(frozen=True, slots=True)
class Tariffs:
    """Whom to ask for what the server tells, and in which currency prices are wanted."""

    told: Callable[[], Sequence[Tariff] | None]
    """None while the server is away: what it said before is then nothing that it says now."""
    currency: str = ""
    """Empty: whichever is the only one."""


class TariffSource:
    """Looks at the link, which holds all that the server tells."""

    def __init__(self, tariffs: Tariffs, config: ForecastFeedConfig, clock: Clock) -> None:
        self.wait_s = 0.0
        self._tariffs, self._config, self._clock = tariffs, config, clock
        self._types = tuple(kind for kind, series in SERIES.items() if series == config.series)
        self._seen: Sequence[Tariff] | None = None
        self._said: tuple[datetime, datetime, Floats] | None = None
        self._blank: Content | None = None
        self._looks = 0

    async def look(self) -> Content | None:
        """Return what the server tells when that is new or has not been said for long; a blank with its reason when it tells nothing.

        What a server that answers does not tell any more counts no more, however fresh it is. Raises Unreachable.
        """
        self._seen = await self._answer()
        if self._seen is None:
            raise Unreachable("the OpenADR server has not answered, or is lost")
        now = self._clock.now()
        start = datetime.fromtimestamp(now.timestamp() // WHOLE_S * WHOLE_S, UTC)
        try:
            values = self._values(self._seen, start)
        except Refused as refused:
            return self._taken_back(now, start, str(refused))
        self._blank = None
        if self._is_known(now, start, values):
            return None
        self._said = (now, start, values)
        return Content(_document(now, start, values), now)

    async def _answer(self) -> Sequence[Tariff] | None:
        """Return what the server tells; right after the start it is given a moment to answer for the first time."""
        left, self._looks = (FIRST_LOOKS if not self._looks else 0), self._looks + 1
        while self._tariffs.told() is None and left:
            await asyncio.sleep(FIRST_S / FIRST_LOOKS)
            left -= 1
        return self._tariffs.told()

    def forget(self) -> None:
        """Say it again."""
        self._said = self._blank = None

    def _taken_back(self, now: datetime, start: datetime, why: str) -> Content:
        """Return that there is nothing, the same as long as it is for the same reason."""
        self._said = None
        if self._blank is None or self._blank.fault != why:
            self._blank = Content(_document(now, start, np.full(1, np.nan)), now, why)
        return self._blank

    async def rest(self, wait_s: float) -> None:
        """Return when the link has news, at the latest after a time. [s]"""
        for _ in range(math.ceil(wait_s / LOOK_S)):
            await asyncio.sleep(min(LOOK_S, wait_s))
            if self._tariffs.told() != self._seen:
                return

    def _values(self, tariffs: Sequence[Tariff], start: datetime) -> Floats:
        ours = [entry for entry in tariffs if entry.payload_type in self._types]
        if not ours:
            raise Refused(f"the OpenADR server tells no {' or '.join(self._types)}")
        found = tariff_series(ours, start, HISTORY_STEP_S, MOST_STEPS_AHEAD, self._currency(ours))
        values = found.get(self._config.series)
        if values is None:
            said = sorted({f"{entry.currency or 'no currency'} per {entry.units or 'no unit'}" for entry in ours})
            wanted = f"{self._tariffs.currency} per KWH" if self._config.series != "carbon" else "GHG or G/KWH"
            raise Refused(f"the OpenADR server tells {', '.join(self._types)} in {', '.join(said)}, wanted: {wanted}")
        if not (known := np.flatnonzero(np.isfinite(values))).size:
            raise Refused("nothing that the OpenADR server tells lasts half of a step of 5 minutes within a week")
        return values[: int(known[-1]) + 1]

    def _currency(self, tariffs: Sequence[Tariff]) -> str:
        if self._tariffs.currency:
            return self._tariffs.currency
        said = sorted({entry.currency for entry in tariffs})
        if len(said) > 1:
            raise Refused(f"the OpenADR server tells prices in {', '.join(said)}: say which in [market].currency")
        return said[0]

    def _is_known(self, now: datetime, start: datetime, values: Floats) -> bool:
        """Say whether this was said already, and lately; the step under way apart, of which the past is dropped."""
        if self._said is None:
            return False
        at, before, old = self._said
        again_s = min(AGAIN_S, self._config.stale_after_s / 2)
        gone = round((start - before) / timedelta(seconds=HISTORY_STEP_S))
        if gone < 0 or now - at >= timedelta(seconds=again_s) or not -1 < len(values) + gone - len(old) < LATER_STEPS:
            return False
        ahead, shared = int((now - start).total_seconds() // HISTORY_STEP_S) + 1, len(old) - gone
        return bool(np.array_equal(old[gone + ahead :], values[ahead:shared], equal_nan=True))


def _document(now: datetime, start: datetime, values: Floats) -> bytes:
    """Return values as a feed has them; what is not known is null."""
    row = [None if np.isnan(value) else value for value in values.tolist()]
    said = {"issued_at": now.isoformat(), "start": start.isoformat(), "step_s": HISTORY_STEP_S, "values": row}
    return json.dumps(said).encode()
