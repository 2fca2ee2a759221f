"""A schedule as it would be carried out: exact energies, exact cost, and what it breaks, if anything."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vppd.core.schedule.extra import Extras
from vppd.core.schedule.extra_plan import Powers, allotted, further_costs, further_excess_frac
from vppd.core.schedule.problem import Batteries, Problem
from vppd.core.schedule.program import Flows
from vppd.snapshot import Floats

TOLERANCE_FRAC = 1e-6
"""A limit counts as kept within this part of the site's or the battery's size."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Powers at the terminals, + = drawn by the asset or the site; shapes (asset, step) and (step). [W, Wh]"""

    import_w: Floats
    battery_w: Floats
    energy_wh: Floats
    """Stored after each step."""
    renewable_w: Floats
    """What each source gives, >= 0."""
    load_w: Floats
    value: float
    """What it costs, in the currency of the prices."""
    held_w: Floats | None = None
    """What each battery and then each load holds ready of each reserve, shape (reserve, asset, step); None: no extras."""

    def powers(self) -> Powers:
        """Return what the plan does, without what it costs."""
        return Powers(self.import_w, self.battery_w, self.energy_wh, self.renewable_w, self.load_w)


def settled(problem: Problem, flows: Flows) -> Plan:
    """Return the plan that ``flows`` means, with the solver's rounding taken out as far as it goes."""
    battery_w, energy_wh = _stored(problem.batteries, flows.charge_w - flows.discharge_w, problem.step_h)
    load_w = _met(problem, np.clip(flows.load_w, *problem.load_range_w()))
    generated_w = np.clip(flows.generated_w, 0.0, problem.curtailable_w())
    import_w = problem.fixed_w() + load_w.sum(axis=0) + battery_w.sum(axis=0) - generated_w
    renewable_w = _by_source(problem, generated_w) if flows.given_w is None else _given(problem, flows.given_w)
    if flows.given_w is not None:
        must_w = problem.renewables.available_w[~problem.renewables.curtailable].sum(axis=0)
        import_w = import_w + generated_w - (renewable_w.sum(axis=0) - must_w)
    value = cost_of(problem, import_w, battery_w)
    plan = Plan(import_w, battery_w, energy_wh, renewable_w, load_w, value)
    return plan if problem.extras is None else _with_extras(problem, problem.extras, plan, flows.held_w)


def _with_extras(problem: Problem, extras: Extras, plan: Plan, held_w: Floats | None) -> Plan:
    powers = plan.powers()
    held_w = allotted(problem, extras, powers) if held_w is None else held_w
    value = plan.value + sum(further_costs(problem, extras, powers, held_w).values())
    return replace(plan, value=value, held_w=held_w)


def _given(problem: Problem, given_w: Floats) -> Floats:
    sources = problem.renewables
    return np.clip(given_w, np.where(sources.curtailable[:, None], 0.0, sources.available_w), sources.available_w)


def cost_of(problem: Problem, import_w: Floats, battery_w: Floats) -> float:
    """Return what a plan costs: energy at the price of its direction, and wear on half of what batteries turn over."""
    price = np.where(import_w > 0.0, problem.price_import_per_wh, problem.price_export_per_wh)
    wear = problem.batteries.wear_cost_per_wh / 2.0 * np.abs(battery_w).sum(axis=1)
    return float(problem.step_h * (np.dot(price, import_w) + wear.sum()))


def excess_frac(problem: Problem, plan: Plan) -> float:
    """Return by how much the plan breaks the limit it breaks most, as part of the site's or battery's size. [0-1]"""
    b, loads = problem.batteries, problem.loads
    site_w = max(problem.import_max_w, problem.export_max_w, float(np.abs(plan.import_w).max()), 1.0)
    worst = [
        float((plan.import_w - problem.import_max_w).max()) / site_w,
        float((-plan.import_w - problem.export_max_w).max()) / site_w,
    ]
    if b.names:
        size_wh = np.maximum(np.maximum(b.energy_wh, b.initial_wh), 1.0)
        below_wh = np.maximum(
            (b.reserve_wh[:, None] - plan.energy_wh).max(axis=1), b.final_min_wh - plan.energy_wh[:, -1]
        )
        above_wh = (plan.energy_wh - b.energy_wh[:, None]).max(axis=1)
        worst.append(float((np.maximum(below_wh, above_wh) / size_wh).max()))
    if loads.names:
        missing_wh = loads.energy_wh - plan.load_w.sum(axis=1) * problem.step_h
        if problem.extras is not None:
            missing_wh = np.where(problem.extras.terms.soft, 0.0, missing_wh)
        worst.append(float((missing_wh / np.maximum(loads.energy_wh, 1.0)).max()))
    if problem.extras is not None and plan.held_w is not None:
        worst.append(further_excess_frac(problem, problem.extras, plan.powers(), plan.held_w, site_w))
    return max(worst)


def _stored(batteries: Batteries, power_w: Floats, step_h: float) -> tuple[Floats, Floats]:
    """Return powers kept within every limit, step by step, and the energy after each. [W, Wh]"""
    power_w = np.clip(power_w, -batteries.discharge_max_w[:, None], batteries.charge_max_w[:, None])
    energy_wh = np.empty_like(power_w)
    now_wh = batteries.initial_wh
    for t in range(power_w.shape[1]):
        most_w = np.maximum(batteries.energy_wh - now_wh, 0.0) / (step_h * batteries.efficiency_charge)
        least_w = np.maximum(now_wh - batteries.reserve_wh, 0.0) * batteries.efficiency_discharge / step_h
        power_w[:, t] = np.clip(power_w[:, t], -least_w, most_w)
        now_wh = energy_wh[:, t] = after_wh(batteries, now_wh, power_w[:, t], step_h)
    return power_w, energy_wh


def after_wh(batteries: Batteries, before_wh: Floats, power_w: Floats, step_h: float) -> Floats:
    """Return the energy stored after a step at ``power_w``. [Wh]"""
    gained_w = np.where(power_w > 0.0, power_w * batteries.efficiency_charge, power_w / batteries.efficiency_discharge)
    return np.asarray(before_wh + step_h * gained_w)


def _met(problem: Problem, load_w: Floats) -> Floats:
    """Return the loads' powers with a need that rounding has left open spread over the room there is. [W]"""
    room_w = problem.load_range_w()[1] - load_w
    missing_w = problem.loads.energy_wh / problem.step_h - load_w.sum(axis=1)
    share = np.clip(missing_w / np.maximum(room_w.sum(axis=1), 1e-9), 0.0, 1.0)
    # More than rounding is not put right here: it would draw power nobody planned for.
    slight = share * room_w.sum(axis=1) <= TOLERANCE_FRAC * np.maximum(load_w.sum(axis=1), 1.0)
    return np.asarray(load_w + np.where(slight, share, 0.0)[:, None] * room_w)


def _by_source(problem: Problem, generated_w: Floats) -> Floats:
    """Return what each source gives: the curtailable ones are held back alike. [W]"""
    together_w = problem.curtailable_w()
    share = np.divide(generated_w, together_w, out=np.zeros_like(generated_w), where=together_w > 0.0)
    sources = problem.renewables
    return np.asarray(np.where(sources.curtailable[:, None], sources.available_w * share, sources.available_w))
