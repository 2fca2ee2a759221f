"""How often forecasts hold what their levels say, on weeks that they have not seen; and how they get over a change of the clock.

Run: ``python -m tests.bench.bench_calibration [METHOD]``. One JSON line per profile: coverage of P10, P25, P50, P75 and P90 where
there was anything to foresee (the sun at night is not), the loss, and the error around changes of the clock.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from tests.bench.p90_profiles import DAY, DAYS, STEP_S, SYNTHETIC
from tests.planning import past
from vppd.core.forecast.point import Grid
from vppd.core.forecast.quantiles import LEVELS, forecast, pinball
from vppd.planning.forecasts.worker import answer
from vppd.snapshot import Floats

FIRST_DAY = 28
EVERY = DAY + DAY // 3 + 5
"""Origins are so many steps apart, so that all times of day come up."""
AHEAD = 2 * DAY
LEAST_FRAC = 0.01
"""What is less than this part of the most is not there to be foreseen. [0-1]"""
ZONE = ZoneInfo("Europe/Helsinki")
CHANGES = {"spring": datetime(2026, 3, 29, tzinfo=ZONE), "autumn": datetime(2026, 10, 25, tzinfo=ZONE)}
WEEKS = range(-3, 4)


GRIDS = {"PV": Grid(STEP_S, (0,), sunny=True)}
"""Of profiles that do not follow the clock."""


def coverage(series: Floats, method: str, grid: Grid) -> dict[str, Any]:
    """Return coverage and loss over all origins from the fifth week on, and in how much time."""
    found, truth, took_s = [], [], 0.0
    for origin in range(FIRST_DAY * DAY, DAYS * DAY - AHEAD, EVERY):
        began_s = perf_counter()
        said = forecast(series[:origin], AHEAD, grid, method=method, bounds=(0.0, np.inf))
        took_s += perf_counter() - began_s
        found.append(said.values)
        truth.append(series[origin : origin + AHEAD])
    values, real = np.concatenate(found, axis=1), np.concatenate(truth)
    there = (real > LEAST_FRAC * np.nanmax(series)) & np.isfinite(values).all(axis=0)
    covered = (real[there] <= values[:, there]).mean(axis=1)
    figures = {f"p{round(100 * level)}_frac": round(float(x), 3) for level, x in zip(LEVELS, covered, strict=True)}
    loss = pinball(LEVELS, values[:, there], real[there]) / float(np.nanmean(series))
    worst = float(np.max(np.abs(covered - np.asarray(LEVELS))))
    return figures | {
        "worst_off_frac": round(worst, 3),
        "loss_frac": round(loss, 5),
        "forecast_ms": round(1e3 * took_s / len(found), 1),
    }


def office_hours(first: datetime, days: int, seed: int = 1) -> Floats:
    """Return 5-minute means of a load that follows office hours of ``ZONE``, from a midnight (UTC) on. [W]"""
    rng = np.random.default_rng(seed)
    steps = days * past.STEPS_A_DAY
    local = [(first + timedelta(minutes=5 * i)).astimezone(ZONE) for i in range(steps)]
    hour = np.array([at.hour + at.minute / 60.0 for at in local])
    working = np.array([at.weekday() < 5 for at in local]) & (hour >= 8.0) & (hour < 17.0)
    return np.asarray(np.where(working, 100e3, 40e3) * (1.0 + rng.normal(0.0, 0.02, steps)))


def week_errors(folder: Path, change: datetime) -> Iterator[float]:
    """Yield the mean error of a day ahead in each of the weeks around a change of the clock, made every six hours. [W]"""
    first = (change - timedelta(days=50)).astimezone(UTC).replace(hour=0, minute=0)
    load = office_hours(first, 84)
    for week in WEEKS:
        errors_w = []
        for quarter in range(28):
            now = (change + timedelta(days=1)).astimezone(UTC) + timedelta(days=7 * week, hours=6 * quarter)
            known = round((now - first).total_seconds() / 300)
            path = folder / f"{now:%m%d%H}.db"
            past.write(path, first, {"load/a": load[:known]})
            answer(_document(path, now))
            median = np.load(folder / "forecasts.npy")[2]
            errors_w.append(np.abs(median - load[known : known + 288].reshape(-1, 3).mean(axis=1)).mean())
            path.unlink()
        yield float(np.mean(errors_w))


def _document(path: Path, now: datetime) -> dict[str, Any]:
    series: dict[str, Any] = {
        "name": "load/a",
        "lower": None,
        "upper": None,
        "constant": None,
        "feeds": [],
        "sunny": False,
    }
    return {
        "history": str(path), "answer": str(path.with_name("forecasts.npy")), "now": now.isoformat(), "start": now.isoformat(),
        "step_s": STEP_S, "steps": DAY, "levels": list(LEVELS), "time_zone": str(ZONE), "history_days": 100.0,
        "series": [series], "present": {}, "chosen": {}, "spoke": {},
    }  # fmt: skip


def _print(case: str, **figures: float | str) -> None:
    print(json.dumps({"bench": "calibration", "case": case} | figures), flush=True)


def main(method: str = "") -> None:
    """Print a line per profile, then one per change of the clock."""
    for name, make in SYNTHETIC.items():
        _print(
            name,
            method=method or "best",
            **coverage(make(np.random.default_rng(3))[0], method, GRIDS.get(name, Grid(STEP_S))),
        )
    with tempfile.TemporaryDirectory() as folder:
        for name, change in CHANGES.items():
            weeks = {
                f"week_{week:+d}_w": round(w) for week, w in zip(WEEKS, week_errors(Path(folder), change), strict=True)
            }
            _print(f"clock change in {name}", **weeks)


if __name__ == "__main__":
    main(*sys.argv[1:])
