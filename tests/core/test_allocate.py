"""The split is feasible, cheapest, fair among equals, and honest about what it cannot do."""

from __future__ import annotations

from dataclasses import dataclass, replace

import highspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vppd.core.allocate import Allocation, Curves, allocate
from vppd.snapshot import Floats, Ints

INF = float("inf")


@dataclass(frozen=True)
class Case:
    """One instance: a tree of limits and the assets on it."""

    parent: Ints
    lower_w: Floats
    upper_w: Floats
    curves: Curves

    def solve(self) -> Allocation:
        """Return the split under test."""
        return allocate(self.parent, self.lower_w, self.upper_w, self.curves)


def make(
    seed: int,
    n: int = 8,
    k: int = 3,
    m: int = 5,
    grid: bool = False,
    feasible: bool = True,
    scale_w: float = 1e6,
    roots: int = 1,
) -> Case:
    """Return a random instance; ``grid`` takes few distinct values, so that ties and zero widths are common."""
    rng = np.random.default_rng(seed)

    def draw(low: float, high: float, shape: int | tuple[int, int]) -> Floats:
        if grid:
            return np.asarray(low + (high - low) * rng.integers(0, 5, shape) / 4.0)
        return rng.uniform(low, high, shape)

    parent = np.array([-1 if i < roots else int(rng.integers(0, i)) for i in range(m)], dtype=np.int64)
    curves = Curves(
        node=rng.integers(0, m, n),
        lower_w=draw(-scale_w, scale_w / 2, n),
        width_w=draw(0.0, scale_w, (n, k)),
        cost_per_wh=np.sort(draw(-1.0, 1.0, (n, k)), axis=1),
    )
    inside = np.zeros(m)
    if feasible:
        inside = subtree_sums(parent, curves.node, curves.lower_w + (curves.width_w * draw(0, 1, (n, k))).sum(axis=1))
        lower_w, upper_w = inside - draw(0.0, scale_w, m), inside + draw(0.0, scale_w, m)
    else:
        lower_w = draw(-n * scale_w / m, n * scale_w / m, m)
        upper_w = lower_w + draw(0.0, scale_w, m)
    lower_w = np.where(rng.random(m) < 0.3, -INF, lower_w)
    upper_w = np.where(rng.random(m) < 0.3, INF, upper_w)
    if rng.random() < 0.5:
        lower_w[0] = upper_w[0] = inside[0] if feasible else draw(-scale_w, scale_w, 1)[0]
    return Case(parent, lower_w, upper_w, curves)


def subtree_sums(parent: Ints, node: Ints, power_w: Floats) -> Floats:
    """Return the sum of all assets below each node, the plain way. [W]"""
    total_w = np.zeros(len(parent))
    for asset, at in enumerate(node):
        while at >= 0:
            total_w[at] += power_w[asset]
            at = int(parent[at])
    return total_w


def cost_per_h(curves: Curves, power_w: Floats) -> float:
    """Return what the powers cost, counted from the least power. [1/h]"""
    filled_w = np.clip(
        (power_w - curves.lower_w)[:, None] - (np.cumsum(curves.width_w, axis=1) - curves.width_w), 0.0, curves.width_w
    )
    return float((filled_w * curves.cost_per_wh).sum())


class Lp:
    """The same instance as a linear program for HiGHS: segments, node powers, violations upwards and downwards."""

    UNIT_W = 1e3

    def __init__(self, case: Case) -> None:
        c, m = case.curves, len(case.parent)
        n, k = c.width_w.shape
        self.cost = c.cost_per_wh.ravel()
        self.highs = h = highspy.Highs()  # type: ignore[no-untyped-call]
        h.setOptionValue("output_flag", False)
        h.setOptionValue("primal_feasibility_tolerance", 1e-10)
        h.setOptionValue("dual_feasibility_tolerance", 1e-10)
        free = np.full(m, INF)
        h.addVars(n * k, np.zeros(n * k), c.width_w.ravel() / self.UNIT_W)
        h.addVars(m, -free, free)
        h.addVars(2 * m, np.zeros(2 * m), np.full(2 * m, INF))
        for v in range(m):
            own = [i * k + j for i in np.flatnonzero(c.node == v) for j in range(k)]
            inner = [n * k + int(w) for w in np.flatnonzero(case.parent == v)]
            base = -float(c.lower_w[c.node == v].sum()) / self.UNIT_W
            row = [*own, *inner, n * k + v]
            h.addRow(base, base, len(row), np.array(row, np.int32), np.array([1.0] * (len(row) - 1) + [-1.0]))
            row = [n * k + v, n * k + m + v, n * k + 2 * m + v]
            limits = case.lower_w[v] / self.UNIT_W, case.upper_w[v] / self.UNIT_W
            h.addRow(*limits, 3, np.array(row, np.int32), np.array([1.0, -1.0, 1.0]))
        self.first_violation, self.m, self.all = n * k + m, m, n * k + 3 * m

    def least(self, cost: Floats) -> float:
        """Return the least value of this objective."""
        self.highs.changeColsCost(self.all, np.arange(self.all, dtype=np.int32), cost)
        self.highs.run()
        assert self.highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
        return float(self.highs.getInfo().objective_function_value)

    def violations_w(self) -> Floats:
        """Return the least violation of each node, descendants first, each kept while the next is sought. [W]"""
        found = np.zeros(self.m)
        for v in reversed(range(self.m)):
            cost = np.zeros(self.all)
            pair = [self.first_violation + v, self.first_violation + self.m + v]
            cost[pair] = 1.0
            found[v] = max(self.least(cost), 0.0)
            for column in pair:
                self.highs.changeColBounds(column, 0.0, found[v] + 1e-9 if found[v] > 1e-9 else 0.0)
        return found * self.UNIT_W

    def forbid_violations(self) -> None:
        """Make all limits hard."""
        columns = np.arange(self.first_violation, self.all, dtype=np.int32)
        self.highs.changeColsBounds(len(columns), columns, np.zeros(len(columns)), np.zeros(len(columns)))

    def least_cost(self) -> float:
        """Return the least cost once violations are fixed. [1/h]"""
        cost = np.zeros(self.all)
        cost[: len(self.cost)] = self.cost
        return self.least(cost) * self.UNIT_W


def check_bounds(case: Case, split: Allocation) -> None:
    """Check what must hold of any answer."""
    c = case.curves
    size_w = np.abs(c.lower_w).sum() + c.width_w.sum() + 1.0
    assert np.all(split.power_w >= c.lower_w - 1e-12 * size_w)
    assert np.all(split.power_w <= c.lower_w + c.width_w.sum(axis=1) + 1e-12 * size_w)
    sums_w = subtree_sums(case.parent, c.node, split.power_w)
    assert split.node_power_w == pytest.approx(sums_w, abs=1e-12 * size_w)
    over_w, under_w = sums_w - case.upper_w, case.lower_w - sums_w
    said_w = np.where(over_w > 0, over_w, np.where(under_w > 0, -under_w, 0.0))
    assert split.shortfall_w == pytest.approx(said_w, abs=1e-11 * size_w)


SCALES_W = st.sampled_from([1.0, 1e3, 1e6])


def cases(feasible: st.SearchStrategy[bool], scales_w: st.SearchStrategy[float] = SCALES_W) -> st.SearchStrategy[Case]:
    """Return small random instances."""
    return st.builds(
        make,
        seed=st.integers(0, 2**32 - 1),
        n=st.integers(1, 12),
        k=st.integers(1, 4),
        m=st.integers(1, 8),
        grid=st.booleans(),
        feasible=feasible,
        scale_w=scales_w,
    )


@settings(max_examples=300, deadline=None)
@given(case=cases(st.just(True)))
def test_cost_equals_the_linear_program(case: Case) -> None:
    """A feasible instance is solved with no shortfall, at the cost HiGHS finds, within 1e-9."""
    split = case.solve()
    check_bounds(case, split)
    assert not split.shortfall_w.any()
    lp = Lp(case)
    lp.forbid_violations()
    spent = float((case.curves.width_w * np.abs(case.curves.cost_per_wh)).sum())
    assert cost_per_h(case.curves, split.power_w) == pytest.approx(lp.least_cost(), rel=1e-9, abs=1e-9 * spent)


@settings(max_examples=150, deadline=None)
@given(case=cases(st.just(False), st.just(1e4)))
def test_violations_are_least_from_the_leaves_up(case: Case) -> None:
    """Where limits contradict, each node misses by as little as its descendants' best leaves it."""
    split = case.solve()
    check_bounds(case, split)
    lp = Lp(case)
    assert np.abs(split.shortfall_w) == pytest.approx(lp.violations_w(), abs=1e-3)
    assert cost_per_h(case.curves, split.power_w) == pytest.approx(lp.least_cost(), rel=1e-6, abs=1e-2)


@settings(max_examples=200, deadline=None)
@given(case=cases(st.booleans()), at=st.integers(0, 7), tighter_frac=st.floats(0.0, 1.0), mirrored=st.booleans())
def test_a_tighter_limit_never_pushes_the_wrong_way(case: Case, at: int, tighter_frac: float, mirrored: bool) -> None:
    """Lowering a node's upper limit never raises that node's power, and raising its lower one never lowers it."""
    at %= len(case.parent)
    before_w = float(case.solve().node_power_w[at])
    step_w = tighter_frac * float(case.curves.width_w.max(initial=1.0))
    lower_w, upper_w = case.lower_w.copy(), case.upper_w.copy()
    if mirrored:
        lower_w[at] = max(lower_w[at], before_w + step_w)
    else:
        upper_w[at] = min(upper_w[at], before_w - step_w)
    change_w = float(replace(case, lower_w=lower_w, upper_w=upper_w).solve().node_power_w[at]) - before_w
    noise_w = 1e-9 * float(np.abs(case.curves.lower_w).sum() + case.curves.width_w.sum())
    assert change_w >= -noise_w if mirrored else change_w <= noise_w


@settings(max_examples=50, deadline=None)
@given(case=cases(st.booleans()))
def test_same_input_same_bits(case: Case) -> None:
    """Two runs agree bit for bit, and the inputs are not written to."""
    for array in (case.parent, case.lower_w, case.upper_w, case.curves.node, case.curves.lower_w):
        array.setflags(write=False)
    one, two = case.solve(), case.solve()
    assert one.power_w.tobytes() == two.power_w.tobytes()
    assert one.shortfall_w.tobytes() == two.shortfall_w.tobytes()


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("roots", [1, 3])
def test_large_instances_equal_the_linear_program(grid: bool, roots: int) -> None:
    """Thousands of segments, sorted in many bins and under many nodes, still give the least cost."""
    case = make(seed=5, n=3000, k=4, m=40, grid=grid, roots=roots)
    split = case.solve()
    check_bounds(case, split)
    assert not split.shortfall_w.any()
    lp = Lp(case)
    lp.forbid_violations()
    assert cost_per_h(case.curves, split.power_w) == pytest.approx(lp.least_cost(), rel=1e-9)


def plain(lower_w: list[float], width_w: list[float], cost: list[float], node: list[int] | None = None) -> Curves:
    """Return one segment per asset."""
    return Curves(
        node=np.array(node or [0] * len(lower_w), dtype=np.int64),
        lower_w=np.array(lower_w, dtype=np.float64),
        width_w=np.array(width_w, dtype=np.float64)[:, None],
        cost_per_wh=np.array(cost, dtype=np.float64)[:, None],
    )


ONE = np.array([-1], dtype=np.int64)
CHAIN = np.array([-1, 0], dtype=np.int64)


def test_unlimited_assets_go_to_zero_marginal_cost() -> None:
    """Free assets take what has negative cost and leave what costs nothing or something."""
    curves = plain([0, 0, 0], [10, 10, 10], [-1, 0, 1])
    assert allocate(ONE, np.array([-INF]), np.array([INF]), curves).power_w.tolist() == [10, 0, 0]


def test_equal_costs_share_in_proportion() -> None:
    """Batteries of equal cost are loaded by the same fraction of their size."""
    curves = plain([0, 0, 0], [10, 20, 70], [1, 1, 1])
    assert allocate(ONE, np.array([50.0]), np.array([50.0]), curves).power_w.tolist() == [5, 10, 35]


def test_a_childs_limit_beats_its_ancestors() -> None:
    """The child keeps its limit, and the ancestor says what it misses."""
    curves = plain([0], [100], [-1], [1])
    split = allocate(CHAIN, np.array([80.0, -INF]), np.array([INF, 30.0]), curves)
    assert split.power_w.tolist() == [30]
    assert split.shortfall_w.tolist() == [-50, 0]


def test_an_upper_limit_beats_the_same_nodes_lower() -> None:
    """Contradictory limits of one node: the upper one holds, the lower one is reported."""
    split = allocate(ONE, np.array([60.0]), np.array([20.0]), plain([0], [100], [0]))
    assert split.power_w.tolist() == [20]
    assert split.shortfall_w.tolist() == [-40]


def test_above_an_upper_limit_is_positive() -> None:
    """An asset that cannot go low enough leaves its node above by the difference."""
    split = allocate(ONE, np.array([-INF]), np.array([5.0]), plain([7], [10], [-1]))
    assert split.power_w.tolist() == [7]
    assert split.shortfall_w.tolist() == [2]


def test_a_small_node_is_exact_beside_a_huge_one() -> None:
    """A kilowatt feed meets its target to the last bit beside a terawatt one."""
    parent = np.array([-1, 0, 0], dtype=np.int64)
    curves = plain([0, 0, 0, 0], [1e12 / 3, 1e12 / 7, 700.0 / 3, 700.0 / 7], [1, 2, 1, 2], [1, 1, 2, 2])
    target_w = np.array([-INF, 4e11, 300.1])
    split = allocate(parent, target_w, np.array([INF, 4e11, 300.1]), curves)
    assert split.node_power_w[2] == pytest.approx(300.1, rel=1e-15)
    assert not split.shortfall_w.any()


def test_no_assets_is_no_error() -> None:
    """An empty site has no power, and misses a positive lower limit by all of it."""
    none = Curves(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4)), np.zeros((0, 4)))
    split = allocate(CHAIN, np.array([1.0, -INF]), np.array([INF, INF]), none)
    assert split.power_w.shape == (0,)
    assert split.shortfall_w.tolist() == [-1, 0]


def test_deep_chains_are_served() -> None:
    """A chain of a thousand nodes passes a target down to its last asset."""
    m = 1000
    parent = np.arange(m, dtype=np.int64) - 1
    upper_w = np.linspace(500.0, 1500.0, m)
    split = allocate(parent, np.full(m, -INF), upper_w, plain([0, 0], [2000, 2000], [-1, -2], [m - 1, m // 2]))
    assert split.power_w.sum() == pytest.approx(500.0)
    assert not split.shortfall_w.any()
