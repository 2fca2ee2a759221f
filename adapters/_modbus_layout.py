"""Values in blocks of 16-bit registers, most significant word first."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from vppd.errors import Garbled


class Layout:
    """Where values lie in a block of registers, compiled once to one ``struct.Struct``."""

    def __init__(self, places: Mapping[str, tuple[int, str]]) -> None:
        """Take name -> (offset in registers, struct format of one value); two names may share a place."""
        ordered = sorted(set(places.values()))
        formats, at = [">"], 0
        for offset, form in ordered:
            if 2 * offset < at:
                raise ValueError(f"the value at offset {offset} overlaps the one before it")
            formats.append(f"{2 * offset - at}x{form}")
            at = 2 * offset + struct.calcsize(f">{form}")
        self._index = tuple((name, ordered.index(place)) for name, place in places.items())
        self._struct = struct.Struct("".join(formats))

    def decode(self, block: bytes) -> dict[str, Any]:
        """Return raw values by name. Raises Garbled when the block is too short."""
        try:
            values = self._struct.unpack_from(block)
        except struct.error as error:
            raise Garbled(f"{len(block)} bytes where {self._struct.size} were expected") from error
        return {name: values[index] for name, index in self._index}


def words(form: str, *values: float | bytes) -> list[int]:
    """Return the registers that hold ``values`` in big-endian order, ``form`` as in the struct module."""
    packed = struct.pack(f">{form}", *values)
    return list(struct.unpack(f">{len(packed) // 2}H", packed))
