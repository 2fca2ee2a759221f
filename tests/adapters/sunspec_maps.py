"""SunSpec register maps for tests, built point by point from model definitions that are not ours."""

from __future__ import annotations

import copy
import json
import math
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from adapters.modbus_sunspec import ADAPTER, Config
from tests.adapters.modbus_bank import Bank, packed
from vppd.model import Setpoint

_FORMS = {
    "int16": ("h", -0x8000),
    "uint16": ("H", 0xFFFF),
    "enum16": ("H", 0xFFFF),
    "bitfield16": ("H", 0xFFFF),
    "count": ("H", 0xFFFF),
    "acc16": ("H", 0),
    "sunssf": ("h", -0x8000),
    "pad": ("H", 0x8000),
    "int32": ("i", -0x80000000),
    "uint32": ("I", 0xFFFFFFFF),
    "bitfield32": ("I", 0xFFFFFFFF),
    "acc32": ("I", 0),
    "uint64": ("Q", 0xFFFFFFFFFFFFFFFF),
    "acc64": ("Q", 0),
    "float32": ("f", math.nan),
}


def definitions() -> Path:
    """Return the folder of SunSpec model definitions; the test skips without pysunspec2."""
    package = pytest.importorskip("sunspec2", reason="pysunspec2 carries the SunSpec model definitions")
    return Path(package.__file__).parent / "models" / "json"


@cache
def points(number: int) -> dict[str, tuple[int, str, int]]:
    """Return name -> (offset from the ID register, type, size) of the fixed part of a model."""
    group = json.loads((definitions() / f"model_{number}.json").read_text())["group"]
    found: dict[str, tuple[int, str, int]] = {}
    offset = 0
    for point in group["points"]:
        found[point["name"]] = (offset, point["type"], point["size"])
        offset += point["size"]
    return found


def body(number: int, **values: float) -> list[int]:
    """Return a model's registers after its header: ``values`` are raw, everything else is not implemented."""
    registers: list[int] = []
    for name, (_, kind, size) in points(number).items():
        if name in ("ID", "L"):
            continue
        if kind == "string":
            registers += [0] * size
            continue
        form, absent = _FORMS[kind]
        registers += packed(form, values.pop(name, absent))
    assert not values, f"model {number} has no {sorted(values)}"
    return registers


class Device:
    """A bank that holds a chain of models and finds points by name."""

    def __init__(self, models: Mapping[int, Mapping[str, float]], base: int = 40000) -> None:
        self.bank = Bank()
        self._starts: dict[int, int] = {}
        addr = base + 2
        self.bank.put(base, "4s", b"SunS")
        for number, values in models.items():
            content = body(number, **values)
            self._starts[number] = addr
            self.bank.put(addr, f"{len(content) + 2}H", number, len(content), *content)
            addr += len(content) + 2
        self.bank.put(addr, "HH", 0xFFFF, 0)

    def addr(self, number: int, name: str) -> int:
        """Return the address of a point."""
        return self._starts[number] + points(number)[name][0]

    def put(self, number: int, name: str, value: float) -> None:
        """Set a raw point."""
        self.bank.put(self.addr(number, name), _FORMS[points(number)[name][1]][0], value)

    def get(self, number: int, name: str) -> float:
        """Return a raw point."""
        return self.bank.get(self.addr(number, name), _FORMS[points(number)[name][1]][0])

    def forget(self, number: int, name: str) -> None:
        """Make a point not implemented."""
        self.put(number, name, _FORMS[points(number)[name][1]][1])


def absent(number: int, name: str) -> float:
    """Return the raw value that says a point is not implemented."""
    return _FORMS[points(number)[name][1]][1]


def as_float_bits(value: float) -> float:
    """Return ``value`` as a float32 device would send it."""
    result: float = struct.unpack(">f", struct.pack(">f", value))[0]
    return result


METER: dict[int, dict[str, Any]] = {203: {"W": 1234, "W_SF": 1, "TotWhImp": 5000, "TotWhExp": 7, "TotWh_SF": 2}}

DER_PV: dict[int, dict[str, Any]] = {
    1: {},
    701: {"InvSt": 3, "Alrm": 0, "DERMode": 1, "W": 500, "W_SF": 1, "TotWhInj": 9, "TotWhAbs": 4, "TotWh_SF": 3},
    702: {"WMaxRtg": 1100, "WMax": 1000, "W_SF": 1},
    704: {
        "WMaxLimPctEna": 0,
        "WMaxLimPct": 1000,
        "WMaxLimPctRvrt": 1000,
        "WMaxLimPctEnaRvrt": 0,
        "WMaxLimPctRvrtTms": 0,
        "WMaxLimPctRvrtRem": 0,
        "WMaxLimPct_SF": -1,
    },
}

DER_STORAGE: dict[int, dict[str, Any]] = {
    1: {},
    701: {"InvSt": 3, "Alrm": 0, "DERMode": 1, "W": -200, "W_SF": 1, "TotWhInj": 9, "TotWhAbs": 4, "TotWh_SF": 3},
    702: {"WMaxRtg": 10000, "WMax": 10000, "WChaRteMax": 9000, "WDisChaRteMax": 8000, "W_SF": 1},
    704: {
        "WSetEna": 0,
        "WSetMod": 1,
        "WSet": 0,
        "WSetRvrt": 0,
        "WSetPct": 0,
        "WSetPctRvrt": 0,
        "WSetEnaRvrt": 0,
        "WSetRvrtTms": 0,
        "WSetRvrtRem": 0,
        "WSet_SF": 1,
        "WSetPct_SF": -1,
    },
    713: {"WHRtg": 500, "SoC": 800, "SoH": 1000, "Sta": 0, "WH_SF": 2, "Pct_SF": -1},
    715: {"LocRemCtl": 0, "DERHb": 5, "ControllerHb": 41, "AlarmReset": 0, "OpCtl": 1},
    802: {
        "WHRtg": 500,
        "WChaRteMax": 9000,
        "WDisChaRteMax": 8000,
        "SoCMax": 1000,
        "SoCMin": 50,
        "SoCRsvMin": 100,
        "SoC": 800,
        "LocRemCtl": 0,
        "CtrlHb": 65533,
        "State": 3,
        "Evt1": 0,
        "W": -200,
        "SoC_SF": -1,
        "W_SF": 1,
        "WHRtg_SF": 2,
        "WChaDisChaMax_SF": 1,
    },
}

LEGACY_PV: dict[int, dict[str, Any]] = {
    1: {},
    103: {"W": 2500, "W_SF": 1, "WH": 77, "WH_SF": 0, "St": 4, "Evt1": 0},
    120: {"DERTyp": 4, "WRtg": 60, "WRtg_SF": 3},
    121: {"WMax": 50, "WMax_SF": 3},
    122: {},
    123: {
        "WMaxLimPct": 100,
        "WMaxLimPct_WinTms": 5,
        "WMaxLimPct_RvrtTms": 0,
        "WMaxLimPct_RmpTms": 3,
        "WMaxLim_Ena": 0,
        "WMaxLimPct_SF": 0,
    },
}

LEGACY_STORAGE: dict[int, dict[str, Any]] = {
    1: {},
    103: {"W": -300, "W_SF": 1, "St": 4, "Evt1": 0},
    120: {"WRtg": 10, "WRtg_SF": 3},
    124: {
        "WChaMax": 8000,
        "StorCtl_Mod": 0,
        "MinRsvPct": 5,
        "ChaState": 6000,
        "ChaSt": 4,
        "OutWRte": 10000,
        "InWRte": 10000,
        "InOutWRte_WinTms": 0,
        "InOutWRte_RvrtTms": 0,
        "ChaGriSet": 0,
        "WChaMax_SF": 0,
        "MinRsvPct_SF": 0,
        "ChaState_SF": -2,
        "InOutWRte_SF": -2,
    },
}


@asynccontextmanager
async def connected(device: Device, **options: Any) -> AsyncIterator[Any]:
    """Serve the device and yield what the adapter makes of it."""
    async with device.bank.serving() as bank:
        config = Config(host="127.0.0.1", port=bank.port, timeout_s=0.2, **options)
        async with ADAPTER.connect(config) as link:
            yield link


def changed(models: dict[int, dict[str, Any]], **points_: Any) -> Device:
    """Return a device with points such as ``m802_SoC=5`` changed."""
    models = copy.deepcopy(models)
    for key, value in points_.items():
        number, _, name = key.removeprefix("m").partition("_")
        models[int(number)][name] = value
    return Device(models)


def setpoint(power_w: float, valid_for_s: float = 29.2) -> Setpoint:
    """A setpoint of the storage under test."""
    return Setpoint("a", power_w, valid_for_s)
