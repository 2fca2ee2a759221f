"""Columns, rows and entries of a program as they are added, a block at a time."""

from __future__ import annotations

import numpy as np

from vppd.snapshot import Bools, Floats, Ints


class Matrix:
    """A program being written down."""

    def __init__(self) -> None:
        self._cost: list[Floats] = []
        self._lower: list[Floats] = []
        self._upper: list[Floats] = []
        self._whole: list[Bools] = []
        self._row_lower: list[Floats] = []
        self._row_upper: list[Floats] = []
        self._entries: list[tuple[Ints, Ints, Floats]] = []
        self._columns = self._rows = 0

    def columns(self, lower: Floats | float, upper: Floats, weight: Floats | float, *, whole: bool = False) -> Ints:
        """Add one column per entry of ``upper`` and return their numbers, in its shape; ``weight`` is its cost."""
        count = upper.size
        self._lower.append(np.broadcast_to(lower, upper.shape).ravel())
        self._upper.append(upper.ravel())
        self._cost.append(np.broadcast_to(weight, upper.shape).ravel())
        self._whole.append(np.full(count, whole))
        self._columns += count
        return np.arange(self._columns - count, self._columns).reshape(upper.shape)

    def rows(self, lower: Floats | float, upper: Floats | float, *terms: tuple[Ints, Floats | float]) -> Ints:
        """Add one row per entry of the terms' columns and return their numbers, in that shape."""
        shape, count = terms[0][0].shape, terms[0][0].size
        self._row_lower.append(np.broadcast_to(lower, shape).ravel())
        self._row_upper.append(np.broadcast_to(upper, shape).ravel())
        self._rows += count
        found = np.arange(self._rows - count, self._rows).reshape(shape)
        for column, factor in terms:
            self.entries(found, column, factor)
        return found

    def entries(self, row: Ints, column: Ints, factor: Floats | float) -> None:
        """Add ``factor`` times each column to its row."""
        self._entries.append((row.ravel(), column.ravel(), np.broadcast_to(factor, column.shape).ravel()))
