"""Stocks, sales and claims on a grid of eight quarter hours, to offer by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from vppd.core.bidding.bid import Bid
from vppd.core.bidding.offering import Offering, Room, Sale, Stock, offering
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
    """A battery with so much behind its power, upwards unless said otherwise."""
    way = rest.get("direction", "up")
    return Stock(
        "ups" if way == "up" else "ups/down", way, 1.0, cost_per_wh, np.full((1, STEPS), power_w),
        np.full(STEPS, energy_wh), rest.get("recovery_steps", 0),
    )  # fmt: skip


def both_ways(power_w: float, energy_wh: float, room_wh: float) -> list[Stock]:
    """A battery that can give and take, each at a cost of its own."""
    return [battery(power_w, energy_wh, 2e-5), battery(power_w, room_wh, 4e-5, direction="down")]


def room(w: Floats | float, *names: str, direction: str = "down", **rest: Any) -> Room:
    """Room for some stocks, known for sure unless it has samples."""
    room_w = w if isinstance(w, np.ndarray) else np.full((1, STEPS), w)
    return Room("feed", direction, frozenset(names), room_w, **rest)


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
