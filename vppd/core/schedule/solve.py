"""The schedule: what every battery, source and flexible load should do, step by step, at the least cost.

There is always an answer within the time: the optimum within the gap asked for, else the best schedule found, else
that of the merit order, else the constraints that contradict one another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from vppd.core.schedule.bound import battery_prices, least_cost
from vppd.core.schedule.conflicts import conflicts, contradictions, elastic
from vppd.core.schedule.groups import grouped
from vppd.core.schedule.merit import candidates, one_by_one, one_by_one_at
from vppd.core.schedule.plan import TOLERANCE_FRAC, Plan, excess_frac, settled
from vppd.core.schedule.problem import Problem
from vppd.core.schedule.program import Fixed, Flows, Layout, Program, formulate
from vppd.core.schedule.sides import scale_of, two_sided
from vppd.core.schedule.solver import Solution, Verdict, load_solver, solve_program
from vppd.core.schedule.storage import Ladder, ladders
from vppd.snapshot import Bools, Floats, Ints

SPARE_FRAC, SPARE_S = 0.03, 0.02
"""Kept back from the time limit for what follows the last solve."""
MERIT_S_PER_POINT = 2.5e-5
"""What the merit order takes at most per battery and step: as much is kept back for it until there is a plan. [s]"""
OVERRUN = 4.0
"""The search may see its time limit late, by as much as this many times what the relaxation took."""
ROUNDS = 6
STIFFNESS_FRAC = 0.003
SOLVER_FRAC = 1e-7
"""A solver's optimum is taken to be this exact."""
LEAST_GAP_FRAC = 1e-6
"""A smaller gap is not told from none: of the cost, or of what the site's largest power costs in a step."""


UNPROVEN = "time_limit_s: no schedule was found in the time, nor a proof that there is none"


class Status(StrEnum):
    """How good the answer is."""

    OPTIMAL = "optimal"
    """Proven to be within the gap asked for."""
    INCUMBENT = "incumbent"
    """Keeps every constraint; the gap says how far from the optimum it may be at most."""
    HEURISTIC = "heuristic"
    """Keeps every constraint; by merit order, nothing is proven."""
    INFEASIBLE = "infeasible"


@dataclass(frozen=True, slots=True)
class Answer:
    """The schedule and what is proven about it; without a plan the constraints that conflict."""

    status: Status
    plan: Plan | None
    lower: float
    """No schedule costs less, in the currency of the prices; minus infinity where nothing is proven."""
    solve_s: float
    conflicts: tuple[str, ...] = ()

    @property
    def gap_frac(self) -> float:
        """How much less than the plan another schedule might cost at most, as part of the cost. [0-1]"""
        if self.plan is None:
            return np.inf
        return max(self.plan.value - self.lower, 0.0) / max(abs(self.plan.value), np.finfo(float).tiny)


def solve(problem: Problem, now_s: Callable[[], float]) -> Answer:
    """Return the cheapest schedule found within the problem's time limit, measured by ``now_s``."""
    load_solver()
    search = _Search(problem, now_s)
    named = contradictions(problem)
    return search.infeasible(named) if named else search.run()


class _Search:
    """The best plan so far and the best bound, and the ways to better ones, the cheapest first."""

    def __init__(self, problem: Problem, now_s: Callable[[], float]) -> None:
        self.problem, self._now_s = problem, now_s
        self._began_s = now_s()
        self.lower = -np.inf
        self.plan: Plan | None = None
        self._ladders: list[Ladder] = []
        self._built_s = self._relaxed_s = 0.0
        self._money = 100.0 * scale_of(problem).money

    def run(self) -> Answer:
        """Return the answer."""
        program, layout = formulate(self.problem)
        self._built_s = self._took_s()
        kept_s = MERIT_S_PER_POINT * len(self.problem.batteries.names) * self.problem.steps
        # The solver does not count what it takes to hand the program over: about as long as writing it down.
        limit_s = self._left_s() - kept_s - self._built_s
        if limit_s <= 0.0:
            return self._by_merit()
        asked_s = self._now_s()
        relaxed = solve_program(program, limit_s=limit_s)
        self._relaxed_s = self._now_s() - asked_s
        if relaxed.verdict is Verdict.INFEASIBLE:
            named = conflicts(self.problem, max(self._left_s(), SPARE_S))
            return self.infeasible(named) if named else self._separated()
        if relaxed.verdict is not Verdict.SOLVED:
            return self._by_merit()
        self._prove(relaxed.value * layout.scale.money)
        flows = layout.flows(relaxed.columns, self.problem)
        if self._offer(flows):
            return self._found()
        self._rounded(flows)
        if not self._is_done():
            self._tighten(program, relaxed, layout, flows)
        if not self._is_done():
            self._improve()
        if not self._is_done():
            self._stir(flows, layout.price_per_w(relaxed.row_dual))
        if not self._is_done():
            self._search_whole()
        return self._found() if self._has_plan() else self._separated()

    def infeasible(self, named: tuple[str, ...]) -> Answer:
        """Return the answer that there is no schedule, and why."""
        return Answer(Status.INFEASIBLE, None, np.inf, self._took_s(), named)

    def _found(self) -> Answer:
        done = self._is_done()
        return Answer(Status.OPTIMAL if done else Status.INCUMBENT, self.plan, self.lower, self._took_s())

    def _has_plan(self) -> bool:
        return self.plan is not None

    def _is_done(self) -> bool:
        if self.plan is None:
            return False
        allowed = max(self.problem.mip_gap_frac, LEAST_GAP_FRAC) * abs(self.plan.value)
        return self.plan.value - self.lower <= max(allowed, LEAST_GAP_FRAC * self._money)

    def _took_s(self) -> float:
        return self._now_s() - self._began_s

    def _left_s(self) -> float:
        limit_s = self.problem.time_limit_s
        return limit_s * (1.0 - SPARE_FRAC) - SPARE_S - self._took_s()

    def _prove(self, lower: float) -> None:
        self.lower = max(self.lower, lower - SOLVER_FRAC * max(abs(lower), self._money))

    def _offer(self, flows: Flows) -> bool:
        """Keep the plan of ``flows`` if it breaks nothing and is the best; say whether it is good enough."""
        plan = settled(self.problem, flows)
        if excess_frac(self.problem, plan) <= TOLERANCE_FRAC and (self.plan is None or plan.value < self.plan.value):
            self.plan = plan
        return self._is_done()

    def _rounded(self, flows: Flows) -> None:
        """Charge where the relaxation stores more after a step than before, discharge elsewhere."""
        b = self.problem.batteries
        gained_w = flows.charge_w * b.efficiency_charge[:, None] - flows.discharge_w / b.efficiency_discharge[:, None]
        self._with_modes(gained_w >= 0.0)

    def _with_modes(self, charging: Bools) -> None:
        """Solve what is left when every battery's direction is given: all but the sides of the grid is exact."""
        found = self._solve(Fixed(charging))
        if found is None:
            return
        flows, imports = found
        if not self._offer(flows) and two_sided(self.problem).any():
            sided = self._solve(Fixed(charging, imports))
            if sided is not None:
                self._offer(sided[0])

    def _solve(self, fixed: Fixed) -> tuple[Flows, Bools] | None:
        if self._left_s() <= 0.0:
            return None
        program, layout = formulate(self.problem, fixed)
        found = solve_program(program, limit_s=self._left_s())
        if found.verdict is not Verdict.SOLVED:
            return None
        columns = found.columns
        return layout.flows(columns, self.problem), columns[layout.imported] >= columns[layout.exported]

    def _tighten(self, program: Program, relaxed: Solution, layout: Layout, flows: Flows) -> None:
        """Prove more: each battery's true optimum at the prices of the relaxation."""
        price_per_w, stored_per_wh = battery_prices(program, layout, relaxed.row_dual)
        small, storage, _ = grouped(self.problem, None)
        stored_wh = relaxed.columns[layout.stored] * layout.scale.power_w * layout.scale.step_h
        lower = relaxed.value * layout.scale.money
        members = _summed(flows.charge_w, storage.group), _summed(flows.discharge_w, storage.group)
        for k in range(len(small.batteries.names)):
            if self._left_s() <= 0.0:
                return
            charge_w, discharge_w = members[0][k], members[1][k]
            wear = small.batteries.wear_cost_per_wh[k] / 2.0 * self.problem.step_h
            part = float(np.dot(price_per_w[k], charge_w - discharge_w) + wear * (charge_w + discharge_w).sum())
            held_per_wh = None if stored_per_wh is None else stored_per_wh[k]
            part += 0.0 if held_per_wh is None else float(np.dot(held_per_wh, stored_wh[k]))
            best = least_cost(small.batteries, k, price_per_w[k], self.problem.step_h, held_per_wh)
            lower += max(0.0, best - part)
            self._prove(lower)
            if self._is_done():
                return

    def _improve(self) -> None:
        """Let each battery answer the others in turn, and everything answer their directions, while it helps."""
        for _ in range(ROUNDS):
            plan = self.plan
            if plan is None or self._left_s() <= 0.0:
                return
            battery_w = one_by_one(self.problem, self._rungs(), plan.battery_w, plan.load_w)
            self._with_modes(_directions(battery_w, plan))
            if self._is_done() or self.plan is plan:
                return

    def _stir(self, flows: Flows, price_per_w: Floats) -> None:
        """Start from elsewhere: batteries at the relaxation's prices, spread over like steps."""
        net_w = flows.charge_w - flows.discharge_w
        size_w = float(self.problem.batteries.charge_max_w.mean()) if len(net_w) else 1.0
        stiffness = STIFFNESS_FRAC * float(np.ptp(price_per_w)) / max(size_w, 1e-9)
        for factor in (1.0, 4.0, 0.25):
            if self._left_s() <= 0.0 or self._is_done() or self.plan is None:
                return
            battery_w = one_by_one_at(self._rungs(), net_w, price_per_w, stiffness * factor)
            self._with_modes(_directions(battery_w, self.plan))
            self._improve()

    def _search_whole(self) -> None:
        """Search all directions by branch and bound, from the best plan, for the time that is left."""
        limit_s = self._left_s() - OVERRUN * self._relaxed_s
        if limit_s <= 0.0:
            return
        program, layout = formulate(self.problem, whole=True)
        plan, start = self.plan, None
        if plan is not None:
            start = layout.columns_of(_flows(self.problem, plan), plan.energy_wh, plan.import_w, len(program.cost))
        found = solve_program(program, limit_s=limit_s, gap_frac=self.problem.mip_gap_frac, start=start)
        if found.verdict is not Verdict.INFEASIBLE:
            self._prove(found.lower * layout.scale.money)
        if len(found.columns):
            flows = layout.flows(found.columns, self.problem)
            if not self._offer(flows):
                self._rounded(flows)

    def _rungs(self) -> list[Ladder]:
        if not self._ladders:
            self._ladders = ladders(self.problem)
        return self._ladders

    def _by_merit(self) -> Answer:
        """Return the answer when there is no time for a solver."""
        self._offer_merit()
        return self._heuristic() if self._has_plan() else self._separated()

    def _offer_merit(self) -> None:
        for flows in candidates(self.problem, self._rungs):
            self._offer(flows)
            if self._has_plan():
                return

    def _heuristic(self) -> Answer:
        return Answer(Status.HEURISTIC, self.plan, self.lower, self._took_s())

    def _separated(self) -> Answer:
        """Return the answer when only keeping things apart stands in the way: a plan after all, or what conflicts."""
        self._offer_merit()
        if self._has_plan():
            return self._heuristic()
        if self._left_s() <= 0.0 and self._built_s > SPARE_S:
            return self.infeasible((UNPROVEN,))
        limit_s = max(self._left_s(), SPARE_S)
        program, layout = formulate(self.problem, whole=True)
        found = solve_program(elastic(program, layout), limit_s=limit_s)
        if not len(found.columns):
            return self.infeasible((UNPROVEN,))
        flows = layout.flows(found.columns, self.problem)
        charging = flows.charge_w > flows.discharge_w
        imports = found.columns[layout.imported] >= found.columns[layout.exported]
        self._with_modes(charging)
        if self._has_plan():
            return self._found()
        named = conflicts(self.problem, max(self._left_s(), SPARE_S), Fixed(charging, imports))
        proven = found.verdict is Verdict.SOLVED and named
        return self.infeasible(named if proven else (*named, UNPROVEN))


def _summed(of_member: Floats, group: Ints) -> Floats:
    found = np.zeros((int(group.max(initial=-1)) + 1, of_member.shape[1]))
    np.add.at(found, group, of_member)
    return found


def _directions(battery_w: Floats, plan: Plan) -> Bools:
    """Return who may charge when; a battery at rest keeps the direction it has in ``plan``."""
    return np.where(battery_w == 0.0, plan.battery_w >= 0.0, battery_w > 0.0)


def _flows(problem: Problem, plan: Plan) -> Flows:
    generated_w = plan.renewable_w[problem.renewables.curtailable].sum(axis=0)
    return Flows(np.maximum(plan.battery_w, 0.0), np.maximum(-plan.battery_w, 0.0), plan.load_w, generated_w)
