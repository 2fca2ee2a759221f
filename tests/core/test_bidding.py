"""Bids: how much is sure, at what price, and nothing sold twice."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vppd.core.bidding.greedy import greedy
from vppd.core.bidding.lots import Lot, Resource, Split, suits
from vppd.core.bidding.quote import Block, Charges, Reading, overbid_frac, price_curve, sure_w
from vppd.core.bidding.split import split
from vppd.snapshot import Floats

SAMPLES = arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(1, 60)), elements=st.floats(0.0, 1e6))


@given(SAMPLES, st.floats(0.0, 0.5))
def test_the_volume_is_the_most_that_keeps_the_promise(samples_w: Floats, epsilon_frac: float) -> None:
    """By either reading the promise is kept on the samples, and any more would break it."""
    for reading, n in ((Reading.MINUTES, samples_w.size), (Reading.HOURS, len(samples_w))):
        offer_w = sure_w(samples_w, reading, epsilon_frac)
        allowed = math.floor(epsilon_frac * n + 1e-9)
        over = (samples_w < offer_w) if reading is Reading.MINUTES else (samples_w < offer_w).any(axis=1)
        assert over.sum() <= allowed
        more_w = np.nextafter(offer_w, np.inf)
        over = (samples_w < more_w) if reading is Reading.MINUTES else (samples_w < more_w).any(axis=1)
        assert over.sum() > allowed


def test_the_two_readings_differ_as_they_should() -> None:
    """One bad minute in every day costs nothing by minutes and everything by hours."""
    samples_w = np.full((10, 60), 100.0)
    samples_w[:, 30] = 10.0
    assert sure_w(samples_w, Reading.MINUTES) == 100.0
    assert sure_w(samples_w, Reading.HOURS) == 10.0
    assert overbid_frac(100.0, samples_w) == pytest.approx(1 / 60)
    assert overbid_frac(100.0, samples_w, Reading.HOURS) == 1.0


def test_nothing_is_sold_on_missing_samples() -> None:
    """Without samples, or with a gap in them, there is no volume to state."""
    for samples_w in (np.zeros((0, 5)), np.array([[1.0, np.nan]])):
        with pytest.raises(ValueError, match="needs samples"):
            sure_w(samples_w)


def test_a_price_covers_the_dearest_watt_it_may_need() -> None:
    """Three blocks, steps of 1 MW: the step that straddles two blocks costs as the dearer one."""
    blocks = (Block(2.5e6, 3e-4), Block(1.7e6, 1e-4), Block(9e6, 9e-4))
    curve = price_curve(blocks, 5e6, Charges(1e-5, 1e-3, 0.1), step_w=1e6, min_w=1e6)
    assert [step.upto_w for step in curve] == [1e6, 4e6, 5e6]
    assert [step.price_per_wh for step in curve] == pytest.approx([2.1e-4, 4.1e-4, 1.01e-3])


def test_less_than_the_least_bid_is_no_bid() -> None:
    """Too little volume offers nothing rather than something that cannot be kept."""
    assert price_curve((Block(0.9e6, 1e-4),), 5e6, step_w=1e6, min_w=1e6) == ()
    assert price_curve((Block(5e6, 1e-4),), 0.0) == ()
    with pytest.raises(ValueError, match="greater than 0"):
        price_curve((Block(1.0, 1.0),), 1.0, step_w=0.0)


@given(
    st.lists(st.tuples(st.floats(0.0, 1e7), st.floats(-1e-3, 1e-2)), max_size=6),
    st.floats(0.0, 3e7),
    st.sampled_from([1.0, 1e5, 1e6]),
    st.sampled_from([0.0, 1e6]),
)
def test_no_watt_is_offered_below_its_cost(
    raw: list[tuple[float, float]], volume_w: float, step_w: float, min_w: float
) -> None:
    """Prices never fall, quantities rise in whole steps, and whatever part is accepted pays for the watts it needs."""
    blocks = [Block(w, cost) for w, cost in raw]
    curve = price_curve(blocks, volume_w, Charges(margin_per_wh=1e-6), step_w=step_w, min_w=min_w)
    prices, ends_w = [s.price_per_wh for s in curve], [s.upto_w for s in curve]
    assert prices == sorted(prices)
    assert ends_w == sorted(ends_w)
    assert all(w >= min_w for w in ends_w)
    assert not ends_w or ends_w[-1] <= min(volume_w, sum(w for w, _ in raw)) * (1 + 1e-9)
    for step in curve:
        needed_w, dearest = 0.0, -math.inf
        for block in sorted(blocks, key=lambda b: b.cost_per_wh):
            if needed_w < step.upto_w * (1 - 1e-9) and block.power_w > 0:
                dearest = block.cost_per_wh
            needed_w += block.power_w
        assert step.price_per_wh >= dearest


# ---- nothing sold twice ------------------------------------------------------------------------------------------------


def resource(name: str, w: float | Floats, steps: int = 4, **rest: object) -> Resource:
    """A resource that gives the same in every step, unless said otherwise."""
    values = {"direction": "up", "response_s": 1.0, **rest}
    return Resource(name=name, sure_w=np.broadcast_to(np.asarray(w, dtype=np.float64), (steps,)).copy(), **values)  # type: ignore[arg-type]


def lot(name: str, worth_per_w: float, **rest: object) -> Lot:
    """A lot over all four steps that answers within a minute, unless said otherwise."""
    values = {"direction": "up", "first_step": 0, "last_step": 3, "activation_s": 60.0, "sustain_h": 0.0, **rest}
    return Lot(name=name, worth_per_w=worth_per_w, **values)  # type: ignore[arg-type]


def test_the_dearer_product_gets_the_watts() -> None:
    """Two products over the same resource: the one that pays more gets all of it."""
    found = split((resource("ups", 5e3),), (lot("a", 1.0), lot("b", 2.0)))
    assert found.offer_w == (0.0, 5e3)
    assert found.drawn_w[1] == (("ups", 5e3),)
    assert found.status == "optimal"
    assert found.worth == pytest.approx(1e4)


def test_the_fast_resource_is_kept_for_the_product_that_needs_it() -> None:
    """A slow product is served by the hall, although the UPS could serve it too."""
    found = split(
        (resource("ups", 1e3), resource("hall", 4e3, response_s=60.0)),
        (lot("slow", 5.0, activation_s=750.0, max_w=4e3), lot("fast", 1.0, activation_s=1.0)),
    )
    assert found.offer_w == (4e3, 1e3)
    assert dict(found.drawn_w[0]) == pytest.approx({"hall": 4e3})


def test_energy_is_sold_once_within_its_recovery() -> None:
    """Two slots one after another share the battery's energy when it needs a step to come back, and not after."""
    lots = (lot("a", 2.0, last_step=0, sustain_h=1.0), lot("b", 1.0, first_step=1, last_step=1, sustain_h=1.0))
    kept = split((resource("ups", 10e3, energy_wh=6e3, recovery_steps=1),), lots)
    assert kept.offer_w == (6e3, 0.0)
    assert split((resource("ups", 10e3, energy_wh=6e3),), lots).offer_w == (6e3, 6e3)


def test_least_bids_groups_and_steps_hold() -> None:
    """Half a least bid is none; one lot of a group; whole steps."""
    ups = resource("ups", 2.5e3)
    assert split((ups,), (lot("a", 9.0, min_w=3e3),)).offer_w == (0.0,)
    assert split((ups,), (lot("a", 1.0, step_w=1e3),)).offer_w == (2e3,)
    both = split((ups,), (lot("a", 1.0, max_w=1e3, group="g"), lot("b", 0.9, max_w=1e3, group="g")))
    assert both.offer_w == (1e3, 0.0)
    assert split((ups,), (lot("a", -1.0),)).offer_w == (0.0,)
    assert split((ups,), ()) == Split((), (), 0.0, 0.0, "optimal")


STEPS = 4


@st.composite
def markets(draw: st.DrawFn) -> tuple[list[Resource], list[Lot]]:
    """A few resources and overlapping lots."""
    whole = st.integers(0, 6)
    resources = [
        Resource(
            name=f"r{i}",
            direction=draw(st.sampled_from(["up", "down"])),
            response_s=draw(st.sampled_from([1.0, 60.0])),
            sure_w=np.array([1e3 * draw(whole) for _ in range(STEPS)]),
            energy_wh=draw(st.sampled_from([math.inf, 2e3, 5e3])),
            recovery_steps=draw(st.integers(0, 2)),
        )
        for i in range(draw(st.integers(1, 3)))
    ]
    lots = []
    for i in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, STEPS - 1))
        lots.append(
            Lot(
                name=f"l{i}",
                direction=draw(st.sampled_from(["up", "down"])),
                first_step=first,
                last_step=draw(st.integers(first, STEPS - 1)),
                activation_s=draw(st.sampled_from([1.0, 60.0])),
                sustain_h=draw(st.sampled_from([0.0, 0.5, 1.0])),
                worth_per_w=draw(st.floats(-1.0, 5.0)),
                min_w=draw(st.sampled_from([0.0, 2e3])),
                step_w=1e3,
                max_w=draw(st.sampled_from([math.inf, 3e3])),
                group=draw(st.sampled_from(["", "g"])),
            )
        )
    return resources, lots


def check(resources: list[Resource], lots: list[Lot], found: Split) -> None:
    """Every watt and watt-hour behind the offers exists once; offers keep their lots' terms."""
    by_name = {r.name: r for r in resources}
    for i, (one, offer_w) in enumerate(zip(lots, found.offer_w, strict=True)):
        assert offer_w == pytest.approx(sum(w for _, w in found.drawn_w[i]), abs=1e-3)
        assert offer_w <= one.max_w
        assert offer_w == 0.0 or offer_w >= one.min_w
        assert offer_w / one.step_w == pytest.approx(round(offer_w / one.step_w))
        assert all(suits(by_name[name], one) for name, _ in found.drawn_w[i])
    assert sum(1 for i, one in enumerate(lots) if one.group and found.offer_w[i] > 0) <= 1
    drawn = {(i, name): w for i in range(len(lots)) for name, w in found.drawn_w[i]}
    for owner in resources:
        for t in range(STEPS + 2):
            now = [i for i, one in enumerate(lots) if one.first_step <= t <= one.last_step]
            assert t >= STEPS or sum(drawn.get((i, owner.name), 0.0) for i in now) <= owner.sure_w[t] + 1e-3
            bound = [i for i, one in enumerate(lots) if one.first_step <= t <= one.last_step + owner.recovery_steps]
            used_wh = sum(drawn.get((i, owner.name), 0.0) * lots[i].sustain_h for i in bound)
            assert used_wh <= owner.energy_wh + 1e-3


@settings(max_examples=150, deadline=None)
@given(markets())
def test_no_watt_and_no_watt_hour_is_sold_twice(market: tuple[list[Resource], list[Lot]]) -> None:
    """Over any overlapping products, from the solver and from the fallback alike; the fallback is never worth more."""
    resources, lots = market
    found, quick = split(resources, lots), greedy(resources, lots)
    check(resources, lots, found)
    check(resources, lots, quick)
    assert quick.worth <= found.worth * (1 + 1e-3) + 1e-3
    assert found.worth <= found.bound + 1e-3 + 1e-3 * abs(found.bound)


@settings(max_examples=40, deadline=None)
@given(markets())
def test_the_split_is_the_best_there_is(market: tuple[list[Resource], list[Lot]]) -> None:
    """On small markets no combination of whole steps that can be drawn is worth more: compared by trying them all."""
    resources, lots = market
    lots = lots[:2]
    found = split(resources, lots, gap_frac=0.0)
    best = max(
        sum(one.worth_per_w * w for one, w in zip(lots, offers, strict=True))
        for offers in itertools.product(*([1e3 * k for k in range(19)] for _ in lots))
        if _can_be_drawn(resources, lots, offers)
    )
    assert found.worth == pytest.approx(best, abs=1e-3)


def _can_be_drawn(resources: list[Resource], lots: list[Lot], offers: tuple[float, ...]) -> bool:
    """Say whether fixed offers can be drawn: the worth of the lots plays no part, each may be offered whole or not at all."""
    for one, w in zip(lots, offers, strict=True):
        if w and (w < one.min_w or w > one.max_w):
            return False
    if sum(1 for one, w in zip(lots, offers, strict=True) if one.group and w) > 1:
        return False
    pinned = [
        Lot(one.name, one.direction, one.first_step, one.last_step, one.activation_s, one.sustain_h, 1.0, w, w, w)
        for one, w in zip(lots, offers, strict=True)
        if w
    ]
    return not pinned or split(resources, pinned, gap_frac=0.0).offer_w == tuple(w for w in offers if w)
