"""The registers of the meter and of the PV inverter."""

from __future__ import annotations

import math

import pytest

from tests.sim.hands import HandClock, get, put
from vppd.sim.generation import MeterUnit, PvUnit
from vppd.sim.modbus import Illegal
from vppd.sim.physics import FeedState, PvSpec, PvState


@pytest.fixture
def clock() -> HandClock:
    """A clock to turn."""
    return HandClock()


@pytest.fixture
def pv(clock: HandClock) -> PvUnit:
    """A plant of 150 kW that gives 100 kW."""
    return PvUnit("pv-b", PvSpec(150_000.0), lambda: PvState(0.0, 100_000.0, 100_000.0, 5000.0), clock)


def test_the_meter_shows_import_as_positive(clock: HandClock) -> None:
    """W is in hundreds of watts, + from the grid, with both counters."""
    meter = MeterUnit("poi-a", lambda: FeedState(0.0, 0.0, 0.0, 542_849.0, 1000.9, 7.0), clock)
    assert (get(meter, 203, "W"), get(meter, 203, "W_SF")) == (5428, 2)
    assert (get(meter, 203, "TotWhImp"), get(meter, 203, "TotWhExp")) == (1000, 7)
    exporting = MeterUnit("poi-a", lambda: FeedState(0.0, 0.0, 0.0, -1000.0), clock)
    assert get(exporting, 203, "W") == -10


def test_the_energy_counter_rolls_over(clock: HandClock) -> None:
    """A 32-bit counter starts again at zero."""
    meter = MeterUnit("poi-a", lambda: FeedState(0.0, 0.0, 0.0, 0.0, 2.0**32 + 5.0), clock)
    assert get(meter, 203, "TotWhImp") == 5


def test_a_meter_takes_no_writes(clock: HandClock) -> None:
    """Nothing of a meter is writable."""
    meter = MeterUnit("poi-a", lambda: FeedState(0.0, 0.0, 0.0, 0.0), clock)
    with pytest.raises(Illegal, match="exception 2"):
        put(meter, 203, W=1)


def test_pv_shows_generation_as_positive(pv: PvUnit) -> None:
    """W is in tens of watts, + out of the plant."""
    assert (get(pv, 103, "W"), get(pv, 103, "WH"), get(pv, 103, "St")) == (10_000, 5000, 4)


def test_pv_is_limited_while_enabled_and_until_its_timer_ends(pv: PvUnit, clock: HandClock) -> None:
    """WMaxLimPct binds with its switch and ends with its timer."""
    put(pv, 123, WMaxLimPct=4000)
    assert pv.limit_w() == math.inf
    put(pv, 123, WMaxLimPct_RvrtTms=60, WMaxLim_Ena=1)
    assert pv.limit_w() == 60_000.0
    clock.now_s += 59.0
    put(pv, 123, WMaxLimPct=4000)
    clock.now_s += 59.0
    assert pv.limit_w() == 60_000.0
    clock.now_s += 2.0
    assert pv.limit_w() == math.inf
    assert (pv.log.writes, pv.log.transitions, pv.log.reversions) == (4, 1, 1)


@pytest.mark.parametrize("values", [{"WMaxLimPct": 10_001}, {"WMaxLim_Ena": 3}], ids=str)
def test_pv_refuses_what_makes_no_sense(pv: PvUnit, values: dict[str, int]) -> None:
    """More than 100 % and unknown switches are refused."""
    with pytest.raises(Illegal, match="exception 3"):
        put(pv, 123, **values)
