"""``python -m vppd.planning.forecast_worker``: one round of forecasts, JSON in and out, in a process of its own.

It reads the history file itself and writes the numbers into a file beside it; what it says on standard output is where they stand.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from vppd.core.forecast.outlook import MEDIAN_FRAC
from vppd.core.forecast.point import DAY_S, METHODS, Grid, persistence
from vppd.core.forecast.quantiles import Forecast, Score, forecast
from vppd.errors import VppdError
from vppd.ledger.history import EPOCH
from vppd.ledger.history_reader import HistoryReader, reading
from vppd.planning.forecast_feed import Round, SaidBefore, own_quantiles
from vppd.snapshot import Floats

Quantity = float
"""A value whose unit travels with its series."""
PERSISTENCE = "persistence"
NICE = 10
"""The control loop goes first."""
WEEKEND = 5
COLD = "less than a day of history: the last value is held, and its error is not known"
NOTHING = "nothing was measured, and nobody else says what will come"
LONG_AGO = "nothing was measured for a day: what older days say"


@dataclass(frozen=True, slots=True)
class _Wish:
    """One series to forecast."""

    name: str
    bounds: tuple[float, float]
    constant: Quantity | None
    present: Quantity | None
    chosen: str
    """The method that a recent round has found best; empty: all are to be tried."""
    feed: str
    stale_after_s: float

    @classmethod
    def of(cls, said: Mapping[str, Any], document: Mapping[str, Any]) -> _Wish:
        """Return what the daemon asks for."""
        name, lower, upper, feed = said["name"], said["lower"], said["upper"], said["feed"] or {}
        return cls(
            name=name,
            bounds=(-np.inf if lower is None else float(lower), np.inf if upper is None else float(upper)),
            constant=said["constant"],
            present=document["present"].get(name),
            chosen=document["chosen"].get(name, ""),
            feed=feed.get("name", ""),
            stale_after_s=feed.get("stale_after_s", 0.0),
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """What is expected of a series, and how it came about."""

    forecast: Forecast | None
    source: str = ""
    reason: str = ""
    filled: int = 0
    """Steps that the source does not cover and another one does."""
    instead: Forecast | None = None
    """What our own method would have said where a feed speaks."""


def answer(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return where each series stands in the file of numbers. Raises ConfigError, Unreachable or Garbled."""
    with reading(Path(document["history"])) as reader:
        whole = _round(document, reader.first_day())
        found = {said["name"]: _expect(_Wish.of(said, document), reader, whole) for said in document["series"]}
    rows = [part for one in found.values() if one.forecast for part in (one.forecast.values, _paths(one.forecast))]
    with Path(document["answer"]).open("wb") as file:
        np.save(file, np.concatenate(rows) if rows else np.zeros((0, whole.steps)))
    return {"series": [_told(name, one) for name, one in found.items()]}


def _round(document: Mapping[str, Any], first_day: datetime | None) -> Round:
    """Return the grid: whole days up to now, each of 24 h, that begin when this day began in the zone of the site.

    On a day of 23 or 25 h, and until the next such day, older days begin an hour off; days count as weekends by their noon.
    """
    step_s, zone = float(document["step_s"]), ZoneInfo(document["time_zone"])
    start = datetime.fromisoformat(document["start"])
    today = start.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)
    today = EPOCH + (today - EPOCH) // timedelta(seconds=step_s) * timedelta(seconds=step_s)
    known = (today - first_day) / timedelta(days=1) if first_day is not None else 0.0
    days = max(1, min(int(np.ceil(known)), int(document["history_days"])))
    first = today - timedelta(days=days)
    t, steps = round((start - first).total_seconds() / step_s), int(document["steps"])
    noons = (first + timedelta(days=i + 0.5) for i in range(days + 2 + round(steps * step_s / DAY_S)))
    kinds = tuple(int(noon.astimezone(zone).weekday() >= WEEKEND) for noon in noons)
    return Round(
        datetime.fromisoformat(document["now"]), first, Grid(step_s, kinds), t, steps, tuple(document["levels"])
    )


def _expect(wish: _Wish, reader: HistoryReader, whole: Round) -> _Found:
    history = reader.array(wish.name, whole.first, whole.grid.step_s, whole.t)
    own, reason = _own(history, wish, whole)
    if not wish.feed:
        return _Found(own, own.method if own else "", reason)
    said = SaidBefore(reader, wish.feed, wish.name, wish.stale_after_s, whole)
    theirs = _theirs(said, history, own, wish, whole)
    if theirs is None:
        silent = f"{_silence(said, wish, whole)}; {reason}" if reason else _silence(said, wish, whole)
        return _Found(own, own.method if own else "", silent)
    missing = ~np.isfinite(theirs.values).all(axis=0)
    if own is not None and missing.any():
        theirs = _filled(theirs, own)
        reason = (
            f"feed {wish.feed!r} does not cover all steps: {int(missing.sum())} of {whole.steps} are by {own.method}"
        )
    else:
        reason = ""
    return _Found(theirs, f"feed:{wish.feed}", reason, int(missing.sum()) if own is not None else 0, own)


def _own(history: Floats, wish: _Wish, whole: Round) -> tuple[Forecast | None, str]:
    """Return the best of our own methods by its back-test, and what is to be said of it."""
    if wish.constant is not None and (not wish.feed or np.isfinite(history).sum() < whole.grid.day):
        return _constant(wish.constant, whole), ""
    if wish.present is not None and whole.t and not np.isfinite(history[-1]):
        history = history.copy()
        history[-1] = wish.present  # the step under way stands for the last one, of which too little was measured
    known = np.isfinite(history)

    def made(method: str) -> Forecast:
        how: dict[str, Any] = {"levels": whole.levels, "bounds": wish.bounds, "trial": whole.trial}
        return forecast(history, whole.steps, whole.grid, method=method, **how)

    if known.sum() < whole.grid.day:
        return _cold(made(PERSISTENCE), persistence(history, whole.steps, whole.grid), wish, whole)
    best = made(wish.chosen if wish.chosen in METHODS else "")
    if not np.isfinite(best.values).all():
        best = _filled(best, made(PERSISTENCE))
    return best, "" if known[-whole.grid.day :].any() else LONG_AGO


def _cold(last: Forecast, point: Floats, wish: _Wish, whole: Round) -> tuple[Forecast | None, str]:
    """Return the last value held, as wide as the few errors that there are; a morning's trend is no bias."""
    if not np.isfinite(point).any():
        return None, NOTHING
    unknown = Score(np.inf, np.full(len(whole.levels), np.nan), 0)
    return replace(_moved(last, point - last.at(MEDIAN_FRAC), wish.bounds), score=unknown), COLD


def _theirs(said: SaidBefore, history: Floats, own: Forecast | None, wish: _Wish, whole: Round) -> Forecast | None:
    """Return what a feed expects with the quantiles of its own errors, or its own quantiles where they are better; None: it is silent.

    Until its errors are known, those of our own method are taken.
    """
    name = f"feed:{wish.feed}"
    found = forecast(
        history, whole.steps, whole.grid, levels=whole.levels, bounds=wish.bounds, trial=whole.trial,
        methods={name: said.method},
    )  # fmt: skip
    if not np.isfinite(found.values).any():
        return None
    point = said.method(history, whole.steps, whole.grid)
    lent = None if own is None else _moved(own, point - own.at(MEDIAN_FRAC), wish.bounds)
    if not found.score.known and lent is not None:
        found = replace(found, values=np.where(np.isfinite(lent.values), lent.values, found.values))
    if lent is not None and len(found.paths) == len(lent.paths):
        found = replace(found, paths=np.where(np.isfinite(found.paths), found.paths, lent.paths))
    return own_quantiles(said, history, found, whole)


def _moved(own: Forecast, by: Floats, bounds: tuple[float, float]) -> Forecast:
    return replace(own, values=np.clip(own.values + by, *bounds), paths=np.clip(own.paths + by, *bounds))


def _filled(found: Forecast, other: Forecast) -> Forecast:
    """Return ``found`` with what it does not know taken from the other."""
    missing = ~np.isfinite(found.values).all(axis=0)
    if not missing.any():
        return found
    values = np.where(missing, other.values, found.values)
    paths = found.paths
    if len(paths) == len(other.paths):
        paths = np.where(missing, other.paths, paths)
    return replace(found, values=values, paths=paths)


def _constant(value: float, whole: Round) -> Forecast:
    unknown = Score(np.inf, np.full(len(whole.levels), np.nan), 0)
    values = np.full((len(whole.levels), whole.steps), value)
    return Forecast("constant", whole.grid.step_s, whole.levels, values, unknown, np.zeros((0, whole.steps)))


def _paths(found: Forecast) -> Floats:
    """Return joint samples, none where nothing at all is known of past errors."""
    return found.paths if np.isfinite(found.paths).any() else found.paths[:0]


def _silence(said: SaidBefore, wish: _Wish, whole: Round) -> str:
    """Return why a feed is not used."""
    newest = said.newest
    if newest is None:
        return f"feed {wish.feed!r} has said nothing yet"
    age_s = (whole.now - newest.issued_at).total_seconds()
    if age_s > wish.stale_after_s:
        at = newest.issued_at.isoformat(timespec="seconds")
        return f"feed {wish.feed!r} is stale: what it said at {at} is more than {wish.stale_after_s:g} s old"
    return f"feed {wish.feed!r} says nothing of the time to come"


def _told(name: str, found: _Found) -> dict[str, Any]:
    said: dict[str, Any] = {"name": name, "source": found.source, "reason": found.reason, "filled": found.filled}
    if found.forecast is not None:
        said |= {
            "method": found.forecast.method,
            "rows": len(found.forecast.values),
            "paths": len(_paths(found.forecast)),
        }
        said["score"] = _score(found.forecast)
    if found.instead is not None:
        said["instead"] = {"method": found.instead.method, "score": _score(found.instead)}
    return said


def _score(found: Forecast) -> dict[str, Any]:
    score = found.score
    return {
        "pinball": score.pinball if np.isfinite(score.pinball) else None,
        "coverage": [x if x == x else None for x in score.coverage.tolist()],
        "samples": score.samples,
    }


def main(arguments: Sequence[str] = ()) -> None:
    """Answer the document on standard input."""
    with suppress(PermissionError):  # the hardened unit allows nobody to change priorities
        os.nice(NICE)
    try:
        json.dump(answer(json.load(sys.stdin)), sys.stdout, allow_nan=False)
    except VppdError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
