"""Hours of trading with awards, outages and restarts by chance: nothing is sold twice, nothing is told late, everything is stated once."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime, timedelta

import pytest

from tests.planning.desk_rig import Room
from tests.planning.market_rig import product
from vppd.core.bidding.bid import Offered
from vppd.testing.cycles import START

pytestmark = pytest.mark.looptime
SURE_W = 2 * (180e3 + 4 * 40e3 / 39) + 450e3
"""What 4 of the 40 samples of the two halls fall short of, and all of the storage. [W]"""
MINUTES = 110


def rooms() -> Room:
    """Return a site that sells quarters by order and half hours by schedule, the latter's gate later."""
    half = product(name="half", dispatch="scheduled", delivery_interval_s=1800.0, gate={"before_delivery_s": 180.0})
    expect = [{"product": "quick", "price_per_mwh": 300.0}, {"product": "half", "price_per_mwh": 320.0}]
    return Room(market={"expect": expect}, products=(product(), half))


def bound_w(book: list[Offered], at: datetime, now: datetime) -> float:
    """Return what is sold, or may still be, for a moment. [W]"""
    total_w = 0.0
    for offered in book:
        bid = offered.bid
        if bid.interval.start <= at < bid.end:
            pending = offered.state == "offered" and now < bid.interval.start
            total_w += bid.power_w if pending else offered.awarded_w
    return total_w


@pytest.mark.parametrize("seed", [1, 3])
async def test_by_chance(seed: int) -> None:
    """Each minute somebody may award a part, lose an asset or kill the desk."""
    chance, room = random.Random(seed), rooms()
    silent = ("bess-b", "ups-a")
    minute, awards, restarts = 0, 0, 0
    while minute < MINUTES:
        restarts += 1
        async with room.trading():
            alive = chance.randint(15, 50)
            for _ in range(alive):
                minute += 1
                await room.until(minute)
                awards += await _award(room, chance)
                if chance.random() < 0.05:
                    room.world.silent ^= {chance.choice(silent)}
                for ahead in range(0, 60, 15):
                    now = room.clock.now()
                    assert bound_w(room.offers(), now + timedelta(minutes=ahead), now) <= SURE_W * (1.0 + 1e-9)
    room.world.silent.clear()
    async with room.trading():
        await room.until(minute + 45)
    assert awards > 5
    assert restarts > 2
    _is_in_order(room, awards)


async def _award(room: Room, chance: random.Random) -> int:
    """Award a part of an offer behind its gate, now and then."""
    now, open_until = room.clock.now(), timedelta(minutes=MINUTES)
    behind = [o for o in room.offers() if o.left_w > 1e3 and o.gate_closes_at <= now < o.bid.interval.start]
    if not behind or chance.random() < 0.5 or now > START + open_until:
        return 0
    offered = chance.choice(behind)
    await room.award(offered, round(offered.left_w * chance.choice([0.3, 0.6, 1.0])))
    return 1


def _is_in_order(room: Room, awards: int) -> None:
    """No message behind its gate, no revision twice, and a statement for each award."""
    for event in room.told():
        assert event.at < datetime.fromisoformat(event.body["gate_closes_at"])
    assert max(Counter(event.key for event in room.told()).values()) == 1
    stated = [event.body["award_id"] for event in room.told("statements")]
    assert len(stated) == len(set(stated)) == awards
