"""The made-up regulation signal gives back what it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vppd.grid.wander import signals


@given(seed=st.integers(0, 10**9), count=st.integers(0, 2000))
def test_a_course_is_neutral_bounded_and_repeatable(seed: int, count: int) -> None:
    """Any course sums to 0 as it stands on the wire, stays within -1 and 1, and depends on its seed alone."""
    found = signals(seed, count)
    assert found == signals(seed, count)
    assert len(found) == count
    assert sum(round(level * 10_000) for level in found) == 0
    assert all(-1.0 <= level <= 1.0 and round(level, 4) == level for level in found)


def test_a_course_uses_its_range() -> None:
    """Five minutes go far to both sides, and another seed gives another course."""
    found = signals("1 award", 150)
    assert found != signals("2 award", 150)
    assert max(found) > 0.5
    assert min(found) < -0.5
    assert sum(map(abs, found)) / len(found) == pytest.approx(0.45, abs=0.2)
