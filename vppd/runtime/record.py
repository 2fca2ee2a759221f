"""Snapshots, states and decisions as bytes and back: what ``vppd replay`` re-runs and compares."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vppd.core.cycle import decide
from vppd.core.settle import Delivery
from vppd.core.settled import Recent
from vppd.core.state import Decision, Demand, Phase, Progress, State, Transition
from vppd.errors import Garbled
from vppd.model import Interval, Obligation, Order, OrderKind, Signal
from vppd.runtime.encoding import Encoder
from vppd.snapshot import Health, Plant, Readings, Snapshot

_TYPES: Mapping[str, type[Any]] = MappingProxyType(
    {
        t.__name__: t
        for t in (
            Snapshot,
            Readings,
            Health,
            Signal,
            Plant,
            State,
            Recent,
            Progress,
            Delivery,
            Decision,
            Demand,
            Transition,
            Order,
            Interval,
            Obligation,
        )
    }
)
_LATER: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "Snapshot": frozenset({"preferred_w", "sold"}),
        "State": frozenset({"wished_w", "recent", "named_lower_w", "unheld_before_w"}),
    }
)
"""Fields that older records do not have, at the end: left out while all from there on are None, so that records read and digest as ever."""
_ENUMS: Mapping[str, type[Enum]] = MappingProxyType({"OrderKind": OrderKind, "Phase": Phase})
_ENCODER = Encoder(_ENUMS, _LATER, kept=(Order, Progress, Obligation))


def encode(value: object) -> bytes:
    """Return a value of the known types as bytes; equal values give equal bytes."""
    arrays: list[NDArray[Any]] = []
    head = _ENCODER.text(value, arrays).encode()
    return struct.pack("<I", len(head)) + head + b"".join(a.tobytes() for a in arrays)


def decode(data: bytes) -> Any:
    """Return the value that ``encode`` was given. Raises Garbled."""
    try:
        (size,) = struct.unpack_from("<I", data)
        return _value(json.loads(data[4 : 4 + size]), memoryview(data)[4 + size :], [0])
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise Garbled(f"a recorded frame cannot be read: {error}") from error


def _value(plain: Any, buffer: memoryview, at: list[int]) -> Any:
    if not isinstance(plain, dict):
        return plain
    ((tag, body), *rest) = plain.items()
    match tag:
        case "$a":
            return _array(body, buffer, at)
        case "$t":
            return datetime.fromisoformat(body)
        case "$e":
            return _ENUMS[body[0]](body[1])
        case "$l":
            return tuple(_value(v, buffer, at) for v in body)
        case "$m":
            return {k: _value(v, buffer, at) for k, v in body}
        case _:
            kind = _TYPES[body]
            values = [_value(v, buffer, at) for v in rest[0][1]]
            names = [f.name for f in fields(kind)]
            if set(names[len(values) :]) <= _LATER.get(body, frozenset()):
                names = names[: len(values)]
            return kind(**dict(zip(names, values, strict=True)))


def _array(body: Any, buffer: memoryview, at: list[int]) -> NDArray[Any]:
    dtype, shape = np.dtype(body[0]), tuple(body[1])
    size = dtype.itemsize * int(np.prod(shape))
    found = np.frombuffer(buffer[at[0] : at[0] + size], dtype=dtype).reshape(shape).copy()
    at[0] += size
    return found


def pack(value: object, digest: bytes = b"") -> bytes:
    """Return a compressed frame: 32 bytes of digest (or none) and the value."""
    return struct.pack("<B", len(digest)) + digest + zlib.compress(encode(value), 1)


def unpack(frame: bytes) -> tuple[Any, bytes]:
    """Return (value, digest) of a frame. Raises Garbled."""
    try:
        size = frame[0]
        return decode(zlib.decompress(frame[1 + size :])), frame[1 : 1 + size]
    except (IndexError, zlib.error) as error:
        raise Garbled(f"a recorded frame cannot be read: {error}") from error


def digest(decision: Decision) -> bytes:
    """Return what two equal decisions share: SHA-256 of all their bytes, the next state included."""
    return hashlib.sha256(encode(decision)).digest()


class Replay:
    """Re-runs recorded frames in order and says which cycles come out otherwise."""

    def __init__(self) -> None:
        self.cycles = 0
        self.differing: list[datetime] = []
        self._plant: Plant | None = None
        self._state: State | None = None

    def feed(self, kind: str, frame: bytes) -> Decision | None:
        """Take one frame (``plant``, ``state`` or ``cycle``); return what a cycle decided. Raises Garbled."""
        value, expected = unpack(frame)
        match kind:
            case "plant":
                self._plant, self._state = value, None
            case "state":
                self._state = value
            case "cycle" if self._plant is not None and self._state is not None:
                decision = decide(value, self._state, self._plant)
                self._state, self.cycles = decision.state, self.cycles + 1
                if digest(decision) != expected:
                    self.differing.append(value.at)
                return decision
        return None
