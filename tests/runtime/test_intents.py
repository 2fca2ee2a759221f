"""What a read-back and a reading prove."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vppd.model import Kind, Sample
from vppd.runtime.intents import Terms, is_another, matches, obeys, proof

POWER = st.floats(-1e6, 1e6)


def terms(kind: Kind = Kind.BATTERY) -> Terms:
    """Return terms with a tolerance of 100 W."""
    return Terms(kind, tolerance_w=100.0, limit_s=2.0, fresh_s=3.0)


@pytest.mark.parametrize(
    ("kind", "read_w", "target_w", "is_match"),
    [
        pytest.param(Kind.BATTERY, -50_090, -50_000, True, id="within"),
        pytest.param(Kind.BATTERY, -50_110, -50_000, False, id="storage-over"),
        pytest.param(Kind.UPS, 0, -50_000, False, id="storage-does-nothing"),
        pytest.param(Kind.CLUSTER, 80_000, 100_000, True, id="budget-came-out-smaller"),
        pytest.param(Kind.CLUSTER, 100_200, 100_000, False, id="budget-exceeded"),
        pytest.param(Kind.PV, -90_000, -100_000, False, id="pv-register-is-another"),
        pytest.param(Kind.PV, -100_050, -100_000, True, id="pv-register"),
    ],
)
def test_a_register_matches_its_target(kind: Kind, read_w: float, target_w: float, is_match: bool) -> None:
    """Equal within the tolerance; a budget may be smaller."""
    assert matches(kind, read_w, target_w, 100.0) is is_match


@pytest.mark.parametrize(
    ("kind", "power_w", "target_w", "is_kept"),
    [
        pytest.param(Kind.PV, -20_000, -100_000, True, id="cloud"),
        pytest.param(Kind.PV, -120_000, -100_000, False, id="pv-over-its-cap"),
        pytest.param(Kind.CLUSTER, 20_000, 100_000, True, id="idle-cluster"),
        pytest.param(Kind.BATTERY, -20_000, -100_000, False, id="storage-that-lags"),
    ],
)
def test_measured_power_keeps_to_a_setpoint(kind: Kind, power_w: float, target_w: float, is_kept: bool) -> None:
    """By what a setpoint means to that kind."""
    assert obeys(kind, power_w, target_w, 100.0) is is_kept


@pytest.mark.parametrize(
    ("sample", "target_w", "shows", "proves"),
    [
        pytest.param(Sample(setpoint_w=5_000.0), 5_000.0, True, True, id="register-equal"),
        pytest.param(Sample(setpoint_w=4_000.0), 5_000.0, True, False, id="register-other"),
        pytest.param(Sample(power_w=5_000.0), 5_000.0, True, False, id="follows-none"),
        pytest.param(Sample(power_w=5_000.0), 5_000.0, False, True, id="no-register-but-power"),
        pytest.param(Sample(power_w=1.0), 5_000.0, False, None, id="no-register-and-slow"),
        pytest.param(Sample(), 5_000.0, False, None, id="knows-nothing"),
        pytest.param(Sample(), None, True, True, id="released"),
        pytest.param(Sample(setpoint_w=1.0), None, True, False, id="not-released"),
        pytest.param(Sample(), None, False, None, id="release-cannot-be-seen"),
    ],
)
def test_what_a_reading_proves(sample: Sample, target_w: float | None, shows: bool, proves: bool | None) -> None:
    """The register decides; power only speaks in favour."""
    assert proof(sample, target_w, terms(), shows) is proves


@given(power_w=POWER, target_w=POWER)
def test_stopping_is_never_postponed(power_w: float, target_w: float) -> None:
    """A change to exactly 0 is written at once, however small; a bigger one than a tenth of the tolerance too."""
    assert is_another(power_w, 0.0, terms()) is (power_w != 0.0)
    if abs(power_w - target_w) > terms().step_w:
        assert is_another(power_w, target_w, terms())


def test_release_is_another_than_any_setpoint() -> None:
    """And the same as itself."""
    assert is_another(None, 0.0, terms())
    assert is_another(0.0, None, terms())
    assert not is_another(None, None, terms())
