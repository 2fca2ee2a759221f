"""No kW and no kWh is sold twice, over any run of offers and awards, upwards, downwards and both ways alike."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.offering_rig import ROWS, STEP_S, STEPS, T0, battery, cluster, obliged, offered, room, sale
from vppd.core.bidding.bid import Bid
from vppd.core.bidding.greedy import greedy
from vppd.core.bidding.offering import Offering, Room, Sale, Stock, bid_id, energy_h
from vppd.core.bidding.quote import Reading
from vppd.model import Obligation
from vppd.snapshot import Bools, Floats

Owed = tuple[str, int, int, float, float, tuple[tuple[str, float], ...]]
"""Direction, first and last step, activation [s], energy per watt [h], what stands behind it."""
SIDES = {"up": ("up",), "down": ("down",), "symmetric": ("up", "down")}


@st.composite
def plants(draw: st.DrawFn) -> tuple[list[Stock], list[Room]]:
    """Some clusters with joint samples, some batteries that give, take or both, and room for a part of them."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    stocks = []
    for i in range(draw(st.integers(0, 3))):
        stocks.append(
            cluster(
                f"c{i}", noisy(rng, draw(st.sampled_from([0.0, 0.2, 0.8]))), draw(st.sampled_from([1e-4, 2e-4])),
                response_s=draw(st.sampled_from([60.0, 300.0])), direction=draw(st.sampled_from(["up", "up", "down"])),
                one_way=draw(st.booleans()),
            )
        )  # fmt: skip
    for i in range(draw(st.integers(0, 2))):
        for way in draw(st.sampled_from(list(SIDES.values()))):
            power_w, energy_wh = draw(st.sampled_from([1e5, 5e5])), draw(st.sampled_from([1e5, 3e5]))
            one = battery(power_w, energy_wh, recovery_steps=draw(st.integers(0, 4)), direction=way)
            stocks.append(replace(one, name=f"b{i}/{way}"))
    rooms = []
    for way in draw(st.lists(st.sampled_from(["up", "down"]), max_size=3)):
        names = [stock.name for stock in stocks if stock.direction == way and draw(st.booleans())]
        known = draw(st.booleans())
        room_w = draw(st.sampled_from([3e5, 1e6])) * (np.ones((1, STEPS)) if known else noisy(rng, 0.2) / 6e5)
        terms = {"within_s": draw(st.sampled_from([math.inf, 60.0])), "of": draw(st.sampled_from(["", "symmetric"]))}
        rooms.append(room(room_w, *names, direction=way, **terms))
    return stocks, rooms


def noisy(rng: np.random.Generator, spread_frac: float) -> Floats:
    """Joint samples of some hundred kW, as whole days go up and down and quarters of an hour too."""
    noise_frac = rng.normal(0.0, spread_frac, (ROWS, 1)) + rng.normal(0.0, 0.1, (ROWS, STEPS))
    return np.asarray(np.maximum(1e6 * rng.uniform(0.2, 1.0, STEPS) * (1.0 + noise_frac), 0.0))


@st.composite
def rounds(draw: st.DrawFn) -> list[tuple[list[Sale], list[float]]]:
    """Three rounds of sales in overlapping products, and the part of each bid that is then awarded."""
    found = []
    for turn in range(3):
        sales = []
        for i in range(draw(st.integers(1, 4))):
            steps = draw(st.sampled_from([1, 2, 4, 8]))
            direction = draw(st.sampled_from(["up", "up", "down", "symmetric"]))
            sales.append(
                sale(
                    draw(st.integers(0, STEPS // steps - 1)) * steps, steps, product=f"p{turn}{i}",
                    direction=direction,
                    activation_s=draw(st.sampled_from([1.0, 60.0, 750.0, math.inf])),
                    sustain_s=draw(st.sampled_from([None, 300.0, 900.0])),
                    dispatch="order" if direction == "symmetric" else draw(st.sampled_from(["order", "scheduled"])),
                    min_w=draw(st.sampled_from([0.0, 1e5])), step_w=draw(st.sampled_from([1e3, 1e5])),
                    expected_price_per_wh=draw(st.sampled_from([None, 5e-5, 1e-3])),
                )
            )  # fmt: skip
        found.append((sales, [draw(st.sampled_from([0.0, 0.5, 1.0])) for _ in sales]))
    return found


def owed(claim: Bid | Obligation, behind: tuple[tuple[str, float], ...]) -> Owed:
    """What a bid or an award asks for, with what stands behind it: of a symmetric one all of it twice."""
    assert claim.interval.end is not None
    first = round((claim.interval.start - T0).total_seconds() / STEP_S)
    end = round((claim.interval.end - T0).total_seconds() / STEP_S)
    within_s = math.inf if claim.activation_s is None else claim.activation_s
    sides = len(SIDES[claim.direction])
    assert sum(w for _, w in behind) == pytest.approx(sides * claim.power_w, abs=1.0)
    return claim.direction, first, end - 1, within_s, energy_h(claim), behind


def sold_twice(
    stocks: Sequence[Stock], owing: Sequence[Owed], reading: Reading, rooms: Sequence[Room] = ()
) -> list[str]:
    """Return where more is owed than there is: of a battery's power or energy, or of the rest in more samples than promised."""
    own = {stock.name: stock for stock in stocks}
    found = []
    for one in owing:
        direction, first, last, within_s, _, behind = one
        if not all(may_draw(own[name], direction, within_s) for name, _ in behind):
            found.append("a stock that is too slow, or goes the other way")
        by_side_w = [sum(w for name, w in behind if own[name].direction == side) for side in SIDES[direction]]
        if max(by_side_w) - min(by_side_w) > 1.0:
            found.append(f"of a symmetric product only {min(by_side_w)} W on one side")
        short = missing(stocks, rooms, owing, one)
        samples = short.any(axis=1) if reading is Reading.HOURS else short
        if samples.sum() > math.floor(0.1 * samples.size + 1e-9):
            found.append(f"power {direction} in steps {first} to {last}: {samples.mean():.3f} short")
    for stock in stocks:
        if stock.energy_wh is not None:
            found += battery_sold_twice(stock, owing)
    return found


def missing(stocks: Sequence[Stock], rooms: Sequence[Room], owing: Sequence[Owed], one: Owed) -> Bools:
    """Say in which samples something that is owed is not there: of clusters on either side, or room for all of it."""
    direction, first, last, within_s, _, _ = one
    steps = slice(first, last + 1)
    short = np.zeros((ROWS, last + 1 - first), dtype=np.bool_)
    for side in SIDES[direction]:
        pool = [s for s in stocks if s.energy_wh is None and s.direction == side and may_draw(s, direction, within_s)]
        there_w = sum((s.paths_w[:, steps] for s in pool), np.zeros(short.shape))
        names = {s.name for s in pool}
        short |= there_w < due_w(owing, names, within_s)[steps] - 1.0
        for limit in rooms:
            if limit.direction == side and within_s <= limit.within_s and limit.of in ("", direction):
                short |= limit.room_w[:, steps] < due_w(owing, limit.names, limit.within_s)[steps] - 1.0
    return short


def may_draw(stock: Stock, direction: str, within_s: float) -> bool:
    """Say whether a stock may stand behind a sale."""
    fits = stock.direction in SIDES[direction] and not (stock.one_way and direction == "symmetric")
    return fits and stock.response_s <= within_s


def due_w(owing: Sequence[Owed], names: Collection[str], within_s: float) -> Floats:
    """What is owed of some stocks in each step by all that is asked for within a time. [W]"""
    found_w = np.zeros(STEPS)
    for _, first, last, asked_s, _, behind in owing:
        if asked_s <= within_s:
            found_w[first : last + 1] += sum(w for name, w in behind if name in names)
    return found_w


def battery_sold_twice(stock: Stock, owing: Sequence[Owed]) -> list[str]:
    """Return the steps in which more of a battery is owed than it has: power, and energy or room for it."""
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
    plant: tuple[list[Stock], list[Room]], turns: list[tuple[list[Sale], list[float]]], reading: Reading
) -> None:
    """Over three rounds of bids and any awards of them: were all bids awarded now, everything could still be delivered."""
    held: list[Obligation] = []
    stocks, rooms = plant
    for sales, parts in turns:
        found = offered(sales, stocks, held, reading=reading, rooms=rooms)
        assert sold_twice(stocks, all_owed(held, found), reading, rooms) == []
        assert max(found.short_w, default=0.0) < 1.0
        held += awarded(found, sales, parts)


@settings(max_examples=40, deadline=None)
@given(plants(), rounds(), st.sampled_from(list(Reading)))
def test_nothing_is_sold_twice_when_the_solver_is_late(
    plant: tuple[list[Stock], list[Room]], turns: list[tuple[list[Sale], list[float]]], reading: Reading
) -> None:
    """The quick rule that stands in for it keeps the same promises, as long as it finds room for all that is held."""
    held: list[Obligation] = []
    stocks, rooms = plant
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "vppd.core.bidding.offering.split",
            lambda resources, lots, together, limit_s: greedy(resources, lots, together),
        )
        for sales, parts in turns:
            found = offered(sales, stocks, held, reading=reading, rooms=rooms)
            if max(found.short_w, default=0.0) < 1.0:
                assert sold_twice(stocks, all_owed(held, found), reading, rooms) == []
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
