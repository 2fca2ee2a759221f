"""Jobs that share nodes are slowed alike: each group becomes one row of the planner. Pure.

A row is as tolerant as its least tolerant job and has lost, step by step, what the worst of them lost. A group that holds a
job nobody may slow is not slowed at all; its other jobs can still be paused, each by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vppd.core.curtail.accounts import Accounts
from vppd.core.curtail.classes import RIGID
from vppd.core.curtail.curves import Curves
from vppd.core.curtail.plan import Jobs
from vppd.core.curtail.workload_columns import Columns
from vppd.snapshot import Bools, Floats, Ints

_TYPICAL_FRAC = 0.75
"""Of two classes in one group the one that loses more at this level speaks for both. [0-1]"""


@dataclass(frozen=True, slots=True, eq=False)
class Gangs:
    """Which of r rows each of n jobs belongs to."""

    row: Ints
    """(n,)"""
    order: Ints
    """(n,) jobs, row by row."""
    start: Ints
    """(r,) where each row begins in ``order``."""

    @property
    def are_single(self) -> bool:
        """Say whether every job has a row of its own."""
        return len(self.start) == len(self.row)

    def least(self, column: Floats) -> Floats:
        """Return the least of each row, (r,)."""
        return column if self.are_single else np.minimum.reduceat(column[self.order], self.start)

    def most(self, column: Floats) -> Floats:
        """Return the greatest of each row, (r,)."""
        return column if self.are_single else np.maximum.reduceat(column[self.order], self.start)

    def total(self, column: Floats) -> Floats:
        """Return the sum of each row, (r,)."""
        return column if self.are_single else np.add.reduceat(column[self.order], self.start)

    def every(self, column: Bools) -> Bools:
        """Say where all of a row hold, (r,)."""
        return column if self.are_single else np.logical_and.reduceat(column[self.order], self.start)

    def some(self, column: Bools) -> Bools:
        """Say where any of a row holds, (r,)."""
        return column if self.are_single else np.logical_or.reduceat(column[self.order], self.start)

    def worst(self, accounts: Accounts) -> Accounts:
        """Return the accounts of the rows: in each step what the worst of their jobs lost."""
        if self.are_single:
            return accounts
        steps_s = np.diff(np.stack(accounts.lost_s), axis=0, prepend=0.0)[:, self.order]
        lost_s = np.cumsum(np.maximum.reduceat(steps_s, self.start, axis=1), axis=0)
        return Accounts(accounts.window_s, accounts.ends_s, tuple(lost_s))


def alike(columns: Columns, slowable: Bools) -> Bools:
    """Say which jobs may be slowed together with all of their group, (n,)."""
    if columns.groups is None:
        return slowable
    stiff = {group for group, may in zip(columns.groups, slowable.tolist(), strict=True) if group and not may}
    free = np.fromiter((group not in stiff for group in columns.groups), np.bool_, len(slowable))
    return slowable & free


def gangs_of(columns: Columns, slowed: Bools) -> Gangs:
    """Return the rows: a group that is ``slowed`` (see ``alike``) is one, else each job of it stands alone."""
    n = len(columns.ids)
    if columns.groups is None:
        every = np.arange(n)
        return Gangs(every, every, every)
    rows: dict[str | int, int] = {}
    names = (group if group and may else i for i, (group, may) in enumerate(zip(columns.groups, slowed, strict=True)))
    row = np.fromiter((rows.setdefault(name, len(rows)) for name in names), np.int64, n)
    order = np.argsort(row, kind="stable")
    return Gangs(row, order, np.searchsorted(row[order], np.arange(len(rows))))


def rows_of(columns: Columns, gangs: Gangs, curves: Curves, slowed: Bools, pausable: Bools) -> Jobs:
    """Return the rows as the planner takes them; power in parts of full power, so a row's watts are in its factor."""
    full_w, gpus = gangs.total(columns.full_w), gangs.total(columns.gpus)
    kind = np.where(slowed, columns.kind, RIGID)
    floor_lost_frac = 1.0 - curves.throughput_at_frac(kind, columns.floor_frac)
    return Jobs(
        curve=kind if gangs.are_single else _speaking(kind, gangs, curves),
        gpus=gpus,
        tier=gangs.least(columns.tier.astype(np.float64)).astype(np.int64),
        weight=np.ones(len(gpus)),
        watt_factor=full_w / gpus,
        pausable=gangs.every(pausable),
        restart_s=gangs.most(columns.restart_s),
        checkpoint_s=gangs.most(columns.checkpoint_s),
        least_run_s=gangs.most(columns.least_run_s),
        least_pause_s=gangs.most(columns.least_pause_s),
        most_pause_s=gangs.least(columns.most_pause_s),
        slack_s=gangs.least(columns.slack_s),
        kept_w=gangs.total(columns.kept_w) / np.maximum(full_w, 1e-9),
        deepest_lost_frac=gangs.least(np.maximum(floor_lost_frac, 0.0)),
    )


def _speaking(kind: Ints, gangs: Gangs, curves: Curves) -> Ints:
    """Return the class that speaks for each row: the one that loses most under a typical cap, (r,)."""
    lost = 1.0 - curves.throughput_at_frac(kind, np.full(len(kind), _TYPICAL_FRAC))
    worst_first = np.lexsort((-lost, gangs.row))
    return kind[worst_first][gangs.start]
