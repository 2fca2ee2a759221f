"""Known values as JSON text with their arrays aside, quick enough for every cycle: what cannot change is written once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from json.encoder import encode_basestring_ascii
from math import isfinite
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = list[NDArray[Any]]
Writer = Callable[[Any, Arrays], str]

KEPT_MOST = 4_000
"""So many texts are kept, and as many that were kept before them."""
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


class Encoder:
    """Writes the same text as ``json.dumps`` of tagged values: ``$d`` dataclass, ``$l`` tuple, ``$m`` mapping, ``$a`` array, ``$t`` time, ``$e`` enum."""

    def __init__(
        self, enums: Mapping[str, type[Enum]], later: Mapping[str, frozenset[str]], kept: tuple[type[Any], ...]
    ) -> None:
        """``enums`` are told from plain values; fields ``later`` are left out at the end while they are None.

        ``kept`` are frozen types without arrays, many of which come again: their text is kept for as long as they do.
        """
        self._enums, self._later, self._kinds = enums, later, kept
        self._texts: dict[int, tuple[object, str]] = {}
        self._older: dict[int, tuple[object, str]] = {}
        self._writers: dict[type[Any], Writer] = {
            str: lambda value, _: encode_basestring_ascii(value),
            float: lambda value, _: float.__repr__(value) if isfinite(value) else _NOT_FINITE[repr(value)],
            int: lambda value, _: int.__repr__(value),
        }

    @property
    def kept(self) -> int:
        """Return how many texts are kept."""
        return len(self._texts) + len(self._older)

    def text(self, value: object, arrays: Arrays) -> str:
        """Return a value as text and put its arrays behind the others, in the order in which the text names them."""
        write = self._writers.get(type(value))
        return write(value, arrays) if write is not None else self._write_new(value, arrays)

    def _write_new(self, value: object, arrays: Arrays) -> str:
        """Write a value of a type that has not been seen before."""
        write = self._writers[type(value)] = self._writer_of(type(value))
        return write(value, arrays)

    def _writer_of(self, kind: type[Any]) -> Writer:
        plain: tuple[tuple[type[Any], Writer], ...] = (
            (np.ndarray, _array),
            (datetime, lambda value, _: f'{{"$t":{encode_basestring_ascii(value.isoformat())}}}'),
            (Enum, self._enum),
            (tuple, self._tuple),
            (Mapping, self._mapping),
            (np.generic, lambda value, arrays: self.text(value.item(), arrays)),
        )
        for known, write in plain:
            if issubclass(kind, known):
                return write
        if is_dataclass(kind):
            write = self._dataclass(kind)
            return self._keeping(write) if kind in self._kinds else write
        return lambda value, _: json.dumps(value, separators=(",", ":"))

    def _enum(self, value: Enum, arrays: Arrays) -> str:
        name = type(value).__name__
        said = self.text(value.value, arrays)
        return f'{{"$e":["{name}",{said}]}}' if name in self._enums else said

    def _tuple(self, value: tuple[Any, ...], arrays: Arrays) -> str:
        return f'{{"$l":[{",".join([self.text(one, arrays) for one in value])}]}}'

    def _mapping(self, value: Mapping[Any, Any], arrays: Arrays) -> str:
        rows = [f"[{_key(key)},{self.text(one, arrays)}]" for key, one in sorted(value.items())]
        return f'{{"$m":[{",".join(rows)}]}}'

    def _dataclass(self, kind: type[Any]) -> Writer:
        names = tuple(field.name for field in fields(kind))
        later = self._later.get(kind.__name__, frozenset())
        head, get = f'{{"$d":"{kind.__name__}","f":[', attrgetter("__class__", *names)

        def write(value: Any, arrays: Arrays) -> str:
            found = get(value)[1:]
            end = len(names)
            while end and names[end - 1] in later and found[end - 1] is None:
                end -= 1
            return head + ",".join([self.text(one, arrays) for one in found[:end]]) + "]}"

        return write

    def _keeping(self, write: Writer) -> Writer:
        def kept(value: object, arrays: Arrays) -> str:
            key = id(value)  # nobody else's for as long as the value is held beside its text
            if (entry := self._texts.get(key)) is not None:
                return entry[1]
            entry = self._older.get(key) or (value, write(value, arrays))
            if len(self._texts) >= KEPT_MOST:
                self._texts, self._older = {}, self._texts
            self._texts[key] = entry
            return entry[1]

        return kept


def _key(key: object) -> str:
    return encode_basestring_ascii(key) if type(key) is str else json.dumps(key)


def _array(value: NDArray[Any], arrays: Arrays) -> str:
    arrays.append(np.ascontiguousarray(value))
    return (
        f'{{"$a":[{encode_basestring_ascii(value.dtype.str)},{json.dumps(list(value.shape), separators=(",", ":"))}]}}'
    )
