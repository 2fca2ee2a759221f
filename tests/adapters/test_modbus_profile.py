"""Register profiles: values read are right, in SI, with our sign, in few requests."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.profile_rig import METER, bank_of, connected, edited, meter, power
from vppd.errors import Refused
from vppd.model import Sample
from vppd.ports import Controllable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the test's profile lies."""
    return tmp_path


@pytest.mark.parametrize(
    ("point", "form", "raw", "power_w"),
    [
        ({"type": "s16"}, "h", -5, -5.0),
        ({"type": "u16", "positive": "export"}, "H", 5, -5.0),
        ({"type": "u32"}, "I", 70_000, 70_000.0),
        ({"type": "s64"}, "q", -(2**40), float(-(2**40))),
        ({"type": "u64"}, "Q", 2**40, float(2**40)),
        ({"type": "f32"}, "f", 1.5, 1.5),
        ({"type": "f64"}, "d", -2.25, -2.25),
        ({"type": "f32"}, "f", float("nan"), None),
        ({"type": "f32"}, "f", float("inf"), None),
        ({"type": "s16", "unit": "kW"}, "h", 3, 3000.0),
        ({"type": "s16", "scale": 0.1, "offset": 7.0}, "h", 30, 10.0),
        ({"type": "u16", "scale_pow2": -8}, "H", 512, 2.0),
        ({"type": "s16", "scale_addr": 11}, "hh", (12, 2), 1200.0),
        ({"type": "s16", "scale_addr": 11}, "hh", (12, -0x8000), None),
        ({"type": "s16", "invalid": "sunspec"}, "h", -0x8000, None),
        ({"type": "u32", "invalid": "sunspec"}, "I", 0xFFFFFFFF, None),
        ({"type": "acc32", "invalid": "sunspec"}, "I", 0, None),
        ({"type": "s16", "invalid": [0x7FFF, 0x7FFE]}, "h", 0x7FFE, None),
        ({"type": "s32", "invalid": [-1]}, "i", -1, None),
        ({"type": "s16", "range": [-10.0, 10.0]}, "h", 11, None),
        ({"type": "s32", "word_order": "little"}, "HH", (1, 0), 1.0),
        ({"type": "s32", "byte_order": "little"}, "HH", (0, 0x0100), 1.0),
        ({"type": "s32", "word_order": "little", "byte_order": "little"}, "HH", (0x0200, 0), 2.0),
        ({"type": "f32", "word_order": "little"}, "HH", struct.unpack(">HH", struct.pack(">f", 3.5))[::-1], 3.5),
        ({"type": "u16", "function": "input"}, "H", 9, 9.0),
    ],
)
async def test_values_are_decoded_to_si(
    point: dict[str, Any], form: str, raw: Any, power_w: float | None, folder: Path
) -> None:
    """Types, orders, scales, signs and invalid codes; what is not valid is missing, never 0."""
    values = raw if isinstance(raw, tuple) else (raw,)
    async with connected(meter(power=power(**point)), bank_of(form, *values), folder=folder) as device:
        assert (await device.read()).power_w == power_w


async def test_phases_add_up_and_one_missing_makes_the_sum_missing(folder: Path) -> None:
    """Several points of role power are one power."""
    phases = {f"l{n}": power(addr=10 + n, type="s16", invalid="sunspec") for n in range(3)}
    bank = bank_of("hhh", 1, 2, 3)
    async with connected(meter(**phases), bank, folder=folder) as device:
        assert (await device.read()).power_w == 6.0
        bank.put(11, "h", -0x8000)
        assert (await device.read()).power_w is None


async def test_points_are_read_in_few_blocks_within_the_devices_limits(folder: Path) -> None:
    """Gaps up to the limit are read over, longer blocks are split, other tables asked apart."""
    profile = meter(
        power=power(addr=10, type="s32"),
        near={"addr": 15, "type": "u16"},
        far={"addr": 21, "type": "u16"},
        edge={"addr": 39, "type": "u32"},
        other={"addr": 12, "type": "u16", "function": "input"},
    )
    bank = bank_of("i", 7)
    async with connected(profile, bank, folder=folder) as device:
        await device.read()
    spans = sorted((asked.function, asked.addr, asked.words) for asked in bank.asked)
    assert spans == [(3, 10, 6), (3, 21, 1), (3, 39, 2), (4, 12, 1)]


async def test_a_value_is_never_split_over_two_requests(folder: Path) -> None:
    """A block that would end inside a 32-bit value ends before it."""
    points = {f"p{n}": {"addr": 10 + 2 * n, "type": "u32"} for n in range(14)}
    bank = bank_of("i", 7)
    async with connected(
        edited(meter(power=power(type="s32"), **points), wire__max_read_words=7), bank, folder=folder
    ) as device:
        await device.read()
    assert {(asked.addr % 2, asked.words % 2) for asked in bank.asked} == {(0, 0)}


async def test_document_numbers_are_turned_into_wire_addresses(folder: Path) -> None:
    """With address_base 1 register 11 is asked as 10."""
    profile = edited(METER, wire__address_base=1, points__power__addr=11)
    async with connected(profile, bank_of("i", 7), folder=folder) as device:
        assert (await device.read()).power_w == 7.0


async def test_groups_are_read_when_due(folder: Path) -> None:
    """Power each time, slow groups when due, connect groups once."""
    profile = meter(
        power=power(type="s32"),
        energy={"addr": 40, "type": "u32", "unit": "kWh", "role": "energy_import", "group": "slow"},
        rating={"addr": 60, "type": "u16", "unit": "W", "role": "rated_power", "group": "once"},
    )
    profile = edited(profile, groups__slow={"every_s": 3600.0, "timeout_s": 0.1})
    bank = bank_of("i", 7)
    bank.put(40, "I", 12)
    async with connected(profile, bank, folder=folder) as device:
        for _ in range(3):
            assert await device.read() == Sample(power_w=7.0, energy_wh=12_000.0)
    assert sorted(asked.addr for asked in bank.asked) == [10, 10, 10, 40, 60]


async def test_a_leap_is_implausible_until_time_makes_it_possible(folder: Path) -> None:
    """A change faster than max_step is missing; values that stay there are believed in the end."""
    bank = bank_of("i", 100)
    async with connected(meter(power=power(type="s32", max_step=10.0)), bank, folder=folder) as device:
        assert (await device.read()).power_w == 100.0
        bank.put(10, "i", 4_000_000)
        assert (await device.read()).power_w is None
        gauge = device._reader._blocks["fast"][0].gauges[0]
        gauge.last = (gauge.last[0], gauge.last[1] - 1e6)
        assert (await device.read()).power_w == 4_000_000.0


async def test_percent_of_another_point(folder: Path) -> None:
    """A load in percent of the rating is a power."""
    profile = meter(
        power=power(type="u16", unit="% of rating", scale_pow2=-8),
        rating={"addr": 11, "type": "u16", "unit": "kW", "role": "rated_power", "group": "once"},
    )
    async with connected(profile, bank_of("HH", 128 * 50, 10), folder=folder) as device:
        assert (await device.read()).power_w == 2500.0


async def test_states_are_told_in_words(folder: Path) -> None:
    """Mapped codes and bits; those that begin with fault are faults, on_battery is just that."""
    profile = meter(
        power=power(type="s32"),
        mode={"addr": 20, "type": "enum16", "role": "state", "map": {"1": "fault", "2": "on_battery"}},
        alarms={"addr": 21, "type": "bits16", "role": "state", "bits": {"3": "fault: fan"}},
    )
    bank = bank_of("i", 7)
    async with connected(profile, bank, folder=folder) as device:
        assert await device.read() == Sample(power_w=7.0)
        bank.put(20, "HH", 1, 8)
        assert (await device.read()).fault == "fault, fault: fan"
        bank.put(20, "HH", 2, 0)
        assert await device.read() == Sample(power_w=7.0, on_battery=True)


async def test_the_map_must_fit_the_device(folder: Path) -> None:
    """A device that does not identify itself as expected is refused before anything is read or written."""
    proof = {"identify": {"addr": 10, "type": "str", "words": 4, "contains": "UPS"}}
    async with connected(METER | proof, bank_of("8s", b"My UPS"), folder=folder) as device:
        await device.read()
    with pytest.raises(Refused, match="profile test expects"):
        async with connected(METER | proof, bank_of("8s", b"Toaster"), folder=folder):
            pass
    number = {"identify": {"addr": 10, "type": "u32", "equals": 5}}
    with pytest.raises(Refused, match="says 6"):
        async with connected(METER | number, bank_of("I", 6), folder=folder):
            pass


async def test_what_is_only_observed_takes_no_setpoints(folder: Path) -> None:
    """No commands, no Controllable."""
    async with connected(METER, bank_of("i", 7), folder=folder) as device:
        assert not isinstance(device, Controllable)


async def test_coils_count_as_registers_of_0_or_1(folder: Path) -> None:
    """Discrete states can be points."""
    profile = meter(
        power=power(type="s32"),
        mains={"addr": 3, "type": "enum16", "role": "state", "function": "discrete", "map": {"1": "on_battery"}},
    )
    bank = bank_of("i", 7)
    plain = bank.answer
    bank.answer = lambda unit, pdu: b"\x02\x01\x01" if pdu[0] == 2 else plain(unit, pdu)  # type: ignore[method-assign]
    async with connected(profile, bank, folder=folder) as device:
        assert (await device.read()).on_battery
