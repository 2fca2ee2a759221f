"""Who wins when several want something else."""

from hypothesis import given
from hypothesis import strategies as st

from vppd.core.arbitrate import Proposal, arbitrate
from vppd.model import Bounds

power_w = st.floats(-1e6, 1e6)
bounds = st.tuples(power_w, power_w).map(lambda p: Bounds(min(p), max(p)))
proposals = st.lists(
    st.builds(Proposal, st.text("abc", min_size=1, max_size=3), st.integers(0, 100), bounds), max_size=6
)


@given(bounds, proposals)
def test_the_result_is_always_feasible(feasible: Bounds, wanted: list[Proposal]) -> None:
    """Whatever is proposed, the result is a range inside what is feasible."""
    left = arbitrate(feasible, wanted)
    assert feasible.lower_w <= left.lower_w <= left.upper_w <= feasible.upper_w


@given(bounds, proposals, bounds)
def test_nobody_overrules_the_top(feasible: Bounds, wanted: list[Proposal], top: Bounds) -> None:
    """A proposal above all others keeps the result inside its own range as far as that is feasible."""
    alone = arbitrate(feasible, [Proposal("top", 101, top)])
    left = arbitrate(feasible, [*wanted, Proposal("top", 101, top)])
    assert alone.lower_w <= left.lower_w <= left.upper_w <= alone.upper_w
