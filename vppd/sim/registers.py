"""What every simulated SunSpec device shares: reading live registers, refusing bad writes, counting good ones."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vppd.sim.faults import Clock
from vppd.sim.modbus import ILLEGAL_ADDRESS, ILLEGAL_VALUE, Illegal
from vppd.sim.sunspec import BASE_ADDRESS, Bank

_LOG_LENGTH = 20_000
_STEADY_HZ = 50.0

PointName = tuple[int, str]
"""Model and point."""


@dataclass(slots=True)
class WriteLog:
    """What was written to a device, and what it did by itself: the truth for "none executed twice"."""

    writes: int = 0
    """Accepted write requests, heartbeats apart."""
    transitions: int = 0
    """Times a write changed the setpoint the device follows."""
    reversions: int = 0
    """Times the device fell back by itself: timer or heartbeat."""
    heartbeats: int = 0
    refused: int = 0
    entries: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_LOG_LENGTH))
    """Transitions and reversions with their times."""

    def note(self, at_s: float, what: str, setpoint_w: float | None) -> None:
        """Record a change of what the device follows. [W, + = into the asset]"""
        self.entries.append({"at_s": at_s, "what": what, "setpoint_w": setpoint_w})

    def counts(self) -> dict[str, int]:
        """Return the counters by name."""
        return {
            "writes": self.writes,
            "transitions": self.transitions,
            "reversions": self.reversions,
            "heartbeats": self.heartbeats,
            "refused": self.refused,
        }


class SunSpecUnit:
    """A device whose registers are computed when they are read; subclasses fill in and react."""

    def __init__(self, name: str, models: Iterable[int], writable: Iterable[PointName], clock: Clock) -> None:
        self.name = name
        self.log = WriteLog()
        self._bank = Bank(models)
        self._clock = clock
        self._writable: Mapping[int, PointName] = {
            number: key for key in writable for number in self._bank.point(*key).numbers()
        }
        self._bank.put_text(1, Mn="vppd", Md=type(self).__name__, Vr="1", SN=name)
        self._bank.put(1, DA=1)

    def read(self, address: int, count: int) -> bytes:
        """Return registers as they are now. Raises Illegal outside the map."""
        start = address - BASE_ADDRESS
        if start < 0 or start + count > len(self._bank):
            raise Illegal(ILLEGAL_ADDRESS)
        self.refresh()
        return self._bank.read(start, count)

    def write(self, address: int, data: bytes) -> None:
        """Take registers, all or none. Raises Illegal for a register that is not writable, half a number, or a bad value."""
        start = address - BASE_ADDRESS
        try:
            touched = self._touched(range(start, start + len(data) // 2))
            before = self._bank.read(start, len(data) // 2)
            self.refresh()
            self._bank.write(start, data)
            try:
                self.check(touched)
            except Illegal:
                self._bank.write(start, before)
                raise
        except Illegal:
            self.log.refused += 1
            raise
        self.accept(touched)

    def refresh(self) -> None:
        """Bring the registers up to now."""

    def check(self, touched: frozenset[PointName]) -> None:
        """Judge registers just written. Raises Illegal."""

    def accept(self, touched: frozenset[PointName]) -> None:
        """Act on registers just written."""

    def _touched(self, numbers: range) -> frozenset[PointName]:
        """Return the points a write covers. Raises Illegal unless all are writable and none is torn."""
        if any(number not in self._writable for number in numbers):
            raise Illegal(ILLEGAL_ADDRESS)
        touched = frozenset(self._writable[number] for number in numbers)
        for key in touched:
            if any(number not in numbers for number in self._bank.point(*key).numbers()):
                raise Illegal(ILLEGAL_VALUE)
        return touched


def raw(value: float, scale: int = 0) -> int:
    """Return the number that stands for a value under a scale factor."""
    return round(value / 10.0**scale)


def count_wh(energy_wh: float) -> int:
    """Return a 32-bit energy counter, which rolls over. [Wh]"""
    return int(energy_wh) % 2**32


def current_a(power_w: float, line_v: float) -> float:
    """Return the current per phase at unity power factor. [A]"""
    return power_w / (math.sqrt(3.0) * line_v)


def line_frequency_hz() -> float:
    """Return the frequency of a grid that is at rest. [Hz]"""
    return _STEADY_HZ
