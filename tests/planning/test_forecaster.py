"""The daemon's side of forecasting: rounds in another process, outlooks that stay when one fails, and what is shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from tests.planning import past
from vppd.config.forecast import ForecastConfig
from vppd.config.planning import PlanningConfig
from vppd.errors import Refused, Unreachable
from vppd.ledger.history import open_history
from vppd.planning.forecasts import forecaster as module
from vppd.planning.forecasts import view as forecast_view
from vppd.planning.forecasts.answer import outlooks_of
from vppd.planning.forecasts.forecaster import Forecaster, Think, constants_of
from vppd.planning.forecasts.recorder import Recorder
from vppd.planning.forecasts.worker import answer
from vppd.plant import plant_of
from vppd.runtime.apart import apart
from vppd.runtime.clock import Clock, FakeClock, LoopClock
from vppd.testing.cycles import two_feeds

START = datetime(2026, 3, 2, tzinfo=UTC)
NOW = START + timedelta(days=9, hours=10, minutes=7)
SLOW = {"step_s": 3600.0, "horizon_h": 24.0, "every_s": 3600.0}


@dataclass
class Rig:
    """A plant whose forecasts are made; ``think`` may be replaced to go wrong."""

    clock: Clock
    think: Think = apart
    feeds: Any = None
    config: ForecastConfig = field(default_factory=lambda: ForecastConfig.model_validate(SLOW))

    @asynccontextmanager
    async def open(self, path: Path) -> AsyncIterator[Forecaster]:
        """Yield a forecaster whose recorder has heard of the plant once."""
        plant = plant_of(two_feeds())
        async with open_history(path) as history:
            recorder = Recorder(plant, history)
            recorder.present = lambda: {"load/main-a": 99e3}  # type: ignore[method-assign]
            recorder.heard.set()
            prices = constants_of(PlanningConfig())
            yield Forecaster(
                self.config, plant, history, recorder, self.feeds, self.clock, constants=prices, think=self.think
            )


async def inside(module_name: str, document: Mapping[str, Any], limit_s: float) -> Any:
    """Answer as the worker would, in this process."""
    return json.loads(json.dumps(answer(json.loads(json.dumps(document)))))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A history of nine days of one feed and one PV plant."""
    steps = round((NOW - START).total_seconds()) // 300
    series = {"load/main-a": past.busy(START, steps, 150e3, 1), "generation/pv-b": past.sunny(START, steps, 300e3, 2)}
    past.write(tmp_path / "history.db", START, series)
    return tmp_path / "history.db"


@pytest.mark.integration
async def test_a_round_in_a_process_of_its_own(path: Path) -> None:
    """The worker reads the history and gives outlooks of all series that can be foreseen; the view is plain JSON."""
    async with Rig(FakeClock(NOW)).open(path) as forecaster:
        await forecaster.round()
        assert not forecaster.fault
        outlook = forecaster.outlook
        assert set(outlook) == {"price/import", "price/export", "load/main-a", "generation/pv-b"}
        load = outlook["load/main-a"]
        assert (load.made_at, load.start) == (NOW, NOW.replace(minute=0))
        assert load.source == load.forecast.method
        assert load.forecast.values.shape == (5, 24)
        assert load.forecast.paths.shape[1] == 24
        assert load.forecast.score.known
        assert np.isnan(load.over(NOW + timedelta(days=2), 3600.0, 1)).all()
        assert outlook["generation/pv-b"].forecast.values.max() <= 150e3  # the nameplate
        assert outlook["price/import"].over(NOW.replace(minute=0), 3600.0, 3) == pytest.approx(8e-5)
        shown = json.loads(json.dumps(forecaster.view(), allow_nan=False))
    rows = {row["name"]: row for row in shown["series"]}
    assert len(rows["load/main-a"]["values"]) == len(rows["load/main-a"]["levels"]) == 3
    assert len(rows["load/main-a"]["score"]["coverage"]) == 3
    assert rows["load/main-a"]["score"]["samples"] > 100
    assert rows["price/import"]["source"] == "constant"
    assert "values" not in rows["compute/hall-a"]
    assert rows["compute/hall-a"]["reason"].startswith("nothing was measured")
    assert shown["took_s"] >= 0.0


async def test_what_fails_leaves_the_old_outlooks(path: Path) -> None:
    """A dead worker, a refusal or a spoilt file: the old forecasts stay, the fault is shown, and the next good round clears it."""
    errors: list[Exception] = []

    async def think(module_name: str, document: Mapping[str, Any], limit_s: float) -> Any:
        if errors:
            raise errors.pop()
        return await inside(module_name, document, limit_s)

    async with Rig(FakeClock(NOW), think).open(path) as forecaster:
        rung: list[int] = []
        forecaster.on_change.append(lambda: rung.append(forecaster.rounds))
        await forecaster.round()
        before = forecaster.outlook
        for error in (Unreachable("gave no answer"), Refused("Garbled: not a database")):
            errors.append(error)
            await forecaster.round()
            assert forecaster.outlook is before
            assert forecaster.view()["fault"] == str(error)
        await forecaster.round()
        assert forecaster.fault == ""
        assert forecaster.outlook is not before
        assert rung == [1, 2]


@pytest.mark.parametrize("spoil", ["short", "rubbish"])
async def test_numbers_that_do_not_fit_are_not_taken(path: Path, spoil: str) -> None:
    """A file of numbers that is not the answer's is a fault, not a forecast."""

    async def think(module_name: str, document: Mapping[str, Any], limit_s: float) -> Any:
        said = await inside(module_name, document, limit_s)
        numbers = Path(document["answer"])
        if spoil == "short":
            np.save(numbers, np.load(numbers)[:-1])
        else:
            await asyncio.to_thread(numbers.write_bytes, b"rubbish")
        return said

    async with Rig(FakeClock(NOW), think).open(path) as forecaster:
        await forecaster.round()
        assert "forecasts.npy" in forecaster.fault or "rows instead of" in forecaster.fault
        assert not forecaster.outlook


async def test_the_best_method_is_kept_for_some_hours(path: Path) -> None:
    """All methods are tried again after six hours; what has no score is tried every time."""
    asked: list[dict[str, str]] = []

    async def think(module_name: str, document: Mapping[str, Any], limit_s: float) -> Any:
        asked.append(dict(document["chosen"]))
        return await inside(module_name, document, limit_s)

    clock = FakeClock(NOW)
    async with Rig(clock, think).open(path) as forecaster:
        for _ in range(3):
            await forecaster.round()
            clock.advance(4 * 3600.0)
    assert asked[0] == asked[2] == {}
    assert set(asked[1]) == {"load/main-a", "generation/pv-b"}


async def test_the_worker_is_told_of_all_feeds_and_of_who_speaks(path: Path) -> None:
    """Feeds of a series come in the order of the file with their trust, contracts are series too, and the next round knows who spoke."""
    asked: list[Mapping[str, Any]] = []

    async def think(module_name: str, document: Mapping[str, Any], limit_s: float) -> Any:
        asked.append(document)
        return await inside(module_name, document, limit_s)

    sun = {"kind": "file", "path": "x", "unit": "kw", "stale_after_s": 60.0}
    feeds = [
        sun | {"name": "near", "series": "generation/pv-b"},
        sun | {"name": "wind", "series": "contract/north"},
        sun | {"name": "far", "series": "generation/pv-b", "trust": "always"},
    ]
    config = ForecastConfig.model_validate(SLOW | {"feeds": feeds})
    async with Rig(FakeClock(NOW), think, config=config).open(path) as forecaster:
        await forecaster.round()
        await forecaster.round()
        rows = {row["name"]: row for row in forecaster.view()["series"]}
    told = {one["name"]: one["feeds"] for one in asked[0]["series"]}
    assert told["generation/pv-b"] == [
        {"name": "near", "stale_after_s": 60.0, "trusted": False}, {"name": "far", "stale_after_s": 60.0, "trusted": True},
    ]  # fmt: skip
    assert [feed["name"] for feed in told["contract/north"]] == ["wind"]
    assert told["load/main-a"] == []
    assert [one["name"] for one in asked[0]["series"] if one["sunny"]] == ["generation/pv-b"]
    assert asked[0]["spoke"] == {}
    assert asked[1]["spoke"]["generation/pv-b"] == rows["generation/pv-b"]["source"]
    assert [feed["feed"] for feed in rows["generation/pv-b"]["feeds"]] == ["near", "far"]
    assert rows["contract/north"]["reason"].startswith("feed 'wind' has said nothing yet; nothing was measured")


async def test_a_feed_that_falls_silent_is_said_once(path: Path) -> None:
    """Going over from a feed to our own method is a warning with its reason; choosing another method of ours is not."""
    sources = ["feed:weather", "seasonal", "seasonal", "persistence", "feed:weather"]

    async def think(module_name: str, document: Mapping[str, Any], limit_s: float) -> Any:
        np.save(document["answer"], np.ones((5, 24)))
        score = {"pinball": None, "coverage": [None] * 5, "samples": 0}
        told = {"name": "load/main-a", "source": sources.pop(0), "reason": "stale", "filled": 0}
        return {"series": [told | {"method": "x", "rows": 5, "paths": 0, "score": score}]}

    async with Rig(FakeClock(NOW), think).open(path) as forecaster:
        with structlog.testing.capture_logs() as logs:
            for _ in range(5):
                await forecaster.round()
    changes = [(line["before"], line["now"]) for line in logs if line["event"] == "forecast_source"]
    assert changes == [("feed:weather", "seasonal"), ("persistence", "feed:weather")]


@dataclass
class Chatter:
    """Feeds that say something when told to."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)
    issued_at: list[str | None] = field(default_factory=list)

    def view(self) -> list[dict[str, Any]]:
        """Return when each feed spoke last."""
        return [{"issued_at": at} for at in self.issued_at]


async def ran(rig: Rig, path: Path, until: Callable[[], bool]) -> None:
    """Run a forecaster until enough has been seen."""
    async with rig.open(path) as forecaster:
        work = asyncio.create_task(forecaster.run())
        async with asyncio.timeout(20_000.0):
            while not until():
                await forecaster.changed.wait()
        work.cancel()
        await asyncio.wait({work})


def noting(clock: Clock, moments: list[datetime]) -> Think:
    """Return a worker that notes when it was asked and knows nothing."""

    def blank(document: Mapping[str, Any]) -> None:
        np.save(document["answer"], np.zeros((0, 24)))

    async def think(module_name: str, document: Mapping[str, Any], limit_s: float) -> Any:
        moments.append(clock.now())
        blank(document)
        return {"series": []}

    return think


@pytest.mark.looptime
async def test_rounds_follow_the_grid(path: Path) -> None:
    """The first round is at once, the next ones come shortly after each step has ended."""
    clock, moments = LoopClock(NOW), list[datetime]()
    await ran(Rig(clock, noting(clock, moments)), path, lambda: len(moments) >= 3)
    assert moments[0] == NOW
    late_s = [(at - NOW.replace(minute=0)).total_seconds() - 3600.0 * k for k, at in enumerate(moments[1:], start=1)]
    assert all(module.AFTER_S <= after_s < module.AFTER_S + 5.0 for after_s in late_s), late_s


@pytest.mark.looptime
async def test_news_of_a_feed_begin_a_round(path: Path) -> None:
    """What a feed says is used soon, but a chatty one does not keep a processor busy."""
    clock, moments, feeds = LoopClock(NOW), list[datetime](), Chatter()

    async def chatter() -> None:
        for _ in range(300):
            feeds.changed.set()
            await asyncio.sleep(1.0)

    talking = asyncio.create_task(chatter())
    await ran(Rig(clock, noting(clock, moments), feeds), path, lambda: len(moments) >= 6)
    talking.cancel()
    await asyncio.wait({talking})
    apart_s = [(b - a).total_seconds() for a, b in pairwise(moments)]
    assert all(module.APART_S <= s <= module.APART_S + 2.0 for s in apart_s), apart_s


@pytest.mark.looptime
@pytest.mark.parametrize(("speaks_after_s", "waits_s"), [(1.0, 1.0), (60.0, module.FIRST_WORDS_S)])
async def test_the_first_round_hears_feeds_that_speak_soon(path: Path, speaks_after_s: float, waits_s: float) -> None:
    """What a feed says right after the start is in the first round; one that stays silent holds up nothing for long."""
    clock, moments, feeds = LoopClock(NOW), list[datetime](), Chatter(issued_at=["2026-03-01", None])

    async def speak() -> None:
        await asyncio.sleep(speaks_after_s)
        feeds.issued_at = ["2026-03-01", "2026-03-01"]
        feeds.changed.set()

    speaking = asyncio.create_task(speak())
    await ran(Rig(clock, noting(clock, moments), feeds), path, lambda: len(moments) >= 1)
    speaking.cancel()
    await asyncio.wait({speaking})
    assert (moments[0] - NOW).total_seconds() == pytest.approx(waits_s, abs=0.1)


@pytest.mark.looptime
async def test_after_a_fault_it_tries_again_soon(path: Path) -> None:
    """A worker that was killed does not cost an hour of forecasts."""
    clock, moments = LoopClock(NOW), list[datetime]()
    good = noting(clock, moments)

    async def think(module_name: str, document: Mapping[str, Any], limit_s: float) -> Any:
        said = await good(module_name, document, limit_s)
        if len(moments) == 1:
            raise Unreachable("killed")
        return said

    await ran(Rig(clock, think), path, lambda: len(moments) >= 2)
    assert (moments[1] - moments[0]).total_seconds() == pytest.approx(module.AGAIN_S, abs=1.0)


def test_constants_are_per_wh() -> None:
    """Prices of the configuration are per MWh, those inside per Wh; without [planning] there are none."""
    planning = PlanningConfig(price_import_per_mwh=120.0, price_export_per_mwh=-5.0)
    assert constants_of(planning) == pytest.approx({"price/import": 1.2e-4, "price/export": -5e-6})
    assert constants_of(None) == {}


def test_a_large_site_shows_what_matters_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of values the view gives source and score without the numbers, and says them for the first series."""
    monkeypatch.setattr(forecast_view, "SHOWN_VALUES", 100)
    told = [
        {"name": name, "source": "x", "reason": "", "filled": 0, "method": "x", "rows": 5, "paths": 0,
         "score": {"pinball": None, "coverage": [None] * 5, "samples": 0}}
        for name in ("a", "b")
    ]  # fmt: skip
    outlook = outlooks_of(told, np.ones((10, 24)), NOW, NOW, 3600.0)
    rows = forecast_view.forecasts_view(NOW, 1.0, told, outlook)["series"]
    assert rows[0]["values"] is not None
    assert rows[1]["values"] is None
