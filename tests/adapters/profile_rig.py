"""Profiles and register banks for tests of register profiles."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from adapters.modbus_profile import ADAPTER, Config
from tests.adapters.modbus_bank import Bank, packed

METER: dict[str, Any] = {
    "schema": 1,
    "profile": "test",
    "version": "1",
    "transport": "modbus",
    "vendor": "Test",
    "models": ["T"],
    "kind": "meter",
    "capability": "observe",
    "source": "this test",
    "confirmed": False,
    "wire": {
        "function": "holding",
        "address_base": 0,
        "byte_order": "big",
        "word_order": "big",
        "max_read_words": 20,
        "max_write_words": 10,
        "max_gap_words": 4,
        "one_connection": True,
        "connect_delay_s": 0.0,
        "min_interval_s": 0.0,
        "timeout_s": 0.2,
    },
    "groups": {"fast": {"every_s": 1.0}, "once": {"at": "connect"}},
    "points": {
        "power": {"addr": 10, "type": "s32", "unit": "W", "positive": "import", "role": "power", "group": "fast"}
    },
}
COMMAND: dict[str, Any] = {
    "role": "power",
    "unit": "W",
    "positive": "export",
    "min": -10000.0,
    "max": 10000.0,
    "deadband": 0.0,
    "min_interval_s": 0.0,
    "ramp_per_s": 1e9,
    "persistence": "volatile",
    "steps": [{"addr": 102, "type": "s32", "write": "multiple", "from": "value"}],
    "verify": {"addr": 102, "type": "s32", "delay_s": 0.0},
    "release": [{"addr": 102, "type": "s32", "write": "multiple", "const": 0}],
}
BATTERY: dict[str, Any] = METER | {
    "kind": "battery",
    "capability": "dispatchable",
    "points": {
        "power": METER["points"]["power"],
        "soc": {"addr": 13, "type": "u16", "unit": "%", "role": "soc", "group": "fast", "scale": 0.1},
    },
    "commands": {"power": COMMAND},
    "watchdog": {
        "kind": "timeout_register",
        "timeout_s": 60.0,
        "refresh_s": 20.0,
        "fed_by": "write",
        "arm": [{"addr": 100, "type": "u16", "write": "single", "from": "timeout_s"}],
        "fallback": "self-use",
    },
}


def edited(profile: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the profile with ``points__power__addr=3`` set; None takes a key away."""
    profile = copy.deepcopy(profile)
    for path, value in changes.items():
        *parents, last = path.split("__")
        table = profile
        for part in parents:
            table = table[part]
        if value is None:
            table.pop(last)
        else:
            table[last] = value
    return profile


def meter(**points: dict[str, Any]) -> dict[str, Any]:
    """Return a meter with these points, each with a group, an address and a unit unless given."""
    defaults = {"group": "fast", "unit": "", "addr": 10}
    return METER | {"points": {name: defaults | point for name, point in points.items()}}


def power(**point: Any) -> dict[str, Any]:
    """Return a power point."""
    return {"role": "power", "unit": "W", "positive": "import"} | point


@asynccontextmanager
async def connected(profile: dict[str, Any], bank: Bank, **options: Any) -> AsyncIterator[Any]:
    """Serve the bank and yield the device that the profile makes of it."""
    path = Path(options.pop("folder")) / "test.toml"
    path.write_text(toml(profile))
    async with bank.serving():
        config = Config.model_validate({"host": "127.0.0.1", "port": bank.port, "profile": str(path)} | options)
        async with ADAPTER.connect(config) as device:
            yield device


def toml(content: dict[str, Any]) -> str:
    """Return TOML of plain values, tables inline."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f'"{key}" = {text(item)}' for key, item in value.items()) + " }"
        if isinstance(value, list):
            return "[" + ", ".join(text(item) for item in value) + "]"
        return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')

    return "\n".join(f"{key} = {text(value)}" for key, value in content.items())


def bank_of(form: str, *values: float | bytes, addr: int = 10) -> Bank:
    """Return a bank whose holding and input registers hold values from ``addr`` on, and zeros around."""
    registers = dict.fromkeys(range(130), 0) | dict(enumerate(packed(form, *values), addr))
    return Bank({1: registers}, inputs={1: dict(registers)})


def battery_bank(soc: int = 800) -> Bank:
    """Return a battery's registers, charging with 500 W."""
    bank = bank_of("i", 500)
    bank.put(13, "H", soc)
    return bank
