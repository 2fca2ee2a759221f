"""What our own methods expect of a series, however little is known of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vppd.core.forecast.outlook import MEDIAN_FRAC
from vppd.core.forecast.point import METHODS, persistence
from vppd.core.forecast.quantiles import Forecast, Score, forecast
from vppd.planning.forecasts.round import Round
from vppd.snapshot import Floats

Quantity = float
"""A value whose unit travels with its series."""
PERSISTENCE = "persistence"
COLD = "less than a day of history: the last value is held, and its error is not known"
NOTHING = "nothing was measured, and nobody else says what will come"
LONG_AGO = "nothing was measured for a day: what older days say"


@dataclass(frozen=True, slots=True)
class FeedTerms:
    """What a series has agreed with one of its feeds."""

    name: str
    stale_after_s: float
    trusted: bool
    """Speaks while it is fresh, however it did."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One series to forecast."""

    name: str
    bounds: tuple[float, float]
    constant: Quantity | None
    present: Quantity | None
    chosen: str
    """The method that a recent round has found best; empty: all are to be tried."""
    feeds: tuple[FeedTerms, ...]
    """Those who say something of it, in the order of preference."""
    spoke: str
    """The source in force, empty for none."""
    sunny: bool
    """It is what PV could give."""

    @classmethod
    def of(cls, said: Mapping[str, Any], document: Mapping[str, Any]) -> Wish:
        """Return what the daemon asks for."""
        name, lower, upper = said["name"], said["lower"], said["upper"]
        return cls(
            name=name,
            bounds=(-np.inf if lower is None else float(lower), np.inf if upper is None else float(upper)),
            constant=said["constant"],
            present=document["present"].get(name),
            chosen=document["chosen"].get(name, ""),
            feeds=tuple(FeedTerms(feed["name"], feed["stale_after_s"], feed["trusted"]) for feed in said["feeds"]),
            spoke=document["spoke"].get(name, ""),
            sunny=said["sunny"],
        )


def own_forecast(history: Floats, wish: Wish, whole: Round) -> tuple[Forecast | None, str]:
    """Return the best of our own methods by its back-test, and what is to be said of it."""
    if wish.constant is not None and (not wish.feeds or np.isfinite(history).sum() < whole.grid.day):
        return _constant(wish.constant, whole), ""
    if wish.present is not None and whole.t and not np.isfinite(history[-1]):
        history = history.copy()
        history[-1] = wish.present  # the step under way stands for the last one, of which too little was measured
    known, grid = np.isfinite(history), whole.grid_of(wish.name, sunny=wish.sunny)

    def made(method: str) -> Forecast:
        how: dict[str, Any] = {"levels": whole.levels, "bounds": wish.bounds, "trial": whole.trial}
        return forecast(history, whole.steps, grid, method=method, **how)

    if known.sum() < grid.day:
        point = persistence(history, np.array([whole.t]), whole.steps, grid)[0]
        return _cold(made(PERSISTENCE), point, wish, whole)
    best = made(wish.chosen if wish.chosen in METHODS else "")
    if not np.isfinite(best.values).all():
        best = filled(best, made(PERSISTENCE))
    return best, "" if known[-grid.day :].any() else LONG_AGO


def moved(own: Forecast, by: Floats, bounds: tuple[float, float]) -> Forecast:
    """Return a forecast as wide as ``own``, so much higher."""
    return replace(own, values=np.clip(own.values + by, *bounds), paths=np.clip(own.paths + by, *bounds))


def filled(found: Forecast, other: Forecast) -> Forecast:
    """Return ``found`` with what it does not know taken from the other."""
    missing = ~np.isfinite(found.values).all(axis=0)
    if not missing.any():
        return found
    values = np.where(missing, other.values, found.values)
    paths = found.paths
    if len(paths) == len(other.paths):
        paths = np.where(missing, other.paths, paths)
    return replace(found, values=values, paths=paths)


def _cold(last: Forecast, point: Floats, wish: Wish, whole: Round) -> tuple[Forecast | None, str]:
    """Return the last value held, as wide as the few errors that there are; a morning's trend is no bias."""
    if not np.isfinite(point).any():
        return None, NOTHING
    return replace(moved(last, point - last.at(MEDIAN_FRAC), wish.bounds), score=_unknown(whole)), COLD


def _constant(value: float, whole: Round) -> Forecast:
    values = np.full((len(whole.levels), whole.steps), value)
    return Forecast("constant", whole.grid.step_s, whole.levels, values, _unknown(whole), np.zeros((0, whole.steps)))


def _unknown(whole: Round) -> Score:
    return Score(np.inf, np.full(len(whole.levels), np.nan), 0)
