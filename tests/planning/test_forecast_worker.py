"""One round of forecasts: our own methods, what feeds said, and honest words where neither knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.planning import past
from vppd.ledger.history import History, Issue, open_history
from vppd.planning.forecasts.feed_record import at_levels
from vppd.planning.forecasts.own import COLD, LONG_AGO, NOTHING
from vppd.planning.forecasts.worker import answer, main
from vppd.snapshot import Floats

START = datetime(2026, 3, 2, tzinfo=UTC)
HOUR_S = 3600.0
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
LOAD, PV, PRICE = "load/a", "generation/pv", "price/import"
PER_HOUR = 12


def after(hours: float) -> datetime:
    """Return a moment so many hours after the history's beginning."""
    return START + timedelta(hours=hours)


def document(path: Path, now: datetime, *series: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return what the daemon would ask at ``now``: hours, a day ahead."""
    blank: dict[str, Any] = {"lower": None, "upper": None, "constant": None, "feeds": [], "sunny": False}
    return {
        "history": str(path),
        "answer": str(path.with_name("forecasts.npy")),
        "now": now.isoformat(),
        "start": now.replace(minute=0, second=0, microsecond=0).isoformat(),
        "step_s": HOUR_S,
        "steps": 24,
        "levels": list(LEVELS),
        "time_zone": "UTC",
        "history_days": 100.0,
        "series": [blank | dict(one) for one in series],
        "present": {},
        "chosen": {},
        "spoke": {},
    } | more


def made(path: Path, now: datetime, one: Mapping[str, Any], **more: Any) -> tuple[dict[str, Any], Floats, Floats]:
    """Return what is said of one series, its quantiles and its paths."""
    said = answer(document(path, now, one, **more))["series"][0]
    numbers = np.load(path.with_name("forecasts.npy"))
    rows = said.get("rows", 0)
    assert len(numbers) == rows + said.get("paths", 0)
    return said, numbers[:rows], numbers[rows:]


@pytest.fixture(scope="module")
def weeks() -> dict[str, Floats]:
    """Four weeks of a load and of the sun, and a day more that is not known yet."""
    steps = 29 * 288
    return {LOAD: past.busy(START, steps, 100e3, 1), PV: past.sunny(START, steps, 50e3, 2)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A history file that does not exist yet."""
    return tmp_path / "history.db"


NOW = after(28 * 24 - 14)
"""Ten in the morning of the 28th day."""


def write(path: Path, series: Mapping[str, Floats], until: datetime = NOW, since: datetime = START) -> None:
    """Write what was measured between two moments."""
    first, end = (round((at - START).total_seconds() / 300) for at in (since, until))
    shown = {name: np.concatenate([np.full(first, np.nan), values[first:end]]) for name, values in series.items()}
    past.write(path, START, shown)


def hourly(values: Floats, first: datetime, hours: int) -> Floats:
    """Return the true hours from a moment on."""
    i = round((first - START).total_seconds() / 300)
    return np.asarray(values[i : i + hours * PER_HOUR].reshape(hours, PER_HOUR).mean(axis=1))


def test_four_weeks_give_quantiles_with_a_known_error(path: Path, weeks: dict[str, Floats]) -> None:
    """The best method speaks, its quantiles hold the truth of the next day, and its score is that of the back-test."""
    write(path, weeks)
    said, values, paths = made(path, NOW, {"name": LOAD})
    truth = hourly(weeks[LOAD], NOW, 24)
    assert said["source"] in {"seasonal", "similar-day"}
    assert (said["reason"], said["filled"]) == ("", 0)
    assert said["score"]["samples"] > 500
    assert 0.0 < said["score"]["pinball"] < 0.05 * truth.mean()
    assert (np.diff(values, axis=0) >= 0.0).all()
    assert ((values[0] <= truth) & (truth <= values[-1])).mean() > 0.5
    assert np.abs(values[2] / truth - 1.0).mean() < 0.08
    assert len(paths) > 15


def test_bounds_hold_for_quantiles_and_paths(path: Path, weeks: dict[str, Floats]) -> None:
    """The sun does not shine at night, and no plant gives more than its nameplate."""
    write(path, weeks)
    _, values, paths = made(path, NOW, {"name": PV, "sunny": True, "lower": 0.0, "upper": 50e3})
    for rows in (values, paths):
        assert np.nanmin(rows) == 0.0
        assert np.nanmax(rows) <= 50e3
    assert values[:, 12] == pytest.approx(0.0)  # ten at night
    assert values[0, 2] < 0.8 * values[-1, 2]


def test_rows_of_paths_are_the_same_moments(path: Path, weeks: dict[str, Floats]) -> None:
    """A shock that hit two series at once stands in the same rows of both: their sum is a joint sample."""
    shock = np.zeros(29 * 288)
    began = round((NOW - timedelta(days=5) - START).total_seconds() / 300)
    shock[began : began + 36] = 1.0
    write(path, {LOAD: weeks[LOAD] + 1e6 * shock, PV: weeks[PV] + 1e6 * shock})
    asked = document(path, NOW, {"name": LOAD}, {"name": PV, "sunny": True})
    said = answer(asked)["series"]
    numbers = np.load(path.with_name("forecasts.npy"))
    assert said[0]["paths"] == said[1]["paths"]
    rows = said[0]["paths"]
    load, sun = numbers[5 : 5 + rows], numbers[10 + rows :]
    hit = load.max(axis=1) > 0.6e6
    assert 1 <= hit.sum() <= 6
    np.testing.assert_array_equal(hit, sun.max(axis=1) > 0.6e6)


def test_a_method_chosen_before_is_not_chosen_again(path: Path, weeks: dict[str, Floats]) -> None:
    """The daemon may say which method to take; one that does not exist is no reason to fail."""
    write(path, weeks)
    assert made(path, NOW, {"name": LOAD}, chosen={LOAD: "persistence"})[0]["source"] == "persistence"
    assert made(path, NOW, {"name": LOAD}, chosen={LOAD: "crystal-ball"})[0]["source"] == "seasonal"


def test_less_than_a_day_is_persistence_without_a_score(path: Path, weeks: dict[str, Floats]) -> None:
    """The last value is held, nobody claims to know its error, and the reason says so."""
    write(path, weeks, since=NOW - timedelta(hours=5))
    said, values, _ = made(path, NOW, {"name": LOAD})
    assert (said["source"], said["reason"]) == ("persistence", COLD)
    assert said["score"] == {"pinball": None, "coverage": [None] * 5, "samples": 0}
    assert values[2] == pytest.approx(hourly(weeks[LOAD], NOW - timedelta(hours=1), 1)[0])


def test_the_first_minute_is_better_than_nothing(path: Path) -> None:
    """Right after the first start what is measured now is held; what is not measured is left out with a reason."""
    write(path, {})
    said, values, paths = made(path, NOW, {"name": LOAD}, present={LOAD: 42e3})
    assert (said["source"], said["reason"]) == ("persistence", COLD)
    assert values == pytest.approx(42e3)
    assert not len(paths)
    said, values, _ = made(path, NOW, {"name": LOAD})
    assert (said["source"], said["reason"], len(values)) == ("", NOTHING, 0)


def test_after_an_outage_older_days_speak(path: Path, weeks: dict[str, Floats]) -> None:
    """Two days without a measurement leave the profile, and it is said."""
    write(path, weeks, until=NOW - timedelta(days=2))
    said, values, _ = made(path, NOW, {"name": LOAD})
    assert said["reason"] == LONG_AGO
    assert np.isfinite(values).all()
    assert np.abs(values[2] / hourly(weeks[LOAD], NOW, 24) - 1.0).mean() < 0.15


def test_a_constant_price_is_constant(path: Path) -> None:
    """Where nobody says anything the configured price holds at every level, without a score."""
    write(path, {})
    said, values, paths = made(path, NOW, {"name": PRICE, "constant": 8e-5})
    assert (said["source"], said["reason"], len(paths)) == ("constant", "", 0)
    assert (values == 8e-5).all()
    assert said["score"]["samples"] == 0


FEED = {"name": "weather", "stale_after_s": 12 * HOUR_S, "trusted": False}


def issue(at: datetime, values: Floats, levels: tuple[float, ...] = (), start: datetime | None = None) -> Issue:
    """Return hours that the feed says at ``at``, from that hour on."""
    return Issue("weather", PV, at, start or at, HOUR_S, levels, np.atleast_2d(values))


async def foretell(path: Path, truth: Floats, noise: float, days: int = 21, levels: tuple[float, ...] = ()) -> None:
    """Let a feed have said every two hours what will come for 30 hours, wrong by a factor that changes from day to day."""
    rng = np.random.default_rng(5)
    async with open_history(path) as history:
        for k in range(-12 * days, 1):
            at = NOW + timedelta(hours=2 * k)
            factor = 1.0 + noise * rng.normal(size=(1, 1))
            row = hourly(truth, at, min(30, 29 * 24 - round((at - START).total_seconds() / 3600)))
            spread = np.linspace(-0.01, 0.01, len(levels))[:, None] if levels else 0.0
            history.issue(issue(at, np.maximum(row * (factor + spread), 0.0), levels))
            if k % 100 == 0:
                await history.flush()


async def test_a_good_feed_speaks_and_is_scored_by_what_came(path: Path, weeks: dict[str, Floats]) -> None:
    """Its error is that of what it said before each hour; our own method stands beside it for comparison."""
    write(path, weeks)
    await foretell(path, weeks[PV], 0.05)
    said, values, paths = made(path, NOW, {"name": PV, "sunny": True, "lower": 0.0, "upper": 50e3, "feeds": [FEED]})
    assert (said["source"], said["reason"], said["filled"]) == ("feed:weather", "", 0)
    assert said["score"]["samples"] > 500
    assert said["score"]["pinball"] < 0.5 * said["instead"]["score"]["pinball"]
    truth = hourly(weeks[PV], NOW, 24)
    sun = truth > 1e3
    assert ((values[0] <= truth * 1.001) & (truth <= values[-1] * 1.001))[sun].mean() > 0.6
    assert len(paths) > 15
    assert np.nanstd(paths[:, 2]) > 0.0


async def test_a_feed_too_sure_of_itself_is_widened_by_its_own_errors(path: Path, weeks: dict[str, Floats]) -> None:
    """Quantiles that its past errors contradict are not taken over; those of its errors are, around its median."""
    write(path, weeks)
    await foretell(path, weeks[PV], 0.2, levels=(0.1, 0.5, 0.9))
    said, values, _ = made(path, NOW, {"name": PV, "sunny": True, "lower": 0.0, "upper": 50e3, "feeds": [FEED]})
    assert said["source"] == "feed:weather"
    noon = 2
    assert values[-1, noon] / values[0, noon] > 1.2


async def test_a_new_feed_borrows_our_own_errors(path: Path, weeks: dict[str, Floats]) -> None:
    """Until it has a record, one value becomes quantiles as wide as ours, and the score stays unknown."""
    write(path, weeks)
    async with open_history(path) as history:
        history.issue(issue(NOW, np.full(24, 20e3)))
    said, values, paths = made(path, NOW, {"name": PV, "sunny": True, "lower": 0.0, "upper": 50e3, "feeds": [FEED]})
    assert said["source"] == "feed:weather"
    assert said["score"]["samples"] == 0
    assert values[2] == pytest.approx(20e3)
    assert values[-1, 2] - values[0, 2] > 1e3
    assert np.isfinite(paths).mean() > 0.5


async def test_the_quantiles_of_a_new_feed_are_its_own(path: Path, weeks: dict[str, Floats]) -> None:
    """Without any record there is no reason to doubt them; levels in between are interpolated."""
    write(path, weeks)
    async with open_history(path) as history:
        history.issue(issue(NOW, np.array([[1e3] * 24, [2e3] * 24, [4e3] * 24]), (0.1, 0.5, 0.9)))
    _, values, _ = made(path, NOW, {"name": PV, "sunny": True, "lower": 0.0, "feeds": [FEED]})
    assert values[:, 5] == pytest.approx([1e3, 1.375e3, 2e3, 3.25e3, 4e3])


async def test_beyond_its_end_a_feed_is_continued(path: Path, weeks: dict[str, Floats]) -> None:
    """What it does not cover is ours, and it is said how much that is."""
    write(path, weeks)
    async with open_history(path) as history:
        history.issue(issue(NOW, np.full(10, 20e3)))
    said, values, paths = made(path, NOW, {"name": PV, "sunny": True, "lower": 0.0, "upper": 50e3, "feeds": [FEED]})
    assert (said["source"], said["filled"]) == ("feed:weather", 14)
    assert "does not cover all steps: 14 of 24 are by" in said["reason"]
    assert np.isfinite(values).all()
    assert values[:, 12] == pytest.approx(0.0)
    assert np.isfinite(paths[:, 12:]).any()


@pytest.mark.parametrize(
    ("issued_h", "start_h", "complaint"),
    [
        (-13.0, 0.0, "is stale: what it said at"),
        (-1.0, -30.0, "says nothing of the time to come"),
        (1.0, 0.0, "has said nothing yet"),
    ],
)
async def test_a_silent_feed_gives_way_and_it_is_said(
    path: Path, weeks: dict[str, Floats], issued_h: float, start_h: float, complaint: str
) -> None:
    """Stale, run out or never heard: our own method takes over, with the reason; what is said later is not known yet."""
    write(path, weeks)
    async with open_history(path) as history:
        start = NOW + timedelta(hours=start_h)
        history.issue(issue(NOW + timedelta(hours=issued_h), np.full(24, 20e3), start=start))
    said, values, _ = made(path, NOW, {"name": PV, "sunny": True, "lower": 0.0, "feeds": [FEED]})
    assert said["source"] in {"seasonal", "similar-day"}
    assert complaint in said["reason"]
    assert values[:, 12] == pytest.approx(0.0)


async def test_a_price_feed_that_fails_leaves_its_history_or_the_constant(path: Path) -> None:
    """With a day of recorded prices these are forecast, before that the configured price holds."""
    write(path, {})
    feed = {"name": PRICE, "constant": 8e-5, "feeds": [FEED]}
    said, values, _ = made(path, NOW, feed)
    assert (said["source"], said["reason"]) == ("constant", "feed 'weather' has said nothing yet")
    assert (values == 8e-5).all()
    async with open_history(path) as history:
        await repeat(history, 3)
    said, values, _ = made(path, NOW, feed)
    assert said["source"] != "constant"
    assert values[2, :2] == pytest.approx([11e-5, 12e-5], rel=0.3)


async def repeat(history: History, days: int) -> None:
    """Record prices that rise over each day, hour by hour."""
    first = NOW - timedelta(days=days)
    for k in range(days * 288):
        at = first + timedelta(minutes=5 * k)
        history.record(at, (PRICE,), np.array([1e-5 * (1 + at.hour)]))
        if k % 200 == 0:
            await history.flush()


def test_levels_between_are_in_proportion_and_beyond_no_further() -> None:
    """A feed of three levels says nothing of the far tails."""
    rows = np.array([[0.0, np.nan], [10.0, 1.0], [30.0, 3.0]])
    found = at_levels((0.2, 0.5, 0.8), rows, (0.1, 0.2, 0.35, 0.5, 0.9))
    np.testing.assert_allclose(found, [[0.0, np.nan], [0.0, np.nan], [5.0, np.nan], [10.0, 1.0], [30.0, 3.0]])


def test_a_unit_that_allows_no_priorities_is_no_fault(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd/vppd.service filters setpriority(2): the worker then runs at the priority it has."""

    def refused(_: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    said = StringIO()
    write(path, {})
    monkeypatch.setattr("os.nice", refused)
    asked = document(path, NOW, {"name": LOAD}, present={LOAD: 5e3})
    monkeypatch.setattr("sys.stdin", StringIO(json.dumps(asked)))
    monkeypatch.setattr("sys.stdout", said)
    main()
    assert [one["source"] for one in json.loads(said.getvalue())["series"]] == ["persistence"]
