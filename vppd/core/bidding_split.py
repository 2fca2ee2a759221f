"""Which products are offered in which slots, so that no watt and no watt-hour is sold twice: a small whole-number program. Pure.

Every lot draws its power from named resources, the same through its slot; a resource gives each watt once in a step, and the
energy behind it once within a slot and the time it then needs to recover. So whatever is activated together can be delivered together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vppd.core.schedule_program import Program
from vppd.core.schedule_solver import Verdict, solve_program
from vppd.snapshot import Floats

INF = np.inf
_UNIT_W = 1e3
"""Columns are in kW: the solver's tolerances are absolute."""


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """Something that can give power one way."""

    name: str
    direction: str
    """up: less consumption or more generation; down: more consumption."""
    response_s: float
    sure_w: Floats
    """(t,) what may be sold of it. [W]"""
    energy_wh: float = INF
    recovery_steps: int = 0
    """After a slot the energy needs so many steps to come back."""


@dataclass(frozen=True, slots=True)
class Lot:
    """A product in one slot: what may be offered, and what it is expected to earn."""

    name: str
    direction: str
    first_step: int
    last_step: int
    """Both included."""
    activation_s: float
    sustain_h: float
    """Energy that must be there for each watt sold. [h]"""
    worth_per_w: float
    """Expected revenue less expected cost of a watt in this slot."""
    min_w: float = 0.0
    step_w: float = 1.0
    max_w: float = INF
    group: str = ""
    """At most one lot of a group is offered; empty: no group."""


@dataclass(frozen=True, slots=True)
class Split:
    """What is offered."""

    offer_w: tuple[float, ...]
    """Of each lot. [W]"""
    drawn_w: tuple[tuple[tuple[str, float], ...], ...]
    """Per lot the resources behind it: (name, power [W])."""
    worth: float
    bound: float
    """No split is worth more."""
    status: str
    """optimal, incumbent, or heuristic when the solver found nothing in time."""


def split(resources: Sequence[Resource], lots: Sequence[Lot], *, limit_s: float = 2.0, gap_frac: float = 1e-3) -> Split:
    """Return the offers worth most together."""
    form = _Form(resources, lots)
    solution = solve_program(form.program(), limit_s=limit_s, gap_frac=gap_frac) if lots else None
    if solution is None or solution.verdict not in {Verdict.SOLVED, Verdict.FOUND}:
        return _greedy(resources, lots)
    offers_w = [form.offer_w(i, solution.columns) for i in range(len(lots))]
    status = "optimal" if solution.verdict is Verdict.SOLVED else "incumbent"
    worth = float(sum(lot.worth_per_w * w for lot, w in zip(lots, offers_w, strict=True)))
    drawn = tuple(form.drawn_w(i, solution.columns) for i in range(len(lots)))
    return Split(tuple(offers_w), drawn, worth, -solution.lower * _UNIT_W, status)


def suits(resource: Resource, lot: Lot) -> bool:
    """Say whether a resource may stand behind a lot."""
    return resource.direction == lot.direction and resource.response_s <= lot.activation_s


class _Form:
    """Columns: whole steps and a switch per lot, then the power drawn per lot and resource."""

    def __init__(self, resources: Sequence[Resource], lots: Sequence[Lot]) -> None:
        self.resources, self.lots = resources, lots
        self.draws = [
            (i, r) for i, lot in enumerate(lots) for r, resource in enumerate(resources) if suits(resource, lot)
        ]
        self.first_draw = 2 * len(lots)
        self._rows: list[tuple[list[tuple[int, float]], float, float]] = []

    def program(self) -> Program:
        """Return the program; what is minimised is minus the worth, in kW."""
        for i in range(len(self.lots)):
            self._lot_rows(i)
        self._resource_rows()
        self._group_rows()
        row = [r for r, (entries, _, _) in enumerate(self._rows) for _ in entries]
        column = [c for entries, _, _ in self._rows for c, _ in entries]
        value = [v for entries, _, _ in self._rows for _, v in entries]
        n = self.first_draw + len(self.draws)
        cost, upper, whole = np.zeros(n), np.full(n, INF), np.zeros(n, dtype=np.bool_)
        for i, lot in enumerate(self.lots):
            cost[2 * i] = -lot.worth_per_w * lot.step_w / _UNIT_W
            upper[2 * i] = np.floor(self._most_w(i) / lot.step_w * (1.0 + 1e-12) + 1e-9)
            upper[2 * i + 1] = 1.0
            whole[2 * i : 2 * i + 2] = True
        return Program(
            cost=cost, lower=np.zeros(n), upper=upper, whole=whole,
            row_lower=np.array([low for _, low, _ in self._rows], dtype=np.float64),
            row_upper=np.array([high for _, _, high in self._rows], dtype=np.float64),
            entry_row=np.array(row, dtype=np.int64), entry_column=np.array(column, dtype=np.int64),
            entry=np.array(value, dtype=np.float64),
        )  # fmt: skip

    def offer_w(self, i: int, columns: Floats) -> float:
        """Return what is offered of a lot. [W]"""
        return float(round(columns[2 * i])) * self.lots[i].step_w

    def drawn_w(self, i: int, columns: Floats) -> tuple[tuple[str, float], ...]:
        """Return what each resource gives to a lot. [W]"""
        drawn = (
            (self.resources[r].name, float(columns[self.first_draw + place]) * _UNIT_W)
            for place, (lot, r) in enumerate(self.draws)
            if lot == i
        )
        return tuple((name, w) for name, w in drawn if w > 1e-6)

    def _most_w(self, i: int) -> float:
        lot = self.lots[i]
        steps = range(lot.first_step, lot.last_step + 1)
        there_w = min(sum(float(r.sure_w[t]) for r in self.resources if suits(r, lot)) for t in steps)
        return min(lot.max_w, there_w)

    def _lot_rows(self, i: int) -> None:
        """A lot is off, or between its least and its most, and drawn in full in every step."""
        lot = self.lots[i]
        self._rows.append(([(2 * i, lot.step_w / _UNIT_W), (2 * i + 1, -lot.min_w / _UNIT_W)], 0.0, INF))
        self._rows.append(([(2 * i, lot.step_w / _UNIT_W), (2 * i + 1, -self._most_w(i) / _UNIT_W)], -INF, 0.0))
        drawn = [(self.first_draw + place, 1.0) for place, (owner, _) in enumerate(self.draws) if owner == i]
        self._rows.append(([*drawn, (2 * i, -lot.step_w / _UNIT_W)], 0.0, 0.0))

    def _resource_rows(self) -> None:
        """A resource gives each watt once in a step, and its energy once within a slot and its recovery."""
        power: dict[tuple[int, int], list[tuple[int, float]]] = defaultdict(list)
        energy: dict[tuple[int, int], list[tuple[int, float]]] = defaultdict(list)
        for place, (i, r) in enumerate(self.draws):
            lot, resource = self.lots[i], self.resources[r]
            for t in range(lot.first_step, lot.last_step + 1):
                power[r, t].append((self.first_draw + place, 1.0))
            if np.isfinite(resource.energy_wh):
                for t in range(lot.first_step, lot.last_step + 1 + resource.recovery_steps):
                    energy[r, t].append((self.first_draw + place, lot.sustain_h))
        self._rows += [(e, -INF, float(self.resources[r].sure_w[t]) / _UNIT_W) for (r, t), e in power.items()]
        rows = {(r, tuple(entries)) for (r, _), entries in energy.items()}
        self._rows += [(list(e), -INF, self.resources[r].energy_wh / _UNIT_W) for r, e in sorted(rows)]

    def _group_rows(self) -> None:
        groups: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for i, lot in enumerate(self.lots):
            if lot.group:
                groups[lot.group].append((2 * i + 1, 1.0))
        self._rows += [(entries, -INF, 1.0) for entries in groups.values()]


def _greedy(resources: Sequence[Resource], lots: Sequence[Lot]) -> Split:
    """Return the lots worth most per watt, one after another, each from the slowest resources that will do."""
    left_w = [resource.sure_w.astype(np.float64).copy() for resource in resources]
    used: list[tuple[int, Lot, float]] = []  # resource, lot, energy [Wh]
    offers_w, drawn = [0.0] * len(lots), [()] * len(lots)  # type: list[float], list[tuple[tuple[str, float], ...]]
    taken_groups: set[str] = set()
    for i in sorted(range(len(lots)), key=lambda i: -lots[i].worth_per_w):
        lot = lots[i]
        if lot.worth_per_w <= 0.0 or (lot.group and lot.group in taken_groups):
            continue
        shares = _shares(resources, lot, left_w, used)
        total_w = min(sum(shares.values()), lot.max_w)
        offer_w = np.floor(total_w / lot.step_w + 1e-9) * lot.step_w
        if offer_w <= 0.0 or offer_w < lot.min_w:
            continue
        offers_w[i], drawn[i] = float(offer_w), _take(resources, lot, float(offer_w), shares, left_w, used)
        taken_groups |= {lot.group} if lot.group else set()
    worth = sum(lot.worth_per_w * w for lot, w in zip(lots, offers_w, strict=True))
    return Split(tuple(offers_w), tuple(drawn), worth, INF if lots else 0.0, "heuristic" if lots else "optimal")


def _shares(
    resources: Sequence[Resource], lot: Lot, left_w: Sequence[Floats], used: Sequence[tuple[int, Lot, float]]
) -> dict[int, float]:
    """Return what each resource could still give to a lot in all its steps, the slowest first. [W]"""
    able = [r for r, resource in enumerate(resources) if suits(resource, lot)]
    return {
        r: min(float(left_w[r][lot.first_step : lot.last_step + 1].min()), _energy_left_wh(resources[r], r, lot, used))
        for r in sorted(able, key=lambda r: -resources[r].response_s)
    }


def _energy_left_wh(resource: Resource, r: int, lot: Lot, used: Sequence[tuple[int, Lot, float]]) -> float:
    """Return the power [W] that the energy left still sustains for the lot."""
    if not np.isfinite(resource.energy_wh) or lot.sustain_h <= 0.0:
        return INF
    near_wh = sum(wh for owner, other, wh in used if owner == r and _near(lot, other, resource.recovery_steps))
    return max(resource.energy_wh - near_wh, 0.0) / lot.sustain_h


def _near(one: Lot, other: Lot, recovery_steps: int) -> bool:
    """Say whether two lots draw on the same energy: their slots, with the recovery after them, overlap."""
    return one.first_step <= other.last_step + recovery_steps and other.first_step <= one.last_step + recovery_steps


def _take(
    resources: Sequence[Resource],
    lot: Lot,
    offer_w: float,
    shares: dict[int, float],
    left_w: Sequence[Floats],
    used: list[tuple[int, Lot, float]],
) -> tuple[tuple[str, float], ...]:
    drawn = []
    for r, share_w in shares.items():
        w = min(share_w, offer_w)
        if w > 0.0:
            left_w[r][lot.first_step : lot.last_step + 1] -= w
            used.append((r, lot, w * lot.sustain_h))
            drawn.append((resources[r].name, w))
            offer_w -= w
    return tuple(drawn)
