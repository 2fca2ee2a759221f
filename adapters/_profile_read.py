"""Reads the points of a register profile: few block requests, checked values in SI."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from adapters._modbus import ModbusLink
from adapters._profile import Function, Point, Profile, Register, Wire
from adapters._profile_units import SAMPLE_UNITS, SUNSPEC_ABSENT, TYPES, factor

Value = float | str


class Decoder:
    """One register value, compiled: bytes in, raw value out."""

    def __init__(self, register: Register, wire: Wire) -> None:
        self.size = register.size
        form = f"{2 * self.size}s" if register.type == "str" else TYPES[register.type][0]
        self._struct = struct.Struct(f">{form}")
        self._swap_words = (register.word_order or wire.word_order) == "little" and register.type != "str"
        self._swap_bytes = (register.byte_order or wire.byte_order) == "little"

    def cut(self, block: bytes, at: int) -> bytes:
        """Return the value's bytes, most significant first; ``at`` counts registers."""
        data = block[2 * at : 2 * (at + self.size)]
        if self._swap_words:
            data = b"".join(data[i : i + 2] for i in range(len(data) - 2, -1, -2))
        if self._swap_bytes:
            data = b"".join(data[i + 1 : i - 1 if i else None : -1] for i in range(0, len(data), 2))
        return data

    def raw(self, data: bytes) -> Value:
        """Return the raw value of cut bytes."""
        value: int | float | bytes = self._struct.unpack(data)[0]
        if isinstance(value, bytes):
            return value.split(b"\0")[0].decode("latin-1").strip()
        return value


@dataclass(slots=True)
class _Gauge:
    """One point with its scale, its sanity checks and the last value that passed them."""

    name: str
    point: Point
    decoder: Decoder
    addr: int
    scale_addr: int | None
    absent: frozenset[int]
    last: tuple[float, float] | None = None

    def value(self, block: bytes, start: int, now_s: float) -> Value | None:
        """Return the value in the device's unit, None when it is invalid, out of range or implausible."""
        data = self.decoder.cut(block, self.addr - start)
        raw = self.decoder.raw(data)
        if isinstance(raw, str):
            return raw
        if not math.isfinite(raw) or int.from_bytes(data, "big") in self.absent:
            return None
        scaled = self._scaled(raw, block, start)
        return scaled if scaled is not None and self._is_plausible(scaled, now_s) else None

    def _scaled(self, value: float, block: bytes, start: int) -> float | None:
        point = self.point
        value *= point.scale * 2.0 ** (point.scale_pow2 or 0)
        if self.scale_addr is not None:
            exponent: int = struct.unpack_from(">h", block, 2 * (self.scale_addr - start))[0]
            if not -10 <= exponent <= 10:
                return None
            value *= 10.0**exponent
        return value + point.offset

    def _is_plausible(self, value: float, now_s: float) -> bool:
        point = self.point
        if point.range is not None and not point.range[0] <= value <= point.range[1]:
            return False
        if point.max_step is not None and self.last is not None:
            elapsed_s = max(1.0, now_s - self.last[1])
            if abs(value - self.last[0]) > point.max_step * elapsed_s:
                return False
        self.last = (value, now_s)
        return True


@dataclass(frozen=True, slots=True)
class _Block:
    function: Function
    addr: int
    count: int
    gauges: tuple[_Gauge, ...]


class Reader:
    """Reads groups when they are due and keeps the last values of the slow ones."""

    def __init__(self, link: ModbusLink, profile: Profile) -> None:
        self._profile = profile
        self._links = {
            name: link.with_timeout(group.timeout_s) if group.timeout_s else link
            for name, group in profile.groups.items()
        }
        self._blocks = {name: tuple(_blocks(profile, name)) for name in profile.groups}
        # Power and charge are asked for each time: an old value must never pass for a new one.
        self._always = {point.group for point in profile.role("power", "soc").values()}
        self._due_s = dict.fromkeys(profile.groups, float("-inf"))
        self._values: dict[str, Value | None] = dict.fromkeys(profile.points)

    async def read(self) -> Mapping[str, Value | None]:
        """Return all points in the device's units. Raises Unreachable, Refused or Garbled."""
        now_s = asyncio.get_running_loop().time()
        for name, group in self._profile.groups.items():
            if now_s < self._due_s[name] and (name not in self._always or group.every_s is None):
                continue
            for block in self._blocks[name]:
                await self._read_block(self._links[name], block)
            self._due_s[name] = now_s + (group.every_s or math.inf)
        return self._values

    async def _read_block(self, link: ModbusLink, block: _Block) -> None:
        data = await read_words(link, block.function, block.addr, block.count)
        now_s = asyncio.get_running_loop().time()
        for gauge in block.gauges:
            self._values[gauge.name] = gauge.value(data, block.addr, now_s)

    def in_si(self, name: str) -> float | None:
        """Return the last value of a point in W, Wh or a fraction, with the device's sign."""
        value, point = self._values[name], self._profile.points[name]
        if value is None or isinstance(value, str) or point.role is None or point.role not in SAMPLE_UNITS:
            return None
        scaled = value * (factor(point.unit, SAMPLE_UNITS[point.role]) or math.nan)
        if not point.unit.startswith("% of "):
            return scaled
        reference = self.in_si(point.unit.removeprefix("% of "))
        return None if reference is None else scaled * reference

    def total(self, role: str) -> float | None:
        """Return the sum of the points of a role (three phases, say) with + = import, None when one is missing."""
        parts = [
            None if (value := self.in_si(name)) is None else -value if point.positive == "export" else value
            for name, point in self._profile.role(role).items()
        ]
        known = [part for part in parts if part is not None]
        return sum(known) + 0.0 if known and len(known) == len(parts) else None

    def states(self) -> list[str]:
        """Return the names of the present states: mapped codes and set bits."""
        said: list[str] = []
        for name, point in self._profile.role("state").items():
            value = self._values[name]
            if value is None or isinstance(value, str):
                continue
            code = int(value)
            if code in point.map:
                said.append(point.map[code])
            said += [text for bit, text in point.bits.items() if code >> bit & 1]
        return said


async def read_words(link: ModbusLink, function: Function, addr: int, count: int) -> bytes:
    """Return registers as bytes; a coil or discrete input counts as a register of 0 or 1."""
    if function in ("coil", "discrete"):
        bits = await link.read_bits(addr, count, function)
        return struct.pack(f">{count}H", *bits)
    return await link.read(addr, count, function)


def wire_addr(profile: Profile, addr: int) -> int:
    """Return the address as it goes on the wire."""
    return addr - profile.wire.address_base


def _blocks(profile: Profile, group: str) -> Iterable[_Block]:
    gauges = [_gauge(profile, name, point) for name, point in profile.points.items() if point.group == group]
    functions: dict[Function, list[_Gauge]] = {}
    for gauge in gauges:
        functions.setdefault(gauge.point.function or profile.wire.function, []).append(gauge)
    for function, members in functions.items():
        yield from _merged(profile.wire, function, sorted(members, key=_span))


def _gauge(profile: Profile, name: str, point: Point) -> _Gauge:
    absent: tuple[int, ...]
    if point.invalid == "sunspec":
        absent = (SUNSPEC_ABSENT[point.type],) if point.type in SUNSPEC_ABSENT else ()
    else:
        bits = 16 * point.size
        absent = tuple(code % (1 << bits) for code in point.invalid if isinstance(code, int))
    scale_addr = None if point.scale_addr is None else wire_addr(profile, point.scale_addr)
    decoder = Decoder(point, profile.wire)
    return _Gauge(name, point, decoder, wire_addr(profile, point.addr), scale_addr, frozenset(absent))


def _span(gauge: _Gauge) -> tuple[int, int]:
    """Return first and last + 1 register of a point with its scale factor: they are never split."""
    scale_addr = gauge.addr if gauge.scale_addr is None else gauge.scale_addr
    return min(gauge.addr, scale_addr), max(gauge.addr + gauge.decoder.size, scale_addr + 1)


def _merged(wire: Wire, function: Function, gauges: Iterable[_Gauge]) -> Iterable[_Block]:
    start, end = 0, 0
    members: list[_Gauge] = []
    for gauge in gauges:
        first, last = _span(gauge)
        if members and first - end <= wire.max_gap_words and max(end, last) - start <= wire.max_read_words:
            members.append(gauge)
            end = max(end, last)
            continue
        if members:
            yield _Block(function, start, end - start, tuple(members))
        members, start, end = [gauge], first, last
    if members:
        yield _Block(function, start, end - start, tuple(members))
