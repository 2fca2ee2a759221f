"""What a site can draw more: storage with room, PV that is held back, and no more than fits through the connection."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from tests.planning.market_rig import STEP_S, config, outlook, outlooks, paths, timetable
from vppd.core.bidding.offering import Sale, offering
from vppd.core.bidding.stock import Room, Stock
from vppd.core.failsafe import SOC_MARGIN_FRAC
from vppd.model import Interval
from vppd.planning.trade.connection import nodes_of, ramps_of
from vppd.planning.trade.shelf import UNTRIED_FRAC, Shelf, Steps, shelf_of
from vppd.plant import plant_of
from vppd.products import site_of
from vppd.testing.cycles import START

CONFIG = config()
PLANT = plant_of(CONFIG)
SITE = site_of(CONFIG)
NODES = nodes_of(CONFIG)
STEPS = Steps(START, STEP_S, 8)
REST = {"ups-a": 0.0, "bess-b": 0.0}
HALF = {"ups-a": 50e3, "bess-b": 250e3}
BESS, PV = CONFIG.assets[3], CONFIG.assets[4]
IMPORT_W = 0.99 * 600e3
"""Of a feed, less the margin that is kept free. [W]"""


def shelf(**changes: Any) -> Shelf:
    """Return what the site can give by the rig's forecasts and a plan in which storage rests half full."""
    values = {
        "outlook": outlooks(), "timetable": timetable(PLANT, REST, HALF), "steps": STEPS, "nodes": NODES, **changes,
    }  # fmt: skip
    return shelf_of(CONFIG.assets, SITE, **values)


def stock(found: Shelf, name: str) -> Stock:
    """Return the stock of that name."""
    return {one.name: one for one in found.stocks}[name]


def room(found: Shelf, name: str, direction: str) -> Room:
    """Return the room at a node."""
    return {(one.name, one.direction): one for one in found.rooms}[name, direction]


def test_storage_draws_its_rating_into_the_room_that_it_has() -> None:
    """At rest the whole rating of charging, until it is full but for a margin, at its terminals."""
    found = stock(shelf(), "bess-b/down")
    assert (found.direction, found.paths_w.tolist()) == ("down", [[BESS.rated_charge_w] * 8])
    assert found.energy_wh is not None
    full_wh = (1.0 - SOC_MARGIN_FRAC) * BESS.capacity_wh
    assert found.energy_wh[0] == pytest.approx((full_wh - 250e3) / BESS.efficiency_frac)
    assert found.recovery_steps == 7


def test_storage_that_is_planned_to_charge_draws_only_the_rest() -> None:
    """What is charged anyway is no increase; discharging that stops is none either."""
    charges = shelf(timetable=timetable(PLANT, {**REST, "bess-b": 200e3}, HALF))
    assert stock(charges, "bess-b/down").paths_w.max() == pytest.approx(50e3)
    gives = shelf(timetable=timetable(PLANT, {**REST, "bess-b": -200e3}, HALF))
    assert stock(gives, "bess-b/down").paths_w.max() == pytest.approx(BESS.rated_charge_w)


def test_room_counts_at_the_fuller_end_of_a_step() -> None:
    """A plan that fills the battery within a step leaves the room that is left when it is done; one that empties it, what was there."""
    plan = timetable(PLANT, REST, HALF)
    plan.energy_wh[list(PLANT.asset_ids).index("bess-b"), 4:6] = 400e3
    found = shelf(timetable=plan)
    down, up = stock(found, "bess-b/down").energy_wh, stock(found, "bess-b").energy_wh
    assert down is not None
    assert up is not None
    assert down[4] == down[5] == down[6] == pytest.approx(90e3 / BESS.efficiency_frac)
    assert down[3] == down[7] == pytest.approx(240e3 / BESS.efficiency_frac)
    assert up[4] == up[3] < up[5]


def test_what_is_bought_costs_what_is_lost_of_it() -> None:
    """Energy drawn now need not be bought later, but for the losses; wear comes on top."""
    lost_frac = 1.0 - BESS.efficiency_frac**2
    assert stock(shelf(), "bess-b/down").cost_per_wh == pytest.approx(BESS.wear_cost_per_wh + lost_frac * 8e-5)


def test_generation_that_can_be_held_back_is_an_increase() -> None:
    """By its samples, for the price of what must be bought instead, or what its owner says that it costs."""
    found = stock(shelf(), "pv-b/down")
    assert found.energy_wh is None
    np.testing.assert_allclose(found.paths_w, paths(60e3, 20e3)[:, :8])
    assert found.cost_per_wh == PV.curtail_cost_per_wh == 1e-4
    dear = {**outlooks(), "price/import": outlook("price/import", 3e-4)}
    assert stock(shelf(outlook=dear), "pv-b/down").cost_per_wh == pytest.approx(3e-4)


def test_what_the_plan_holds_back_of_generation_is_not_sold() -> None:
    """20 kW are curtailed anyway: so much less can be held back."""
    plan = timetable(PLANT, {**REST, "pv-b": -40e3}, HALF)
    np.testing.assert_allclose(stock(shelf(timetable=plan), "pv-b/down").paths_w, paths(40e3, 20e3)[:, :8])


def test_work_that_is_put_off_is_an_increase() -> None:
    """Of a hall that is planned 150 kW below its demand they may run after all, as far as they could be shed; not for a signal."""
    held = shelf(timetable=timetable(PLANT, {**REST, "hall-a": 150e3, "hall-b": 110e3}, HALF))
    found = stock(held, "hall-a/down")
    assert found.one_way
    assert (found.response_s, found.energy_wh) == (60.0, None)
    np.testing.assert_allclose(found.paths_w, 150e3)
    np.testing.assert_allclose(stock(held, "hall-b/down").paths_w, np.minimum(paths(200e3, 20e3)[:, :8], 190e3))
    assert "hall-a/down" not in {one.name for one in shelf().stocks}


def test_work_that_runs_now_is_not_paid_for_later() -> None:
    """It costs what energy is dearer now than when it is cheapest."""
    rising = outlook("price/import", 8e-5)
    rising.forecast.values[:, :4] = 3e-5
    held = timetable(PLANT, {**REST, "hall-a": 150e3}, HALF)
    found = shelf(timetable=held, outlook={**outlooks(), "price/import": rising})
    assert stock(found, "hall-a/down").cost_per_wh == pytest.approx(5e-5)


def test_a_signal_counts_from_what_would_be_drawn_without_the_plan() -> None:
    """It needs room for that too, and until halls are back, what is fast draws it for them, in addition to what was sold."""
    held = shelf(timetable=timetable(PLANT, {**REST, "hall-a": 150e3}, HALF))
    plain = room(shelf(), "main-a", "down").room_w
    either, signal = [one for one in held.rooms if (one.name, one.direction) == ("main-a", "down")]
    assert (either.of, signal.of) == ("", "symmetric")
    assert either.names == {"ups-a/down", "hall-a/down"}
    assert signal.names == {"ups-a/down"}
    np.testing.assert_allclose(either.room_w, plain + 150e3)
    np.testing.assert_allclose(signal.room_w, plain)
    (hurry,) = [one for one in held.rooms if one.within_s < np.inf]
    assert 59.0 < hurry.within_s < 60.0
    assert hurry.of == "symmetric"
    np.testing.assert_allclose(hurry.room_w, paths(350e3 + 60e3 - 150e3, 20e3)[:, :8])
    assert not [one for one in shelf().rooms if one.within_s < np.inf or one.of]


def test_what_is_drawn_more_has_to_fit_the_feed() -> None:
    """Of 594 kW of main-b load and hall draw 450 kW and PV gives 60 kW, each as in the same sample of the past."""
    found = room(shelf(), "main-b", "down")
    assert found.names == {"bess-b/down", "pv-b/down"}
    offsets_w = paths(0.0, 1.0)[:, :8]
    np.testing.assert_allclose(found.room_w, IMPORT_W - 390e3 - 10e3 * offsets_w)
    site = room(shelf(), "dc1", "down")
    assert site.names == {"bess-b/down", "pv-b/down", "ups-a/down"}
    np.testing.assert_allclose(site.room_w, 0.99 * 1.2e6 - 840e3 - 40e3 * offsets_w)


def test_what_is_given_has_to_fit_the_feed_too() -> None:
    """Nothing may leave main-a, so no more is given there than is drawn."""
    found = room(shelf(), "main-a", "up")
    assert found.names == {"ups-a", "hall-a/tier2", "hall-a/tier3"}
    np.testing.assert_allclose(found.room_w, paths(450e3, 30e3)[:, :8])
    np.testing.assert_allclose(room(shelf(), "main-b", "up").room_w, 99e3 + paths(390e3, 10e3)[:, :8])


def test_storage_of_the_plan_is_beside_what_is_sold() -> None:
    """Planned charging takes room of increases, planned discharging of reductions; neither makes room for the other."""
    for power_w in (-100e3, 100e3):
        found = shelf(timetable=timetable(PLANT, {**REST, "bess-b": power_w}, HALF))
        down_w, up_w = (room(found, "main-b", way).room_w for way in ("down", "up"))
        plain = shelf()
        np.testing.assert_allclose(room(plain, "main-b", "down").room_w - down_w, max(power_w, 0.0))
        np.testing.assert_allclose(room(plain, "main-b", "up").room_w - up_w, max(-power_w, 0.0))


def test_what_is_away_makes_no_room() -> None:
    """PV that does not answer may give nothing, and a hall that does not may draw nothing, whatever their forecasts say."""
    away = shelf(away=frozenset({"pv-b", "hall-b"}))
    np.testing.assert_allclose(room(away, "main-b", "down").room_w, IMPORT_W - paths(450e3, 30e3)[:, :8])
    np.testing.assert_allclose(room(away, "main-b", "up").room_w, 99e3 + paths(90e3, -10e3)[:, :8])


def test_where_the_load_is_not_foreseen_nothing_more_is_drawn() -> None:
    """Nor at the connection above it, and it is said; what is given is counted from no load at all."""
    blind = {name: one for name, one in outlooks().items() if name != "load/main-b"}
    found = shelf(outlook=blind)
    assert np.isnan(room(found, "main-b", "down").room_w).all()
    assert np.isnan(room(found, "dc1", "down").room_w).all()
    assert "not foreseen" in found.missing["main-b"]
    np.testing.assert_allclose(room(found, "main-b", "up").room_w, 99e3 + paths(240e3, 0.0)[:, :8])
    assert "main-a" not in found.missing


def test_a_load_without_samples_is_taken_high() -> None:
    """Its high quantile, and more while it was never compared with what came true; generation nobody foresees may be all there is."""
    found = shelf(outlook={**outlooks(), "load/main-a": outlook("load/main-a", 150e3)})
    demand_w = 300e3 + 20e3 * paths(0.0, 1.0)[:, :8]
    np.testing.assert_allclose(room(found, "main-a", "down").room_w, IMPORT_W - 150e3 / UNTRIED_FRAC - demand_w)
    np.testing.assert_allclose(room(found, "main-a", "up").room_w, UNTRIED_FRAC * 150e3 + demand_w)
    dark = {name: one for name, one in outlooks().items() if not name.startswith("generation/")}
    np.testing.assert_allclose(
        room(shelf(outlook=dark), "main-b", "up").room_w, 99e3 + paths(450e3 - PV.rated_w, 30e3)[:, :8]
    )


def a_sale(direction: str = "down") -> Sale:
    """Return a quarter of an hour by the kW."""
    return Sale(
        "p", "dc1", direction, Interval(START, START + timedelta(seconds=STEP_S)), "EUR", 300.0, 900.0, 1e3, 1e3
    )


def test_no_more_is_offered_than_the_feed_has_room_for() -> None:
    """Battery and PV could draw 300 kW more on main-b; beside a load of 300 kW the feed has room for 44 kW of it."""
    busy = {**outlooks(), "load/main-b": outlook("load/main-b", 300e3, paths(300e3, 10e3))}
    for forecasts, most_w in ((outlooks(), 100e3 + 204e3), (busy, 100e3 + 54e3)):
        found = shelf(outlook=forecasts)
        given = offering([a_sale()], found.stocks, start=START, step_s=STEP_S, rooms=found.rooms)
        assert most_w - 12e3 < given.bids[0].power_w <= most_w
        blind = offering([a_sale()], found.stocks, start=START, step_s=STEP_S)
        assert blind.bids[0].power_w > 380e3


def test_no_more_is_offered_than_the_ramps_reach_in_time() -> None:
    """20 kW a second upwards: within 5 s no more than 100 kW in all; what has time has all of it, but for what is sold."""
    found = shelf()
    fast, slow = replace(a_sale(), product="fast", activation_s=5.0), a_sale()
    rooms = ramps_of(CONFIG.site, found.stocks, [fast, slow])
    assert [(one.direction, one.within_s, one.room_w.max()) for one in rooms] == [
        ("up", 5.0, 250e3), ("up", 300.0, 15e6), ("down", 5.0, 100e3), ("down", 300.0, 6e6),
    ]  # fmt: skip
    one, other = (
        offering(sales, found.stocks, start=START, step_s=STEP_S, rooms=rooms).bids
        for sales in ([fast, replace(fast, product="too")], [slow])
    )
    assert sum(bid.power_w for bid in one) == 100e3
    assert other[0].power_w > 300e3


def test_samples_of_generation_are_of_the_same_moments_as_compute() -> None:
    """One with fewer samples gives a low quantile instead of taking samples from the clusters."""
    few = {**outlooks(), "generation/pv-b": outlook("generation/pv-b", 60e3, paths(60e3, 20e3, rows=12))}
    found = shelf(outlook=few)
    assert len(stock(found, "pv-b/down").paths_w) == 1
    assert len(stock(found, "hall-a/tier3").paths_w) == 40
    alone = {name: one for name, one in few.items() if not name.startswith("compute/")}
    assert len(stock(shelf(outlook=alone), "pv-b/down").paths_w) == 12


def test_storage_that_cannot_be_charged_is_sold_one_way() -> None:
    """A UPS without a rating for charging gives no increase."""
    assets = tuple(
        asset.model_copy(update={"rated_charge_w": 0.0}) if asset.id == "ups-a" else asset for asset in CONFIG.assets
    )
    found = shelf_of(assets, SITE, outlooks(), timetable(PLANT, REST, HALF), STEPS)
    assert "ups-a" in {one.name for one in found.stocks}
    assert "ups-a/down" not in {one.name for one in found.stocks}
    assert found.rooms == ()
