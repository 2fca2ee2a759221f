"""SunSpec storage: charge, reserve, setpoints with their reversion, faults."""

from __future__ import annotations

from typing import Any

import pytest

from tests.adapters.sunspec_maps import (
    DER_STORAGE,
    LEGACY_STORAGE,
    Device,
    absent,
    changed,
    connected,
    setpoint,
)
from vppd.errors import Refused
from vppd.model import Sample


async def test_storage_is_read_in_two_or_three_requests() -> None:
    """Power, charge, bounds and setpoint in SI with our sign: charging is positive."""
    device = Device(DER_STORAGE)
    async with connected(device) as storage:
        device.bank.asked.clear()
        assert await storage.read() == Sample(
            power_w=2000.0, soc_frac=0.8, energy_wh=4000.0, lower_w=-80_000.0, upper_w=90_000.0
        )
        assert len(device.bank.asked) <= 3


async def test_storage_programs_reversion_heartbeats_and_setpoint() -> None:
    """First the reversion, then heartbeats and one write of setpoint, mode, lease and enable."""
    device = Device(DER_STORAGE)
    async with connected(device) as storage:
        assert (await storage.apply(setpoint(-30_000.0))).power_w == -30_000.0
        addrs = [write.addr for write in device.bank.writes]
        value, timer, setting = (
            device.addr(704, "WSetRvrt"),
            device.addr(704, "WSetEnaRvrt"),
            device.addr(704, "WSetEna"),
        )
        assert addrs.index(value) < addrs.index(timer) < addrs.index(setting)
        assert device.bank.writes[-1].values == (1, 1, 0, 3000, 0, 0, 0, 0, 0, 0, 30)
        assert (device.get(715, "ControllerHb"), device.get(802, "CtrlHb")) == (42, 65534)
        device.bank.asked.clear()
        await storage.apply(setpoint(20_000.0))
        assert (device.get(715, "ControllerHb"), device.get(802, "CtrlHb")) == (43, 0)
        assert [asked.function for asked in device.bank.asked] == [16, 16, 16, 3]
        assert (await storage.read()).setpoint_w == 20_000.0


async def test_storage_that_wants_separate_writes_gets_them() -> None:
    """Where the whole block is refused, the timer is written first, then the setpoint."""
    device = Device(DER_STORAGE)
    device.bank.read_only.add(device.addr(704, "WSetPct"))
    async with connected(device) as storage:
        assert (await storage.apply(setpoint(20_000.0))).power_w == 20_000.0
        assert [write.addr for write in device.bank.writes[-2:]] == [
            device.addr(704, "WSetEnaRvrt"),
            device.addr(704, "WSetEna"),
        ]


async def test_storage_in_percent_of_its_rating() -> None:
    """A device without WSet is commanded by WSetPct."""
    device = changed(DER_STORAGE, m704_WSet=absent(704, "WSet"), m704_WSet_SF=absent(704, "WSet_SF"))
    async with connected(device) as storage:
        assert (await storage.apply(setpoint(-25_000.0))).power_w == -25_000.0
        assert (device.get(704, "WSetMod"), device.get(704, "WSetPct")) == (0, 250)
        assert device.get(704, "WSetRvrtTms") == 30


async def test_setpoints_beyond_the_rating_are_held_to_it() -> None:
    """The device is never asked for more than it says it can."""
    async with connected(Device(DER_STORAGE)) as storage:
        applied = await storage.apply(setpoint(-500_000.0))
        assert applied.power_w == -80_000.0
        assert "rating" in applied.detail
        assert (await storage.apply(setpoint(500_000.0))).power_w == 90_000.0


@pytest.mark.parametrize("soc", [300, 299, 0, 0xFFFF, 1100])
async def test_never_discharged_at_or_below_the_reserve(soc: int) -> None:
    """At the reserve, below it, or with an unknown or absurd charge, a discharge becomes 0 W."""
    device = changed(DER_STORAGE, m713_SoC=soc, m802_SoC=0xFFFF)
    async with connected(device, role="storage", reserve_frac=0.3) as storage:
        applied = await storage.apply(setpoint(-10_000.0))
        assert applied.power_w == 0.0
        assert "not discharged" in applied.detail
        assert device.get(704, "WSet") == 0
        assert (await storage.read()).lower_w == 0.0
        assert (await storage.apply(setpoint(10_000.0))).power_w == 10_000.0


async def test_the_lower_of_two_charges_counts() -> None:
    """When inverter and battery disagree about the charge, the pessimistic one is believed."""
    async with connected(changed(DER_STORAGE, m802_SoC=290), reserve_frac=0.3) as storage:
        assert (await storage.read()).soc_frac == pytest.approx(0.29)
        assert (await storage.apply(setpoint(-1_000.0))).power_w == 0.0


async def test_charge_is_read_anew_before_discharging() -> None:
    """A charge seen too long ago does not allow a discharge."""
    device = Device(DER_STORAGE)
    async with connected(device, reserve_frac=0.3) as storage:
        await storage.read()
        device.put(713, "SoC", 200)
        storage._reserve._seen_s -= 60.0
        assert (await storage.apply(setpoint(-1_000.0))).power_w == 0.0


async def test_the_reserve_is_written_to_the_device() -> None:
    """Connecting raises the device's own reserve, and never lowers it."""
    device = Device(DER_STORAGE)
    async with connected(device, reserve_frac=0.305):
        assert device.get(802, "SoCRsvMin") == 305
    device = Device(DER_STORAGE)
    async with connected(device, reserve_frac=0.05) as storage:
        assert device.get(802, "SoCRsvMin") == 100
        device.put(713, "SoC", 100)
        assert (await storage.apply(setpoint(-1_000.0))).power_w == 0.0


async def test_a_reserve_the_device_does_not_keep_is_refused() -> None:
    """A write acknowledged and not applied is found by reading back; the operator may leave the register alone."""
    device = Device(DER_STORAGE)
    device.bank.stuck.add(device.addr(802, "SoCRsvMin"))
    with pytest.raises(Refused, match="did not keep"):
        async with connected(device, reserve_frac=0.3):
            pass
    async with connected(device, reserve_frac=0.3, write_reserve=False) as storage:
        assert (await storage.read()).soc_frac == 0.8


async def test_acknowledged_but_not_applied_shows_in_the_read_back() -> None:
    """What apply() returns is what the device follows, not what was written."""
    device = Device(DER_STORAGE)
    device.bank.stuck.update(range(device.addr(704, "WSet"), device.addr(704, "WSet") + 2))
    async with connected(device) as storage:
        assert (await storage.apply(setpoint(10_000.0))).power_w == 0.0
        device.bank.stuck.add(device.addr(704, "WSetEna"))
        device.put(704, "WSetEna", 0)
        assert (await storage.apply(setpoint(10_000.0))).power_w is None


async def test_release_disables_and_may_be_repeated() -> None:
    """Also a setpoint that an earlier process left is taken back."""
    device = changed(DER_STORAGE, m704_WSetEna=1, m704_WSet=700)
    async with connected(device) as storage:
        assert (await storage.read()).setpoint_w == -7000.0
        await storage.release()
        await storage.release()
        assert (await storage.read()).setpoint_w is None
        assert device.get(704, "WSetEna") == 0


async def test_a_lease_that_ends_releases_also_without_a_timer_in_the_device() -> None:
    """A device without reversion timers is released by the next reading after the lease."""
    device = changed(DER_STORAGE, m704_WSetRvrtTms=absent(704, "WSetRvrtTms"))
    async with connected(device) as storage:
        await storage.apply(setpoint(5_000.0, valid_for_s=30.0))
        assert (await storage.read()).setpoint_w == 5_000.0
        storage._lease._ends_s = 0.0
        assert (await storage.read()).setpoint_w is None


async def test_legacy_storage_pins_both_rates() -> None:
    """Model 124: charging at P is an input rate of P and an output rate of -P, both limits on, with the lease."""
    device = Device(LEGACY_STORAGE)
    async with connected(device, reserve_frac=0.2, charge_from_grid=True) as storage:
        assert await storage.read() == Sample(power_w=3000.0, soc_frac=0.6, lower_w=-8000.0, upper_w=8000.0)
        assert device.get(124, "MinRsvPct") == 20
        assert (await storage.apply(setpoint(2_000.0))).power_w == 2000.0
        assert device.bank.writes[-3].values == (-2500 & 0xFFFF, 2500, 0, 30)
        assert (device.get(124, "StorCtl_Mod"), device.get(124, "ChaGriSet")) == (3, 1)
        assert (await storage.apply(setpoint(-4_000.0))).power_w == -4000.0
        await storage.release()
        assert (device.get(124, "StorCtl_Mod"), device.get(124, "OutWRte"), device.get(124, "ChaGriSet")) == (
            0,
            10000,
            0,
        )
        assert (await storage.read()).setpoint_w is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"m701_InvSt": 6}, "inverter fault"),
        ({"m701_Alrm": 0b1000_0001}, "ground fault, over-temperature"),
        ({"m802_State": 99}, "battery fault"),
        ({"m802_Evt1": 0b100}, ""),
        ({"m802_Evt1": 0b1100}, "under-temperature"),
        ({"m713_Sta": 2}, "storage error"),
        ({"m715_LocRemCtl": 1}, "in local control"),
    ],
)
async def test_faults_are_told_in_words(change: dict[str, Any], text: str) -> None:
    """Alarms become text, warnings do not."""
    async with connected(changed(DER_STORAGE, **change)) as storage:
        assert (await storage.read()).fault == text


@pytest.mark.parametrize("change", [{"m701_Alrm": 1 << 4}, {"m701_DERMode": 2}])
async def test_a_ups_on_battery_is_seen(change: dict[str, Any]) -> None:
    """Grid disconnected, or forming the grid by itself, is on battery."""
    async with connected(changed(DER_STORAGE, **change)) as storage:
        assert (await storage.read()).on_battery
    async with connected(Device(DER_STORAGE)) as storage:
        assert not (await storage.read()).on_battery
