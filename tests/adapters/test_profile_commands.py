"""Register profiles: what is commanded, in which order, how often, and how it is given back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters import _profile_write
from adapters.modbus_profile import Config, connect
from tests.adapters.modbus_bank import Bank, packed
from tests.adapters.profile_rig import BATTERY, COMMAND, battery_bank, connected, edited
from vppd.errors import Refused, Unreachable
from vppd.model import Sample, Setpoint
from vppd.ports import Controllable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the test's profile lies."""
    return tmp_path


async def test_the_watchdog_is_armed_before_the_first_setpoint(folder: Path) -> None:
    """The timer first, never longer than the lease; then the value; the device's sign."""
    bank = battery_bank()
    async with connected(BATTERY, bank, folder=folder) as device:
        applied = await device.apply(Setpoint("a", -3000.0, 29.5))
        assert applied.power_w == -3000.0
        assert [(write.addr, write.values) for write in bank.writes] == [(100, (30,)), (102, (0, 3000))]
        assert await device.read() == Sample(
            power_w=500.0, soc_frac=0.8, lower_w=-10_000.0, upper_w=10_000.0, setpoint_w=-3000.0
        )
        await device.apply(Setpoint("a", 4000.0, 90.0))
        assert [(write.addr, write.values) for write in bank.writes[2:]] == [(100, (60,)), (102, packed("i", -4000))]


async def test_profile_batteries_keep_their_reserve(folder: Path) -> None:
    """At the reserve, or without a charge, a discharge becomes 0 W."""
    bank = battery_bank(soc=300)
    async with connected(BATTERY, bank, folder=folder, reserve_frac=0.3) as device:
        applied = await device.apply(Setpoint("a", -3000.0, 30.0))
        assert applied.power_w == 0.0
        assert "reserve" in applied.detail
        assert (await device.read()).lower_w == 0.0
        bank.put(13, "H", 2000)
        await device.read()
        assert "unknown" in (await device.apply(Setpoint("a", -3000.0, 30.0))).detail
        bank.put(13, "H", 301)
        await device.read()
        assert (await device.apply(Setpoint("a", -3000.0, 30.0))).power_w == -3000.0


async def test_unchanged_setpoints_are_written_again_when_the_watchdog_wants_it(folder: Path) -> None:
    """Within the dead band nothing is written until refresh_s has passed."""
    bank = battery_bank()
    async with connected(edited(BATTERY, commands__power__deadband=50.0), bank, folder=folder) as device:
        await device.apply(Setpoint("a", 3000.0, 30.0))
        await device.apply(Setpoint("a", 3040.0, 30.0))
        assert len(bank.writes) == 2
        sent_value, sent_s = device._commander._sent
        device._commander._sent = (sent_value, sent_s - 21.0)
        assert (await device.apply(Setpoint("a", 3040.0, 30.0))).power_w == 3040.0
        assert len(bank.writes) == 3


async def test_a_limit_is_tightened_whatever_the_dead_band(folder: Path) -> None:
    """The dead band never lets a generator give more than its setpoint."""
    profile = edited(
        BATTERY,
        kind="inverter",
        commands__power__role="power_limit",
        commands__power__deadband=500.0,
        commands__power__min=0.0,
    )
    bank = battery_bank()
    async with connected(profile, bank, folder=folder) as device:
        for limit_w, expected_w in ((-3000.9, -3000.0), (-3100.0, -3000.0), (-2900.0, -2900.0), (5.0, 0.0)):
            assert (await device.apply(Setpoint("a", limit_w, 30.0))).power_w == expected_w


async def test_pace_and_ramp_hold_a_setpoint_back_and_say_so(folder: Path) -> None:
    """Nothing is written before min_interval_s, and never a step greater than the ramp allows."""
    profile = edited(BATTERY, commands__power__min_interval_s=5.0, commands__power__ramp_per_s=100.0)
    bank = battery_bank()
    async with connected(profile, bank, folder=folder) as device:
        applied = await device.apply(Setpoint("a", 3000.0, 30.0))
        assert applied.power_w == 1000.0
        assert "on its way" in applied.detail
        applied = await device.apply(Setpoint("a", 3000.0, 30.0))
        assert applied.power_w == 1000.0
        assert "next write in" in applied.detail
        sent_value, sent_s = device._commander._sent
        device._commander._sent = (sent_value, sent_s - 10.0)
        assert (await device.apply(Setpoint("a", 3000.0, 30.0))).power_w == pytest.approx(2000.0, abs=2.0)


async def test_a_day_has_so_many_writes(folder: Path) -> None:
    """Flash is not worn out; giving back is always possible."""
    profile = edited(BATTERY, commands__power__persistence="flash", commands__power__max_writes_per_day=2)
    bank = battery_bank()
    async with connected(profile, bank, folder=folder) as device:
        await device.apply(Setpoint("a", 1.0, 30.0))
        await device.apply(Setpoint("a", 2.0, 30.0))
        with pytest.raises(Refused, match="max_writes_per_day"):
            await device.apply(Setpoint("a", 3.0, 30.0))
        await device.release()
        device._commander._quota._since_s -= _profile_write.DAY_S
        assert (await device.apply(Setpoint("a", 3.0, 30.0))).power_w == 3.0


async def test_neighbours_go_out_in_one_write_and_complements_follow(folder: Path) -> None:
    """A key and 65535 - key in one FC16, and codes for start and stop."""
    key = {"addr": 104, "type": "u16", "write": "multiple", "from": "direction", "map": {"start": 35732, "stop": 35733}}
    check = {"addr": 105, "type": "u16", "write": "multiple", "from": "complement"}
    profile = edited(
        BATTERY,
        kind="genset",
        commands__power__role="start",
        commands__power__unit="",
        commands__power__min=0.0,
        commands__power__max=1.0,
        commands__power__steps=[key, check],
        commands__power__release=[key | {"from": None, "const": 35701}, check],
        commands__power__verify={"addr": 104, "type": "u16", "delay_s": 0.0},
    )
    for step in (*profile["commands"]["power"]["release"],):
        for unused in [name for name in ("from", "map") if step.get(name) is None or "const" in step]:
            step.pop(unused, None)
    bank = battery_bank()
    async with connected(profile, bank, folder=folder) as device:
        assert (await device.apply(Setpoint("a", -50_000.0, 30.0))).power_w is None
        assert bank.writes[-1].values == (35732, 65535 - 35732)
        await device.apply(Setpoint("a", 0.0, 30.0))
        assert bank.writes[-1].values == (35733, 65535 - 35733)
        await device.release()
        assert bank.writes[-1].values == (35701, 65535 - 35701)


@pytest.mark.parametrize(("kind", "beats"), [("heartbeat_toggle", [1, 0, 1]), ("heartbeat_counter", [1, 2, 3])])
async def test_heartbeats_move_with_each_write(kind: str, beats: list[int], folder: Path) -> None:
    """A toggle or a counter, driven by setpoints and by nothing else."""
    steps = [*COMMAND["steps"], {"addr": 110, "type": "u16", "write": "single", "from": "heartbeat"}]
    profile = edited(BATTERY, watchdog__kind=kind, commands__power__steps=steps)
    bank = battery_bank()
    seen = []
    async with connected(profile, bank, folder=folder) as device:
        for power_w in (10.0, 20.0, 30.0):
            await device.apply(Setpoint("a", power_w, 30.0))
            await device.read()
            seen.append(bank.registers[110])
    assert seen == beats


async def test_percent_of_the_rating_scale_registers_and_durations(folder: Path) -> None:
    """A limit in percent with its scale factor elsewhere, and a duration in minutes rounded up."""
    steps = [
        {"addr": 102, "type": "u16", "write": "single", "from": "value", "scale_addr": 120},
        {"addr": 103, "type": "u16", "write": "single", "from": "timeout_s", "scale": 60.0},
    ]
    profile = edited(
        BATTERY,
        kind="inverter",
        points__rating={"addr": 20, "type": "u16", "unit": "kW", "role": "rated_power", "group": "once"},
        commands__power__role="power_limit",
        commands__power__unit="%",
        commands__power__min=0.0,
        commands__power__max=100.0,
        commands__power__steps=steps,
        commands__power__verify={"addr": 102, "type": "u16", "scale_addr": 120, "delay_s": 0.0},
        watchdog__kind="duration_command",
        watchdog__arm=[],
    )
    bank = battery_bank()
    bank.put(20, "H", 50)
    bank.put(120, "h", -1)
    async with connected(profile, bank, folder=folder) as device:
        assert (await device.apply(Setpoint("a", -20_000.0, 30.0))).power_w == pytest.approx(-20_000.0)
        assert (bank.registers[102], bank.registers[103]) == (400, 1)


async def test_magnitudes_read_back_get_the_sign_that_was_commanded(folder: Path) -> None:
    """Devices that take magnitude and direction apart are read back with the right sign."""
    steps = [
        {
            "addr": 101,
            "type": "u16",
            "write": "single",
            "from": "direction",
            "map": {"charge": 1, "discharge": 2, "stop": 0},
        },
        {"addr": 102, "type": "u32", "write": "multiple", "from": "value_abs"},
    ]
    profile = edited(BATTERY, commands__power__steps=steps, commands__power__verify__type="u32")
    bank = battery_bank()
    async with connected(profile, bank, folder=folder) as device:
        for power_w, code in ((-700.0, 2), (800.0, 1), (0.0, 0)):
            assert (await device.apply(Setpoint("a", power_w, 30.0))).power_w == power_w
            assert bank.registers[101] == code


async def test_a_direction_the_profile_does_not_know_is_refused(folder: Path) -> None:
    """No code, no write."""
    steps = [{"addr": 101, "type": "u16", "write": "single", "from": "direction", "map": {"charge": 1, "stop": 0}}]
    bank = battery_bank()
    async with connected(edited(BATTERY, commands__power__steps=steps), bank, folder=folder) as device:
        with pytest.raises(Refused, match="discharge"):
            await device.apply(Setpoint("a", -700.0, 30.0))
        assert 101 not in [write.addr for write in bank.writes]


async def test_little_endian_devices_are_written_in_their_order(folder: Path) -> None:
    """Word and byte order hold for writes and read-back too."""
    profile = edited(BATTERY, wire__word_order="little", wire__byte_order="little")
    bank = battery_bank()
    bank.put(13, "H", 0x2003)
    async with connected(profile, bank, folder=folder) as device:
        assert (await device.apply(Setpoint("a", -0x010203, 30.0))).power_w == -10_000.0
        assert bank.writes[-1].values == (0x1027, 0)


async def test_acknowledged_but_not_applied_shows(folder: Path) -> None:
    """What apply() returns is the register, not the acknowledgement."""
    bank = battery_bank()
    bank.stuck.update((102, 103))
    async with connected(BATTERY, bank, folder=folder) as device:
        assert (await device.apply(Setpoint("a", -3000.0, 30.0))).power_w == 0.0


async def test_an_ended_lease_releases(folder: Path) -> None:
    """Reading never keeps a setpoint alive: after the lease it is the reading that gives the device back."""
    profile = edited(BATTERY, watchdog={"kind": "none", "safe_forever": True})
    bank = battery_bank()
    async with connected(profile, bank, folder=folder) as device:
        await device.apply(Setpoint("a", -3000.0, 30.0))
        device._lease._ends_s = 0.0
        assert (await device.read()).setpoint_w is None
        assert bank.get(102, "i") == 0


async def test_the_reserve_is_written_where_the_profile_can(folder: Path) -> None:
    """Raised to ours, never lowered, and refused when the device does not keep it."""
    reserve = COMMAND | {
        "role": "reserve_soc",
        "unit": "%",
        "min": 0.0,
        "max": 100.0,
        "steps": [{"addr": 115, "type": "u16", "write": "single", "from": "value"}],
        "verify": {"addr": 115, "type": "u16", "delay_s": 0.0, "tolerance": 0.0},
        "release": [{"addr": 115, "type": "u16", "write": "single", "const": 0}],
    }
    profile = edited(BATTERY, commands__reserve=reserve)
    bank = battery_bank()
    async with connected(profile, bank, folder=folder, reserve_frac=0.305):
        assert bank.registers[115] == 31
    async with connected(profile, bank, folder=folder, reserve_frac=0.2):
        assert bank.registers[115] == 31
    bank.stuck.add(115)
    with pytest.raises(Refused, match="did not keep"):
        async with connected(profile, bank, folder=folder, reserve_frac=0.5):
            pass


async def test_profile_devices_fall_silent_like_any(folder: Path) -> None:
    """Silence is Unreachable for reading, writing and giving back."""
    bank = battery_bank()
    async with connected(BATTERY, bank, folder=folder) as device:
        await device.read()
        bank.silent.add(1)
        for deed in (device.read(), device.apply(Setpoint("a", 1.0, 30.0)), device.release()):
            with pytest.raises(Unreachable):
                await deed


def sunspec_pv() -> Iterator[tuple[int, int]]:
    """Yield registers of the inverter that pv-inverter-fixed-sunspec describes: 50 kW, generating 25 kW."""
    yield from dict.fromkeys(range(40000, 40270), 0).items()
    yield from {40000: 0x5375, 40001: 0x6E53, 40084: 2500, 40085: 1, 40108: 4, 40125: 5, 40126: 4, 40251: 0}.items()


async def test_a_shipped_profile_limits_an_inverter() -> None:
    """pv-inverter-fixed-sunspec: identified, read, limited from what it generates by its ramp, released."""
    bank = Bank({1: dict(sunspec_pv())})
    async with bank.serving():
        config = Config(
            host="127.0.0.1",
            port=bank.port,
            profile="pv-inverter-fixed-sunspec",
            connect_delay_s=0.0,
            min_interval_s=0.0,
        )
        async with connect(config) as pv:
            assert isinstance(pv, Controllable)
            assert await pv.read() == Sample(power_w=-25_000.0, lower_w=-50_000.0, upper_w=0.0)
            applied = await pv.apply(Setpoint("pv", -20_000.0, 30.0))
            assert applied.power_w == -20_000.0
            assert (bank.registers[40233], bank.registers[40237], bank.registers[40235]) == (40, 1, 30)
            await pv.release()
            assert (bank.registers[40233], bank.registers[40237]) == (100, 0)
