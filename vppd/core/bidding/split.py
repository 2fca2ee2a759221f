"""Which products are offered in which slots, so that no watt and no watt-hour is sold twice: a small whole-number program. Pure.

Every lot draws its power from named resources, the same through its slot; a resource gives each watt once in a step, and the
energy behind it once within a slot and the time it then needs to recover; what is only sure of several resources together is
given once by all of them. So whatever is activated together can be delivered together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vppd.core.bidding.greedy import greedy
from vppd.core.bidding.lots import INF, Lot, Resource, Spans, Split, Together, suits, worth_of
from vppd.core.bidding.peaks import Peaks
from vppd.core.schedule.program import Program
from vppd.core.schedule.solver import Verdict, solve_program
from vppd.snapshot import Bools, Floats

_UNIT_W = 1e3
"""Columns are in kW: the solver's tolerances are absolute."""
_SURE_FRAC = 1e-9

_OVER_COSTS = {"power": 10.0, "energy": 10.0, "together": 1.0}
"""What is sure together may be exceeded sooner than what is sure of one resource: there is often more."""

RowId = tuple[str, int, int]
"""What it bounds, of which resource or bound, in which step."""


def split(
    resources: Sequence[Resource],
    lots: Sequence[Lot],
    together: Sequence[Together] = (),
    *,
    limit_s: float = 2.0,
    gap_frac: float = 1e-3,
) -> Split:
    """Return the offers worth most together, after what is held; where that is not sure to be there, nothing is added to it."""
    quick = greedy(resources, lots, together)
    over = _overrun(resources, lots, together, limit_s)
    if over is None or not lots:
        return quick
    form = _Form(resources, lots, together, over)
    program = form.program()
    solution = solve_program(program, limit_s=limit_s, gap_frac=gap_frac, start=form.columns_of(quick))
    if solution.verdict not in {Verdict.SOLVED, Verdict.FOUND}:
        return quick
    offers_w = tuple(form.offer_w(i, solution.columns) for i in range(len(lots)))
    drawn = tuple(form.drawn_w(i, solution.columns) for i in range(len(lots)))
    status = "optimal" if solution.verdict is Verdict.SOLVED else "incumbent"
    bound = -solution.lower * form.scale * _UNIT_W
    short_w = form.short_w(solution.columns)
    return Split(offers_w, drawn, worth_of(resources, lots, drawn), bound, status, short_w)


def _overrun(
    resources: Sequence[Resource], lots: Sequence[Lot], together: Sequence[Together], limit_s: float
) -> Mapping[RowId, float] | None:
    """Return by how much the held lots exceed each row, as little as can be in all; None when it cannot be said in time."""
    held = [lot for lot in lots if lot.is_held]
    if not held:
        return {}
    form = _Form(resources, held, together, None)
    solution = solve_program(form.program(), limit_s=limit_s)
    return form.exceeded(solution.columns) if solution.verdict is Verdict.SOLVED else None


class _Form:
    """Columns: steps and a switch per lot, then the power drawn per lot and resource.

    Held lots are drawn in full. Without ``over`` each row may be exceeded, and what is minimised is by how much in all;
    else a row may be exceeded by so much, and then nothing else may draw on it.
    """

    def __init__(
        self,
        resources: Sequence[Resource],
        lots: Sequence[Lot],
        together: Sequence[Together],
        over: Mapping[RowId, float] | None,
    ) -> None:
        self.resources, self.lots, self.together, self.over = resources, lots, together, over
        self.draws = [
            (i, r) for i, lot in enumerate(lots) for r, resource in enumerate(resources) if suits(resource, lot)
        ]
        self.first_draw = 2 * len(lots)
        self._draws_of: dict[int, list[tuple[int, int]]] = defaultdict(list)
        """By lot: (place among the draws, resource)."""
        for place, (i, r) in enumerate(self.draws):
            self._draws_of[i].append((place, r))
        self.nets_per_w = [lots[i].net_per_w(resources[r]) for i, r in self.draws]
        self.scale: float = max((abs(net) for net in self.nets_per_w), default=0.0) or 1.0
        self._columns_of: dict[str, list[tuple[int, Lot]]] = defaultdict(list)
        for place, (i, r) in enumerate(self.draws):
            self._columns_of[resources[r].name].append((self.first_draw + place, lots[i]))
        over_w = dict.fromkeys(range(len(together)), 0.0)
        for (kind, place, _), upper in (over or {}).items():
            if kind == "together":
                over_w[place] = max(over_w[place], upper * _UNIT_W)
        self._wide_first = sorted(
            ((bound, over_w[place]) for place, bound in enumerate(together)), key=lambda pair: -len(pair[0].names)
        )
        self._near_wide_first = Spans([bound for bound, _ in self._wide_first])
        self._near_lots = Spans(lots)
        self._mosts_w: dict[int, float] = {}
        self._peaks = Peaks(resources, together, [lot for lot in lots if lot.is_held])
        self._rows: list[tuple[list[tuple[int, float]], float, float]] = []
        self._most: dict[RowId, tuple[tuple[tuple[int, float], ...], float]] = {}

    def program(self) -> Program:
        """Return the program; what is minimised is minus the worth, in kW and parts of the greatest worth."""
        for i in range(len(self.lots)):
            self._lot_rows(i)
        for r in range(len(self.resources)):
            self._power_rows(r)
            self._energy_rows(r)
        for place in range(len(self.together)):
            self._together_rows(place)
        self._group_rows()
        cost, lower, upper, whole = self._columns()
        slack = self._add_most(None if self.over is not None else len(cost))
        return Program(
            cost=np.append(cost, slack), lower=np.append(lower, np.zeros(len(slack))),
            upper=np.append(upper, np.full(len(slack), INF)),
            whole=np.append(whole, np.zeros(len(slack), dtype=np.bool_)),
            row_lower=np.array([low for _, low, _ in self._rows], dtype=np.float64),
            row_upper=np.array([high for _, _, high in self._rows], dtype=np.float64),
            entry_row=np.array([r for r, (own, _, _) in enumerate(self._rows) for _ in own], dtype=np.int64),
            entry_column=np.array([c for own, _, _ in self._rows for c, _ in own], dtype=np.int64),
            entry=np.array([v for own, _, _ in self._rows for _, v in own], dtype=np.float64),
        )  # fmt: skip

    def columns_of(self, found: Split) -> Floats:
        """Return the columns that say the same as a split."""
        columns = np.zeros(self.first_draw + len(self.draws))
        drawn = [dict(own) for own in found.drawn_w]
        for place, (i, r) in enumerate(self.draws):
            columns[self.first_draw + place] = drawn[i].get(self.resources[r].name, 0.0) / _UNIT_W
        for i, lot in enumerate(self.lots):
            columns[2 * i] = found.offer_w[i] / (_UNIT_W if lot.is_held else lot.step_w)
            columns[2 * i + 1] = float(found.offer_w[i] > 0.0 and not lot.is_held)
        return columns

    def exceeded(self, columns: Floats) -> dict[RowId, float]:
        """Return the rows that are exceeded and by how much, in kW or kWh."""
        used = {key: sum(v * float(columns[c]) for c, v in own) - most for key, (own, most) in self._most.items()}
        return {key: over for key, over in used.items() if over > _SURE_FRAC * _UNIT_W}

    def short_w(self, columns: Floats) -> tuple[float, ...]:
        """Return of each lot what is not sure to be there. [W]"""
        found_w = [
            lot.max_w if lot.is_held and not all(self._drawn(i, side) for side in lot.sides) else 0.0
            for i, lot in enumerate(self.lots)
        ]
        for key in self.over or ():
            own, _ = self._most.get(key, ((), 0.0))
            for c, v in own:
                i = self.draws[c - self.first_draw][0]
                short = min(float(columns[c]), (self.over or {})[key] / v)
                found_w[i] = max(found_w[i], short * _UNIT_W)
        return tuple(found_w)

    def offer_w(self, i: int, columns: Floats) -> float:
        """Return what is offered of a lot. [W]"""
        return self.lots[i].max_w if self.lots[i].is_held else float(round(columns[2 * i])) * self.lots[i].step_w

    def drawn_w(self, i: int, columns: Floats) -> tuple[tuple[str, float], ...]:
        """Return what each resource gives to a lot. [W]"""
        drawn = (
            (self.resources[r].name, float(columns[self.first_draw + place]) * _UNIT_W)
            for place, r in self._draws_of[i]
        )
        return tuple((name, w) for name, w in drawn if w > 1e-6 * _UNIT_W)

    def _columns(self) -> tuple[Floats, Floats, Floats, Bools]:
        n = self.first_draw + len(self.draws)
        cost, lower, upper, whole = np.zeros(n), np.zeros(n), np.full(n, INF), np.zeros(n, dtype=np.bool_)
        if self.over is not None:
            cost[self.first_draw :] = -np.asarray(self.nets_per_w) / self.scale
        for i, lot in enumerate(self.lots):
            if lot.is_held:
                upper[2 * i] = lower[2 * i] = lot.max_w / _UNIT_W
                continue
            upper[2 * i] = np.floor(self._most_w(i) / lot.step_w * (1.0 + 1e-12) + 1e-9)
            upper[2 * i + 1] = 1.0
            whole[2 * i : 2 * i + 2] = True
        for key in self.over or ():
            for c, _ in self._most.get(key, ((), 0.0))[0]:
                if not self.lots[self.draws[c - self.first_draw][0]].is_held:
                    upper[c] = 0.0
        return cost, lower, upper, whole

    def _add_most(self, slack: int | None) -> Sequence[float]:
        """Add the rows that bound what is drawn, each once; return the costs of the columns by which each may be exceeded.

        These columns begin at ``slack``; without it there are none.
        """
        least: dict[tuple[tuple[int, float], ...], float] = {}
        costs: dict[tuple[tuple[int, float], ...], float] = {}
        for key, (own, most) in self._most.items():
            least[own] = min(most + (self.over or {}).get(key, 0.0), least.get(own, INF))
            costs[own] = max(_OVER_COSTS[key[0]], costs.get(own, 0.0))
        for place, (own, most) in enumerate(least.items()):
            free = [] if slack is None else [(slack + place, -1.0)]
            self._rows.append(([*own, *free], -INF, most))
        return [] if slack is None else [costs[own] for own in least]

    def _most_w(self, i: int) -> float:
        """Return a bound on what a lot can be given: in its worst step, each resource by what is sure of it or of many. [W]"""
        if i not in self._mosts_w:
            near = (self._wide_first[place] for place in self._near_wide_first.meeting(self.lots[i]))
            ruling = [(bound, over_w) for bound, over_w in near if bound.rules(self.lots[i])]
            sides_w = (self._side_most_w(self.lots[i], side, ruling) for side in self.lots[i].sides)
            self._mosts_w[i] = min(self.lots[i].max_w, *sides_w)
        return self._mosts_w[i]

    def _side_most_w(self, lot: Lot, side: str, ruling: Sequence[tuple[Together, float]]) -> float:
        able = [resource for resource in self.resources if resource.direction == side and suits(resource, lot)]
        rest = {resource.name: resource.sure_w[lot.steps] for resource in able}
        there_w = np.zeros(lot.last_step - lot.first_step + 1)
        for bound, over_w in ruling:
            own = [name for name in rest if bound.bounds(lot, name)]
            alone_w = sum((rest.pop(name) for name in own), np.zeros(len(there_w)))
            there_w = there_w + np.minimum(alone_w, bound.sure_w + over_w)
        return float(np.min(sum(rest.values(), there_w)))

    def _drawn(self, i: int, side: str) -> list[tuple[int, float]]:
        """Return the columns of what a lot draws in a direction, each once."""
        return [(self.first_draw + place, 1.0) for place, r in self._draws_of[i] if self.resources[r].direction == side]

    def _lot_rows(self, i: int) -> None:
        """A lot is off, or between its least and its most, and drawn in full in every step, on each of its sides."""
        lot = self.lots[i]
        for side in lot.sides:
            drawn = self._drawn(i, side)
            if not lot.is_held:
                self._rows.append(([*drawn, (2 * i, -lot.step_w / _UNIT_W)], 0.0, 0.0))
            elif drawn:  # else nothing can stand behind it any more: all of it is short
                self._rows.append(([*drawn, (2 * i, -1.0)], 0.0, 0.0))
        if not lot.is_held:
            self._rows.append(([(2 * i, lot.step_w / _UNIT_W), (2 * i + 1, -lot.min_w / _UNIT_W)], 0.0, INF))
            self._rows.append(([(2 * i, lot.step_w / _UNIT_W), (2 * i + 1, -self._most_w(i) / _UNIT_W)], -INF, 0.0))

    def _at_most(self, key: RowId, entries: Iterable[tuple[int, float]], upper: float) -> None:
        own = tuple(entries)
        if own and upper < INF:
            self._most[key] = own, upper / _UNIT_W

    def _power_rows(self, r: int) -> None:
        """A resource gives each watt once in a step."""
        resource, drawn = self.resources[r], self._columns_of[self.resources[r].name]
        if np.isfinite(resource.sure_w).any():
            by_step = _by_step((c, 1.0, lot.first_step, lot.last_step) for c, lot in drawn)
            for t, most_w in enumerate(resource.sure_w):
                self._at_most(("power", r, t), by_step[t], float(most_w))

    def _energy_rows(self, r: int) -> None:
        """A resource gives its energy once within a slot and its recovery; a lot that draws none leaves nothing to bound."""
        resource, steps = self.resources[r], len(self.resources[r].sure_w)
        if resource.is_endless:
            return
        drawn = [(c, lot) for c, lot in self._columns_of[resource.name] if lot.sustain_h > 0.0]
        near = _by_step(
            (c, lot.sustain_h, lot.first_step, min(resource.back_after(lot), steps - 1)) for c, lot in drawn
        )
        busy = {t for _, lot in drawn for t in range(lot.first_step, lot.last_step + 1)}
        for t, most_wh in enumerate(resource.left_wh):
            if t in busy:
                self._at_most(("energy", r, t), near[t], float(most_wh))

    def _together_rows(self, place: int) -> None:
        """What is sure of several resources is given once by all of them, in the slots of the lots that are sold."""
        bound = self.together[place]
        if not bound.is_held and self.over is None:
            return
        near = self._near_lots.meeting(bound)
        drawn = (
            (self.first_draw + p, 1.0, self.lots[i].first_step, self.lots[i].last_step)
            for i in near
            if bound.counts(self.lots[i])
            for p, r in self._draws_of[i]
            if self.resources[r].name in bound.names
        )
        by_step = _by_step(drawn)
        users = [i for i in near if bound.is_of(self.lots[i]) and not self.lots[i].is_held]
        once: set[tuple[tuple[int, float], ...]] = set()
        for t in range(bound.first_step, bound.last_step + 1):
            own = tuple(by_step[t])
            if bound.is_held:
                self._at_most(("together", place, t), own, bound.sure_w)
            elif own and own not in once:
                once.add(own)
                # What is held, and what is sold without this slot, may be more: the bound is in force once a lot of it is sold.
                most_w = self._peaks.most_w(bound)
                switches = ((2 * i + 1, (most_w - bound.sure_w) / _UNIT_W) for i in users)
                self._rows += [([*own, switch], -INF, most_w / _UNIT_W) for switch in switches]

    def _group_rows(self) -> None:
        groups: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for i, lot in enumerate(self.lots):
            if lot.group and not lot.is_held:
                groups[lot.group].append((2 * i + 1, 1.0))
        self._rows += [(entries, -INF, 1.0) for entries in groups.values()]


def _by_step(spans: Iterable[tuple[int, float, int, int]]) -> dict[int, list[tuple[int, float]]]:
    """Return (column, factor) by step, given both with the first and the last step in which they count."""
    found: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for column, factor, first, last in spans:
        for t in range(first, last + 1):
            found[t].append((column, factor))
    return found
