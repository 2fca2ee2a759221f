"""Hourly budgets hold the energy of the schedule they come from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vppd.core.schedule.budget import hourly_budgets

LOADS = {"a/0": [100.0, 0.0, 0.0, 100.0] * 2, "a/1": [0.0] * 4 + [40.0] * 4, "b/0": [8.0] * 8}


def test_a_group_gets_what_its_loads_are_given() -> None:
    """An hour's budget is the mean of the group's loads in it, with what the group draws in any case."""
    found = hourly_budgets(LOADS, {"a": ["a/0", "a/1"], "b": ["b/0"]}, 900.0, always_w={"a": [1000.0] * 8})
    assert found["a"].tolist() == [1050.0, 1090.0]
    assert found["b"].tolist() == [8.0, 8.0]


def test_a_plan_that_begins_within_an_hour_keeps_to_full_hours() -> None:
    """The first and the last hour are the mean of what is planned of them."""
    found = hourly_budgets(LOADS, {"a": ["a/0"]}, 900.0, offset_s=1800.0)
    assert found["a"].tolist() == [50.0, 50.0, 50.0]


def test_nothing_has_no_budget_and_nobody_unknown_gets_one() -> None:
    """A group without loads and without power of its own has no hours; a load that was not planned is a mistake."""
    assert not len(hourly_budgets(LOADS, {"none": []}, 900.0)["none"])
    with pytest.raises(KeyError):
        hourly_budgets(LOADS, {"a": ["x"]}, 900.0)


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=60),
    st.sampled_from([60.0, 300.0, 700.0, 900.0, 3600.0, 5400.0]),
    st.sampled_from([0.0, 1.0, 900.0, 3599.0]),
)
def test_budgets_hold_the_energy(power: list[int], step_s: float, offset_s: float) -> None:
    """Whatever the step and the start, the budgets' energy is the schedule's."""
    found_w = hourly_budgets({"x": power}, {"g": ["x"]}, step_s, offset_s=offset_s)["g"]
    edges_s = np.clip(np.arange(len(found_w) + 1) * 3600.0, offset_s, offset_s + step_s * len(power))
    assert float(found_w @ np.diff(edges_s)) == pytest.approx(sum(power) * step_s, abs=1e-6)
