"""What is offered of a plant is what it does when it is ordered: from forecasts and plan to the meter."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from tests.planning.market_rig import STEP_S, config, outlooks, timetable
from vppd.core.bidding.bid import Bid
from vppd.core.bidding.offering import Sale, offering
from vppd.model import Interval, OrderKind, Signal
from vppd.planning.trade.connection import nodes_of, ramps_of
from vppd.planning.trade.shelf import Steps, shelf_of
from vppd.plant import plant_of
from vppd.products import site_of
from vppd.testing.cycles import START, World

CONFIG = config()
CYCLE_S = 5.0
SITE = CONFIG.site.model_copy(update={"cycle_s": CYCLE_S, "lease_s": 60.0})
SUN_W, HALL_W = 60e3, 300e3
UNHELD_W = 2 * 150e3 + 2 * HALL_W - SUN_W
"""What the site draws with storage at rest and nobody held. [W]"""


def a_world(waits_w: float) -> World:
    """Return the plant of the rig's forecasts, half full, with so much of the work of one hall put off by the plan."""
    world = World(CONFIG.model_copy(update={"site": SITE}))
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), 0.5, np.nan)
    sun = world.index("pv-b")
    world.available_w[sun] = world.power_w[sun] = -SUN_W
    wish_w = np.full(len(world.plant.asset_ids), np.nan)
    wish_w[[world.index("ups-a"), world.index("bess-b")]] = 0.0
    if waits_w:
        wish_w[world.index("hall-a")] = HALL_W - waits_w
    world.preferred_w = wish_w
    world.step(20)
    return world


def a_bid(waits_w: float, direction: str = "down", activation_s: float = 60.0) -> Bid:
    """Return what is offered of it for the first quarter of an hour."""
    rest = {"ups-a": 0.0, "bess-b": 0.0, "hall-a": HALL_W - waits_w}
    plan = timetable(plant_of(CONFIG), rest, {"ups-a": 50e3, "bess-b": 250e3})
    found = shelf_of(
        CONFIG.assets, site_of(CONFIG), outlooks(spread_w=1.0), plan, Steps(START, STEP_S, 8), nodes=nodes_of(CONFIG)
    )
    slot = Interval(START, START + timedelta(seconds=STEP_S))
    sale = Sale("p", "dc1", direction, slot, "EUR", activation_s, STEP_S, 1e3, 1e3)
    rooms = (*found.rooms, *ramps_of(CONFIG.site, found.stocks, [sale]))
    (bid,) = offering([sale], found.stocks, start=START, step_s=STEP_S, rooms=rooms).bids
    return bid


@pytest.mark.parametrize("waits_w", [0.0, 150e3])
def test_an_increase_that_is_sold_is_drawn_when_it_is_ordered(waits_w: float) -> None:
    """Storage, and work that the plan had put off: for the whole slot the meter shows it above what was drawn without it."""
    world, bid = a_world(waits_w), a_bid(waits_w)
    assert bid.power_w > 290e3 + waits_w
    world.order(OrderKind.INCREASE, "dc1", bid.power_w, product="p", for_s=STEP_S)
    world.step(int(60.0 / CYCLE_S))
    least_w, most_w = np.inf, 0.0
    for _ in range(int((STEP_S - 70.0) / CYCLE_S)):
        world.step()
        feeds_w = [world.meter_w(feed) for feed in ("main-a", "main-b")]
        least_w, most_w = min(least_w, sum(feeds_w)), max(most_w, *feeds_w)
    assert least_w >= UNHELD_W - waits_w + bid.power_w
    assert most_w <= 600e3, "of a feed"


@pytest.mark.parametrize(("waits_w", "sold_w"), [(0.0, 200e3), (150e3, 50e3)])
def test_a_signal_is_followed_both_ways_by_all_that_is_sold(waits_w: float, sold_w: float) -> None:
    """It counts from what would be drawn without the plan: what of that is put off takes a part of the ramp of 20 kW a second."""
    world, bid = a_world(waits_w), a_bid(waits_w, "symmetric", 10.0)
    assert bid.power_w == pytest.approx(sold_w, abs=1e3)
    world.order(OrderKind.REGULATION, "dc1", bid.power_w, product="p", for_s=STEP_S)
    for signal in (1.0, -1.0, 0.5, 0.0):
        for _ in range(4):
            world.signals = [Signal("tso", signal, world.mono_s)]
            world.step()
        site_w = sum(world.meter_w(feed) for feed in ("main-a", "main-b"))
        assert site_w == pytest.approx(UNHELD_W + signal * bid.power_w, abs=1e3)
