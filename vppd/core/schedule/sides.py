"""How large the site is, and where a relaxation may gain by doing two opposite things at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vppd.core.schedule.problem import Problem
from vppd.snapshot import Bools, Floats


@dataclass(frozen=True, slots=True)
class Scale:
    """Units in which the solver's absolute tolerances make sense."""

    power_w: float
    price_per_wh: float
    step_h: float

    @property
    def money(self) -> float:
        """What one unit of the objective is worth."""
        return self.power_w * self.price_per_wh * self.step_h


def net_range_w(problem: Problem) -> tuple[Floats, Floats]:
    """Return the least and most the site could draw per step, its connection's limits apart. [W]"""
    least_w, most_w = problem.load_range_w()
    fixed_w = problem.fixed_w()
    lower_w = fixed_w + least_w.sum(axis=0) - problem.curtailable_w() - problem.batteries.discharge_max_w.sum()
    return lower_w, fixed_w + most_w.sum(axis=0) + problem.batteries.charge_max_w.sum()


def wasteful(problem: Problem) -> Bools:
    """Return at which steps a relaxation may gain by charging and discharging at once.

    Where both prices are >= 0, doing one of the two instead, at the same change of stored energy, draws less from the
    grid and costs no more, neither in energy nor in wear. It may only fail at the export limit; there curtailment
    makes room, and without any the site cannot get there when the rest of its load is above it even with all
    batteries discharging.
    """
    least_w = problem.load_range_w()[0].sum(axis=0)
    floor_w = problem.fixed_w() + least_w - problem.batteries.discharge_max_w.sum()
    return np.asarray(paid_for_waste(problem) | (floor_w < -problem.export_max_w) | _feeds_full(problem))


def paid_for_waste(problem: Problem) -> Bools:
    """Return at which steps wasting energy is paid for: a price is below 0, or reserves or green rules reward it."""
    rewards = problem.extras is not None and problem.extras.rewards_waste()
    return np.asarray((problem.price_import_per_wh < 0.0) | (problem.price_export_per_wh < 0.0) | rewards)


def _feeds_full(problem: Problem) -> Bools:
    """Return at which steps batteries might bring a feed to its export limit, as ``wasteful`` does for the site."""
    full = np.zeros(problem.steps, np.bool_)
    if problem.extras is None:
        return full
    least_w, sources = problem.load_range_w()[0], problem.renewables
    for feed in problem.extras.feeds:
        must_w = sources.available_w[feed.renewables & ~sources.curtailable].sum(axis=0)
        most_w = problem.batteries.discharge_max_w[feed.batteries].sum()
        full |= feed.inflexible_w - must_w + least_w[feed.loads].sum(axis=0) - most_w < -feed.export_max_w
    return full


def two_sided(problem: Problem) -> Bools:
    """Return at which steps a relaxation may gain by importing and exporting at once: it sells dearer than it buys."""
    lower_w, upper_w = net_range_w(problem)
    dearer = problem.price_export_per_wh > problem.price_import_per_wh
    return np.asarray(dearer & (lower_w < 0.0) & (upper_w > 0.0))


def scale_of(problem: Problem) -> Scale:
    """Return units by the size of the site's largest power and price."""
    lower_w, upper_w = net_range_w(problem)
    largest_w = max(np.abs(lower_w).max(), np.abs(upper_w).max(), 1e-3)
    prices = np.concatenate((problem.price_import_per_wh, problem.price_export_per_wh))
    return Scale(float(largest_w) / 100.0, float(np.abs(prices).max()) or 1.0, problem.step_h)
