"""Columns and rows of what an instance asks for beyond energy, on top of those of the plain program.

Power is in ``unit_w``, energy in that power over one step, as there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vppd.core.schedule.extra import Extras, Feed, Green
from vppd.core.schedule.extra_blocks import INF, NO_COLUMN, Blocks, Columns, Named
from vppd.core.schedule.extra_reserves import Reserves
from vppd.core.schedule.matrix import Matrix
from vppd.core.schedule.problem import Problem
from vppd.snapshot import Floats, Ints

NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class ExtraLayout:
    """Where the further quantities are among the columns."""

    given: Ints
    """What each source gives, shape (source, step), -1 where nothing is decided; empty without feeds."""
    held: Ints
    """What each battery (group) and load (group) holds ready of each reserve, shape (reserve, asset, step), -1: none."""
    named: tuple[Named, ...]

    def elastic(self) -> Ints:
        """Return the rows that may be broken when the least total breach is looked for."""
        return np.unique(np.concatenate([NONE, *(block.rows for block in self.named if block.elastic)]))


def load_weight(problem: Problem, price_per_wh: float) -> Floats:
    """Return what power of each load costs at each step because it is late, in scaled units, shape (load, step)."""
    shape = len(problem.loads.names), problem.steps
    if problem.extras is None:
        return np.zeros(shape)
    late_h = (np.arange(problem.steps) - problem.loads.first_step[:, None]) * problem.step_h
    return np.asarray(problem.extras.terms.delay_cost_per_wh_h[:, None] * np.maximum(late_h, 0.0) / price_per_wh)


def extend(
    matrix: Matrix, problem: Problem, extras: Extras, columns: Columns, unit: tuple[float, float]
) -> ExtraLayout:
    """Add columns and rows for ``extras``; ``unit`` is the power and the price that count as one."""
    return _Extension(matrix, problem, extras, columns, unit).build()


class _Extension(Blocks):
    """The blocks, one method each; those of reserves are in a module of their own."""

    def build(self) -> ExtraLayout:
        """Return where everything is."""
        reserves = Reserves(self.matrix, self.problem, self.extras, self.at, (self.unit_w, self.price_per_wh))
        held = reserves.held()
        given = self._given()
        self._demand()
        self._unserved()
        self._rebound()
        if self.extras.reserves:
            self.named += reserves.build(held)
        for feed in self.extras.feeds:
            self._feed(feed, given, held)
        if self.extras.green is not None:
            self._green(self.extras.green)
        return ExtraLayout(given, held, tuple(self.named))

    def _demand(self) -> None:
        demand = self.extras.demand
        if demand is None:
            return
        weight = demand.cost_per_w / (self.price_per_wh * self.problem.step_h)
        above = self.matrix.columns(0.0, np.full(1, INF), weight)
        most = demand.billed_peak_w / self.unit_w
        self.matrix.rows(-INF, most, (self.at.imported, 1.0), (np.broadcast_to(above, self.steps), -1.0))

    def _unserved(self) -> None:
        terms = self.extras.terms
        at = np.flatnonzero(terms.soft)
        most = self.problem.loads.energy_wh[at] / self.unit_wh
        unserved = self.matrix.columns(0.0, most, terms.curtail_cost_per_wh[at] / self.price_per_wh)
        self.matrix.entries(self.at.need[at], unserved, 1.0)

    def _rebound(self) -> None:
        """Power is at least the least power plus what comes back of what the steps before held back."""
        loads, terms = self.problem.loads, self.extras.terms
        for k in np.flatnonzero(terms.rebound_frac > 0.0):
            first, last, over = int(loads.first_step[k]), int(loads.last_step[k]), int(terms.rebound_steps[k])
            back = float(terms.rebound_frac[k]) / over
            steps = np.arange(first + 1, last + 1)
            count = np.minimum(steps - first, over)
            least = (loads.min_w[k] + back * loads.max_w[k] * count) / self.unit_w
            rows = self.matrix.rows(least, INF, (self.at.load[k, steps], 1.0))
            for before in range(1, min(over, len(steps)) + 1):
                self.matrix.entries(rows[before - 1 :], self.at.load[k, steps[before - 1 :] - before], back)
            self.name(f"flexible_loads.{loads.names[k]}.rebound_frac {terms.rebound_frac[k]:g}", rows, steps)

    def _given(self) -> Ints:
        """Add a column for each curtailable source, where feeds tell them apart."""
        sources, shape = self.problem.renewables, self.problem.renewables.available_w.shape
        if not any((feed.renewables & sources.curtailable).any() for feed in self.extras.feeds):
            return np.zeros((0, self.steps), np.int64)
        given = np.full(shape, NO_COLUMN, np.int64)
        given[sources.curtailable] = self.matrix.columns(
            0.0, sources.available_w[sources.curtailable] / self.unit_w, 0.0
        )
        rows = self.matrix.rows(0.0, 0.0, (self.at.generated, 1.0))
        self.matrix.entries(np.broadcast_to(rows, given[sources.curtailable].shape), given[sources.curtailable], -1.0)
        return given

    def _feed(self, feed: Feed, given: Ints, held: Ints) -> None:
        """Keep the members within the feed's limits, also while every reserve of a direction is called."""
        sources = self.problem.renewables
        must = feed.renewables & ~sources.curtailable
        fixed = (feed.inflexible_w - sources.available_w[must].sum(axis=0)) / self.unit_w
        able = np.concatenate((feed.batteries, feed.loads))
        for name, most_w, up in (("import_max_w", feed.import_max_w, False), ("export_max_w", feed.export_max_w, True)):
            if not np.isfinite(most_w):
                continue
            sign = -1.0 if up else 1.0
            rows = self.matrix.rows(-INF, most_w / self.unit_w - sign * fixed, (np.zeros(self.steps, np.int64), 0.0))
            self.add(rows, self.at.charge[feed.batteries], sign)
            self.add(rows, self.at.discharge[feed.batteries], -sign)
            self.add(rows, self.at.load[feed.loads], sign)
            if len(given):
                self.add(rows, given[feed.renewables], -sign)
            for k, _ in self.those(up=up):
                self.add(rows, held[k][able], 1.0)
            self.name(f"feeds.{feed.tag}.{name} {most_w:g}", rows, elastic=True)

    def _green(self, green: Green) -> None:
        sources = self.problem.renewables
        must_w = sources.available_w[~sources.curtailable].sum(axis=0)
        matched = self._matched(green)
        for key, frac in green.rules():
            of_load = key == "share_of_load_frac"
            counted_w = green.counted_w(self.problem.inflexible_load_w)
            of_w = counted_w if of_load else sources.available_w.sum(axis=0)
            for window in green.windows(self.steps):
                least = float((frac * of_w - must_w)[window].sum()) / self.unit_w
                if not window.start:
                    least += green.before.missing_wh(key, frac) / self.unit_wh
                row = self._green_row(window, least, frac if of_load else 0.0)
                if of_load:
                    self.add(row, matched[window][:, None], 1.0)
                if green.shortfall_cost_per_wh is not None:
                    weight = green.shortfall_cost_per_wh / self.price_per_wh
                    self.matrix.entries(row, self.matrix.columns(0.0, np.full(1, INF), weight), 1.0)
                every = np.broadcast_to(row, window.stop - window.start)
                self.name(f"green.{key} {frac:g}", every, self.every[window], elastic=True)

    def _matched(self, green: Green) -> Ints:
        """Add what of the import contracts cover, a column a step; -1 where nobody counts it or nothing is contracted."""
        found = np.full(self.steps, NO_COLUMN, np.int64)
        steps = np.flatnonzero(green.contracted_w > 0.0) if green.share_of_load_frac is not None else NONE
        if len(steps):
            found[steps] = self.matrix.columns(0.0, green.contracted_w[steps] / self.unit_w, 0.0)
            self.matrix.rows(-INF, 0.0, (found[steps], 1.0), (self.at.imported[steps], -1.0))
        return found

    def _green_row(self, window: slice, lower: float, load_frac: float) -> Ints:
        """Add the row that what is used on site, less a part of the flexible load, is at least ``lower``."""
        row = self.matrix.rows(lower, INF, (np.zeros(1, np.int64), 0.0))
        self.add(row, self.at.generated[window][:, None], 1.0)
        self.add(row, self.at.exported[window][:, None], -1.0)
        self.add(row, self.at.load[:, window].reshape(-1, 1), -load_frac)
        return row
