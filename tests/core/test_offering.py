"""Offers: what the stocks are sure to give together, at their cost, and nothing sold twice over any run of awards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vppd.core.bidding.bid import Bid
from vppd.core.bidding.greedy import greedy
from vppd.core.bidding.offering import Offering, Sale, Stock, bid_id, energy_h, offering, offers
from vppd.core.bidding.quote import Reading
from vppd.model import Interval, Obligation
from vppd.snapshot import Floats

T0 = datetime(2026, 3, 2, tzinfo=UTC)
STEP_S = 900.0
STEPS = 8
ROWS = 40


def slot(first: int, steps: int = 4) -> Interval:
    """The interval of some steps from the first on."""
    return Interval(T0 + first * timedelta(seconds=STEP_S), T0 + (first + steps) * timedelta(seconds=STEP_S))


def sale(first: int = 0, steps: int = 4, **rest: Any) -> Sale:
    """A product by the kW, on order, without limits unless said otherwise."""
    values: dict[str, Any] = {
        "product": "p", "resource": "site", "direction": "up", "interval": slot(first, steps), "currency": "EUR", "step_w": 1e3,
    }  # fmt: skip
    return Sale(**(values | rest))


def cluster(name: str, paths_w: Floats, cost_per_wh: float = 1e-4, **rest: Any) -> Stock:
    """A tier of a cluster: it takes a minute and never runs empty."""
    return Stock(name, rest.pop("direction", "up"), rest.pop("response_s", 60.0), cost_per_wh, paths_w, **rest)


def battery(power_w: float, energy_wh: float, cost_per_wh: float = 2e-5, **rest: Any) -> Stock:
    """A battery that rests full."""
    return Stock(
        "ups", "up", 1.0, cost_per_wh, np.full((1, STEPS), power_w), np.full(STEPS, energy_wh), rest.get("recovery_steps", 0)
    )  # fmt: skip


def opposite(seed: int = 1) -> tuple[Stock, Stock]:
    """Two clusters that are never low in the same quarter hour."""
    part_frac = np.random.default_rng(seed).uniform(0.0, 1.0, (ROWS, STEPS))
    return cluster("a", 1e6 * part_frac), cluster("b", 1e6 * (1.0 - part_frac))


def offered(sales: Sequence[Sale], stocks: Sequence[Stock], held: Sequence[Any] = (), **rest: Any) -> Offering:
    """Offer on the grid of the tests."""
    return offering(sales, stocks, held, start=T0, step_s=STEP_S, **rest)


def obliged(bid: Bid, power_w: float | None = None, award_id: str = "w") -> Obligation:
    """The award of a bid, in full or in part."""
    return Obligation(
        award_id, bid.bid_id, "market", bid.product, bid.resource, bid.direction, bid.interval, power_w or bid.power_w,
        dispatch=bid.dispatch, activation_s=bid.activation_s, sustain_s=bid.sustain_s,
    )  # fmt: skip


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


# ---- no kW and no kWh is sold twice ------------------------------------------------------------------------------------

Owed = tuple[str, int, int, float, float, tuple[tuple[str, float], ...]]
"""Direction, first and last step, activation [s], energy per watt [h], what stands behind it."""


@st.composite
def plants(draw: st.DrawFn) -> list[Stock]:
    """Some clusters with joint samples and some batteries."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    stocks = []
    for i in range(draw(st.integers(0, 3))):
        level_w = 1e6 * rng.uniform(0.2, 1.0, STEPS)
        noise_frac = rng.normal(0.0, draw(st.sampled_from([0.0, 0.2, 0.8])), (ROWS, 1)) + rng.normal(
            0, 0.1, (ROWS, STEPS)
        )
        stocks.append(
            cluster(
                f"c{i}", np.maximum(level_w * (1.0 + noise_frac), 0.0), draw(st.sampled_from([1e-4, 2e-4])),
                response_s=draw(st.sampled_from([60.0, 300.0])), direction=draw(st.sampled_from(["up", "up", "down"])),
            )
        )  # fmt: skip
    for i in range(draw(st.integers(0, 2))):
        power_w, energy_wh = draw(st.sampled_from([1e5, 5e5])), draw(st.sampled_from([1e5, 3e5]))
        stocks.append(replace(battery(power_w, energy_wh, recovery_steps=draw(st.integers(0, 4))), name=f"b{i}"))
    return stocks


@st.composite
def rounds(draw: st.DrawFn) -> list[tuple[list[Sale], list[float]]]:
    """Three rounds of sales in overlapping products, and the part of each bid that is then awarded."""
    found = []
    for turn in range(3):
        sales = []
        for i in range(draw(st.integers(1, 4))):
            steps = draw(st.sampled_from([1, 2, 4, 8]))
            sales.append(
                sale(
                    draw(st.integers(0, STEPS // steps - 1)) * steps, steps, product=f"p{turn}{i}",
                    direction=draw(st.sampled_from(["up", "up", "down"])),
                    activation_s=draw(st.sampled_from([1.0, 60.0, 750.0, math.inf])),
                    sustain_s=draw(st.sampled_from([None, 300.0, 900.0])),
                    dispatch=draw(st.sampled_from(["order", "scheduled"])),
                    min_w=draw(st.sampled_from([0.0, 1e5])), step_w=draw(st.sampled_from([1e3, 1e5])),
                    expected_price_per_wh=draw(st.sampled_from([None, 5e-5, 1e-3])),
                )
            )  # fmt: skip
        found.append((sales, [draw(st.sampled_from([0.0, 0.5, 1.0])) for _ in sales]))
    return found


def owed(claim: Bid | Obligation, behind: tuple[tuple[str, float], ...]) -> Owed:
    """What a bid or an award asks for, with what stands behind it."""
    assert claim.interval.end is not None
    first = round((claim.interval.start - T0).total_seconds() / STEP_S)
    end = round((claim.interval.end - T0).total_seconds() / STEP_S)
    within_s = math.inf if claim.activation_s is None else claim.activation_s
    assert sum(w for _, w in behind) == pytest.approx(claim.power_w, abs=1.0)
    return claim.direction, first, end - 1, within_s, energy_h(claim), behind


def sold_twice(stocks: Sequence[Stock], owing: Sequence[Owed], reading: Reading) -> list[str]:
    """Return where more is owed than there is: of a battery's power or energy, or of all clusters in more samples than promised."""
    own = {stock.name: stock for stock in stocks}
    found = []
    for direction, first, last, within_s, _, behind in owing:
        if any(own[name].response_s > within_s or own[name].direction != direction for name, _ in behind):
            found.append("a stock that is too slow")
        pool = [s for s in stocks if s.energy_wh is None and s.direction == direction and s.response_s <= within_s]
        there_w = sum((s.paths_w[:, first : last + 1] for s in pool), np.zeros((ROWS, last + 1 - first)))
        due_w = np.zeros(STEPS)
        for other, a, b, other_s, _, others in owing:
            if other == direction and other_s <= within_s:
                due_w[a : b + 1] += sum(w for name, w in others if own[name].energy_wh is None)
        short = there_w < due_w[first : last + 1] - 1.0
        samples = short.any(axis=1) if reading is Reading.HOURS else short
        if samples.sum() > math.floor(0.1 * samples.size + 1e-9):
            found.append(f"power of the clusters in steps {first} to {last}: {samples.mean():.3f} short")
    for stock in stocks:
        if stock.energy_wh is not None:
            found += battery_sold_twice(stock, owing)
    return found


def battery_sold_twice(stock: Stock, owing: Sequence[Owed]) -> list[str]:
    """Return the steps in which more of a battery is owed than it has."""
    drawn = [(a, b, hours, dict(behind).get(stock.name, 0.0)) for _, a, b, _, hours, behind in owing]
    found = []
    assert stock.energy_wh is not None
    for t in range(STEPS):
        if sum(w for a, b, _, w in drawn if a <= t <= b) > stock.paths_w[0, t] + 1.0:
            found.append(f"power of {stock.name} in step {t}")
        near_wh = sum(w * hours for a, b, hours, w in drawn if a <= t <= b + stock.recovery_steps)
        if any(a <= t <= b and w > 0 for a, b, _, w in drawn) and near_wh > stock.energy_wh[t] + 1.0:
            found.append(f"energy of {stock.name} in step {t}")
    return found


@settings(max_examples=80, deadline=None)
@given(plants(), rounds(), st.sampled_from(list(Reading)))
def test_no_kw_and_no_kwh_is_sold_twice(
    stocks: list[Stock], turns: list[tuple[list[Sale], list[float]]], reading: Reading
) -> None:
    """Over three rounds of bids and any awards of them: were all bids awarded now, everything could still be delivered."""
    held: list[Obligation] = []
    for sales, parts in turns:
        found = offered(sales, stocks, held, reading=reading)
        assert sold_twice(stocks, all_owed(held, found), reading) == []
        assert max(found.short_w, default=0.0) < 1.0
        held += awarded(found, sales, parts)


@settings(max_examples=40, deadline=None)
@given(plants(), rounds(), st.sampled_from(list(Reading)))
def test_nothing_is_sold_twice_when_the_solver_is_late(
    stocks: list[Stock], turns: list[tuple[list[Sale], list[float]]], reading: Reading
) -> None:
    """The quick rule that stands in for it keeps the same promises, as long as it finds room for all that is held."""
    held: list[Obligation] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "vppd.core.bidding.offering.split",
            lambda resources, lots, together, limit_s: greedy(resources, lots, together),
        )
        for sales, parts in turns:
            found = offered(sales, stocks, held, reading=reading)
            if max(found.short_w, default=0.0) < 1.0:
                assert sold_twice(stocks, all_owed(held, found), reading) == []
                held += awarded(found, sales, parts)


def all_owed(held: Sequence[Obligation], found: Offering) -> list[Owed]:
    """What would be owed were all bids awarded beside what is held."""
    owing = [owed(claim, behind) for claim, behind in zip(held, found.held_behind, strict=True)]
    return owing + [owed(bid, found.behind[bid.bid_id]) for bid in found.bids]


def awarded(found: Offering, sales: Sequence[Sale], parts: Sequence[float]) -> list[Obligation]:
    """The parts of the bids that the market takes."""
    part_of = {
        bid_id(s.product, s.resource, s.direction, s.interval): part for s, part in zip(sales, parts, strict=True)
    }
    taken = [(bid, part_of[bid.bid_id]) for bid in found.bids]
    return [obliged(bid, part * bid.power_w, bid.bid_id) for bid, part in taken if part > 0.0]


def test_the_check_sees_what_is_sold_twice() -> None:
    """Offering again without saying what is held is found out, by power and by energy."""
    for stocks in ([cluster("a", np.full((ROWS, STEPS), 1e6))], [battery(2e5, 1e5)]):
        found = [offered([sale(product=name)], stocks) for name in "pq"]
        owing = [owed(one.bids[0], one.behind[one.bids[0].bid_id]) for one in found]
        assert sold_twice(stocks, owing[:1], Reading.MINUTES) == []
        assert sold_twice(stocks, owing, Reading.MINUTES) != []
