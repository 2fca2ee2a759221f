"""Act four: what the demo's daemon is told to sell, and how the audience reads what the market wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vppd.config.table import InvalidConfig
from vppd.demo.acts import Result
from vppd.demo.record import Record
from vppd.demo.room import Truth
from vppd.demo.script import SCRIPT, Stage, market, play
from vppd.demo.stall import Sold, Stall, read_sold
from vppd.demo.trade import GATE_S, PRODUCT, SLOT_S, trade, write_product
from vppd.planning.trade.gates import slots
from vppd.products import products_in

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOLD = Sold(
    power_w=60e3, price="81.20", currency="EUR", start=NOW + timedelta(seconds=30), end=NOW + timedelta(seconds=90),
    state="accepted", reason="", offered_w=100e3, delivered_wh=None, obliged_wh=None, owed="",
)  # fmt: skip


def test_the_product_is_one_that_the_daemon_reads(tmp_path: Path) -> None:
    """The product file is taken, and the daemon finds a slot of a minute with its gate before delivery."""
    (product,) = products_in(write_product(tmp_path).parent)
    (slot, *_) = slots(product, NOW, 600.0, 0.0)
    assert (slot.end - slot.start).total_seconds() == SLOT_S
    assert (slot.start - slot.gate_closes_at).total_seconds() == GATE_S
    assert product.dispatch == "scheduled"


def test_the_tables_name_that_product(tmp_path: Path) -> None:
    """Product, folder and expected price belong together, and a product that is not there is noticed."""
    found: dict[str, Any] = dict(trade(tmp_path))
    assert found["market"]["products"] == [PRODUCT] == [found["market"]["expect"][0]["product"]]
    with pytest.raises(InvalidConfig):
        products_in(Path(found["market"]["products_dir"]))
    write_product(tmp_path)
    assert [product.name for product in products_in(Path(found["market"]["products_dir"]))] == [PRODUCT]


def test_what_the_market_wrote_is_read() -> None:
    """Before an award there is nothing; then power, price and, with its statement, what is owed."""
    award = {
        "power_w": 60_000, "price": "81.20", "currency": "EUR", "start": SOLD.start.isoformat(),
        "end": SOLD.end.isoformat(), "state": "accepted", "reason": "", "account": None,
    }  # fmt: skip
    slot = {"start": SOLD.start.isoformat(), "offered_w": 100_000}
    assert read_sold({"awards": [], "slots": []}) is None
    assert read_sold({"awards": [award], "slots": [slot]}) == SOLD
    paid = {"delivered_wh": "990.000", "obliged_wh": "1000.000", "owed": "0.08"}
    settled = read_sold({"awards": [{**award, "account": paid}], "slots": [slot]})
    assert settled is not None
    assert (settled.delivered_wh, settled.obliged_wh, settled.owed) == (990.0, 1000.0, "0.08")


class Fair:
    """A market whose results a test writes."""

    def __init__(self, *seen: Sold | None) -> None:
        self._seen: Iterator[Sold | None] = iter(seen)

    @asynccontextmanager
    async def opened(self, need: str) -> AsyncIterator[None]:
        """Be open."""
        assert need == "60%"
        yield

    async def wait(self, ready: Callable[[Sold], bool], within_s: float) -> Sold | None:
        """Return the next result."""
        return next(self._seen)


class CalmRoom:
    """A machine room in which nothing is held."""

    async def truth(self) -> Truth:
        """Return that all is well."""
        return Truth((), (), 0)


def stage_with(fair: Fair | None) -> Stage:
    """Return a stage whose clock is the loop's."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    dispatcher = SimpleNamespace(now=lambda: NOW + timedelta(seconds=loop.time() - began_s))
    record = Record(("main-a",))
    return Stage(
        cast(Any, dispatcher), record, cast(Any, CalmRoom()), 1.0, 1, lambda text: None, cast(Stall | None, fair)
    )


@contextmanager
def measured(stage: Stage, drop_w: float) -> Iterator[None]:
    """Let the meter show 500 kW, and ``drop_w`` less while the award is delivered."""

    async def measure() -> None:
        began_s = stage.mono_s()
        for i in range(400):
            since_s = i / 2.0
            power_w = 500e3 - (drop_w if 32.0 <= since_s < 90.0 else 0.0)
            stage.record.add(began_s + since_s, {"main-a": power_w})
            await asyncio.sleep(began_s + (i + 1) / 2.0 - stage.mono_s())

    task = asyncio.create_task(measure())
    try:
        yield
    finally:
        task.cancel()


SETTLED = replace(SOLD, delivered_wh=995.0, obliged_wh=1000.0, owed="0.08")


@pytest.mark.parametrize(
    ("seen", "drop_w", "fault"),
    [
        pytest.param((SOLD, SETTLED), 61e3, "", id="delivered"),
        pytest.param((SOLD, SETTLED), 30e3, "over the target", id="half-of-it"),
        pytest.param((SOLD, replace(SETTLED, delivered_wh=900.0)), 61e3, "only 90.0%", id="stated-less"),
        pytest.param((SOLD, SOLD), 61e3, "statement has not come", id="not-stated"),
        pytest.param((None,), 0.0, "no offer came", id="no-offer"),
        pytest.param((replace(SOLD, state="rejected", reason="late"),), 0.0, "rejected: late", id="rejected"),
    ],
)
@pytest.mark.looptime
async def test_the_market_act_is_judged_at_the_meter(seen: tuple[Sold | None, ...], drop_w: float, fault: str) -> None:
    """An award that is delivered and stated passes; anything less fails and says what."""
    stage = stage_with(Fair(*seen))
    with measured(stage, drop_w):
        result = await market(stage)
    await asyncio.sleep(0)
    assert result.passed is (not fault)
    assert fault in "".join(result.faults)
    assert not stage.record.targets_w


@pytest.mark.looptime
async def test_without_a_trading_desk_there_is_no_market(monkeypatch: pytest.MonkeyPatch) -> None:
    """The act is left out, not failed, where the daemon sells nothing."""
    played: list[str] = []

    async def act(stage: Stage) -> Result:
        played.append("act")
        return Result("act", ())

    monkeypatch.setattr("vppd.demo.script.SCRIPT", (*((name, act) for name, _ in SCRIPT[:-1]), SCRIPT[-1]))
    results = await play(stage_with(None), lambda result: None)
    assert [result.passed for result in results] == [True] * 3
    assert len(played) == 3
