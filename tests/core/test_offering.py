"""Offers: what the stocks are sure to give together, at their cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from tests.core.offering_rig import ROWS, STEP_S, STEPS, T0, battery, cluster, obliged, offered, opposite, sale, slot
from vppd.core.bidding.offering import bid_id, energy_h, offers
from vppd.core.bidding.quote import Reading
from vppd.model import Interval


def test_what_is_sure_together_is_sold() -> None:
    """Two clusters whose sum never moves sell all of it, although either alone is sure of next to nothing."""
    both = offered([sale()], opposite())
    alone = offered([sale()], opposite()[:1])
    assert both.bids[0].power_w == 1e6
    assert not alone.bids or alone.bids[0].power_w < 0.15e6


def test_prices_are_those_of_what_stands_behind() -> None:
    """The cheap tier first, the dear one above it, and the expected penalty and the margin on both; the bid tells its terms."""
    stocks = [
        cluster("dear", np.full((ROWS, STEPS), 2e6), 3e-4),
        cluster("cheap", np.full((ROWS, STEPS), 1e6), 1e-4),
    ]
    terms: dict[str, Any] = {
        "activation_s": 300.0,
        "sustain_s": 900.0,
        "max_duration_s": 900.0,
        "resting_s": 600.0,
        "revision": 3,
    }
    found = offered([sale(margin_per_wh=1e-5, penalty_per_wh=1e-3, min_w=1e5, **terms)], stocks)
    (bid,) = found.bids
    assert [step.upto_w for step in bid.steps] == [1e6, 3e6]
    assert [step.price_per_wh for step in bid.steps] == pytest.approx([2.1e-4, 4.1e-4])
    assert (bid.activation_s, bid.sustain_s, bid.max_duration_s, bid.resting_s, bid.revision) == (300, 900, 900, 600, 3)
    assert (bid.min_w, bid.divisible, bid.dispatch) == (1e5, True, "order")
    assert dict(found.behind[bid.bid_id]) == pytest.approx({"cheap": 1e6, "dear": 2e6})


def test_capacity_costs_what_it_is_expected_to_be_used() -> None:
    """Paid for being ready and used a tenth of the time, a Wh's cost counts a tenth."""
    (bid,) = offers([sale(is_capacity=True, use_frac=0.1)], [battery(1e5, 1e5)], start=T0, step_s=STEP_S)
    assert bid.steps[0].price_per_wh == pytest.approx(2e-6)


def test_a_price_limit_keeps_dear_stocks_out() -> None:
    """What costs more than may be asked is not offered, and the reason is told when nothing is left."""
    stocks = [cluster("dear", np.full((ROWS, STEPS), 2e6), 3e-4), cluster("cheap", np.full((ROWS, STEPS), 1e6), 1e-4)]
    assert offered([sale(price_limit_per_wh=2e-4)], stocks).bids[0].power_w == 1e6
    none = offered([sale(price_limit_per_wh=5e-5)], stocks)
    assert none.bids == ()
    assert "price limit" in none.unsold[0].reason


def test_an_indivisible_bid_is_one_block() -> None:
    """It is taken whole or not at all, for its mean cost."""
    stocks = [cluster("dear", np.full((ROWS, STEPS), 1e6), 3e-4), cluster("cheap", np.full((ROWS, STEPS), 1e6), 1e-4)]
    (bid,) = offered([sale(divisible=False, min_w=1e5)], stocks).bids
    assert len(bid.steps) == 1
    assert bid.min_w == bid.power_w == 2e6
    assert bid.steps[0].price_per_wh == pytest.approx(2e-4)


def test_what_is_not_expected_to_be_taken_is_offered_where_nothing_else_is() -> None:
    """At a price that does not pay the compute is offered for what it costs; beside a product that pays it gives way."""
    stocks = [cluster("a", np.full((ROWS, STEPS), 1e6), 2e-4)]
    poor, rich = sale(product="poor", expected_price_per_wh=1e-5), sale(product="rich", expected_price_per_wh=9e-4)
    assert offered([poor], stocks).bids[0].power_w == 1e6
    found = offered([poor, rich], stocks)
    assert [bid.product for bid in found.bids] == ["rich"]
    assert "worth more elsewhere" in found.unsold[0].reason


def test_reasons_say_what_is_missing() -> None:
    """Too slow, too little, begun, too far ahead."""
    stocks = [cluster("a", np.full((ROWS, STEPS), 5e5))]
    sales = [
        sale(activation_s=1.0),
        sale(min_w=1e6),
        sale(-1),
        sale(6),
    ]
    reasons = [unsold.reason for unsold in offered(sales, stocks).unsold]
    assert reasons == [
        "nothing can give that in time for its price limit",
        "500000 W are sure in this slot, 1000000 W are the least",
        "it has begun",
        "it is beyond what is foreseen",
    ]
    assert offered([sale()], []).unsold[0].reason == "it is beyond what is foreseen"


def test_missing_samples_sell_nothing() -> None:
    """A slot in which too few rows are whole has nothing that is sure; others are not touched by it."""
    paths_w = np.full((ROWS, STEPS), 1e6)
    paths_w[9:, 5] = np.nan
    found = offered([sale(0), sale(4)], [cluster("a", paths_w)])
    assert [bid.interval for bid in found.bids] == [slot(0)]
    assert offered([sale()], [cluster("a", np.zeros((0, STEPS)))]).bids == ()
    assert offered([sale()], [cluster("a", np.full((1, STEPS), 1e6))]).bids[0].power_w == 1e6


def test_samples_of_different_moments_are_refused() -> None:
    """Rows must be the same moments and columns the same steps."""
    with pytest.raises(ValueError, match="same moment"):
        offered([sale()], [cluster("a", np.ones((20, STEPS))), cluster("b", np.ones((21, STEPS)))])
    with pytest.raises(ValueError, match="same steps"):
        offered([sale()], [cluster("a", np.ones((20, STEPS))), cluster("b", np.ones((20, STEPS + 1)))])


def test_the_two_readings_sell_different_volumes() -> None:
    """One low quarter in every hour: by minutes it is a quarter of all samples, by hours all of them."""
    paths_w = np.full((ROWS, 20), 1e6)
    paths_w[:, 7] = 1e5
    long = sale(0, 20)
    assert offered([long], [cluster("a", paths_w)]).bids[0].power_w == 1e6
    assert offered([long], [cluster("a", paths_w)], reading=Reading.HOURS).bids[0].power_w == 1e5


def test_ids_are_those_of_the_slot() -> None:
    """The same product in the same slot has the same id however its time is written; another slot has another."""
    there = slot(0)
    assert there.end is not None
    elsewhere = Interval(there.start.astimezone(), there.end.astimezone())
    assert bid_id("p", "site", "up", there) == bid_id("p", "site", "up", elsewhere)
    assert bid_id("p", "site", "up", there) != bid_id("p", "site", "down", there)
    assert bid_id("p", "site", "up", there) != bid_id("p", "site", "up", slot(1))
    assert str(UUID(bid_id("p", "site", "up", there))) == bid_id("p", "site", "up", there)
    assert offered([sale()], opposite()).bids[0].bid_id == bid_id("p", "site", "up", there)


def test_energy_stands_behind_every_activation() -> None:
    """Scheduled: the slot. On order: one activation, or as many as the rest between them leaves room for."""
    assert energy_h(sale(dispatch="scheduled", sustain_s=300.0)) == 1.0
    assert energy_h(sale()) == 1.0
    assert energy_h(sale(sustain_s=900.0)) == 0.25
    assert energy_h(sale(sustain_s=900.0), max_duration_s=1800.0) == 0.5
    assert energy_h(sale(sustain_s=600.0), resting_s=900.0) == pytest.approx(3 * 600.0 / 3600.0)


def test_a_battery_is_not_sold_beyond_its_energy() -> None:
    """An hour of 100 kW needs 100 kWh; a second hour needs them again unless they are back."""
    hours = [sale(0), sale(4, product="q")]
    assert [bid.power_w for bid in offered(hours, [battery(2e5, 1e5)]).bids] == [1e5, 1e5]
    kept = offered(hours, [battery(2e5, 1e5, recovery_steps=4)])
    assert sum(bid.power_w for bid in kept.bids) == 1e5


def test_what_is_held_is_not_sold_again() -> None:
    """An award of another product takes its watts and its energy; a bid that may be awarded yet counts like an award."""
    stocks = [battery(2e5, 1e5)]
    (first,) = offered([sale()], stocks).bids
    for claim in (obliged(first, 6e4), replace(first, steps=(replace(first.steps[0], upto_w=6e4),))):
        (rest,) = offered([sale(product="q")], stocks, [claim]).bids
        assert rest.power_w == 4e4
    assert offered([sale(product="q")], stocks, [obliged(first)]).bids == ()


def test_what_is_short_is_told_and_not_added_to() -> None:
    """After an outage the held power is short by what is missing, and the slot is not offered any more; the next one is."""
    stocks = [cluster("a", np.full((ROWS, STEPS), 1e6))]
    (bid,) = offered([sale()], stocks).bids
    found = offered([sale(product="q"), sale(4)], [cluster("a", np.full((ROWS, STEPS), 4e5))], [obliged(bid)])
    assert found.short_w == pytest.approx([6e5])
    assert [other.interval for other in found.bids] == [slot(4)]
    gone = offered([sale(product="q")], [battery(1e5, 1e5)], [obliged(bid), obliged(replace(bid, activation_s=0.5))])
    assert gone.short_w == pytest.approx([9e5, 1e6])
    assert gone.bids == ()


def test_a_claim_that_has_begun_counts_for_what_is_left() -> None:
    """Half a scheduled hour is over: half its energy is still to be given."""
    (bid,) = offered([sale(dispatch="scheduled")], [battery(1e5, 1e5)]).bids
    begun = replace(obliged(bid), interval=slot(-2))
    (rest,) = offered([sale(0, 2, product="q", dispatch="scheduled")], [battery(2e5, 1e5)], [begun]).bids
    assert rest.power_w == 1e5


def test_what_was_sold_first_has_the_cheapest_stocks() -> None:
    """The second bid is priced at what is left for it."""
    stocks = [cluster("dear", np.full((ROWS, STEPS), 1e6), 3e-4), cluster("cheap", np.full((ROWS, STEPS), 1e6), 1e-4)]
    (bid,) = offered([sale(max_w=1e6)], stocks).bids
    assert bid.steps[0].price_per_wh == pytest.approx(1e-4)
    (second,) = offered([sale(product="q")], stocks, [obliged(bid)]).bids
    assert second.power_w == 1e6
    assert second.steps[0].price_per_wh == pytest.approx(3e-4)
