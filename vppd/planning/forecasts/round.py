"""The grid that all series of a round of forecasts share, by the clock of the site or by the sun. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from vppd.core.forecast.point import Grid
from vppd.core.forecast.quantiles import Trial
from vppd.ledger.history import EPOCH

WEEKEND = 5
BY_THE_SUN = ("generation/", "contract/")
"""Series that know neither the clock nor weekends."""


@dataclass(frozen=True, slots=True)
class Round:
    """The steps that all series of one round share: step ``t`` is under way."""

    now: datetime
    first: datetime
    """Beginning of the history."""
    grid: Grid
    """Days and hours by the clock of the site."""
    t: int
    """Steps of the history."""
    steps: int
    """Steps ahead."""
    levels: tuple[float, ...]
    trial: Trial = field(default_factory=Trial)

    def grid_of(self, series: str, *, sunny: bool = False) -> Grid:
        """Return the days and hours that a series follows: those of the clock, or of the sun, to which all days are alike.

        ``sunny``: it is the sun's light itself, and nothing at night.
        """
        return Grid(self.grid.step_s, (0,), sunny=sunny) if series.startswith(BY_THE_SUN) else self.grid

    def at(self, origin: int) -> datetime:
        """Return the moment of an origin; that of the newest is now."""
        return self.now if origin >= self.t else self.start_of(origin)

    def start_of(self, origin: int) -> datetime:
        """Return the beginning of a step of the history, or of one ahead."""
        return self.first + timedelta(seconds=origin * self.grid.step_s)


def round_of(document: Mapping[str, Any], first_day: datetime | None) -> Round:
    """Return the steps from the beginning of a day in the zone of the site on, the first on which anything was measured.

    At least yesterday is among them, and no more days than the history keeps.
    """
    step_s, zone = float(document["step_s"]), ZoneInfo(document["time_zone"])
    start = datetime.fromisoformat(document["start"])
    today = start.astimezone(zone).date()
    known = (today - first_day.astimezone(zone).date()).days if first_day is not None else 0
    day = today - timedelta(days=max(1, min(known, int(document["history_days"]))))
    first = _midnight(day, zone, step_s)
    t, steps = round((start - first).total_seconds() / step_s), int(document["steps"])
    days = (start + timedelta(seconds=steps * step_s) - first).days + 2
    kinds = tuple(int((day + timedelta(days=i)).weekday() >= WEEKEND) for i in range(days))
    grid = Grid(step_s, kinds, _changes(first, zone, step_s, days))
    return Round(datetime.fromisoformat(document["now"]), first, grid, t, steps, tuple(document["levels"]))


def _midnight(day: date, zone: ZoneInfo, step_s: float) -> datetime:
    """Return the beginning of the step in which a day begins."""
    at = datetime.combine(day, time(), zone).astimezone(UTC)
    return at - (at - EPOCH) % timedelta(seconds=step_s)


def _changes(first: datetime, zone: ZoneInfo, step_s: float, days: int) -> tuple[tuple[int, int], ...]:
    """Return by how many steps the clock is ahead of that at ``first``, from which steps on, up to so many days later."""

    def ahead(step: int) -> int:
        moments = (first + timedelta(seconds=step * step_s), first)
        offsets = [at.astimezone(zone).utcoffset() or timedelta() for at in moments]
        return int(np.round((offsets[0] - offsets[1]).total_seconds() / step_s))

    found, day = [], Grid(step_s).day
    for begin in range(0, days * day, day):
        low, high = begin, begin + day
        if ahead(low) != ahead(high):
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if ahead(middle) == ahead(begin) else (low, middle)
            found.append((high, ahead(high)))
    return tuple(found)
