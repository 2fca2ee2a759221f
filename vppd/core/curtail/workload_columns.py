"""The jobs of a cluster in columns, as the planner computes with them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter

import numpy as np

from vppd.core.curtail.classes import Classes, key_of
from vppd.model import TIERS
from vppd.snapshot import Bools, Floats, Ints
from vppd.workload import Job

_FIGURES = (
    "tier", "full_w", "kept_w", "gpus", "floor_frac", "level_frac", "pausable", "paused", "restart_s", "checkpoint_s",
    "least_run_s", "least_pause_s", "most_pause_s", "slack_s",
)  # fmt: skip
_LEAST_GPUS = 1e-3
_figures_of, _id_of, _group_of, _power_of = (
    attrgetter(*_FIGURES),
    attrgetter("id"),
    attrgetter("group"),
    attrgetter("power_w"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """n jobs as an adapter reads them back."""

    ids: tuple[str, ...]
    kind: Ints
    """(n,) rows of the classes."""
    groups: tuple[str, ...] | None
    """Groups of jobs that are slowed alike, "" for none; None where there is no group at all."""
    slowable: Bools
    """(n,) has a knob with some way to go, and a tier that lets it be turned."""
    tier: Ints
    full_w: Floats
    kept_w: Floats
    gpus: Floats
    floor_frac: Floats
    level_frac: Floats
    """(n,) in force now. [0-1]"""
    power_w: Floats
    """(n,) measured, NaN where nobody does. [W]"""
    pausable: Bools
    paused: Bools
    restart_s: Floats
    checkpoint_s: Floats
    least_run_s: Floats
    least_pause_s: Floats
    most_pause_s: Floats
    slack_s: Floats

    def drawn_w(self, classes: Classes) -> Floats:
        """Return what each job draws by its level in force and what is believed of its class, (n,). [W]"""
        return self.would_draw_w(classes, self.level_frac, self.paused)

    def would_draw_w(self, classes: Classes, level_frac: Floats, paused: Bools) -> Floats:
        """Return what each job would draw at a level or paused, (n,). [W]"""
        running_w = self.full_w * classes.curves.power_at_w(self.kind, level_frac)
        return np.where(paused, self.kept_w, running_w)

    def lost_frac(self, classes: Classes) -> Floats:
        """Return the throughput each job loses by what is in force, (n,). [0-1]"""
        lost = 1.0 - classes.curves.throughput_at_frac(self.kind, self.level_frac)
        return np.where(self.paused, 1.0, np.clip(lost, 0.0, 1.0))


def columns_of(jobs: Sequence[Job], classes: Classes) -> tuple[Columns, Classes]:
    """Return the columns, and the classes grown by those met for the first time."""
    n, keys = len(jobs), list(map(key_of, jobs))
    rows = list(map(classes.row.get, keys))
    if None in rows:
        classes = classes.grown(keys)
        rows = list(map(classes.row.get, keys))
    kind = np.asarray(rows, dtype=np.int64)
    groups = tuple(map(_group_of, jobs))
    table = np.fromiter(chain.from_iterable(map(_figures_of, jobs)), np.float64, n * len(_FIGURES))
    figure = dict(zip(_FIGURES, table.reshape(n, len(_FIGURES)).T.copy(), strict=True))
    tier = np.clip(figure["tier"], 0, TIERS - 1).astype(np.int64)
    full_w = np.maximum(np.nan_to_num(figure["full_w"]), 0.0)  # what nobody knows cannot be counted on
    columns = Columns(
        ids=tuple(map(_id_of, jobs)),
        kind=kind,
        groups=groups if any(groups) else None,
        slowable=classes.has_knob[kind] & (tier > 0) & (figure["floor_frac"] < 1.0),
        tier=tier,
        full_w=full_w,
        kept_w=np.clip(np.nan_to_num(figure["kept_w"]), 0.0, full_w),
        gpus=np.maximum(figure["gpus"], _LEAST_GPUS),
        floor_frac=np.clip(np.nan_to_num(figure["floor_frac"], nan=1.0), 0.0, 1.0),
        level_frac=np.clip(np.nan_to_num(figure["level_frac"], nan=1.0), 0.0, 1.0),
        power_w=np.asarray(list(map(_power_of, jobs)), dtype=np.float64),  # None becomes NaN
        pausable=(figure["pausable"] > 0.0) & (tier > 0),
        paused=figure["paused"] > 0.0,
        **{name: figure[name] for name in _FIGURES[8:]},
    )
    return columns, classes
