"""What is sold and kept ready is still there when its hour comes, though another product is delivered before."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from tests.planning.test_holding import Book
from vppd.core.cycle import decide
from vppd.core.promised import kept_ready
from vppd.model import Interval, Obligation, OrderKind
from vppd.planning.trade.settling import Settling
from vppd.runtime.record import Replay, decode, digest, encode, pack
from vppd.snapshot import Snapshot
from vppd.testing.cycles import World, two_feeds

HOUR_S = 3600.0
CYCLE_S = 20.0
FIRST_W, SECOND_W = 250e3, 480e3
"""Clusters can shed 336 kW, storage has 215 kWh above its reserves."""


def site() -> World:
    """Return a plant with a long beat that has run for a while."""
    config = two_feeds(cycle_s=CYCLE_S, lease_s=100.0)
    assets = tuple(
        a.model_copy(update={"stale_after_s": 100.0, "capacity_wh": a.capacity_wh / 2.0}) for a in config.assets
    )
    world = World(config.model_copy(update={"assets": assets}))
    world.step(10)
    return world


def second_hour(world: World) -> Obligation:
    """Return an award that is kept ready in the hour after the first, to be called for all of it."""
    start = world.at + timedelta(seconds=HOUR_S)
    interval = Interval(start, start + timedelta(seconds=HOUR_S))
    return Obligation("b", "bid", "tso", "reserve", "dc1", "up", interval, SECOND_W, sustain_s=HOUR_S)


def traded(*, known: bool) -> tuple[dict[str, float], float]:
    """Deliver one product for an hour and keep another ready in the next; return the statement and what storage gave. [Wh]"""
    world = site()
    award = second_hour(world)
    world.sold = [award] if known else []
    world.order(OrderKind.REDUCE, "dc1", FIRST_W, for_s=HOUR_S, product="peak")
    book = Book([award])
    settling = Settling(book, world.plant, None, book.written.append)
    before_wh = float(np.nansum(world.soc_frac * world.plant.capacity_wh))
    for k in range(round(2 * HOUR_S / CYCLE_S) + 3):
        decision = world.step()
        snapshot = Snapshot(world.at, world.mono_s, world.readings.copy(), tuple(world.orders), (), world.health)
        settling.take(snapshot, decision)
        if k == round(HOUR_S / CYCLE_S) - 2:
            given_wh = before_wh - float(np.nansum(world.soc_frac * world.plant.capacity_wh))
    (told,) = book.statements
    return told, given_wh


def test_another_products_hour_does_not_drain_what_is_kept_ready() -> None:
    """The first hour is carried by clusters, which could, so that the second has what was sold."""
    kept, kept_gave_wh = traded(known=True)
    lost, lost_gave_wh = traded(known=False)
    assert kept["held_frac"] >= 0.95
    assert lost["held_frac"] < 0.8
    assert kept_gave_wh < 0.4 * lost_gave_wh


def test_only_what_is_near_and_kept_ready_is_told() -> None:
    """What is carried out by itself is an order, what is over or tomorrow's says nothing now."""
    world = site()
    award = second_hour(world)
    end = award.interval.end
    assert end is not None
    scheduled = Obligation("c", "bid", "tso", "peak", "dc1", "up", award.interval, 1e5, dispatch="scheduled")
    assert kept_ready([scheduled], world.at) is None
    assert kept_ready([award, scheduled], world.at) == (award,)
    assert kept_ready([award], end) is None
    assert kept_ready([award], world.at - timedelta(days=1)) is None


@pytest.mark.parametrize("ready", [None, "reserve"])
def test_the_order_of_now_is_delivered_all_the_same(ready: str | None) -> None:
    """What nothing else can carry is carried by storage, whatever it is kept for."""
    world = site()
    world.sold = [second_hour(world)] if ready else []
    before_w = sum(map(world.meter_w, ("main-a", "main-b")))
    world.order(OrderKind.REDUCE, "dc1", 600e3, for_s=600.0, product="peak")
    world.step(10)
    assert before_w - sum(map(world.meter_w, ("main-a", "main-b"))) >= 590e3


def test_a_recording_holds_what_was_kept_ready() -> None:
    """What a decision knew is replayed; where nothing was kept ready, frames are as they were before there was such a thing."""
    world = site()
    world.order(OrderKind.REDUCE, "dc1", FIRST_W, for_s=HOUR_S, product="peak")
    before = world.state
    world.step()
    plain = Snapshot(world.at, world.mono_s, world.readings.copy(), tuple(world.orders), (), world.health)
    known = replace(plain, sold=(second_hour(world),))
    assert decode(encode(known)).sold == known.sold
    (size,) = struct.unpack_from("<I", encode(plain))
    assert len(json.loads(encode(plain)[4 : 4 + size])["f"]) == 6
    replay = Replay()
    replay.feed("plant", pack(world.plant))
    replay.feed("state", pack(before))
    replay.feed("cycle", pack(known, digest(decide(known, before, world.plant))))
    assert (replay.cycles, replay.differing) == (1, [])
