"""No asset runs inside a band, limits that can be met are met, and small instances are solved at least cost."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vppd.core.allocate import Allocation, Curves, allocate, cost_per_h
from vppd.core.commitment import EFFORT, commit
from vppd.core.intervals import Intervals, overlap, thinned, total, united
from vppd.core.pieces import bridged, cut
from vppd.snapshot import Floats, Ints

INF = float("inf")
ONE = np.array([-1], dtype=np.int64)
NO_EFFORT, ALL_EFFORT = 0, 10**9


@dataclass(frozen=True)
class Case:
    """One instance with bands."""

    parent: Ints
    lower_w: Floats
    upper_w: Floats
    curves: Curves
    gap_asset: Ints
    gap_lower_w: Floats
    gap_upper_w: Floats

    def solve(self, effort: int = ALL_EFFORT) -> Allocation:
        """Return the split under test."""
        gaps = self.gap_asset, self.gap_lower_w, self.gap_upper_w
        return commit(self.parent, self.lower_w, self.upper_w, self.curves, *gaps, effort=effort)

    def most_w(self) -> Floats:
        """Return the most power of each asset. [W]"""
        return np.asarray(self.curves.lower_w + self.curves.width_w.sum(axis=1))

    def size_w(self) -> float:
        """Return the scale against which rounding is judged. [W]"""
        return float(np.abs(self.curves.lower_w).sum() + self.curves.width_w.sum()) + 1e-9


def make(seed: int, gapped: int, plain: int, m: int, gaps: int, grid: bool, jobs: bool, target: bool) -> Case:
    """Return a random instance; ``jobs`` are on or off, ``grid`` takes few distinct values."""
    rng = np.random.default_rng(seed)

    def draw(low: float, high: float, shape: int | tuple[int, int]) -> Floats:
        return np.asarray(low + (high - low) * (rng.integers(0, 7, shape) / 6.0 if grid else rng.random(shape)))

    n, k = gapped + plain, 2
    parent = np.array([-1, *(int(rng.integers(0, i)) for i in range(1, m))], dtype=np.int64)
    node = rng.integers(0, m, n)
    lower_w = np.zeros(n) if jobs else draw(-500.0, 100.0, n)
    width_w = draw(10.0, 600.0, (n, k))
    width_w[gapped:] *= 0.2
    asset = np.repeat(np.arange(gapped), 1 if jobs else gaps)
    span_w = width_w.sum(axis=1)
    if jobs:
        gap_lower_w, gap_upper_w = lower_w[asset], lower_w[asset] + span_w[asset]
    else:
        gap_lower_w = lower_w[asset] + span_w[asset] * draw(-0.2, 0.9, len(asset))
        gap_upper_w = gap_lower_w + span_w[asset] * draw(0.0, 0.6, len(asset))
    cost = np.sort(draw(-1.0, 1.0, (n, k)), axis=1)
    reach_w = np.bincount(node, span_w, minlength=m) + np.bincount(node, np.abs(lower_w), minlength=m)
    around_w = draw(0.0, 1.0, m) * reach_w.sum() * np.where(np.arange(m) == 0, 0.8, 0.5)
    lower_limit_w = np.where(rng.random(m) < 0.5, -INF, around_w - draw(0.0, 100.0, m))
    upper_limit_w = np.where(rng.random(m) < 0.5, INF, around_w + draw(0.0, 100.0, m))
    if target:
        lower_limit_w[0] = upper_limit_w[0] = around_w[0]
    curves = Curves(node, lower_w, width_w, cost)
    return Case(parent, lower_limit_w, upper_limit_w, curves, asset, gap_lower_w, gap_upper_w)


def pieces_of(case: Case, asset: int) -> list[tuple[float, float]]:
    """Return what the bands leave of an asset's range, the plain way; all of it if they leave nothing."""
    low_w, high_w = float(case.curves.lower_w[asset]), float(case.most_w()[asset])
    pieces = [(low_w, high_w)]
    for g in np.flatnonzero(case.gap_asset == asset):
        a, b = float(case.gap_lower_w[g]), float(case.gap_upper_w[g])
        cut = [((x, min(y, a)), (max(x, b), y)) if a < y and b > x and a < b else ((x, y),) for x, y in pieces]
        pieces = [(x, y) for pair in cut for x, y in pair if x <= y]
    return sorted(set(pieces)) or [(low_w, high_w)]


def check_legal(case: Case, split: Allocation) -> None:
    """Check bounds, bands and honest reports of any answer."""
    for asset, power_w in enumerate(split.power_w):
        missed_w = min(max(low_w - power_w, power_w - high_w) for low_w, high_w in pieces_of(case, asset))
        assert missed_w <= 1e-12 * case.size_w()
    over_w, under_w = split.node_power_w - case.upper_w, case.lower_w - split.node_power_w
    said_w = np.where(over_w > 0, over_w, np.where(under_w > 0, -under_w, 0.0))
    assert split.shortfall_w == pytest.approx(said_w, abs=1e-11 * case.size_w())


def enumerated(case: Case) -> tuple[Floats, float]:
    """Return the least misses of all nodes and the least cost with them, over every choice of pieces. [W, 1/h]"""
    assets = np.unique(case.gap_asset)
    edges = case.curves.lower_w[:, None] + np.pad(np.cumsum(case.curves.width_w, axis=1), ((0, 0), (1, 0)))
    found: list[tuple[Floats, float]] = []
    for choice in itertools.product(*(pieces_of(case, int(a)) for a in assets)):
        chosen = edges.copy()
        for asset, (low_w, high_w) in zip(assets, choice, strict=True):
            chosen[asset] = np.clip(chosen[asset], low_w, high_w)
        curves = Curves(case.curves.node, chosen[:, 0].copy(), np.diff(chosen, axis=1), case.curves.cost_per_wh)
        split = allocate(case.parent, case.lower_w, case.upper_w, curves)
        found.append((split.shortfall_w, cost_per_h(case.curves, split.power_w)))
    noise_w = 1e-9 * case.size_w()
    for v in reversed(range(len(case.parent))):
        least_w = min(abs(float(s[v])) for s, _ in found)
        found = [(s, c) for s, c in found if abs(float(s[v])) <= least_w + noise_w]
        if any(s[v] < 0 for s, _ in found) and any(s[v] > noise_w for s, _ in found):
            found = [(s, c) for s, c in found if s[v] <= noise_w]
    return found[0][0], min(c for _, c in found)


def cases(most: int) -> st.SearchStrategy[Case]:
    """Return instances small enough to enumerate."""
    return st.builds(
        make,
        seed=st.integers(0, 2**32 - 1),
        gapped=st.integers(1, most),
        plain=st.integers(0, 3),
        m=st.integers(1, 4),
        gaps=st.integers(1, 2),
        grid=st.booleans(),
        jobs=st.booleans(),
        target=st.booleans(),
    )


@settings(max_examples=150, deadline=None)
@given(case=cases(5))
def test_small_instances_equal_enumeration(case: Case) -> None:
    """Misses are the least that any choice of pieces allows, and the cost is the least with them."""
    split = case.solve()
    check_legal(case, split)
    shortfall_w, least_per_h = enumerated(case)
    assert split.shortfall_w == pytest.approx(shortfall_w, abs=1e-9 * case.size_w())
    assert cost_per_h(case.curves, split.power_w) == pytest.approx(least_per_h, rel=1e-9, abs=1e-9 * case.size_w())


@settings(max_examples=100, deadline=None)
@given(case=cases(5))
def test_limits_are_met_without_any_search(case: Case) -> None:
    """The plan alone, with no budget for cost, already misses no more than it must."""
    split = case.solve(NO_EFFORT)
    check_legal(case, split)
    assert split.shortfall_w == pytest.approx(enumerated(case)[0], abs=1e-9 * case.size_w())


def jobs(power_w: list[float], plain_w: float, target_w: float, cost: list[float] | None = None) -> Case:
    """Return jobs that are on or off and one asset of any power up to ``plain_w``, under one target."""
    n = len(power_w) + 1
    curves = Curves(
        node=np.zeros(n, dtype=np.int64),
        lower_w=np.zeros(n),
        width_w=np.array([*power_w, plain_w])[:, None],
        cost_per_wh=np.array([*(cost or [-1.0] * (n - 1)), 0.5])[:, None],
    )
    target = np.array([target_w])
    return Case(ONE, target, target, curves, np.arange(n - 1), np.zeros(n - 1), np.array(power_w))


@pytest.mark.parametrize("seed", [1, 2])
def test_twelve_jobs_equal_enumeration(seed: int) -> None:
    """Twelve jobs of different powers and costs: the default budget finds the best of all 4,096 choices."""
    rng = np.random.default_rng(seed)
    case = jobs(
        rng.uniform(100, 900, 12).tolist(), 30.0, float(rng.uniform(1000, 4000)), rng.uniform(-1, 0, 12).tolist()
    )
    split = case.solve(effort=EFFORT)
    check_legal(case, split)
    shortfall_w, least_per_h = enumerated(case)
    assert split.shortfall_w == pytest.approx(shortfall_w, abs=1e-6)
    assert cost_per_h(case.curves, split.power_w) == pytest.approx(least_per_h, rel=1e-9)


def knapsack(seed: int, kinds: int = 4) -> Case:
    """Return twin jobs, each worth something, of which not all fit under one upper limit."""
    rng = np.random.default_rng(seed)
    power_w = np.repeat(rng.uniform(100, 900, kinds), 2)
    case = jobs(power_w.tolist(), 0.0, 0.0, np.repeat(rng.uniform(-1.0, -0.5, kinds), 2).tolist())
    upper_w = np.array([rng.uniform(0.3, 0.7) * power_w.sum()])
    return replace(case, lower_w=np.array([-INF]), upper_w=upper_w)


def test_the_search_finds_the_best_knapsack_of_twins() -> None:
    """Where the plan alone is too dear, the search finds the best choice, also among jobs that are alike."""
    saved_per_h = []
    for seed in range(12):
        case = knapsack(seed)
        found_per_h = cost_per_h(case.curves, case.solve().power_w)
        assert found_per_h == pytest.approx(enumerated(case)[1], rel=1e-9)
        saved_per_h.append(cost_per_h(case.curves, case.solve(NO_EFFORT).power_w) - found_per_h)
    assert sum(saved > 1.0 for saved in saved_per_h) > 2


def test_the_split_is_unchanged_when_it_lands_in_no_band() -> None:
    """Bands nobody lands in cost nothing and change no bit."""
    case = jobs([100.0, 200.0], 50.0, 330.0)
    plain = allocate(case.parent, case.lower_w, case.upper_w, case.curves)
    assert case.solve().power_w.tobytes() == plain.power_w.tobytes()


def test_an_odd_combination_is_found() -> None:
    """A target that only one choice of jobs meets is met, though each greedy order misses it."""
    split = jobs([700.0, 500.0, 400.0, 300.0], 0.0, 900.0).solve(NO_EFFORT)
    assert split.power_w.tolist() == [0, 500, 400, 0, 0]
    assert not split.shortfall_w.any()


def test_of_two_equal_misses_the_lower_power_is_taken() -> None:
    """Between as much too little and as much too much, the site draws less."""
    split = jobs([60.0, 60.0], 0.0, 90.0).solve()
    assert split.shortfall_w.tolist() == [-30]


def test_an_upper_limit_alone_is_never_exceeded_for_nearness() -> None:
    """Without a lower limit there is no miss below: the jobs that fit run."""
    case = jobs([60.0, 60.0], 0.0, 119.0)
    split = replace(case, lower_w=np.array([-INF])).solve()
    assert sorted(split.power_w.tolist()) == [0, 0, 60]
    assert not split.shortfall_w.any()


def test_bands_that_leave_nothing_are_ignored() -> None:
    """A range wholly inside a band holds: the device's own bounds are the stronger fact."""
    curves = Curves(np.zeros(1, np.int64), np.array([10.0]), np.array([[20.0]]), np.array([[-1.0]]))
    split = commit(ONE, np.array([15.0]), np.array([15.0]), curves, np.array([0]), np.array([0.0]), np.array([50.0]))
    assert split.power_w.tolist() == [15]


def test_overlapping_bands_are_one() -> None:
    """Bands that overlap bar their union, in whatever order they are given; bands that touch leave the point."""
    curves = Curves(np.zeros(1, np.int64), np.array([0.0]), np.array([[100.0]]), np.array([[-1.0]]))
    lower_w, upper_w = np.array([30.0, 10.0, 12.0, 60.0]), np.array([60.0, 40.0, 15.0, 80.0])
    for target_w, nearest_w in ((34.0, 10.0), (36.0, 60.0), (71.0, 80.0)):
        limit = np.array([target_w])
        split = commit(ONE, limit, limit, curves, np.zeros(4, np.int64), lower_w, upper_w)
        assert split.power_w.tolist() == [nearest_w]


def test_a_job_that_no_longer_fits_its_range_stays_off() -> None:
    """A job whose range ends before its full power has only off left, and the rest makes up for it."""
    case = jobs([100.0, 100.0], 80.0, 150.0)
    case.curves.width_w[0] = 70.0
    assert case.solve().power_w.tolist() == [0, 100, 50]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 1000), feeds=st.integers(1, 20), frac=st.floats(0.0, 1.0))
def test_one_asset_that_absorbs_a_step_makes_any_target_exact(seed: int, count: int, feeds: int, frac: float) -> None:
    """However many jobs there are, a target is met exactly if one plain asset is as wide as the largest of them."""
    rng = np.random.default_rng(seed)
    power_w: Floats = rng.uniform(1.0, 100.0, count) if seed % 2 else rng.choice([20.0, 40.0, 60.0, 100.0], count)
    m = feeds + 1
    parent = np.array([-1] + [0] * feeds, dtype=np.int64)
    curves = Curves(
        node=np.append(rng.integers(0, m, count), 0),
        lower_w=np.zeros(count + 1),
        width_w=np.append(power_w, 100.0)[:, None],
        cost_per_wh=np.append(rng.choice([-1.0, -0.5, 0.3], count), rng.uniform(-1, 1))[:, None],
    )
    lower_w, upper_w = np.full(m, -INF), np.full(m, INF)
    lower_w[0] = upper_w[0] = frac * float(curves.width_w.sum())
    case = Case(parent, lower_w, upper_w, curves, np.arange(count), np.zeros(count), power_w)
    split = case.solve(NO_EFFORT)
    barred = (split.power_w[:-1] > 0) & (split.power_w[:-1] < power_w)
    assert not barred.any()
    assert not split.shortfall_w.any()


@pytest.mark.parametrize("alike", [True, False])
def test_a_thousand_jobs_without_slack_come_close(alike: bool) -> None:
    """With nothing to absorb a step the target is missed by a trifle of it, and by no more than is said."""
    rng = np.random.default_rng(3)
    power_w = rng.choice([1000.0, 2000.0, 5000.0], 1000) if alike else rng.uniform(500.0, 10_000.0, 1000)
    case = jobs(power_w.tolist(), 0.0, 1_234_567.0, rng.uniform(-1, 0, 1000).tolist())
    split = case.solve(EFFORT)
    assert split.shortfall_w[0] == pytest.approx(split.node_power_w[0] - 1_234_567.0, abs=1e-6)
    assert abs(split.shortfall_w[0]) <= (433.0 if alike else 1.0) + 1e-6


@settings(max_examples=30, deadline=None)
@given(case=cases(6))
def test_same_input_same_bits(case: Case) -> None:
    """Two runs agree bit for bit."""
    one, two = case.solve(EFFORT), case.solve(EFFORT)
    assert one.power_w.tobytes() == two.power_w.tobytes()
    assert one.shortfall_w.tobytes() == two.shortfall_w.tobytes()


points = st.lists(st.tuples(st.integers(-20, 20), st.integers(0, 6)), min_size=1, max_size=6)


def union_of(pairs: list[tuple[int, int]]) -> Intervals:
    """Return the union of [start, start + length]."""
    start = np.array([float(a) for a, _ in pairs])
    return united(start, start + np.array([float(b) for _, b in pairs]), 0.0)


def halves(a: Intervals) -> set[float]:
    """Return the members of a set of integer intervals, in steps of a half."""
    return {x / 2 for lo, hi in zip(a.lower_w, a.upper_w, strict=True) for x in range(int(2 * lo), int(2 * hi) + 1)}


@settings(max_examples=200, deadline=None)
@given(one=points, two=points)
def test_sums_and_overlaps_are_those_of_sets(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    """Interval arithmetic agrees with the arithmetic of plain sets."""
    a, b = union_of(one), union_of(two)
    both = overlap(a, b, 0.0)
    assert (halves(both) if both else set()) == halves(a) & halves(b)
    assert halves(total(a, b, 0.0)) == {x + y for x in halves(a) for y in halves(b)}


def test_a_thinned_set_is_a_part_around_the_wish() -> None:
    """Thinning keeps ends and neighbours of the wish, and invents nothing."""
    a = united(np.arange(1000.0), np.arange(1000.0), 0.0)
    kept = set(thinned(a, 40, 500.2).lower_w.tolist())
    assert len(kept) <= 40
    assert {0.0, 999.0, 500.0, 501.0} <= kept <= set(a.lower_w.tolist())


@settings(max_examples=100, deadline=None)
@given(case=cases(4), at_frac=st.floats(0.0, 1.0), empty=st.booleans())
def test_bridged_curves_are_convex_and_true_outside_bands(case: Case, at_frac: float, empty: bool) -> None:
    """The curve that bounds the search costs the same as the real one wherever an asset may run, and is convex."""
    if empty:
        case.curves.width_w[:, 1] = 0.0
    pieces = cut(case.curves, case.gap_asset, case.gap_lower_w, case.gap_upper_w)
    whole, over = bridged(case.curves, pieces)
    assert np.all(np.diff(whole.cost_per_wh, axis=1) >= 0)
    least_w, most_w = pieces.hull()
    from_w, to_w = case.curves.lower_w.copy(), case.curves.lower_w.copy()
    wish_w = least_w + at_frac * (most_w - least_w)
    from_w[pieces.asset], to_w[pieces.asset] = least_w, np.clip(wish_w, *over.nearest(wish_w))
    real_per_h = cost_per_h(case.curves, to_w) - cost_per_h(case.curves, from_w)
    assert cost_per_h(whole, to_w) - cost_per_h(whole, from_w) == pytest.approx(real_per_h, abs=1e-9 * case.size_w())
