"""What an OpenADR server tells, as a feed: news are said once, wrong money never, and a lost server says nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from vppd.config.forecast import ForecastFeedConfig, feed_problems
from vppd.errors import Unreachable
from vppd.grid.openadr3.orders import Tariff
from vppd.ledger.history import open_history
from vppd.ledger.history_reader import reading
from vppd.model import Interval
from vppd.planning.forecasts.feeds import Feeds
from vppd.planning.forecasts.feeds_tariffs import Tariffs, TariffSource
from vppd.plant import plant_of
from vppd.runtime.clock import FakeClock
from vppd.testing.cycles import two_feeds

NOW = datetime(2026, 3, 28, 12, 1, tzinfo=UTC)
VTN = {"name": "vtn", "series": "price/import", "kind": "openadr"}


def price(
    value: float, minutes: float = 60.0, units: str = "KWH", currency: str = "EUR", kind: str = "PRICE"
) -> Tariff:
    """Return a price from 12:00 on."""
    start = NOW.replace(minute=0)
    return Tariff(kind, Interval(start, start + timedelta(minutes=minutes)), value, units, currency, f"e-{minutes:g}")


def _later(value: float, minutes: int) -> Tariff:
    """Return an hourly price that begins so many minutes after 12:00."""
    start = NOW.replace(minute=0) + timedelta(minutes=minutes)
    return Tariff("PRICE", Interval(start, start + timedelta(hours=1)), value, "KWH", "EUR", f"l-{minutes}")


class Told:
    """A link that tells what it is given."""

    def __init__(self, *tariffs: Tariff, currency: str = "EUR", **more: Any) -> None:
        self.tariffs: Sequence[Tariff] | None = tariffs
        self.clock = FakeClock(NOW)
        config = ForecastFeedConfig.model_validate(VTN | more)
        self.source = TariffSource(Tariffs(lambda: self.tariffs, currency), config, self.clock)

    async def values(self) -> list[float | None] | None:
        """Return what is new."""
        content = await self.source.look()
        return None if content is None else json.loads(content.data)["values"]


async def test_a_price_is_said_once_and_again_before_it_is_stale() -> None:
    """Nothing is news while only time passes; another price is, and so is the same one after an hour."""
    told = Told(price(0.2, 180.0))
    assert await told.values() == pytest.approx([0.2e-3] * 36)
    told.clock.advance(600.0)
    assert await told.values() is None
    told.tariffs = (price(0.3, 180.0),)
    assert await told.values() == pytest.approx([0.3e-3] * 36)
    told.clock.advance(3600.0)
    assert await told.values() == pytest.approx([0.3e-3] * 24)


async def test_what_is_paid_for_export_is_a_series_of_its_own() -> None:
    """EXPORT_PRICE is price/export, and the price of import beside it is another matter."""
    told = Told(price(0.2), price(0.05, kind="EXPORT_PRICE"), series="price/export")
    assert await told.values() == pytest.approx([0.05e-3] * 12)
    told.tariffs = (price(0.2),)
    assert await told.values() == [None]


async def test_carbon_is_told_in_grams() -> None:
    """GHG is g/kWh, whatever the currency."""
    told = Told(price(400.0, 10.0, "GHG", "", "GHG"), series="carbon")
    assert await told.values() == pytest.approx([0.4, 0.4])


@pytest.mark.parametrize(
    ("tariffs", "currency", "complaint"),
    [
        ((price(0.2, currency="USD"),), "EUR", "USD per KWH, wanted: EUR"),
        ((price(0.2, currency=""),), "EUR", "no currency per KWH"),
        ((price(0.2, units="KW"),), "EUR", "EUR per KW,"),
        ((price(0.2), price(0.2, 120.0, currency="USD")), "", "EUR, USD: say which"),
        ((), "EUR", "tells no PRICE"),
    ],
)
async def test_wrong_money_is_refused(tariffs: tuple[Tariff, ...], currency: str, complaint: str) -> None:
    """A price in another currency or unit is no price: nothing is said, and why."""
    content = await Told(*tariffs, currency=currency).source.look()
    assert content is not None
    assert json.loads(content.data)["values"] == [None]
    assert complaint in content.fault


async def test_a_price_that_is_taken_back_counts_no_more() -> None:
    """An event that is deleted takes its price with it at once, said once; one that comes again is said again."""
    told = Told(price(0.2, 180.0))
    assert await told.values() == pytest.approx([0.2e-3] * 36)
    told.tariffs = ()
    blank = await told.source.look()
    assert blank is not None
    assert json.loads(blank.data)["values"] == [None]
    assert "tells no PRICE" in blank.fault
    told.clock.advance(600.0)
    assert await told.source.look() is blank
    told.tariffs = (price(0.2, 180.0),)
    assert await told.values() == pytest.approx([0.2e-3] * 36)


async def test_a_price_taken_back_while_we_were_away_counts_no_more(tmp_path: Path) -> None:
    """What is in the history from before a restart is quoted no more once the server has answered without it."""
    store, clock = tmp_path / "history.db", FakeClock(NOW)
    async with told_to(store, clock, lambda: (price(0.2, 180.0),)) as feeds:
        await until(lambda: feeds.quotes(NOW) != {})
        assert feeds.quotes(NOW)["price/import"] == pytest.approx(0.2e-3)
    clock.advance(60.0)
    answers: list[Sequence[Tariff] | None] = [None]
    async with told_to(store, clock, lambda: answers[0]) as feeds:
        await until(lambda: "has not answered" in feeds.view()[0]["fault"])
        assert feeds.quotes(NOW) != {}
        answers[0] = ()
        await until(lambda: "tells no PRICE" in feeds.view()[0]["fault"])
        assert feeds.quotes(NOW) == {}
        assert feeds.changed.is_set()
    with reading(store) as reader:
        found = reader.newest_issue("vtn", "price/import", NOW + timedelta(hours=1))
    assert found is not None
    assert np.isnan(found.values).all()


async def until(what: Callable[[], bool]) -> None:
    """Wait until it is so. Raises TimeoutError."""
    async with asyncio.timeout(20.0):
        while not what():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def told_to(
    store: Path, clock: FakeClock, tariffs: Callable[[], Sequence[Tariff] | None]
) -> AsyncIterator[Feeds]:
    """Run the feed of a plant for the time of the block."""
    config = ForecastFeedConfig.model_validate(VTN)
    async with open_history(store) as history:
        told = Tariffs(tariffs, "EUR")
        feeds = Feeds([config], plant_of(two_feeds()), history, clock, site="dc1", tariffs=told)
        work = asyncio.create_task(feeds.run())
        try:
            yield feeds
        finally:
            work.cancel()
            await asyncio.wait({work})
            await history.flush()


async def test_part_of_the_prices_taken_back_counts_no_more() -> None:
    """Of a day of which the middle, or the end, is taken back, only the rest is said."""
    told = Told(price(0.2, 60.0), _later(0.3, 60), _later(0.4, 120))
    assert await told.values() == pytest.approx([0.2e-3] * 12 + [0.3e-3] * 12 + [0.4e-3] * 12)
    told.tariffs = (price(0.2, 60.0), _later(0.4, 120))
    assert (await told.values() or [])[11:25] == [pytest.approx(0.2e-3), *[None] * 12, pytest.approx(0.4e-3)]
    told.tariffs = (price(0.2, 60.0),)
    assert await told.values() == pytest.approx([0.2e-3] * 12)


@pytest.mark.looptime
async def test_not_to_have_asked_yet_is_no_fault() -> None:
    """Right after the start a moment is waited for the first answer, and never again."""
    told = Told(price(0.2))
    told.tariffs, loop = None, asyncio.get_running_loop()
    loop.call_later(1.0, setattr, told, "tariffs", (price(0.2),))
    assert await told.values() == pytest.approx([0.2e-3] * 12)
    assert loop.time() < 1.5
    told.tariffs = None
    with pytest.raises(Unreachable):
        await told.source.look()
    assert loop.time() < 1.5


@pytest.mark.looptime
async def test_a_lost_server_says_nothing() -> None:
    """While the server is away nothing is said again, so that its word becomes stale."""
    told = Told(price(0.2))
    told.tariffs = None
    with pytest.raises(Unreachable, match="lost"):
        await told.source.look()


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"series": "load/main-a"}, "not load/main-a"),
        ({"unit": "per_mwh"}, "leave unit out"),
        ({"url": "https://a.example"}, "has no url"),
    ],
)
def test_what_a_server_cannot_tell(more: dict[str, str], complaint: str) -> None:
    """Only what the payloads settle can be asked of the server."""
    with pytest.raises(ValidationError, match=complaint):
        ForecastFeedConfig.model_validate(VTN | more)


def test_prices_that_were_taken_back_do_not_count_for_a_day() -> None:
    """What nobody says again is gone after two hours, or after what the configuration says."""
    assert ForecastFeedConfig.model_validate(VTN).stale_after_s == 7200.0
    assert ForecastFeedConfig.model_validate(VTN | {"stale_after_s": 600.0}).stale_after_s == 600.0


def test_a_server_is_needed() -> None:
    """Without a table [openadr] nobody tells anything."""
    feed = ForecastFeedConfig.model_validate(VTN)
    (problem,) = feed_problems([feed], [], {}, has_grid=True, has_openadr=False)
    assert "no OpenADR server" in str(problem)
    assert not feed_problems([feed], [], {}, has_grid=True, has_openadr=True)
