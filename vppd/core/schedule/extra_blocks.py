"""Blocks of further rows: what is common to those of reserves and to the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vppd.core.schedule.extra import Extras, Reserve
from vppd.core.schedule.matrix import Matrix
from vppd.core.schedule.problem import Problem
from vppd.snapshot import Floats, Ints

INF = np.inf
NO_COLUMN = -1


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the plain program's quantities are, shapes (step), (battery, step) and (load, step); -1 where none is."""

    imported: Ints
    exported: Ints
    generated: Ints
    charge: Ints
    discharge: Ints
    stored: Ints
    load: Ints
    need: Ints
    """Rows of the loads' needs."""


@dataclass(frozen=True, slots=True)
class Named:
    """Rows that stand for one constraint, and its name; one row per step from ``first_step``, or one for all steps."""

    name: str
    rows: Ints
    steps: Ints
    elastic: bool
    """May be broken when the least total breach is looked for: the rows that else would leave it without an answer."""


class Blocks:
    """A program and where its quantities are, to add blocks of rows to."""

    def __init__(
        self, matrix: Matrix, problem: Problem, extras: Extras, columns: Columns, unit: tuple[float, float]
    ) -> None:
        self.matrix, self.problem, self.extras, self.at = matrix, problem, extras, columns
        self.unit_w, self.price_per_wh = unit
        self.steps, self.every = problem.steps, np.arange(problem.steps)
        self.unit_wh = self.unit_w * problem.step_h
        self.named: list[Named] = []

    def name(self, name: str, rows: Ints, steps: Ints | None = None, *, elastic: bool = False) -> None:
        """Say what rows stand for."""
        self.named.append(Named(name, rows, self.every if steps is None else steps, elastic))

    def add(self, rows: Ints, columns: Ints, factor: Floats | float) -> None:
        """Add those of ``columns`` that exist, shape (..., row), to the rows."""
        there = columns != NO_COLUMN
        of_row, of_entry = np.broadcast_to(rows, columns.shape)[there], np.broadcast_to(factor, columns.shape)[there]
        self.matrix.entries(of_row, columns[there], of_entry)

    def those(self, *, up: bool) -> list[tuple[int, Reserve]]:
        """Return the reserves of one direction and their numbers."""
        return [(k, reserve) for k, reserve in enumerate(self.extras.reserves) if reserve.up is up]
