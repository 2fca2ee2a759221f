"""Like things taken together: batteries and loads that are copies of one another, up to their size."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from vppd.core.schedule.problem import Batteries, Loads, Problem
from vppd.snapshot import Bools, Floats, Ints

SIGNIFICANT = 11
"""Digits in which two things must agree, each by its own size, to be taken together."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which group each member is in and what part of the group's power is its own. [0-1]"""

    group: Ints
    share: Floats

    def split(self, of_group: Floats) -> Floats:
        """Return each member's part of its group's series, shape (member, step)."""
        return np.asarray(of_group[self.group] * self.share[:, None])

    def modes(self, of_member: Bools) -> Bools:
        """Return each group's mode: that of its members, who all have the same."""
        found = np.zeros((int(self.group.max(initial=-1)) + 1, of_member.shape[1]), dtype=np.bool_)
        found[self.group] = of_member
        return found


def grouped(problem: Problem, modes: Bools | None, *, apart: bool = False) -> tuple[Problem, Grouping, Grouping]:
    """Return a smaller problem of the same optimum, and how its batteries and loads fall apart again.

    A sum of convex sets of one shape is that shape, larger: batteries whose powers and energies have the same
    proportions (and the same ``modes``, where those are fixed) are one battery, loads likewise. ``apart`` leaves the
    batteries as they are.
    """
    extras = problem.extras
    load_keys = [] if extras is None else extras.load_keys()
    battery_keys = [] if extras is None else extras.battery_keys()
    loads = _loads_by_shape(problem.loads, load_keys)
    storage = alone(problem)[1] if apart else _batteries_by_shape(problem.batteries, modes, battery_keys)
    small = replace(
        problem,
        batteries=problem.batteries if apart else _summed_batteries(problem.batteries, storage),
        loads=_summed_loads(problem.loads, loads),
        extras=None if extras is None else extras.of(_first(storage), _first(loads)),
    )
    return small, storage, loads


def alone(problem: Problem) -> tuple[Problem, Grouping, Grouping]:
    """Return the problem itself, every battery and load in a group of its own."""
    batteries, loads = len(problem.batteries.names), len(problem.loads.names)
    storage = Grouping(np.arange(batteries), np.ones(batteries))
    return problem, storage, Grouping(np.arange(loads), np.ones(loads))


def _batteries_by_shape(batteries: Batteries, modes: Bools | None, further: list[Floats]) -> Grouping:
    size_wh = batteries.energy_wh
    scale = np.where(size_wh > 0.0, size_wh, 1.0)
    sized = ("reserve_wh", "initial_wh", "final_min_wh", "charge_max_w", "discharge_max_w")
    keys = [getattr(batteries, name) / scale for name in sized]
    keys += [batteries.efficiency_charge, batteries.efficiency_discharge, batteries.wear_cost_per_wh, *further]
    if modes is not None:
        keys += list(modes.T.astype(np.float64))
    return _by_key(np.column_stack(keys), size_wh)


def _loads_by_shape(loads: Loads, further: list[Floats]) -> Grouping:
    scale = np.where(loads.max_w > 0.0, loads.max_w, 1.0)
    keys = [loads.min_w / scale, loads.energy_wh / scale, loads.first_step, loads.last_step, *further]
    return _by_key(np.column_stack(keys), loads.max_w)


def _by_key(keys: Floats, size: Floats) -> Grouping:
    if not len(size):
        return Grouping(np.zeros(0, np.int64), np.zeros(0))
    # What has no size has no share either: it stays alone.
    alone = np.where(size > 0.0, 0.0, 1.0 + np.arange(len(size)))
    rounded = np.column_stack((_rounded(keys), alone))
    group = np.unique(rounded, axis=0, return_inverse=True)[1].ravel()
    total = np.bincount(group, size)[group]
    return Grouping(group, np.divide(size, total, out=np.ones_like(size), where=total > 0.0))


def _rounded(values: Floats) -> Floats:
    exponent = np.floor(np.log10(np.where(values == 0.0, 1.0, np.abs(values))))
    scale = 10.0 ** (SIGNIFICANT - 1 - exponent)
    return np.asarray(np.round(values * scale) / scale)


_OWN = frozenset({"names", "efficiency_charge", "efficiency_discharge", "wear_cost_per_wh", "first_step", "last_step"})
"""What members of a group have in common instead of adding up."""


def _summed_batteries(batteries: Batteries, by: Grouping) -> Batteries:
    first = _first(by)
    series = {f.name: _one(getattr(batteries, f.name), f.name, by, first) for f in fields(batteries)[1:]}
    return Batteries(names=tuple(batteries.names[k] for k in first), **series)


def _summed_loads(loads: Loads, by: Grouping) -> Loads:
    first = _first(by)
    powers = {name: _one(getattr(loads, name), name, by, first) for name in ("min_w", "max_w", "energy_wh")}
    names = tuple(loads.names[k] for k in first)
    return Loads(names=names, first_step=loads.first_step[first], last_step=loads.last_step[first], **powers)


def _first(by: Grouping) -> Ints:
    return np.unique(by.group, return_index=True)[1].astype(np.int64)


def _one(values: Floats, name: str, by: Grouping, first: Ints) -> Floats:
    if name in _OWN:
        return values[first]
    return np.bincount(by.group, values, minlength=len(first)).astype(np.float64)
