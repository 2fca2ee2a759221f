"""What Prometheus reads of offers and awards, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.planning.desk_rig import Room
from tests.scrape import Scrape, scrape
from vppd.planning.trade.figures import trade_figures
from vppd.planning.trade.gate_log import GateLog
from vppd.runtime.metrics import Metrics

pytestmark = pytest.mark.looptime


def figures(room: Room) -> Scrape:
    """Return what is told of a desk that trades."""
    metrics = Metrics()
    metrics.add(*trade_figures(room.register, room.desk, room.clock.now))
    return scrape(metrics.render().decode())


async def test_offers_are_counted_by_what_became_of_them() -> None:
    """One slot was awarded, the next is offered; what is over is no offer."""
    room = Room()
    async with room.trading():
        await room.until(6)
        (first,) = [o for o in room.offers() if o.gate_closes_at < room.clock.now()]
        await room.award(first, 100e3)
        await room.until(12)
        found = figures(room)
        await room.until(31)
        later = figures(room)
    assert found["vppd_offers", "up", "quick", "awarded"] == 1
    assert found["vppd_offers", "up", "quick", "offered"] == 1
    assert found["vppd_gates_closed_total", "quick"] == 1
    assert found["vppd_gates_missed_total", "quick"] == 0
    assert ("vppd_offers", "up", "quick", "awarded") not in later


async def test_what_is_owed_is_told_with_what_is_missing_of_it() -> None:
    """An award of 100 kW, first to come, then running and there, then over."""
    room = Room()
    async with room.trading():
        await room.until(6)
        (first,) = [o for o in room.offers() if o.gate_closes_at < room.clock.now()]
        await room.award(first, 100e3)
        before = figures(room)
        await room.until(20)
        during = figures(room)
        await room.until(31)
        after = figures(room)
    assert before["vppd_obliged_ahead_watts", "up", "quick"] == 100e3
    assert ("vppd_obliged_watts", "up", "quick") not in before
    assert during["vppd_obliged_watts", "up", "quick"] == 100e3
    assert during["vppd_sold_missing_watts", "up", "quick"] == 0.0
    assert during["vppd_award_held_ratio", "up", "quick"] == 1.0
    assert ("vppd_obliged_watts", "up", "quick") not in after


async def test_sold_power_that_is_not_there_is_missing() -> None:
    """Everything that stood behind the award is gone in the middle of it."""
    room = Room()
    async with room.trading():
        await room.until(6)
        (first,) = [o for o in room.offers() if o.gate_closes_at < room.clock.now()]
        await room.award(first, 600e3)
        await room.until(20)
        room.world.silent.update({"bess-b", "ups-a"})
        await room.until(28)
        found = figures(room)
    assert found["vppd_sold_missing_watts", "up", "quick"] > 100e3
    assert 0.3 < found["vppd_award_held_ratio", "up", "quick"] < 0.9


@dataclass
class Desk:
    """A desk whose accounts the test writes."""

    running: list[dict[str, Any]] = field(default_factory=list)
    gates: GateLog = field(default_factory=lambda: GateLog(600.0))


async def test_of_many_awards_the_worst_is_told() -> None:
    """The number of figures does not grow with the number of awards; an award that nobody can judge is left out."""
    room = Room()
    async with room.trading():
        await room.until(6)
        (first,) = [o for o in room.offers() if o.gate_closes_at < room.clock.now()]
        sold = [await room.award(first, 10e3) for _ in range(3)]
        await room.until(16)
    accounts = [(900.0, 900.0, 10e3), (800.0, 400.0, 4e3), (0.0, 0.0, None)]
    desk = Desk(
        [
            {"award_id": one.award_id, "known_s": known_s, "held_s": held_s, "there_w": there_w}
            for one, (known_s, held_s, there_w) in zip(sold, accounts, strict=True)
        ]
    )
    metrics = Metrics()
    metrics.add(*trade_figures(room.register, desk, room.clock.now))
    found = scrape(metrics.render().decode())
    assert found["vppd_obliged_watts", "up", "quick"] == 30e3
    assert found["vppd_award_held_ratio", "up", "quick"] == 0.5
    assert found["vppd_sold_missing_watts", "up", "quick"] == 6e3
