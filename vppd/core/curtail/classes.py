"""Classes of work: what is believed of power and throughput under a cap, per knob, family and declared curve. Pure.

Everything is told as a part of a job's own full power, so that jobs of one class share what is learnt whatever their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from types import MappingProxyType

import numpy as np

from vppd.core.curtail.curves import PRIOR_FLOOR_FRAC, PRIOR_SHAPE, Curves, tables
from vppd.core.curtail.learn import Learned, believed
from vppd.snapshot import Bools, Floats
from vppd.workload import Job, Knob

RIGID = 0
"""Row of what no knob slows."""
POINTS = 6
"""Of the prior; between them its loss is overstated a little, being convex."""

Key = tuple[str, str, tuple[tuple[float, float], ...]]
"""Knob, family, declared curve."""


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """The classes that were met, in rows of curves whose caps and powers are parts of full power."""

    row: Mapping[Key, int]
    learned: Learned
    curves: Curves
    """As they look now."""
    has_knob: Bools
    """(c,)"""

    def grown(self, keys: Iterable[Key]) -> Classes:
        """Return classes that know these keys too, with nothing learnt of the new ones."""
        row = {**self.row}
        for key in keys:
            row.setdefault(key, len(row))
        return self if len(row) == len(self.row) else _of(row, self.learned)

    def taught(self, learned: Learned) -> Classes:
        """Return the classes after further observations."""
        return replace(self, learned=learned, curves=learned.curves())


def classes() -> Classes:
    """Return the rigid class alone."""
    return _of({_RIGID_KEY: RIGID}, None)


key_of: Callable[[Job], Key] = attrgetter("knob", "family", "curve")
"""Returns the class of a job; one without a knob is charged by the prior where somebody slows it all the same."""

_RIGID_KEY: Key = ("rigid", "", ())


def _of(row: dict[Key, int], before: Learned | None) -> Classes:
    prior = tables([_table(key) for key in row])
    learned = believed(prior)
    if before is not None:
        learned = Learned(
            prior,
            _padded(before.power_weight, prior),
            _padded(before.power_error_w, prior),
            _padded(before.throughput_weight, prior),
            _padded(before.throughput_error_frac, prior),
        )
    has_knob = np.asarray([knob != Knob.NONE for knob, _, _ in row])
    return Classes(MappingProxyType(row), learned, learned.curves(), has_knob)


def _table(key: Key) -> tuple[list[float], list[float], list[float], float]:
    """Return caps and powers as parts of full power with their throughput, and nothing for idling: that is each job's own."""
    if key == _RIGID_KEY:
        return [1.0], [1.0], [1.0], 0.0
    declared = {power: throughput for power, throughput in key[2] if 0.0 <= power < 1.0}
    if not declared:
        a, b = PRIOR_SHAPE
        declared = {p: 1.0 - a * (1.0 - p) ** b for p in np.linspace(PRIOR_FLOOR_FRAC, 1.0, POINTS).tolist()}
    points = sorted((declared | {1.0: 1.0}).items())
    caps = [power for power, _ in points]
    return caps, caps, [min(max(throughput, 0.0), 1.0) for _, throughput in points], 0.0


def _padded(seen: Floats, prior: Curves) -> Floats:
    """Return what was seen in the places of larger tables; what they repeat was never observed."""
    padded = np.zeros(prior.cap_w.shape)
    padded[: seen.shape[0], : seen.shape[1]] = seen
    return padded
