"""The trading desk in both directions: reductions, increases, and both at once, of one plant in virtual time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.grid.schemas import check
from tests.planning.desk_rig import Room
from tests.planning.market_rig import product
from vppd.core.bidding.bid import Offered
from vppd.model import Outbound
from vppd.testing.cycles import START

pytestmark = pytest.mark.looptime
FIRST = START + timedelta(minutes=15)


def first(room: Room) -> dict[str, Offered]:
    """Return what is on offer for the first slot, by direction."""
    return {o.bid.direction: o for o in room.offers() if o.bid.interval.start == FIRST and o.state == "offered"}


def signal(**changes: Any) -> Any:
    """Return a symmetric product that follows a signal, quick enough for storage alone."""
    return product(
        name="signal", direction="symmetric", activation_s=10.0, sustain_s=None, signal_s=2.0, **changes
    )  # fmt: skip


async def test_a_product_that_goes_either_way_is_two_bids() -> None:
    """Both are told in messages that pass their schema; the increase is no more than storage and PV can draw."""
    room = Room(products=(product(direction="either"),))
    async with room.trading():
        await room.until(3)
    book = first(room)
    assert book["up"].bid.power_w > 500e3
    assert 40e3 <= book["down"].bid.power_w <= 350e3
    said = [check(Outbound(m["topic"], m["payload"].encode())) for e in room.told() for m in e.body["receipts"]]
    assert {one["direction"] for one in said} == {"up", "down"}
    assert len({one["bid_id"] for one in said}) == 2


async def test_an_award_one_way_leaves_the_other_on_offer() -> None:
    """The reduction is sold; the increase is still revised, and no second reduction is offered for the slot."""
    room = Room(products=(product(direction="either"),))
    async with room.trading():
        await room.until(2)
        before = first(room)
        await room.award(before["up"], before["up"].bid.power_w)
        room.world.silent.add("bess-b")
        await room.until(4.5)
        after = first(room)
    assert after["up"].bid == before["up"].bid
    assert after["down"].bid.revision > before["down"].bid.revision
    assert after["down"].bid.power_w < before["down"].bid.power_w


async def test_a_signal_is_sold_both_ways_and_takes_both_sides() -> None:
    """One bid for storage both ways with a quarter of an hour behind it; what is awarded is sold in neither direction again."""
    quick = product(direction="either", activation_s=10.0, gate={"before_delivery_s": 120.0})
    room = Room(products=(signal(), quick))
    async with room.trading():
        await room.until(3)
        (both,) = [o for o in room.offers() if o.bid.product == "signal"]
        await room.award(both, both.bid.power_w)
        await room.until(14)
        book = {o.bid.direction: o.bid for o in room.offers() if o.bid.interval.start == FIRST}
        view = room.desk.view()
    assert (both.bid.direction, both.bid.sustain_s, both.bid.dispatch) == ("symmetric", 900.0, "order")
    # 450 of 500 kWh are stored: 40 kWh of room in the battery and 8 kWh in the UPS, and 80 kW of PV at most; but the site's ramp
    # goes up by no more than 200 kW in 10 s.
    assert both.bid.power_w == 200e3
    assert "down" not in book
    assert book["up"].power_w <= 450e3 - both.bid.power_w
    assert view["short_w"] == {}
