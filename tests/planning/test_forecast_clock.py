"""Days by the clock on the wall: changes of the clock, and those who do not mind them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from vppd.core.forecast.point import METHODS, Grid
from vppd.core.forecast.quantiles import forecast
from vppd.planning.forecasts.round import Round, round_of
from vppd.snapshot import Floats

HELSINKI = ZoneInfo("Europe/Helsinki")
CHANGES = [datetime(2026, 3, 29, tzinfo=HELSINKI), datetime(2026, 10, 25, tzinfo=HELSINKI)]
HOUR = timedelta(hours=1)


def whole(
    now: datetime, first_day: datetime, step_s: float = 3600.0, zone: str = "Europe/Helsinki", **more: Any
) -> Round:
    """Return the grid of a round at the beginning of a step."""
    document = {
        "now": now.isoformat(), "start": now.isoformat(), "step_s": step_s, "steps": 24, "levels": [0.1, 0.5, 0.9],
        "time_zone": zone, "history_days": 100.0,
    }  # fmt: skip
    return round_of(document | more, first_day)


def local(found: Round, zone: ZoneInfo = HELSINKI) -> list[datetime]:
    """Return what the clock shows at every step of a round."""
    return [found.start_of(i).astimezone(zone) for i in range(found.t + found.steps)]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("hours", [-30, -1, 2, 3, 4, 5, 30, 400])
def test_steps_are_those_of_the_clock(change: datetime, hours: int) -> None:
    """Before, during and after a change every step stands at its hour of its date, and weekends are weekends."""
    now = change.astimezone(UTC) + hours * HOUR
    found = whole(now, now - timedelta(days=40))
    assert found.start_of(found.t) == now
    shown = local(found)
    assert shown[0].hour == 0
    wall = found.grid.wall(0, len(shown)).tolist()
    assert [step % 24 for step in wall] == [at.hour for at in shown]
    assert [step // 24 for step in wall] == [(at.date() - shown[0].date()).days for at in shown]
    kinds = found.grid.kinds(0, len(shown)).tolist()
    assert kinds == [int(at.weekday() >= 5) for at in shown]


@pytest.mark.parametrize(
    ("zone", "step_s"),
    [("Asia/Kolkata", 3600.0), ("Australia/Lord_Howe", 900.0), ("Africa/Cairo", 900.0), ("America/Santiago", 300.0), ("UTC", 900.0)],
)  # fmt: skip
def test_odd_clocks_are_clocks(zone: str, step_s: float) -> None:
    """Half hours, a clock that moves by half an hour, and days that have no midnight: a time of day keeps its place all year."""
    now = datetime(2026, 11, 20, tzinfo=UTC)
    found = whole(now, now - timedelta(days=330), step_s, zone, history_days=800.0)
    shown = local(found, ZoneInfo(zone))
    slots = found.grid.wall(0, len(shown)) % found.grid.day
    minutes = np.array([at.hour * 60 + at.minute for at in shown])
    apart = np.unique((slots * step_s / 60.0 - minutes) % 1440.0)
    assert len(apart) == 1
    assert len(found.grid.clock) == (0 if zone in ("Asia/Kolkata", "UTC") else 2)


def test_the_sun_has_no_clock() -> None:
    """PV, wind and contracts follow days of 24 h without weekends; load, compute, prices and carbon the clock."""
    found = whole(CHANGES[0].astimezone(UTC) + 40 * HOUR, datetime(2026, 3, 1, tzinfo=UTC))
    assert len(found.grid.clock) == 1
    for series in ("load/a", "compute/a/tier2", "price/import", "carbon"):
        assert found.grid_of(series) is found.grid
    for series in ("generation/pv", "contract/wind"):
        assert found.grid_of(series) == Grid(3600.0, (0,))
    assert found.grid_of("generation/pv", sunny=True) == Grid(3600.0, (0,), sunny=True)


@pytest.mark.parametrize(
    ("first_day", "limit", "days"), [(None, 100.0, 1), ("2026-03-27", 100.0, 2), ("2026-01-01", 100.0, 87), ("2020-01-01", 30.0, 30)]
)  # fmt: skip
def test_a_history_begins_with_a_day(first_day: str | None, limit: float, days: int) -> None:
    """Yesterday is always in it, then as much as there is, and no more than is kept."""
    began = datetime.fromisoformat(first_day).replace(tzinfo=UTC) if first_day else None
    document = {
        "now": "2026-03-29T12:00:00+00:00", "start": "2026-03-29T12:00:00+00:00", "step_s": 900.0, "steps": 4,
        "levels": [0.5], "time_zone": "Europe/Helsinki", "history_days": limit,
    }  # fmt: skip
    first = round_of(document, began).first.astimezone(HELSINKI)
    assert first.hour == 0
    assert (datetime(2026, 3, 29, 12, tzinfo=HELSINKI) - first).days == days


def office(first: datetime, hours: int, seed: int) -> Floats:
    """Return a load that works from eight to five on the clock of Helsinki."""
    rng = np.random.default_rng(seed)
    shown = [(first + i * HOUR).astimezone(HELSINKI) for i in range(hours)]
    working = np.array([at.weekday() < 5 and 8 <= at.hour < 17 for at in shown])
    return np.asarray(np.where(working, 100e3, 40e3) * (1.0 + rng.normal(0.0, 0.02, hours)))


def errors(change: datetime, week: int, *, by_clock: bool) -> Iterator[float]:
    """Yield the errors of a day ahead, made four times a day in one week before or after a change. [W]"""
    began = (change - timedelta(days=45)).astimezone(UTC)
    load = office(began - 24 * HOUR, 24 * 80, 3)
    for quarter in range(28):
        now = (change + timedelta(days=1)).astimezone(UTC) + timedelta(days=7 * week, hours=6 * quarter)
        found = whole(now, began)
        known = round((now - (began - 24 * HOUR)) / HOUR)
        history = load[known - found.t : known]
        grid = found.grid if by_clock else Grid(3600.0, found.grid.kind_of_day)
        said = forecast(history, 24, grid, method="seasonal").at(0.5)
        yield float(np.abs(said - load[known : known + 24]).mean())


@pytest.mark.parametrize("change", CHANGES)
def test_office_hours_are_met_in_the_week_after_a_change(change: datetime) -> None:
    """The error in the week after is that of any week; by days of 24 h it would be several times as much."""
    usual_w = np.mean([*errors(change, -2, by_clock=True), *errors(change, 2, by_clock=True)])
    after_w = np.mean(list(errors(change, 0, by_clock=True)))
    assert after_w < 1.2 * usual_w
    assert np.mean(list(errors(change, 0, by_clock=False))) > 3.0 * usual_w


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", CHANGES)
def test_no_origin_sees_what_comes_after_it(method: str, change: datetime) -> None:
    """Asked for many origins at once a method says what it says at each alone, around a change of the clock and over gaps too."""
    now = change.astimezone(UTC) + 30 * HOUR
    found = whole(now, now - timedelta(days=9), 1800.0)
    history = np.random.default_rng(5).normal(size=found.t)
    history[::7] = np.nan
    history[40:90] = np.nan
    origins = np.arange(found.t - 70, found.t + 1)
    together = METHODS[method](history, origins, 48, found.grid)
    for row, origin in zip(together, origins.tolist(), strict=True):
        np.testing.assert_array_equal(row, METHODS[method](history[:origin], np.array([origin]), 48, found.grid)[0])
