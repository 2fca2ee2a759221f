"""Rows of the reserves: power to spare at each step, and the energy for a whole call."""

from __future__ import annotations

import numpy as np

from vppd.core.schedule.extra_blocks import INF, NO_COLUMN, Blocks, Named
from vppd.snapshot import Bools, Floats, Ints


class Reserves(Blocks):
    """Batteries and flexible loads hold reserves ready, each at a step as much as it can."""

    def build(self, held: Ints) -> list[Named]:
        """Return the rows that the columns of ``held`` are bound by."""
        self._asked(held)
        self._connection(held)
        for up in (True, False):
            self._battery_headroom(held, up=up)
            self._load_headroom(held, up=up)
        self._load_energy(held)
        return self.named

    def held(self) -> Ints:
        """Add a column for each reserve, asset that may hold it and step at which it is asked for."""
        batteries = len(self.problem.batteries.names)
        held = np.full((len(self.extras.reserves), batteries + len(self.at.load), self.steps), NO_COLUMN, np.int64)
        for k, reserve in enumerate(self.extras.reserves):
            runs = np.concatenate((np.ones((batteries, self.steps), np.bool_), self.at.load != NO_COLUMN))
            able = np.concatenate((reserve.batteries, reserve.loads))
            free = able[:, None] & runs & (reserve.power_w > 0.0)
            free[:batteries, 0] &= self._starts_within(up=reserve.up)
            held[k][free] = self.matrix.columns(0.0, np.full(int(free.sum()), INF), 0.0)
        return held

    def _starts_within(self, *, up: bool) -> Bools:
        """Say which batteries start within their limits; the others have no energy to hold before the first step."""
        b = self.problem.batteries
        return np.asarray(b.initial_wh >= b.reserve_wh if up else b.initial_wh <= b.energy_wh)

    def _asked(self, held: Ints) -> None:
        for k, reserve in enumerate(self.extras.reserves):
            asked = reserve.power_w / self.unit_w
            steps = np.flatnonzero(asked > 0.0)
            rows = self.matrix.rows(asked[steps], asked[steps], (np.zeros(len(steps), np.int64), 0.0))
            self.add(rows, held[k][:, steps], 1.0)
            if reserve.shortfall_cost_per_wh is not None:
                weight = reserve.shortfall_cost_per_wh / self.price_per_wh
                self.matrix.entries(rows, self.matrix.columns(0.0, asked[steps], weight), 1.0)
            self.name(f"reserves.{reserve.name}.power_w", rows, steps, elastic=True)

    def _connection(self, held: Ints) -> None:
        """Keep room at the site's connection for every reserve of a direction being called at once."""
        problem, at = self.problem, self.at
        for name, most_w, up, into, out in (
            ("site.import_max_w", problem.import_max_w, False, at.imported, at.exported),
            ("site.export_max_w", problem.export_max_w, True, at.exported, at.imported),
        ):
            called = [held[k] for k, _ in self.those(up=up)]
            steps = np.flatnonzero(self.extras.reserved_w(up=up, steps=self.steps) > 0.0)
            rows = self.matrix.rows(-INF, most_w / self.unit_w, (into[steps], 1.0), (out[steps], -1.0))
            for columns in called:
                self.add(rows, columns[:, steps], 1.0)
            self.name(f"{name} {most_w:g}: room for reserves", rows, steps)

    def _battery_headroom(self, held: Ints, *, up: bool) -> None:
        """Power to spare at each step, and the energy for it at both ends of the step."""
        b, those = self.problem.batteries, self.those(up=up)
        for asset, name in enumerate(b.names):
            columns = np.array([held[k, asset] for k, _ in those]).reshape(len(those), self.steps)
            steps = np.flatnonzero((columns != NO_COLUMN).any(axis=0))
            if not len(steps):
                continue
            columns, sign = columns[:, steps], -1.0 if up else 1.0
            most = float((b.discharge_max_w if up else b.charge_max_w)[asset]) / self.unit_w
            power = (self.at.charge[asset, steps], sign), (self.at.discharge[asset, steps], -sign)
            rows = self.matrix.rows(-INF, most, *power)
            self.add(rows, columns, 1.0)
            self.name(f"batteries.{name}: headroom for reserves", rows, steps)
            sustain = np.array([reserve.sustain_h for _, reserve in those])[:, None] / self.problem.step_h
            self._battery_energy(asset, columns, steps, sustain, up=up)

    def _battery_energy(self, asset: int, columns: Ints, steps: Ints, sustain: Floats, *, up: bool) -> None:
        b = self.problem.batteries
        least, most = float(b.reserve_wh[asset]) / self.unit_wh, float(b.energy_wh[asset]) / self.unit_wh
        factor = -sustain / b.efficiency_discharge[asset] if up else sustain * b.efficiency_charge[asset]
        limit = (least, INF) if up else (-INF, most)
        rows = self.matrix.rows(*limit, (self.at.stored[asset, steps], 1.0))
        self.add(rows, columns, factor)
        self.name(f"batteries.{b.names[asset]}: energy for reserves", rows, steps)
        later = steps > 0
        rows = self.matrix.rows(*limit, (self.at.stored[asset, steps[later] - 1], 1.0))
        self.add(rows, columns[:, later], factor)
        self.name(f"batteries.{b.names[asset]}: energy for reserves", rows, steps[later])
        if not later.all():
            initial = float(b.initial_wh[asset]) / self.unit_wh
            rows = self.matrix.rows(limit[0] - initial, limit[1] - initial, (np.zeros(1, np.int64), 0.0))
            self.add(rows, columns[:, ~later], factor)
            self.name(f"batteries.{b.names[asset]}: energy for reserves", rows, steps[~later])

    def _load_headroom(self, held: Ints, *, up: bool) -> None:
        loads, those = self.problem.loads, self.those(up=up)
        for k, name in enumerate(loads.names):
            asset = len(self.problem.batteries.names) + k
            columns = np.array([held[r, asset] for r, _ in those]).reshape(len(those), self.steps)
            steps = np.flatnonzero((columns != NO_COLUMN).any(axis=0))
            if not len(steps):
                continue
            most = -float(loads.min_w[k]) if up else float(loads.max_w[k])
            power = self.at.load[k, steps], -1.0 if up else 1.0
            rows = self.matrix.rows(-INF, most / self.unit_w, power)
            self.add(rows, columns[:, steps], 1.0)
            self.name(f"flexible_loads.{name}: headroom for reserves", rows, steps)

    def _load_energy(self, held: Ints) -> None:
        """What a call would take from a load must still fit into its steps after the call, at its most power."""
        loads, those = self.problem.loads, self.those(up=True)
        if not those:
            return
        sustain = np.array([reserve.sustain_h for _, reserve in those])[:, None] / self.problem.step_h
        call_steps = max(1, int(np.ceil(float(sustain.max()) - 1e-9)))
        for k in np.flatnonzero(~self.extras.terms.soft):
            asset = len(self.problem.batteries.names) + int(k)
            columns = np.array([held[r, asset] for r, _ in those]).reshape(len(those), self.steps)
            steps = np.flatnonzero((columns != NO_COLUMN).any(axis=0))
            if not len(steps):
                continue
            first, last = int(loads.first_step[k]), int(loads.last_step[k])
            served = self.matrix.columns(0.0, np.full(last - first + 1, INF), 0.0)
            rows = self.matrix.rows(0.0, 0.0, (served, 1.0), (self.at.load[k, first : last + 1], -1.0))
            self.matrix.entries(rows[1:], served[:-1], -1.0)
            end = np.minimum(steps + call_steps - 1, last)
            least = (loads.energy_wh[k] / self.problem.step_h - loads.max_w[k] * (last - end)) / self.unit_w
            rows = self.matrix.rows(least, INF, (served[end - first], 1.0))
            self.add(rows, columns[:, steps], -sustain)
            self.name(f"flexible_loads.{loads.names[k]}: energy for reserves", rows, steps)
