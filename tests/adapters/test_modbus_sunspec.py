"""SunSpec devices: discovery, signs, sentinels, and what is commanded."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from adapters._sunspec_models import MODELS, TYPES
from adapters.modbus_sunspec import Config
from tests.adapters.modbus_bank import WRITE_MANY
from tests.adapters.sunspec_maps import (
    DER_PV,
    DER_STORAGE,
    LEGACY_PV,
    METER,
    Device,
    absent,
    as_float_bits,
    changed,
    connected,
    points,
    setpoint,
)
from vppd.errors import Garbled, Refused, Unreachable
from vppd.model import Sample
from vppd.ports import Controllable, Polled


@pytest.mark.parametrize("number", sorted(MODELS))
def test_points_lie_where_the_definitions_say(number: int) -> None:
    """Offsets and types agree with the published model definitions."""
    published = points(number)
    by_offset = {offset: (name, kind) for name, (offset, kind, _) in published.items()}
    for name, point in MODELS[number].items():
        offset, kind, size = published[name]
        assert (point.offset, point.type.replace("int16", "sunssf") if kind == "sunssf" else point.type) == (
            offset,
            kind,
        )
        assert TYPES[point.type].words == size
        if point.scale_offset is not None:
            assert by_offset[point.scale_offset][1] == "sunssf"


@pytest.mark.parametrize("base", [40000, 0, 50000])
async def test_the_map_is_found_at_each_base(base: int) -> None:
    """Discovery tries 40000, 0 and 50000."""
    async with connected(Device(METER, base)) as meter:
        assert await meter.read() == Sample(power_w=12340.0, energy_wh=500_000.0)


async def test_a_base_of_its_own_can_be_given() -> None:
    """A map elsewhere is found when the configuration says where."""
    async with connected(Device(METER, 1000), base_addr=1000) as meter:
        assert (await meter.read()).power_w == 12340.0


async def test_no_map_is_refused() -> None:
    """A device without SunSpec is a clear no."""
    device = Device(METER, 30000)
    with pytest.raises(Refused, match="no SunSpec map"):
        async with connected(device):
            pass


async def test_a_chain_without_end_is_garbled() -> None:
    """Walking never goes round for ever."""
    device = Device(METER)
    device.bank.registers.update(dict.fromkeys(range(40109, 65536), 1))
    with pytest.raises(Garbled, match="no end"):
        async with connected(device):
            pass


async def test_a_map_that_moved_is_noticed() -> None:
    """After a firmware change nothing is decoded with the old addresses."""
    device = Device(METER)
    async with connected(device) as meter:
        device.bank.put(40002, "H", 204)
        with pytest.raises(Unreachable, match="moved"):
            await meter.read()


async def test_meters_read_in_one_request_and_can_be_inverted() -> None:
    """Meters count import as positive unless the configuration turns them."""
    device = Device(METER)
    async with connected(device, invert_power=True) as meter:
        device.bank.asked.clear()
        assert (await meter.read()).power_w == -12340.0
        assert len(device.bank.asked) == 1
        assert isinstance(meter, Polled)
        assert not isinstance(meter, Controllable)


async def test_float_meters_are_read() -> None:
    """Models 211-214 need no scale factor; NaN and infinity are missing."""
    device = Device({213: {"W": -1.5e5, "TotWhImp": 12.5}})
    async with connected(device) as meter:
        assert await meter.read() == Sample(power_w=as_float_bits(-1.5e5), energy_wh=12.5)
        device.put(213, "W", float("inf"))
        device.forget(213, "TotWhImp")
        assert await meter.read() == Sample()


async def test_a_701_alone_is_a_meter() -> None:
    """Model 701 counts generation as positive, so its sign is turned."""
    device = Device({701: {"W": 40, "W_SF": 2, "TotWhAbs": 3, "TotWh_SF": 3, "Alrm": 0}})
    async with connected(device) as meter:
        assert await meter.read() == Sample(power_w=-4000.0, energy_wh=3000.0)


@pytest.mark.parametrize(
    ("models", "point"),
    [
        (METER, "m203_W"),
        (METER, "m203_W_SF"),
        (LEGACY_PV, "m103_W"),
        (LEGACY_PV, "m103_W_SF"),
        (DER_PV, "m701_W"),
        (DER_PV, "m701_W_SF"),
        (DER_STORAGE, "m701_W"),
    ],
)
async def test_power_not_implemented_is_missing(models: dict[int, dict[str, Any]], point: str) -> None:
    """A sentinel in a value or in its scale factor is missing, never 0."""
    number, _, name = point.removeprefix("m").partition("_")
    async with connected(changed(models, **{point: absent(int(number), name)})) as device:
        assert (await device.read()).power_w is None


async def test_an_absurd_scale_factor_is_missing() -> None:
    """A scale factor beyond 10^10 is no scale factor."""
    async with connected(changed(METER, m203_W_SF=11)) as meter:
        assert (await meter.read()).power_w is None


async def test_pv_704_is_read_in_si_with_our_sign() -> None:
    """Generation is negative; without a limit what it generates is what it could."""
    async with connected(Device(DER_PV)) as pv:
        assert await pv.read() == Sample(
            power_w=-5000.0, energy_wh=4000.0, available_w=-5000.0, lower_w=-10000.0, upper_w=0.0
        )


async def test_pv_704_programs_the_reversion_before_the_first_limit() -> None:
    """Value and timeout of the reversion come first, then limit, lease and enable in one write."""
    device = Device(DER_PV)
    async with connected(device) as pv:
        applied = await pv.apply(setpoint(-4000.0))
        assert applied.power_w == -4000.0
        first, second = device.bank.writes
        assert (first.addr, first.values) == (device.addr(704, "WMaxLimPctRvrt"), (1000, 0, 0, 30))
        assert (second.addr, second.values) == (device.addr(704, "WMaxLimPctEna"), (1, 400, 1000, 0, 0, 30))
        assert (await pv.read()).setpoint_w == -4000.0
        await pv.apply(setpoint(-3000.0))
        assert len(device.bank.writes) == 3


async def test_pv_limits_are_rounded_down() -> None:
    """The device never may generate more than the setpoint allows."""
    async with connected(Device(DER_PV)) as pv:
        assert (await pv.apply(setpoint(-4009.9))).power_w == -4000.0
        assert (await pv.apply(setpoint(5.0))).power_w == 0.0
        assert (await pv.apply(setpoint(-99000.0))).power_w == -10000.0


async def test_what_a_limited_pv_could_give_is_unknown() -> None:
    """While the limit binds, available power is missing; below it, it is what is generated."""
    device = Device(DER_PV)
    async with connected(device) as pv:
        await pv.apply(setpoint(-5000.0))
        assert (await pv.read()).available_w is None
        await pv.apply(setpoint(-9000.0))
        assert (await pv.read()).available_w == -5000.0


async def test_reads_back_another_span_than_it_writes() -> None:
    """A stale answer to the write can not pass for the read-back."""
    device = Device(DER_STORAGE)
    async with connected(device) as storage:
        await storage.apply(setpoint(1000.0))
        write, back = device.bank.writes[-1], device.bank.asked[-1]
        assert back.function == 3
        assert (back.addr, back.words) != (write.addr, write.words)


async def test_a_device_that_takes_single_registers_only_is_limited_too() -> None:
    """Where FC16 is refused, model 123 is written register by register, timer first and enable last."""
    device = Device(LEGACY_PV)
    device.bank.refused_functions.add(WRITE_MANY)
    async with connected(device) as pv:
        assert (await pv.apply(setpoint(-25_000.0))).power_w == -25_000.0
        singles = [(w.addr, w.values[0]) for w in device.bank.writes if w.function == 6]
        assert singles[-3:] == [
            (device.addr(123, "WMaxLimPct_RvrtTms"), 30),
            (device.addr(123, "WMaxLimPct"), 50),
            (device.addr(123, "WMaxLim_Ena"), 1),
        ]
        await pv.release()
        assert device.get(123, "WMaxLim_Ena") == 0


async def test_legacy_pv_is_limited_in_one_write() -> None:
    """Model 123: no random window, the ramp as it was, lease, enable."""
    device = Device(LEGACY_PV)
    async with connected(device) as pv:
        assert await pv.read() == Sample(power_w=-25000.0, available_w=-25000.0, lower_w=-50000.0, upper_w=0.0)
        assert (await pv.apply(setpoint(-12_400.0))).power_w == -12_000.0
        assert device.bank.writes[-1].values == (24, 0, 30, 3, 1)
        assert (await pv.read()).setpoint_w == -12_000.0


async def test_float_inverters_and_reported_availability_are_read() -> None:
    """Models 111-113 carry floats; model 122 may tell the available power."""
    device = Device({113: {"W": 700.0, "St": 4, "Evt1": 0}, 122: {"WAval": 90, "WAval_SF": 1}})
    async with connected(device) as pv:
        sample = await pv.read()
        assert (sample.power_w, sample.available_w, sample.lower_w) == (-700.0, -900.0, None)
        assert not isinstance(pv, Controllable)


async def test_roles_can_be_forced() -> None:
    """The configuration may say what to see in the chain."""
    async with connected(Device(DER_STORAGE), role="meter") as meter:
        assert await meter.read() == Sample(power_w=2000.0, energy_wh=4000.0)
        assert not isinstance(meter, Controllable)


async def test_an_empty_chain_is_refused() -> None:
    """A device that has nothing we know is a clear no."""
    with pytest.raises(Refused, match="no meter, inverter or storage"):
        async with connected(Device({1: {}})):
            pass


async def test_a_device_that_stops_answering_is_unreachable() -> None:
    """Silence during reading or writing is Unreachable, whatever came before."""
    device = Device(DER_STORAGE)
    async with connected(device) as storage:
        device.bank.silent.add(1)
        with pytest.raises(Unreachable):
            await storage.read()
        with pytest.raises(Unreachable):
            await storage.apply(setpoint(1.0))


def test_unknown_keys_are_refused() -> None:
    """A misspelt key in the connection table is an error."""
    with pytest.raises(ValidationError):
        Config.model_validate({"host": "h", "reserve": 0.3})
