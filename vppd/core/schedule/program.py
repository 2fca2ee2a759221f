"""The instance as a linear program, with whole-number columns only where nothing else keeps two things apart.

Exact without a whole number is every step at which wasting energy cannot pay: see ``wasteful``. Where a price is below
0 the relaxation carries the tightest plain rows there are (charging and discharging share the time of a step; what a
step starts with bounds what it may take or give), so that its optimum is close.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vppd.core.schedule.extra_blocks import NO_COLUMN, Columns
from vppd.core.schedule.extra_program import ExtraLayout, extend, load_weight
from vppd.core.schedule.groups import Grouping, alone, grouped
from vppd.core.schedule.matrix import Matrix
from vppd.core.schedule.problem import Problem
from vppd.core.schedule.sides import Scale, net_range_w, paid_for_waste, scale_of, two_sided, wasteful
from vppd.snapshot import Bools, Floats, Ints

INF = np.inf


@dataclass(frozen=True, slots=True)
class Fixed:
    """Decisions that are taken already: shape (battery, step) who may charge, per step whether it may import."""

    charging: Bools | None = None
    importing: Bools | None = None


FREE = Fixed()


@dataclass(frozen=True, slots=True)
class Flows:
    """Powers of a plan at the terminals, shapes (battery, step), (load, step) and (step). [W]"""

    charge_w: Floats
    discharge_w: Floats
    load_w: Floats
    generated_w: Floats
    """What the curtailable sources give together. [W]"""
    given_w: Floats | None = None
    """What each source gives, shape (source, step); None where all curtailable ones are held back alike. [W]"""
    held_w: Floats | None = None
    """What each battery and then each load holds ready of each reserve, shape (reserve, asset, step). [W]"""


@dataclass(frozen=True, slots=True)
class Program:
    """Columns, rows and entries of a (mixed-integer) linear program in scaled units."""

    cost: Floats
    lower: Floats
    upper: Floats
    whole: Bools
    row_lower: Floats
    row_upper: Floats
    entry_row: Ints
    entry_column: Ints
    entry: Floats


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each quantity is among the columns, and how groups fall apart into batteries and loads."""

    imported: Ints
    exported: Ints
    generated: Ints
    charge: Ints
    discharge: Ints
    stored: Ints
    load: Ints
    load_at: tuple[Ints, Ints]
    storage: Grouping
    loads: Grouping
    charging: Ints
    charging_at: tuple[Ints, Ints]
    importing: Ints
    importing_at: Ints
    balance: Ints
    dynamics: Ints
    need: Ints
    scale: Scale
    extra: ExtraLayout | None = None

    def price_per_w(self, row_dual: Floats) -> Floats:
        """Return what drawing a little more would cost at each step, for the whole of it."""
        return row_dual[self.balance] * self.scale.price_per_wh * self.scale.step_h

    def columns_of(self, plan: Flows, stored_wh: Floats, import_w: Floats, count: int) -> Floats:
        """Return the point of a plan among ``count`` columns, batteries being apart: what a search may start from.

        NaN where the plan does not say.
        """
        point, unit_w = np.zeros(count), self.scale.power_w
        point[self.imported], point[self.exported] = np.maximum(import_w, 0.0), np.maximum(-import_w, 0.0)
        point[self.generated], point[self.charge], point[self.discharge] = (
            plan.generated_w,
            plan.charge_w,
            plan.discharge_w,
        )
        point[self.stored] = stored_wh / self.scale.step_h
        load_w = np.zeros((int(self.loads.group.max(initial=-1)) + 1, len(import_w)))
        np.add.at(load_w, self.loads.group, plan.load_w)
        point[self.load] = load_w[self.load_at]
        point /= unit_w
        point[self.charging] = plan.charge_w[self.charging_at] > 0.0
        point[self.importing] = import_w[self.importing_at] > 0.0
        if self.extra is not None:
            # Directions are enough to begin with: what else there is to decide follows from them.
            known = np.zeros(count, np.bool_)
            known[self.charging], known[self.importing] = True, True
            point[~known] = np.nan
        return point

    def flows(self, columns: Floats, problem: Problem) -> Flows:
        """Return the powers of a solution. [W]"""
        unit_w = self.scale.power_w
        load = np.zeros((int(self.loads.group.max(initial=-1)) + 1, problem.steps))
        load[self.load_at] = columns[self.load]
        return Flows(
            charge_w=self.storage.split(columns[self.charge]) * unit_w,
            discharge_w=self.storage.split(columns[self.discharge]) * unit_w,
            load_w=self.loads.split(load) * unit_w,
            generated_w=columns[self.generated] * unit_w,
            given_w=self._given_w(columns, problem),
            held_w=self._held_w(columns),
        )

    def _given_w(self, columns: Floats, problem: Problem) -> Floats | None:
        if self.extra is None or not len(self.extra.given):
            return None
        given = self.extra.given
        decided_w = columns[given] * self.scale.power_w
        return np.where(given == NO_COLUMN, problem.renewables.available_w, decided_w)

    def _held_w(self, columns: Floats) -> Floats | None:
        if self.extra is None:
            return None
        held, groups = self.extra.held, int(self.storage.group.max(initial=-1)) + 1
        of_group = np.where(held == NO_COLUMN, 0.0, columns[held]) * self.scale.power_w
        members = len(self.storage.group) + len(self.loads.group)
        parts = [np.vstack((self.storage.split(w[:groups]), self.loads.split(w[groups:]))) for w in of_group]
        return np.array(parts).reshape(len(held), members, held.shape[2])


def formulate(
    problem: Problem, fixed: Fixed = FREE, *, whole: bool = False, single: bool = False
) -> tuple[Program, Layout]:
    """Return the program and its layout: a relaxation, or exact where ``fixed`` or ``whole`` keep things apart.

    ``single`` keeps a column for every battery and load even where copies could be taken together, and every limit as
    it is given, so that what bears a multiplier can be named.
    """
    apart = whole and fixed.charging is None
    small, storage, loads = alone(problem) if single else grouped(problem, fixed.charging, apart=apart)
    charging = None if fixed.charging is None else storage.modes(fixed.charging)
    decided = Fixed(charging, fixed.importing)
    return _Formulation(small, scale_of(problem), plain=single).build(decided, storage, loads, whole=whole)


def _places(mask: Bools) -> tuple[Ints, Ints]:
    row, column = np.nonzero(mask)
    return row.astype(np.int64), column.astype(np.int64)


class _Formulation(Matrix):
    """Columns and rows as they are added, in scaled units: power in ``unit_w``, energy in that power over one step."""

    def __init__(self, problem: Problem, scale: Scale, *, plain: bool) -> None:
        super().__init__()
        self.problem, self.scale, self.plain = problem, scale, plain
        self.unit_w, self.unit_wh = scale.power_w, scale.power_w * scale.step_h

    def build(self, fixed: Fixed, storage: Grouping, loads: Grouping, *, whole: bool) -> tuple[Program, Layout]:
        """Return the program with every row."""
        imported, exported, generated, balance = self._grid(fixed.importing)
        charge, discharge, stored, dynamics = self._batteries(fixed.charging)
        self.entries(np.broadcast_to(balance, charge.shape), charge, -1.0)
        self.entries(np.broadcast_to(balance, charge.shape), discharge, 1.0)
        load, load_at, need = self._loads(balance)
        charging_at, charging = self._apart(charge, discharge, stored, whole=whole and fixed.charging is None)
        importing_at, importing = self._sides(imported, exported, fixed.importing, whole=whole)
        extra = None
        if self.problem.extras is not None:
            at = Columns(imported, exported, generated, charge, discharge, stored, self._dense(load, load_at), need)
            extra = extend(self, self.problem, self.problem.extras, at, (self.unit_w, self.scale.price_per_wh))
        layout = Layout(
            imported, exported, generated, charge, discharge, stored, load, load_at, storage, loads,
            charging, charging_at, importing, importing_at, balance, dynamics, need, self.scale, extra,
        )  # fmt: skip
        return self._program(), layout

    def _grid(self, importing: Bools | None) -> tuple[Ints, Ints, Ints, Ints]:
        problem, price = self.problem, self.scale.price_per_wh
        most_in, most_out = self._sides_most()
        if importing is not None:
            most_in, most_out = np.where(importing, most_in, 0.0), np.where(importing, 0.0, most_out)
        imported = self.columns(0.0, most_in, problem.price_import_per_wh / price)
        exported = self.columns(0.0, most_out, -problem.price_export_per_wh / price)
        generated = self.columns(0.0, problem.curtailable_w() / self.unit_w, 0.0)
        fixed = problem.fixed_w() / self.unit_w
        balance = self.rows(fixed, fixed, (imported, 1.0), (exported, -1.0), (generated, 1.0))
        return imported, exported, generated, balance

    def _sides_most(self) -> tuple[Floats, Floats]:
        """Return the most import and export per step, as tight as the assets make them unless limits stay as given."""
        lower_w, upper_w = net_range_w(self.problem)
        if self.plain:
            lower_w, upper_w = np.full(lower_w.shape, -INF), np.full(upper_w.shape, INF)
        most_in = np.clip(upper_w, 0.0, self.problem.import_max_w) / self.unit_w
        return most_in, np.clip(-lower_w, 0.0, self.problem.export_max_w) / self.unit_w

    def _batteries(self, charging: Bools | None) -> tuple[Ints, Ints, Ints, Ints]:
        b, shape = self.problem.batteries, (len(self.problem.batteries.names), self.problem.steps)
        wear = b.wear_cost_per_wh[:, None] / (2.0 * self.scale.price_per_wh)
        most = np.broadcast_to(b.charge_max_w[:, None], shape) / self.unit_w
        least = np.broadcast_to(b.discharge_max_w[:, None], shape) / self.unit_w
        if charging is not None:
            most, least = np.where(charging, most, 0.0), np.where(charging, 0.0, least)
        if not self.plain:
            most, least = self._from_start(most, least)
        charge, discharge = self.columns(0.0, most, wear), self.columns(0.0, least, wear)
        lower = np.repeat(b.reserve_wh[:, None] / self.unit_wh, shape[1], axis=1)
        lower[:, -1] = np.maximum(b.reserve_wh, b.final_min_wh) / self.unit_wh
        upper = np.broadcast_to(b.energy_wh[:, None], shape) / self.unit_wh
        stored = self.columns(np.minimum(lower, upper), upper, 0.0)
        start = np.zeros(shape)
        start[:, 0] = b.initial_wh / self.unit_wh
        terms = (
            (stored, 1.0),
            (charge, -b.efficiency_charge[:, None]),
            (discharge, 1.0 / b.efficiency_discharge[:, None]),
        )
        dynamics = self.rows(start, start, *terms)
        self.entries(dynamics[:, 1:], stored[:, :-1], -1.0)
        return charge, discharge, stored, dynamics

    def _from_start(self, most: Floats, least: Floats) -> tuple[Floats, Floats]:
        """Return the rates with those of the first step as small as what is stored then allows, one way or the other."""
        b, most, least = self.problem.batteries, most.copy(), least.copy()
        room, stored = np.maximum(b.energy_wh - b.initial_wh, 0.0), np.maximum(b.initial_wh - b.reserve_wh, 0.0)
        most[:, 0] = np.minimum(most[:, 0], room / b.efficiency_charge / self.unit_wh)
        least[:, 0] = np.minimum(least[:, 0], stored * b.efficiency_discharge / self.unit_wh)
        return most, least

    def _loads(self, balance: Ints) -> tuple[Ints, tuple[Ints, Ints], Ints]:
        loads = self.problem.loads
        least_w, most_w = self.problem.load_range_w()
        step = np.arange(self.problem.steps)
        at = _places((step >= loads.first_step[:, None]) & (step <= loads.last_step[:, None]))
        weight = load_weight(self.problem, self.scale.price_per_wh)[at]
        load = self.columns(least_w[at] / self.unit_w, most_w[at] / self.unit_w, weight)
        self.entries(balance[at[1]], load, -1.0)
        need = self._empty_rows(loads.energy_wh / self.unit_wh)
        self.entries(need[at[0]], load, 1.0)
        return load, at, need

    def _dense(self, load: Ints, at: tuple[Ints, Ints]) -> Ints:
        found = np.full((len(self.problem.loads.names), self.problem.steps), NO_COLUMN, np.int64)
        found[at] = load
        return found

    def _empty_rows(self, lower: Floats) -> Ints:
        return self.rows(lower, INF, (np.zeros(lower.shape, np.int64), 0.0))

    def _apart(self, charge: Ints, discharge: Ints, stored: Ints, *, whole: bool) -> tuple[tuple[Ints, Ints], Ints]:
        """Keep charging and discharging apart where it matters; return the whole-number columns and where they are."""
        b, step = self.problem.batteries, wasteful(self.problem) if whole else paid_for_waste(self.problem)
        both = (b.charge_max_w > 0.0) & (b.discharge_max_w > 0.0) & (whole or not self.plain)
        at = _places(both[:, None] & step)
        most, least = b.charge_max_w[at[0]] / self.unit_w, b.discharge_max_w[at[0]] / self.unit_w
        later = at[0][at[1] > 0], at[1][at[1] > 0]
        before = stored[later[0], later[1] - 1]
        full, empty = b.energy_wh[later[0]] / self.unit_wh, b.reserve_wh[later[0]] / self.unit_wh
        self.rows(-INF, full, (before, 1.0), (charge[later], b.efficiency_charge[later[0]]))
        self.rows(empty, INF, (before, 1.0), (discharge[later], -1.0 / b.efficiency_discharge[later[0]]))
        if not whole:
            self.rows(-INF, 1.0, (charge[at], 1.0 / most), (discharge[at], 1.0 / least))
            return (at[0][:0], at[1][:0]), np.zeros(0, np.int64)
        charging = self.columns(0.0, np.ones(len(at[0])), 0.0, whole=True)
        self.rows(-INF, 0.0, (charge[at], 1.0), (charging, -most))
        self.rows(-INF, least, (discharge[at], 1.0), (charging, least))
        return at, charging

    def _sides(self, imported: Ints, exported: Ints, importing: Bools | None, *, whole: bool) -> tuple[Ints, Ints]:
        """Keep import and export apart where it matters; return the steps and their whole-number columns."""
        most_in, most_out = self._sides_most()
        free = two_sided(self.problem) & (most_in > 0.0) & (most_out > 0.0) & (importing is None)
        at = np.flatnonzero(free).astype(np.int64)
        most_in, most_out = most_in[at], most_out[at]
        if not whole:
            self.rows(-INF, 1.0, (imported[at], 1.0 / most_in), (exported[at], 1.0 / most_out))
            return at[:0], np.zeros(0, np.int64)
        side = self.columns(0.0, np.ones(len(at)), 0.0, whole=True)
        self.rows(-INF, 0.0, (imported[at], 1.0), (side, -most_in))
        self.rows(-INF, most_out, (exported[at], 1.0), (side, most_out))
        return at, side

    def _program(self) -> Program:
        row, column, entry = (np.concatenate(part) for part in zip(*self._entries, strict=True))
        some = entry != 0.0
        return Program(
            cost=np.concatenate(self._cost),
            lower=np.concatenate(self._lower),
            upper=np.concatenate(self._upper),
            whole=np.concatenate(self._whole),
            row_lower=np.concatenate(self._row_lower),
            row_upper=np.concatenate(self._row_upper),
            entry_row=row[some],
            entry_column=column[some],
            entry=entry[some],
        )
