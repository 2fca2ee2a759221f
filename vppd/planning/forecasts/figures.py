"""Forecasts as Prometheus reads them: looked up at the scrape, from what is there anyway."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Protocol

from vppd.core.forecast.outlook import Outlook
from vppd.runtime.figures import Figure, Row, one

MOST_SERIES = 200
"""So many series are told one by one, prices first: a scrape is not to hold up the control loop."""
COVERED_FRAC = (0.1, 0.5, 0.9)
"""The levels whose coverage is told. [0-1]"""
SERIES = ("series",)


class Foreseeing(Protocol):
    """The forecaster, as far as it is counted."""

    @property
    def outlook(self) -> Mapping[str, Outlook]:
        """The newest forecasts by series."""
        ...

    @property
    def fault(self) -> str:
        """Why the last round gave nothing; empty when it did."""
        ...


@dataclass(frozen=True, slots=True)
class _Forecasts:
    """Reads what the forecaster has."""

    forecaster: Foreseeing
    now: Callable[[], datetime]

    def ages(self) -> Iterator[Row]:
        at = self.now()
        return (((name,), (at - found.made_at).total_seconds()) for name, found in self._each())

    def sources(self) -> Iterator[Row]:
        return (((name, found.source), 1.0) for name, found in self._each())

    def covered(self) -> Iterator[Row]:
        for name, found in self._each():
            forecast = found.forecast
            for level_frac, share in zip(forecast.levels, forecast.score.coverage.tolist(), strict=True):
                if level_frac in COVERED_FRAC:
                    yield (name, f"{level_frac:g}"), share

    def lost(self, *kinds: str) -> Callable[[], Iterator[Row]]:
        """Return what reads the scores of series whose names begin so, in the units of those."""
        return lambda: (
            ((name,), found.forecast.score.pinball)
            for name, found in self._each()
            if name.startswith(kinds) and found.forecast.score.known
        )

    def _each(self) -> Iterator[tuple[str, Outlook]]:
        return islice(self.forecaster.outlook.items(), MOST_SERIES)


def forecast_figures(forecaster: Foreseeing, now: Callable[[], datetime]) -> tuple[Figure, ...]:
    """Return how old and how good each forecast is, and where it comes from."""
    told, lost = _Forecasts(forecaster, now), "Back-tested pinball loss of a forecast of"
    power = told.lost("load/", "generation/", "compute/", "contract/")
    at_or_below = "How often the truth was at or below a level; the level itself is perfect."
    return (
        one("vppd_forecast_series", "Series of which there is a forecast.", lambda: len(forecaster.outlook)),
        one("vppd_forecast_failing", "Whether the newest round gave no forecasts.", lambda: bool(forecaster.fault)),
        Figure("vppd_forecast_age_seconds", "Time since a forecast was made.", SERIES, told.ages),
        Figure("vppd_forecast_source_info", "Where a forecast comes from.", ("series", "source"), told.sources),
        Figure("vppd_forecast_pinball_watts", f"{lost} power.", SERIES, power),
        Figure("vppd_forecast_pinball_currency_per_watthour", f"{lost} a price.", SERIES, told.lost("price/")),
        Figure("vppd_forecast_pinball_grams_per_watthour", f"{lost} carbon intensity.", SERIES, told.lost("carbon")),
        Figure("vppd_forecast_covered_ratio", at_or_below, ("series", "level"), told.covered),
    )
