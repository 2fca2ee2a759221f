"""The storage unit's registers: setpoint, fallback, heartbeat, reserve, and the count of what was written."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from tests.sim.hands import HandClock, address, get, put
from vppd.sim.battery import StorageUnit
from vppd.sim.modbus import ILLEGAL_ADDRESS, ILLEGAL_VALUE, Illegal
from vppd.sim.physics import StorageCommand, default_plan
from vppd.sim.storage import StorageState, step

SPEC = default_plan().storage["ups-a"][1]


class Bench:
    """A unit on its own, with its clock and its physics in hand."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.state = StorageState(0.0, SPEC.start_soc_frac)
        self.unit = StorageUnit("ups-a", SPEC, lambda: self.state, self.clock)

    def after(self, seconds: float) -> StorageCommand:
        """Return what the unit follows after so long."""
        self.clock.now_s += seconds
        return self.unit.command()


@pytest.fixture
def bench() -> Bench:
    """A unit as it is after power-on."""
    return Bench()


def test_it_rests_until_it_is_told(bench: Bench) -> None:
    """After power-on there is no setpoint, and a value without the switch does nothing."""
    assert bench.unit.command() == StorageCommand(0.0, 0.3)
    put(bench.unit, 704, WSet=50_000)
    assert bench.unit.command().target_w == 0.0


def test_it_discharges_for_a_positive_setpoint(bench: Bench) -> None:
    """On the wire + is discharge, inside + is charging."""
    put(bench.unit, 704, WSet=50_000, WSetEna=1)
    assert bench.unit.command().target_w == -50_000.0


def test_percent_mode_is_of_the_nameplate(bench: Bench) -> None:
    """WSetMod 0 takes WSetPct of WMax."""
    put(bench.unit, 704, WSetMod=0, WSetPct=-1000, WSetEna=1)
    assert bench.unit.command().target_w == 20_000.0


def test_one_request_may_carry_the_whole_order(bench: Bench) -> None:
    """Switch, mode, value, fallback and timer are one contiguous write, and count as one."""
    body = struct.pack(">HHiihhHI", 1, 1, 40_000, 0, 0, 0, 0, 30)
    bench.unit.write(address(bench.unit, 704, "WSetEna"), body)
    assert bench.unit.command().target_w == -40_000.0
    assert (bench.unit.log.writes, bench.unit.log.transitions) == (1, 1)
    assert get(bench.unit, 704, "WSetRvrtRem") == 30


def test_it_falls_back_when_its_timer_ends(bench: Bench) -> None:
    """Without renewal the programmed fallback takes over, and the device counts that as its own doing."""
    put(bench.unit, 704, WSetRvrtTms=30, WSet=50_000, WSetEna=1)
    assert bench.after(29.9).target_w == -50_000.0
    assert bench.after(0.2).target_w == 0.0
    assert get(bench.unit, 704, "WSetEna") == 0
    assert (bench.unit.log.reversions, bench.unit.log.transitions) == (1, 1)


def test_the_fallback_may_be_another_power(bench: Bench) -> None:
    """WSetRvrt with WSetEnaRvrt 1 is followed after the timer."""
    put(bench.unit, 704, WSetRvrt=-5_000, WSetEnaRvrt=1, WSetRvrtTms=10, WSet=50_000, WSetEna=1)
    assert bench.after(11.0).target_w == 5_000.0


def test_writing_the_setpoint_again_renews_it(bench: Bench) -> None:
    """The timer starts anew with every write of the setpoint, and an unchanged value is no transition."""
    put(bench.unit, 704, WSetRvrtTms=30, WSet=50_000, WSetEna=1)
    for _ in range(5):
        bench.clock.now_s += 20.0
        put(bench.unit, 704, WSet=50_000)
    assert bench.unit.command().target_w == -50_000.0
    assert (bench.unit.log.writes, bench.unit.log.transitions) == (8, 1)


def test_reading_does_not_renew(bench: Bench) -> None:
    """Polling alone never keeps a setpoint alive."""
    put(bench.unit, 704, WSetRvrtTms=30, WSet=50_000, WSetEna=1)
    for _ in range(10):
        bench.clock.now_s += 5.0
        get(bench.unit, 701, "W")
    assert bench.unit.command().target_w == 0.0


def test_it_falls_back_when_the_heart_stops(bench: Bench) -> None:
    """Once a controller's heartbeat has been heard, its silence ends the setpoint, timer or not."""
    put(bench.unit, 704, WSet=50_000, WSetEna=1)
    assert bench.after(3600.0).target_w == -50_000.0
    put(bench.unit, 715, ControllerHb=1)
    assert bench.after(29.0).target_w == -50_000.0
    put(bench.unit, 802, CtrlHb=2)
    assert bench.after(29.0).target_w == -50_000.0
    assert bench.after(2.0).target_w == 0.0
    assert (bench.unit.log.heartbeats, bench.unit.log.reversions) == (2, 1)


def test_heartbeats_are_no_writes(bench: Bench) -> None:
    """A heartbeat is counted apart, so that setpoints can be counted."""
    put(bench.unit, 715, ControllerHb=7)
    assert (bench.unit.log.writes, bench.unit.log.heartbeats, bench.unit.log.transitions) == (0, 1, 0)


def test_the_reserve_register_holds_against_any_setpoint(bench: Bench) -> None:
    """The device itself does not go below SoCRsvMin, whatever it is told."""
    put(bench.unit, 802, SoCRsvMin=5000)
    put(bench.unit, 704, WSet=100_000, WSetEna=1)
    for _ in range(100_000):
        command = bench.unit.command()
        bench.state = step(SPEC, bench.state, command.target_w, command.reserve_frac, 1.0, 1.0)
        if bench.state.power_w > -1.0:
            break
    assert 0.5 - 1e-9 <= bench.state.soc_frac < 0.501
    assert get(bench.unit, 802, "SoC") == round(bench.state.soc_frac * 10_000)


def test_opctl_stop_rests_the_unit(bench: Bench) -> None:
    """A stopped unit follows nothing and keeps its setpoint."""
    put(bench.unit, 704, WSet=50_000, WSetEna=1)
    put(bench.unit, 715, OpCtl=0)
    assert bench.unit.command().target_w == 0.0
    put(bench.unit, 715, OpCtl=1)
    assert bench.unit.command().target_w == -50_000.0


def test_a_percent_limit_caps_the_discharge_and_ends_by_its_timer(bench: Bench) -> None:
    """WMaxLimPct binds below the setpoint until its own timer ends."""
    put(bench.unit, 704, WSet=100_000, WSetEna=1, WMaxLimPctRvrtTms=10, WMaxLimPct=1000, WMaxLimPctEna=1)
    assert bench.unit.command().target_w == -20_000.0
    assert bench.after(10.0).target_w == -100_000.0


@pytest.mark.parametrize(
    ("model", "name", "value", "code"),
    [
        pytest.param(704, "WSet", 200_001, ILLEGAL_VALUE, id="beyond-the-nameplate"),
        pytest.param(704, "WSetEna", 2, ILLEGAL_VALUE, id="unknown-switch"),
        pytest.param(802, "SoCRsvMin", 10_001, ILLEGAL_VALUE, id="more-than-full"),
        pytest.param(701, "W", 1, ILLEGAL_ADDRESS, id="a-measurement"),
        pytest.param(702, "WMaxRtg", 1, ILLEGAL_ADDRESS, id="the-nameplate"),
    ],
)
def test_bad_writes_are_refused_and_change_nothing(bench: Bench, model: int, name: str, value: int, code: int) -> None:
    """A refused write leaves every register as it was and is counted."""
    before = bench.unit.read(40_000, 100) + bench.unit.read(40_296, 60)
    with pytest.raises(Illegal) as caught:
        put(bench.unit, model, **{name: value})
    assert caught.value.code == code
    assert bench.unit.read(40_000, 100) + bench.unit.read(40_296, 60) == before
    assert (bench.unit.log.refused, bench.unit.log.writes) == (1, 0)


def test_half_a_number_is_refused(bench: Bench) -> None:
    """A write that would tear a 32-bit value does not happen."""
    with pytest.raises(Illegal, match="exception 3"):
        bench.unit.write(address(bench.unit, 704, "WSet") + 1, b"\x00\x01")


def test_registers_show_the_physics(bench: Bench) -> None:
    """Power, state of charge and counters are what the plant has, in SunSpec's sign."""
    bench.state = replace(bench.state, power_w=-40_000.0, soc_frac=0.512, discharged_wh=1234.0)
    assert get(bench.unit, 701, "W") == 4000
    assert get(bench.unit, 713, "SoC") == get(bench.unit, 802, "SoC") == 5120
    assert get(bench.unit, 701, "TotWhInj") == 1234
    assert get(bench.unit, 802, "ChaSt") == 3


def test_changes_are_logged_with_their_cause(bench: Bench) -> None:
    """The log tells a write from a fallback, with times."""
    put(bench.unit, 704, WSetRvrtTms=10, WSet=50_000, WSetEna=1)
    bench.after(10.0)
    assert [(e["what"], e["setpoint_w"], e["at_s"]) for e in bench.unit.log.entries] == [
        ("write", -50_000.0, 100.0),
        ("reversion", None, 110.0),
    ]
