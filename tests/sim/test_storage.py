"""Battery physics: reserve, limits, losses, ramp."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vppd.sim.storage import StorageSpec, StorageState, limits, step

SPEC = StorageSpec(
    rated_w=200_000.0,
    max_charge_w=50_000.0,
    max_discharge_w=100_000.0,
    capacity_wh=100_000.0,
    ramp_w_per_s=20_000.0,
    reserve_frac=0.3,
    start_soc_frac=0.9,
)


@given(
    soc_frac=st.floats(0.0, 1.0),
    targets_w=st.lists(st.floats(-3e5, 3e5), min_size=1, max_size=20),
    reserve_frac=st.floats(0.0, 1.0),
    plant_dt_s=st.floats(0.01, 600.0),
)
def test_never_discharges_below_the_reserve_nor_charges_above_full(
    soc_frac: float, targets_w: list[float], reserve_frac: float, plant_dt_s: float
) -> None:
    """Whatever is asked, the unit keeps its reserve and its full mark, also with long steps."""
    state = StorageState(0.0, soc_frac)
    for target_w in targets_w:
        state = step(SPEC, state, target_w, reserve_frac, 0.1, plant_dt_s)
        assert state.soc_frac >= min(soc_frac, reserve_frac) - 1e-9
        assert state.soc_frac <= 1.0 + 1e-9
        assert -SPEC.max_discharge_w <= state.power_w <= SPEC.max_charge_w


@given(soc_frac=st.floats(0.4, 0.9), target_w=st.floats(-1e5, 5e4))
def test_energy_is_conserved_up_to_the_losses(soc_frac: float, target_w: float) -> None:
    """What comes out is what went in, less the one-way efficiency each time."""
    before = replace(StorageState(target_w, soc_frac), power_w=target_w)
    after = step(SPEC, before, target_w, 0.3, 1.0, 36.0)
    energy_wh = target_w * 36.0 / 3600.0
    stored_wh = energy_wh * 0.96 if target_w > 0.0 else energy_wh / 0.96
    assert (after.soc_frac - soc_frac) * SPEC.capacity_wh == pytest.approx(stored_wh, abs=1e-6)
    assert after.charged_wh - after.discharged_wh == pytest.approx(energy_wh)


def test_power_ramps() -> None:
    """A step of the setpoint is followed at the ramp limit."""
    state = step(SPEC, StorageState(0.0, 0.9), -100_000.0, 0.3, 1.0, 1.0)
    assert state.power_w == -20_000.0
    for _ in range(10):
        state = step(SPEC, state, -100_000.0, 0.3, 1.0, 1.0)
    assert state.power_w == -100_000.0


@pytest.mark.parametrize(
    ("soc_frac", "lower_w", "upper_w"),
    [
        pytest.param(0.9, -100_000.0, 50_000.0, id="in-the-middle"),
        pytest.param(0.31, -50_000.0, 50_000.0, id="near-the-reserve"),
        pytest.param(0.3, 0.0, 50_000.0, id="at-the-reserve"),
        pytest.param(0.1, 0.0, 50_000.0, id="below-the-reserve"),
        pytest.param(0.99, -100_000.0, 25_000.0, id="nearly-full"),
        pytest.param(1.0, -100_000.0, 0.0, id="full"),
    ],
)
def test_limits_taper(soc_frac: float, lower_w: float, upper_w: float) -> None:
    """The unit allows itself less and less towards its reserve and towards full."""
    bounds = limits(SPEC, StorageState(0.0, soc_frac), 0.3)
    assert bounds.lower_w == pytest.approx(lower_w)
    assert bounds.upper_w == pytest.approx(upper_w)
