"""A site with forecasts, for tests of the planner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from vppd.core.forecast.outlook import Outlook
from vppd.core.forecast.quantiles import Forecast, Score
from vppd.core.state import Decision
from vppd.planning.plan.known import Moment
from vppd.snapshot import Floats, Snapshot
from vppd.testing.cycles import START, World

STEP_S = 900.0
DAY = 96


def outlook(name: str, values: Sequence[float] | Floats, start: datetime = START, step_s: float = STEP_S) -> Outlook:
    """Return a series that is known for sure."""
    row = np.asarray(values, dtype=np.float64)
    score = Score(np.inf, np.full(1, np.nan), 0)
    return Outlook(name, "test", start, start, Forecast("test", step_s, (0.5,), row[None, :], score, row[None, :]))


def outlooks(series: Mapping[str, Sequence[float] | Floats], start: datetime = START) -> dict[str, Outlook]:
    """Return forecasts by series."""
    return {name: outlook(name, values, start) for name, values in series.items()}


def flat(value: float, steps: int = 2 * DAY) -> Floats:
    """Return the same value for two days."""
    return np.full(steps, value)


def by_hour(values: Sequence[float]) -> Floats:
    """Return two days of quarters of an hour from 24 values."""
    return np.tile(np.repeat(np.asarray(values, dtype=np.float64), 4), 2)


def sunny(peak_w: float) -> Floats:
    """Return two clear days of PV, from six to six. [W]"""
    hour = (np.arange(2 * DAY) % DAY) / 4.0 + 0.125
    return np.asarray(peak_w * np.maximum(np.sin((hour - 6.0) / 12.0 * np.pi), 0.0))


def a_day(**more: Sequence[float] | Floats) -> dict[str, Outlook]:
    """Return forecasts of the two-feed site: steady load, PV on main-b, two halls whose tiers 2 and 3 may wait."""
    series: dict[str, Sequence[float] | Floats] = {
        "load/main-a": flat(150e3),
        "load/main-b": flat(150e3),
        "generation/pv-b": sunny(150e3),
        "price/import": by_hour([60e-6] * 6 + [80e-6] * 10 + [250e-6] * 4 + [60e-6] * 4),
        "price/export": flat(0.0),
    }
    for hall in ("hall-a", "hall-b"):
        series[f"compute/{hall}"] = flat(300e3)
        for tier, shed_w in ((1, 6e3), (2, 40e3), (3, 60e3)):
            series[f"compute/{hall}/tier{tier}"] = flat(shed_w)
    series |= {name.replace("__", "/").replace("_", "-"): values for name, values in more.items()}
    return outlooks(series)


def moment_of(world: World) -> Moment:
    """Return what the last cycle of a world believed; a first one is run where there was none."""
    decision: Decision = world.history[-1] if world.history else world.step(3)
    return Moment(Snapshot(world.at, world.mono_s, world.readings, health=world.health), decision)


def quarter(at: datetime) -> datetime:
    """Return the beginning of the quarter of an hour."""
    return at.astimezone(UTC).replace(minute=at.minute // 15 * 15, second=0, microsecond=0)
