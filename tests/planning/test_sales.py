"""What could be sold: stocks from forecasts and the plan, sales from products, and what stands in the way."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from tests.planning.market_rig import STEP_S, config, outlook, outlooks, paths, product, timetable
from vppd.core.bidding.bid import Bid, Offered
from vppd.core.bidding.quote import Step
from vppd.core.bidding.stock import Stock, bid_id
from vppd.core.failsafe import SOC_MARGIN_FRAC
from vppd.model import Interval, Obligation
from vppd.planning.trade.gates import Slot, slots
from vppd.planning.trade.sales import directions, possible_sales, sale_of, standing, why_not, window_of
from vppd.planning.trade.shelf import LOW_FRAC, UNTRIED_FRAC, Shelf, Steps, shelf_of, steps_of
from vppd.plant import plant_of
from vppd.products import site_of
from vppd.testing.cycles import START

CONFIG = config()
PLANT = plant_of(CONFIG)
SITE = site_of(CONFIG)
STEPS = Steps(START, STEP_S, 8)
MARKET = CONFIG.market
HOUR = timedelta(hours=1)
REST = {"ups-a": 0.0, "bess-b": 0.0}
FULL = {"ups-a": 90e3, "bess-b": 450e3}


def shelf(**changes: Any) -> Shelf:
    """Return what the site can give by the rig's forecasts and a plan in which storage rests."""
    values = {"outlook": outlooks(), "timetable": timetable(PLANT, REST, FULL), "steps": STEPS, **changes}
    return shelf_of(CONFIG.assets, SITE, **values)


def stock(found: Shelf, name: str) -> Stock:
    """Return the stock of that name."""
    return {one.name: one for one in found.stocks}[name]


def sold(award_id: str = "a", power_w: float = 100e3, after: float = 1.0, **changes: Any) -> Obligation:
    """Return an award over the hour that begins so many hours after the start."""
    interval = Interval(START + after * HOUR, START + (after + 1.0) * HOUR)
    return Obligation(award_id, "b", "tso", "quick", "dc1", "up", interval, power_w, **changes)


def test_a_cluster_gives_what_is_foreseen_of_its_tiers() -> None:
    """A stock per tier that has a forecast, at its tier's cost, with the samples as they are."""
    found = stock(shelf(), "hall-a/tier3")
    assert found.cost_per_wh == CONFIG.assets[5].tier_cost_per_wh[3]
    assert found.paths_w.shape == (40, 8)
    assert found.paths_w.min() == pytest.approx(180e3)
    assert found.energy_wh is None


def test_what_the_plan_holds_back_anyway_is_not_sold() -> None:
    """A hall planned 150 kW below its demand has 150 kW less to shed, the deepest tier first."""
    held = {**REST, "hall-a": 150e3}
    found = shelf(timetable=timetable(PLANT, held, FULL))
    assert stock(found, "hall-a/tier3").paths_w.min() == pytest.approx(30e3)
    assert stock(found, "hall-b/tier3").paths_w.min() == pytest.approx(180e3)


def test_the_tiers_of_a_cluster_never_give_more_than_it_draws() -> None:
    """Two tiers of 200 kW each of a hall that draws 300 kW are 300 kW together."""
    found = dict(outlooks())
    found["compute/hall-a/tier2"] = outlook("compute/hall-a/tier2", 200e3, paths(200e3, 20e3))
    both = shelf(outlook=found)
    total_w = stock(both, "hall-a/tier3").paths_w + stock(both, "hall-a/tier2").paths_w
    assert (total_w <= paths(300e3, 20e3)[:, :8] + 1e-6).all()


def test_a_forecast_without_samples_gives_its_low_quantile_and_less_while_untried() -> None:
    """One row is taken for sure, so it is taken low."""
    found = dict(outlooks())
    found["compute/hall-a/tier3"] = outlook("compute/hall-a/tier3", 100e3)
    (row,) = stock(shelf(outlook=found), "hall-a/tier3").paths_w[:1]
    assert row.max() == pytest.approx(UNTRIED_FRAC * 100e3)
    assert LOW_FRAC == 0.1


def test_samples_of_different_length_are_of_the_same_moments() -> None:
    """The newest rows of all: a hall that is known for longer loses its oldest ones."""
    found = dict(outlooks())
    for series in ("compute/hall-b", "compute/hall-b/tier2", "compute/hall-b/tier3"):
        found[series] = outlook(series, 200e3, paths(200e3, 0.0, rows=12))
    both = shelf(outlook=found)
    assert {one.paths_w.shape[0] for one in both.stocks if len(one.paths_w) > 1} == {12}
    assert stock(both, "hall-a/tier3").paths_w[-1, 0] == pytest.approx(220e3)


def test_storage_gives_its_rating_and_the_energy_above_its_reserve() -> None:
    """At rest the whole rating; of the energy what lies above reserve and margin, at its terminals."""
    found = stock(shelf(), "bess-b")
    bess = CONFIG.assets[3]
    kept_wh = (bess.reserve_frac + SOC_MARGIN_FRAC) * bess.capacity_wh
    assert found.paths_w.tolist() == [[bess.rated_discharge_w] * 8]
    assert found.energy_wh is not None
    assert found.energy_wh[0] == pytest.approx((450e3 - kept_wh) * bess.efficiency_frac)
    assert found.recovery_steps == 8


def test_storage_that_is_planned_to_discharge_gives_only_the_rest() -> None:
    """What is planned anyway takes nothing off the meter when it is ordered."""
    found = shelf(timetable=timetable(PLANT, {**REST, "bess-b": -200e3}, FULL))
    assert stock(found, "bess-b").paths_w.max() == pytest.approx(50e3)


def test_storage_that_is_planned_to_charge_gives_no_more_than_at_rest() -> None:
    """The baseline of an order is drawn without storage: charging that stops is no reduction."""
    found = shelf(timetable=timetable(PLANT, {**REST, "bess-b": 150e3}, FULL))
    assert stock(found, "bess-b").paths_w.max() == pytest.approx(CONFIG.assets[3].rated_discharge_w)


def test_what_nothing_is_known_of_is_named() -> None:
    """Without plan and forecasts nothing is sold, and it is said of what."""
    found = shelf(outlook={}, timetable=None)
    assert found.stocks == ()
    assert found.missing["hall-a"] == "there is no forecast of what could be shed"
    assert found.missing["ups-a"] == "there is no plan of its charge"
    assert shelf(away=frozenset({"bess-b"})).missing == {"bess-b": "it takes no orders now"}


def test_slots_shorter_than_a_step_have_steps_of_their_own() -> None:
    """Minutes within a step of a quarter of an hour are counted one by one."""
    minute = timedelta(minutes=1)
    found = steps_of([Interval(START + 3 * minute, START + 4 * minute)], START, STEP_S)
    assert (found.step_s, found.count) == (60.0, 4)
    assert found.span(Interval(START + 3 * minute, START + 4 * minute)) == (3, 4)
    assert steps_of([Interval(START, START + HOUR)], START, STEP_S) == Steps(START, STEP_S, 4)


def test_a_day_of_seconds_is_not_counted_second_by_second() -> None:
    """However odd the slots, a round stays small."""
    odd = [Interval(START + timedelta(seconds=7), START + 24 * HOUR)]
    assert steps_of(odd, START, STEP_S).count <= 1_000


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"price_form": "none"}, "duty"),
        ({"direction": "symmetric"}, ""),
        ({"direction": "increase"}, ""),
        ({"direction": "symmetric", "dispatch": "scheduled"}, "both directions over a whole slot"),
        ({"direction": "symmetric", "local_response": True}, "measured on the spot"),
        ({"local_response": True}, "measured on the spot"),
        ({"delivery_interval_s": None}, "delivery_interval_s"),
        ({"min_bid_w": 50e6}, "power: .* of 5e\\+07 W"),
    ],
)
def test_what_is_not_offered_says_why(changes: dict[str, Any], why: str) -> None:
    """Every product is offered or has a reason."""
    reason = why_not(product(**changes), SITE)
    assert (reason == "") == (why == "")
    assert re.search(why, reason)


def a_slot(**changes: Any) -> tuple[Any, Slot]:
    """Return a product and its first slot."""
    made = product(**changes)
    return made, slots(made, START, 86_400.0, 3600.0)[0]


def test_a_sale_has_the_terms_of_its_product_and_the_expected_price() -> None:
    """Numbers of the file, price of the feed unless the market table says better."""
    assert MARKET is not None
    found = sale_of(*a_slot(availability_frac=0.95, price_limit_per_mwh=1e4), "dc1", MARKET, outlooks())
    assert (found.min_w, found.step_w, found.activation_s, found.sustain_s) == (10e3, 1e3, 300.0, 900.0)
    assert found.epsilon_frac == pytest.approx(0.05)
    assert found.price_limit_per_wh == pytest.approx(0.01)
    assert found.expected_price_per_wh == pytest.approx(8e-5)
    told = config(
        expect=[{"product": "quick", "price_per_mwh": 120.0, "penalty_per_mwh": 30.0}], margin_per_mwh=5.0
    ).market
    assert told is not None
    better = sale_of(*a_slot(), "dc1", told, outlooks())
    assert better.expected_price_per_wh == pytest.approx(1.2e-4)
    assert better.penalty_per_wh == pytest.approx(3e-5)
    assert better.margin_per_wh == pytest.approx(5e-6)


@pytest.mark.parametrize(
    ("changes", "ways"),
    [
        ({}, ("up",)),
        ({"direction": "increase"}, ("down",)),
        ({"direction": "either"}, ("up", "down")),
        ({"direction": "either", "min_bid_w": 600e3}, ("up",)),
        ({"direction": "symmetric"}, ("symmetric",)),
    ],
)
def test_a_product_is_sold_in_the_directions_that_the_site_has_enough_for(
    changes: dict[str, Any], ways: tuple[str, ...]
) -> None:
    """Either way means both, but for the one that by its nameplates never reaches the least bid."""
    assert directions(product(**changes), SITE) == ways


def test_each_direction_has_the_price_that_is_expected_of_it() -> None:
    """The table may name them apart; the price of energy says nothing of an increase or of capacity."""
    told = config(
        expect=[
            {"product": "quick", "direction": "up", "price_per_mwh": 120.0},
            {"product": "quick", "direction": "down", "price_per_mwh": 20.0, "use_frac": 0.5},
        ]
    ).market
    assert told is not None
    assert MARKET is not None
    made, slot = a_slot(direction="either")
    for way, price_per_wh in (("up", 1.2e-4), ("down", 2e-5)):
        assert sale_of(made, slot, "dc1", told, outlooks(), way).expected_price_per_wh == pytest.approx(price_per_wh)
    assert sale_of(made, slot, "dc1", MARKET, outlooks(), "down").expected_price_per_wh is None
    assert sale_of(made, slot, "dc1", MARKET, outlooks(), "symmetric").expected_price_per_wh is None


def test_behind_a_signal_full_power_is_kept_for_a_quarter_of_an_hour() -> None:
    """Unless the product or the table says otherwise; a symmetric product without a signal asks for the whole slot."""
    assert MARKET is not None
    longer = config(signal_sustain_s=1800.0).market
    assert longer is not None
    signal = {"direction": "symmetric", "sustain_s": None, "signal_s": 2.0}
    for changes, market, sustain_s in (
        (signal, MARKET, 900.0),
        (signal, longer, 1800.0),
        ({**signal, "sustain_s": 300.0}, longer, 300.0),
        ({**signal, "signal_s": None}, MARKET, None),
        ({**signal, "direction": "reduce"}, MARKET, None),
    ):
        made, slot = a_slot(**changes)
        way = "up" if made.direction == "reduce" else "symmetric"
        found = sale_of(made, slot, "dc1", market, outlooks(), way)
        assert (found.sustain_s, found.is_capacity) == (sustain_s, way == "symmetric")


def test_what_is_sold_one_way_may_still_be_offered_the_other() -> None:
    """Of an awarded bid nothing is offered again; slots for later need a price that somebody named, in that direction."""
    told = config(expect=[{"product": "quick", "direction": "up", "price_per_mwh": 120.0}]).market
    assert told is not None
    made, first = a_slot(direction="either")
    second = slots(made, START, 86_400.0, 3600.0)[1]
    known, nothing = {"quick": made}, frozenset[str]()
    found = possible_sales([first], [second], known, SITE, told, outlooks(), "dc1", nothing)
    assert [(sale.direction, sale.interval) for sale in found] == [
        ("up", first.interval), ("down", first.interval), ("up", second.interval),
    ]  # fmt: skip
    sold_ids = frozenset({bid_id("quick", "dc1", "up", first.interval)})
    rest = possible_sales([first], [], known, SITE, told, outlooks(), "dc1", sold_ids)
    assert [sale.direction for sale in rest] == ["down"]


def test_nothing_is_guessed_of_a_price() -> None:
    """Without a feed and without a word in the table nobody knows the price; a schedule is held for its whole slot."""
    assert MARKET is not None
    found = sale_of(*a_slot(dispatch="scheduled"), "dc1", MARKET, {})
    assert found.expected_price_per_wh is None
    assert found.sustain_s is None


def test_offers_behind_their_gate_are_sold_until_their_slot_begins() -> None:
    """Whoever may still award them will be served; those being decided anew are not counted twice."""
    interval = Interval(START + HOUR, START + 2 * HOUR)
    bid = Bid("b1", "quick", "dc1", "up", interval, (Step(100e3, 1e-4),), "EUR", sustain_s=900.0)
    gone = {"b1": Offered(bid, "offered", START, 40e3)}
    now = START + timedelta(minutes=30)
    held = standing([sold(power_w=40e3)], gone, now, frozenset(), START)
    assert [(one.award_id, one.power_w) for one in held] == [("a", 40e3), ("offered/b1", 60e3)]
    assert held[1].sustain_s == 900.0
    assert [one.award_id for one in standing([sold()], gone, now, frozenset({"b1"}), START)] == ["a"]
    assert [one.award_id for one in standing([sold()], gone, START + HOUR, frozenset(), START)] == ["a"]
    assert standing([sold()], gone, START + 2 * HOUR, frozenset(), START) == ()
    assert standing([], {"b1": Offered(bid, "withdrawn", START)}, now, frozenset(), START) == ()


def test_what_has_been_delivered_needs_no_energy() -> None:
    """Half an hour into an hour's award, half an hour is left of it."""
    since = START + 1.5 * HOUR
    held = standing([sold(sustain_s=3600.0), sold("later", after=3.0)], {}, since, frozenset(), since)
    assert [(one.interval.start, one.sustain_s) for one in held] == [(since, 1800.0), (START + 3 * HOUR, None)]


def test_clusters_keep_their_share_of_a_schedule_free() -> None:
    """Two equal halls of 200 kW and storage of 450 kW: less than a quarter each; for power kept ready nothing is kept empty."""
    halls = ("hall-a", "hall-b")
    found = window_of(sold(dispatch="scheduled", power_w=85e3), shelf(), SITE, halls)
    assert found["hall-a"].power_w == pytest.approx(85e3 * 200 / 850)
    assert (found["hall-a"].start, found["hall-a"].end) == (START + HOUR, START + 2 * HOUR)
    assert window_of(sold(dispatch="order"), shelf(), SITE, halls) == {}


def test_shares_go_by_nameplate_where_nothing_is_foreseen() -> None:
    """A restart right before the window knows no forecast yet: something is better than nothing."""
    found = window_of(sold(dispatch="scheduled"), Shelf(STEPS, (), {}), SITE, ("hall-a",))
    assert 0.0 < found["hall-a"].power_w < 100e3


def test_samples_stay_unknown_where_the_forecast_ends() -> None:
    """Beyond the horizon nothing is sold: NaN, not 0."""
    far = Steps(START + 23 * HOUR, STEP_S, 8)
    tail = stock(shelf(steps=far, timetable=None), "hall-a/tier3").paths_w
    assert np.isfinite(tail[:, :4]).all()
    assert np.isnan(tail[:, 4:]).all()
