"""SunSpec over Modbus: find the chain of models, plan few block reads, decode points with their scale factors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from adapters._modbus import MAX_READ_WORDS, ModbusLink
from adapters._modbus_layout import Layout
from adapters._sunspec_models import MODELS, TYPES, Point
from vppd.errors import Garbled, Refused, Unreachable

BASES = (40000, 0, 50000)
MARK = b"SunS"
END = 0xFFFF
HEADER = 2
MAX_MODELS = 256

Values = Mapping[str, float | None]


class Model(NamedTuple):
    """One model in a device: where its ID register lies and how many registers follow the header."""

    id: int
    addr: int
    length: int


@dataclass(frozen=True, slots=True)
class Chain:
    """The models of one device, the first of each ID."""

    models: Mapping[int, Model]

    def first(self, *ids: int) -> int | None:
        """Return the first of ``ids`` that the device has."""
        return next((number for number in ids if number in self.models), None)

    def has(self, key: str) -> bool:
        """Say whether the device has room for a point such as ``701.W``; it may still be unimplemented."""
        number, name = _split(key)
        model = self.models.get(number)
        if model is None:
            return False
        point = MODELS[number][name]
        last = max(point.offset + TYPES[point.type].words - 1, point.scale_offset or 0)
        return last < model.length + HEADER

    def addr(self, key: str) -> int:
        """Return the address of a point, or of offset N for ``704.+N``."""
        number, name = _split(key)
        offset = int(name) if name.startswith("+") else MODELS[number][name].offset
        return self.models[number].addr + offset


async def discover(link: ModbusLink, base_addr: int | None = None) -> Chain:
    """Return the models found by walking the chain. Raises Refused when there is no SunSpec map, Garbled, Unreachable."""
    for base in BASES if base_addr is None else (base_addr,):
        try:
            mark = await link.read(base, 2)
        except Refused:
            continue
        if mark == MARK:
            return Chain(MappingProxyType(await _walk(link, base + 2)))
    raise Refused(f"{link.config.host}:{link.config.port} unit {link.config.unit_id} has no SunSpec map")


async def _walk(link: ModbusLink, addr: int) -> dict[int, Model]:
    models: dict[int, Model] = {}
    for _ in range(MAX_MODELS):
        header = await link.read(addr, HEADER)
        number, length = int.from_bytes(header[:2], "big"), int.from_bytes(header[2:], "big")
        if number == END:
            return models
        models.setdefault(number, Model(number, addr, length))
        addr += HEADER + length
        if addr > END - HEADER:
            break
    raise Garbled(f"{link.config.host}:{link.config.port}: the SunSpec chain has no end")


class _Span(NamedTuple):
    addr: int
    end: int
    models: tuple[Model, ...]


class Plan:
    """The fewest block reads that bring a set of points, compiled once.

    Each block begins with a model's ID register, so that a map that moved (new firmware) is noticed, not misread.
    """

    def __init__(self, chain: Chain, keys: Iterable[str]) -> None:
        self._keys = tuple(keys)
        self._found = tuple(key for key in self._keys if chain.has(key))
        self._blocks = tuple(
            (span.addr, span.end - span.addr, Layout(_places(span, self._found)), span.models)
            for span in _merge(_spans(chain, self._found))
        )

    @property
    def requests(self) -> int:
        """How many round trips one reading takes."""
        return len(self._blocks)

    async def read(self, link: ModbusLink) -> Values:
        """Return every point asked for, None where it is absent or not implemented. Raises Unreachable, Refused, Garbled."""
        values: dict[str, float | None] = dict.fromkeys(self._keys)
        for addr, count, layout, models in self._blocks:
            raw = layout.decode(await link.read(addr, count))
            for model in models:
                if raw[f"{model.id}.ID"] != model.id:
                    raise Unreachable(f"{link.config.host}:{link.config.port}: model {model.id} moved; connect again")
            for key in self._found:
                if key in raw:
                    values[key] = scaled(key, raw)
        return values


def scaled(key: str, raw: Mapping[str, float]) -> float | None:
    """Return a point in its own unit, None when it or its scale factor is not implemented."""
    number, name = _split(key)
    point = MODELS[number][name]
    value = implemented(point, raw[key])
    if value is None or point.scale_offset is None:
        return value
    exponent = raw[f"{number}.+{point.scale_offset}"]
    return value * 10.0**exponent if -10 <= exponent <= 10 else None


def implemented(point: Point, value: float) -> float | None:
    """Return the raw ``value``, or None when it is the sentinel of its type."""
    return None if value == TYPES[point.type].sentinel or not math.isfinite(value) else value


def _split(key: str) -> tuple[int, str]:
    number, _, name = key.partition(".")
    return int(number), name


def _spans(chain: Chain, keys: Iterable[str]) -> list[_Span]:
    ends: dict[int, int] = {}
    for key in keys:
        number, name = _split(key)
        point = MODELS[number][name]
        end = max(point.offset + TYPES[point.type].words, (point.scale_offset or 0) + 1)
        ends[number] = max(end, ends.get(number, 0))
    models = sorted((chain.models[number] for number in ends), key=lambda model: model.addr)
    return [_Span(model.addr, model.addr + ends[model.id], (model,)) for model in models]


def _merge(spans: Iterable[_Span]) -> list[_Span]:
    """Join neighbours as long as one request holds them: registers between models of a chain are defined."""
    merged: list[_Span] = []
    for span in spans:
        if merged and span.end - merged[-1].addr <= MAX_READ_WORDS:
            merged[-1] = _Span(merged[-1].addr, span.end, merged[-1].models + span.models)
        else:
            merged.append(span)
    return merged


def _places(span: _Span, keys: Iterable[str]) -> dict[str, tuple[int, str]]:
    places = {f"{model.id}.ID": (model.addr - span.addr, "H") for model in span.models}
    starts = {model.id: model.addr - span.addr for model in span.models}
    for key in keys:
        number, name = _split(key)
        if number not in starts:
            continue
        point = MODELS[number][name]
        places[key] = (starts[number] + point.offset, TYPES[point.type].form)
        if point.scale_offset is not None:
            places[f"{number}.+{point.scale_offset}"] = (starts[number] + point.scale_offset, "h")
    return places
