"""A clock that tests turn by hand, and a unit that speaks in point names."""

from __future__ import annotations

import struct

from vppd.sim.registers import SunSpecUnit
from vppd.sim.sunspec import BASE_ADDRESS, Point


class HandClock:
    """Monotonic seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Return the time. [s]"""
        return self.now_s


def address(unit: SunSpecUnit, model: int, name: str) -> int:
    """Return a point's register address."""
    return BASE_ADDRESS + unit._bank.point(model, name).offset // 2


def put(unit: SunSpecUnit, model: int, **values: int) -> None:
    """Write points through the front door, one request each."""
    for name, value in values.items():
        point = unit._bank.point(model, name)
        assert point.packed is not None
        unit.write(address(unit, model, name), point.packed.pack(value))


def get(unit: SunSpecUnit, model: int, name: str) -> int:
    """Read a point through the front door."""
    point: Point = unit._bank.point(model, name)
    assert point.packed is not None
    data = unit.read(address(unit, model, name), point.size // 2)
    value: int = struct.unpack(point.packed.format, data)[0]
    return value
