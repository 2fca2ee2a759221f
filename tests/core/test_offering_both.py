"""Increases, both directions at once, and what fits the connection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.core.offering_rig import (
    ROWS,
    STEPS,
    battery,
    both_ways,
    cluster,
    obliged,
    offered,
    opposite,
    room,
    sale,
    slot,
)
from vppd.core.bidding.greedy import greedy
from vppd.core.bidding.lots import Lot
from vppd.core.bidding.offering import Offering
from vppd.core.bidding.pooling import sure
from vppd.core.bidding.quote import Reading
from vppd.snapshot import Floats


def test_the_two_directions_of_a_product_are_two_bids() -> None:
    """Each by its own stocks, each with an id of its own."""
    found = offered([sale(), sale(direction="down")], both_ways(1e5, 1e5, 5e4))
    assert [(bid.direction, bid.power_w) for bid in found.bids] == [("up", 1e5), ("down", 5e4)]
    assert len({bid.bid_id for bid in found.bids}) == 2


def test_a_symmetric_bid_is_as_much_as_the_smaller_side_has() -> None:
    """100 kW both ways with energy for an hour, but room for half of it; both stocks stand behind the one bid."""
    (bid,) = (found := offered([sale(direction="symmetric")], both_ways(1e5, 1e5, 5e4))).bids
    assert (bid.direction, bid.power_w) == ("symmetric", 5e4)
    assert dict(found.behind[bid.bid_id]) == {"ups": 5e4, "ups/down": 5e4}
    (less,) = offered([sale(direction="symmetric")], both_ways(1e5, 2e4, 5e4)).bids
    assert less.power_w == 2e4


def test_one_side_alone_is_no_symmetric_product() -> None:
    """A cluster that can only shed is not offered both ways, and it is said."""
    found = offered([sale(direction="symmetric")], [cluster("a", np.full((ROWS, STEPS), 1e6))])
    assert found.bids == ()
    assert "nothing can give that" in found.unsold[0].reason


def test_a_symmetric_price_covers_both_sides_as_often_as_they_are_used() -> None:
    """Capacity called half of the time, each way half of that: the mean of both costs, for half of the time."""
    (bid,) = offered([sale(direction="symmetric", is_capacity=True, use_frac=0.5)], both_ways(1e5, 1e5, 1e5)).bids
    assert [step.price_per_wh for step in bid.steps] == pytest.approx([0.5 * 3e-5])
    dear = cluster("dear", np.full((ROWS, STEPS), 1e5), 8e-5, direction="down")
    (two,) = offered([sale(direction="symmetric")], [*both_ways(2e5, 2e5, 1e5), dear]).bids
    assert [step.upto_w for step in two.steps] == [1e5, 2e5]
    assert [step.price_per_wh for step in two.steps] == pytest.approx([3e-5, 5e-5])


@pytest.mark.parametrize("direction", ["up", "down", "symmetric"])
def test_a_symmetric_award_takes_both_sides(direction: str) -> None:
    """What is sold both ways is sold in neither direction again."""
    stocks = both_ways(1e5, 1e5, 1e5)
    (bid,) = offered([sale(direction="symmetric")], stocks).bids
    assert offered([sale(product="q", direction=direction)], stocks, [obliged(bid)]).bids == ()
    (rest,) = offered([sale(product="q", direction=direction)], stocks, [obliged(bid, 6e4)]).bids
    assert rest.power_w == 4e4


def test_an_award_one_way_leaves_the_other() -> None:
    """A reduction takes nothing of an increase, and of a symmetric product what is left of its side."""
    stocks = both_ways(1e5, 1e5, 1e5)
    (bid,) = offered([sale()], stocks).bids
    (down,) = offered([sale(product="q", direction="down")], stocks, [obliged(bid)]).bids
    assert down.power_w == 1e5
    (both,) = offered([sale(product="q", direction="symmetric")], stocks, [obliged(bid, 7e4)]).bids
    assert both.power_w == 3e4


def test_what_is_short_of_a_symmetric_award_is_the_worse_side() -> None:
    """Room for only 20 kW of 100 kW sold: 80 kW are short, and without storage all of it."""
    (bid,) = offered([sale(direction="symmetric")], both_ways(1e5, 1e5, 1e5)).bids
    found = offered([], both_ways(1e5, 1e5, 2e4), [obliged(bid)])
    assert found.short_w == pytest.approx([8e4])
    assert offered([], [battery(1e5, 1e5)], [obliged(bid)]).short_w == pytest.approx([1e5])


@pytest.mark.parametrize("reading", list(Reading))
def test_both_sides_together_are_missed_no_more_than_promised(reading: Reading) -> None:
    """Two sides that fail at different times: a tenth of either alone would be nearly a fifth of both."""
    up_w, down_w = 1e6 * np.random.default_rng(5).uniform(0.5, 1.0, (2, ROWS, STEPS))
    stocks = [cluster("a", up_w), cluster("b", down_w, direction="down")]
    both = Lot("held", "symmetric", 0, 3, 60.0, 0.0, 0.0, max_w=5e5, is_held=True)
    each = [replace(both, direction=way) for way in ("up", "down")]
    up, down = sure(stocks, [both], [0.1], reading)[1]
    assert short_frac(up_w, down_w, up.sure_w, down.sure_w, reading) <= 0.1
    alone = sure(stocks, each, [0.1, 0.1], reading)[1]
    by_side_w = {bound.direction: bound.sure_w for bound in alone}
    assert short_frac(up_w, down_w, by_side_w["up"], by_side_w["down"], reading) > 0.12
    (bid,) = offered([sale(direction="symmetric")], stocks, reading=reading).bids
    assert 0.0 < bid.power_w <= min(up.sure_w, down.sure_w)


def short_frac(up_w: Floats, down_w: Floats, most_up_w: float, most_down_w: float, reading: Reading) -> float:
    """How many samples of the first slot lack one side or the other."""
    short = (up_w[:, :4] < most_up_w - 1.0) | (down_w[:, :4] < most_down_w - 1.0)
    return float(short.any(axis=1).mean() if reading is Reading.HOURS else short.mean())


def test_room_that_is_used_up_comes_back_when_nothing_is_drawn() -> None:
    """Two scheduled increases, one after the other: the room of the first is not back while the second is carried out."""
    stock = battery(5e5, 1e5, recovery_steps=1, direction="down")
    sales = [sale(k, 1, product=f"p{k}", direction="down", dispatch="scheduled", max_w=2e5) for k in (0, 1)]
    held = [obliged(bid, award_id=bid.bid_id) for bid in offered(sales, [stock]).bids]
    assert [claim.power_w for claim in held] == [2e5, 2e5]
    assert offered([sale(2, 1, product="q", direction="down")], [stock], held).bids == ()
    (later,) = offered([sale(3, 1, product="q", direction="down")], [stock], held).bids
    assert later.power_w == 4e5


def test_what_is_sold_fits_the_connection() -> None:
    """Room for 70 kW of increases on the feed: no more of both batteries there, whatever else is sold; the other one is free."""
    here = both_ways(1e5, 1e5, 1e5)
    there = [replace(stock, name=f"b-{stock.name}") for stock in here]
    stocks, limits = [*here, *there], [room(7e4, "ups/down")]
    found = offered([sale(direction="down")], stocks, rooms=limits)
    assert [bid.power_w for bid in found.bids] == [1.7e5]
    held = obliged(found.bids[0], 1.5e5)
    (rest,) = offered([sale(product="q", direction="down")], stocks, [held], rooms=limits).bids
    assert rest.power_w == 2e4
    assert offered([sale()], stocks, rooms=limits).bids[0].power_w == 2e5, "what comes out needs no room to go in"
    (both,) = offered([sale(direction="symmetric")], stocks, rooms=limits).bids
    assert both.power_w == 1.7e5


def test_room_counts_by_the_same_samples_as_the_stocks() -> None:
    """A load that is high whenever there is much to shed: where the stock is missed anyway, no room is asked for."""
    part_frac = np.random.default_rng(2).uniform(0.0, 1.0, (ROWS, STEPS))
    stock = cluster("a", 1e6 * part_frac)
    same = offered([sale()], [stock], rooms=[room(1e6 * part_frac, "a", direction="up")])
    bare = offered([sale()], [stock])
    other = offered([sale()], [stock], rooms=[room(1e6 * (1.0 - part_frac), "a", direction="up")])
    assert [bid.power_w for bid in same.bids] == [bid.power_w for bid in bare.bids]
    assert sum(bid.power_w for bid in other.bids) < 0.5 * bare.bids[0].power_w


def test_what_is_not_known_of_a_connection_leaves_no_room() -> None:
    """Without a forecast of what passes it already nothing more is sent through it."""
    unknown = room(np.full((1, STEPS), np.nan), "ups/down")
    assert offered([sale(direction="down")], both_ways(1e5, 1e5, 1e5), rooms=[unknown]).bids == ()


def test_only_what_is_in_a_hurry_needs_room_that_comes_with_time() -> None:
    """Room for the first minute bounds what has to be there in ten seconds, and nothing slower."""
    limits = [room(3e4, "ups/down", within_s=59.0)]
    fast = offered([sale(direction="down", activation_s=10.0)], both_ways(1e5, 1e5, 1e5), rooms=limits)
    slow = offered([sale(direction="down", activation_s=60.0)], both_ways(1e5, 1e5, 1e5), rooms=limits)
    assert [bid.power_w for found in (fast, slow) for bid in found.bids] == [3e4, 1e5]


def test_what_goes_one_way_stands_behind_no_symmetric_sale() -> None:
    """Work that was put off is an increase, and no part of what a signal is counted from."""
    late = cluster("late", np.full((ROWS, STEPS), 5e4), direction="down", one_way=True)
    stocks = [*both_ways(1e5, 1e5, 2e4), late]
    (down,) = offered([sale(direction="down")], stocks).bids
    (both,) = offered([sale(direction="symmetric")], stocks).bids
    assert (down.power_w, both.power_w) == (7e4, 2e4)


def test_a_symmetric_sale_that_is_not_offered_takes_nothing_of_others() -> None:
    """Its bounds are in force once it is sold: beside a better increase it leaves all of that."""
    late = cluster("late", np.full((ROWS, STEPS), 5e4), direction="down", one_way=True)
    sun = cluster("sun", np.full((ROWS, STEPS), 8e4), direction="down")
    stocks = [*both_ways(1e5, 1e5, 2e4), late, sun]
    limits = [room(0.0, "ups/down", "sun", of="symmetric"), room(1.4e5, "ups/down", "sun", "late")]
    asked = [
        sale(direction="symmetric", expected_price_per_wh=1e-5),
        sale(product="q", direction="down", expected_price_per_wh=1e-3),
    ]
    found = offered(asked, stocks, rooms=limits)
    assert found.status == "optimal"
    assert [(bid.direction, bid.power_w) for bid in found.bids] == [("down", 1.4e5)]


def test_a_sale_for_a_schedule_gives_way_to_what_recovers_for_claims() -> None:
    """Storage that must charge between two awards is not sold for a reduction in between, and no award counts as short for it."""
    stock = battery(5e5, 1e5, recovery_steps=1)
    first = offered([sale(0, 1), sale(2, 1)], [stock])
    held = [obliged(bid, award_id=bid.bid_id) for bid in first.bids]
    found = offered([sale(1, 1, product="q", dispatch="scheduled")], [stock], held)
    assert found.short_w == (0.0, 0.0)
    assert found.bids == ()
    assert "recover" in found.unsold[0].reason
    assert [claim.interval for claim in held] == [slot(0, 1), slot(2, 1)]


def test_the_quick_rule_sells_both_ways_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes both sides, or none."""
    monkeypatch.setattr(
        "vppd.core.bidding.offering.split",
        lambda resources, lots, together, limit_s: greedy(resources, lots, together),
    )
    asked = [sale(direction="symmetric", expected_price_per_wh=1e-3), sale(product="q", direction="down")]
    found: Offering = offered(asked, both_ways(1e5, 1e5, 7e4))
    assert [(bid.direction, bid.power_w) for bid in found.bids] == [("symmetric", 7e4)]
    assert offered(asked[:1], [*opposite(), battery(1e5, 0.0, direction="down")]).bids == ()
