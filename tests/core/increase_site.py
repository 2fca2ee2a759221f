"""A site of 1 MW to order increases of, and what is looked at."""

from __future__ import annotations

import numpy as np

from vppd.config.load import Config
from vppd.config.plant import AssetConfig, FeedConfig, SiteConfig
from vppd.core.settle import Delivery
from vppd.core.state import Phase
from vppd.model import Kind, Order
from vppd.testing.cycles import World

FEEDS = ("main-a", "main-b")
RAMP_UP_W = 20e3
RAMP_DOWN_W = 50e3


def megawatt_site() -> Config:
    """Return a site of 1 MW: 400 kW of storage, 200 kW of PV, two halls."""
    return Config(
        site=SiteConfig(
            id="dc1", agent_id="agent", import_max_w=2e6, export_max_w=1e5, ramp_up_w_per_s=RAMP_UP_W,
            ramp_down_w_per_s=RAMP_DOWN_W,
        ),
        feeds=(
            FeedConfig(tag="main-a", meter="poi-a", import_max_w=1e6),
            FeedConfig(tag="main-b", meter="poi-b", import_max_w=1e6, export_max_w=1e5),
        ),
        assets=(
            AssetConfig(id="poi-a", kind=Kind.METER, feed="main-a", adapter="x"),
            AssetConfig(id="poi-b", kind=Kind.METER, feed="main-b", adapter="x"),
            AssetConfig(
                id="ups-a", kind=Kind.UPS, feed="main-a", adapter="x", capacity_wh=100e3, reserve_frac=0.3,
                rated_charge_w=100e3, rated_discharge_w=200e3,
            ),
            AssetConfig(
                id="bess-b", kind=Kind.BATTERY, feed="main-b", adapter="x", capacity_wh=600e3, reserve_frac=0.1,
                rated_charge_w=300e3, rated_discharge_w=300e3,
            ),
            AssetConfig(id="pv-b", kind=Kind.PV, feed="main-b", adapter="x", rated_w=200e3),
            AssetConfig(id="hall-a", kind=Kind.CLUSTER, feed="main-a", adapter="x", rated_w=500e3),
            AssetConfig(id="hall-b", kind=Kind.CLUSTER, feed="main-b", adapter="x", rated_w=500e3),
        ),
    )  # fmt: skip


def running(*, put_off_w: float = 0.0, delay_s: float = 8.0) -> World:
    """Return that site at rest in sunshine, storage at its resting charge, ``put_off_w`` of hall-a held back by the plan."""
    world = World(config=megawatt_site(), base_w={"main-a": 250e3, "main-b": 300e3}, cluster_delay_s=delay_s)
    for hall in ("hall-a", "hall-b"):
        world.run_jobs(hall, (60e3, 60e3, 100e3, 130e3))
    pv = world.index("pv-b")
    world.available_w[pv] = world.power_w[pv] = -200e3
    for name in ("ups-a", "bess-b"):
        world.soc_frac[world.index(name)] = 0.9
    if put_off_w:
        wish_w = np.full(len(world.plant.asset_ids), np.nan)
        wish_w[world.index("hall-a")] = 350e3 - put_off_w
        world.preferred_w = wish_w
    world.step(20 if put_off_w else 3)
    return world


def site_w(world: World) -> float:
    """Return the true power of the site. [W]"""
    return sum(world.meter_w(feed) for feed in FEEDS)


def seen_w(world: World, cycles: int) -> list[float]:
    """Return the power of the site after each of so many cycles. [W]"""
    found = []
    for _ in range(cycles):
        world.step()
        found.append(site_w(world))
    return found


def delivered(world: World, order: Order) -> Delivery:
    """Return the account of an order that is over."""
    return next(
        t.progress.delivery
        for t in world.transitions
        if t.order.order_id == order.order_id and t.progress.phase is Phase.COMPLETED
    )
