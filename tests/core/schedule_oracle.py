"""What a schedule must keep, and what it may cost, worked out from the JSON alone and by other means."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import highspy
import numpy as np

from tests.core.schedule_extra_oracle import FurtherRows, further_constraints, further_cost, import_price

Json = dict[str, Any]
NEAR = 1e-5


def breaches(problem: Json, answer: Json) -> list[str]:
    """Return every constraint that the schedule of ``answer`` breaks, by name."""
    return [text for text, excess, size in _constraints(problem, answer) if excess > NEAR * max(abs(size), 1.0)]


def _constraints(problem: Json, answer: Json) -> Iterator[tuple[str, float, float]]:
    site, steps = problem["site"], len(problem["inflexible_load_w"])
    net = np.array(answer["import_w"])
    assert net.shape == (steps,)
    size_w = max(float(np.abs(net).max()), 1.0)
    yield "import_max_w", float(net.max()) - site["import_max_w"], size_w
    yield "export_max_w", float(-net.min()) - site["export_max_w"], size_w
    total = np.array(problem["inflexible_load_w"])
    for battery in problem["batteries"]:
        power = np.array(answer["batteries"][battery["name"]]["power_w"])
        total = total + power
        yield from _battery(problem, battery, power, np.array(answer["batteries"][battery["name"]]["energy_wh"]))
    for source in problem["renewables"]:
        given, available = np.array(answer["renewables"][source["name"]]), np.array(source["available_w"])
        total = total - given
        yield f"{source['name']} above available", float((given - available).max()), size_w
        yield f"{source['name']} below 0", float(-given.min()), size_w
        if not source["curtailable"]:
            yield f"{source['name']} curtailed", float(np.abs(given - available).max()), size_w
    for load in problem["flexible_loads"]:
        power = np.array(answer["flexible_loads"][load["name"]])
        total = total + power
        yield from _load(problem, load, power)
    yield from further_constraints(problem, answer)
    yield "power balance", float(np.abs(total - net).max()), size_w


def _battery(problem: Json, battery: Json, power: Any, stored: Any) -> Iterator[tuple[str, float, float]]:
    name, step_h = battery["name"], problem["step_s"] / 3600.0
    charge, discharge = np.maximum(power, 0.0), np.maximum(-power, 0.0)
    gain = step_h * (charge * battery["efficiency_charge"] - discharge / battery["efficiency_discharge"])
    own = battery["initial_wh"] + np.cumsum(gain)
    size_wh = max(battery["energy_wh"], battery["initial_wh"])
    yield f"{name} energy told", float(np.abs(own - stored).max()), size_wh
    yield f"{name} charge_max_w", float(charge.max()) - battery["charge_max_w"], battery["charge_max_w"]
    yield f"{name} discharge_max_w", float(discharge.max()) - battery["discharge_max_w"], battery["discharge_max_w"]
    yield f"{name} energy_wh", float(own.max()) - battery["energy_wh"], size_wh
    yield f"{name} reserve_wh", battery["reserve_wh"] - float(own.min()), size_wh
    yield f"{name} final_min_wh", battery["final_min_wh"] - float(own[-1]), size_wh


def _load(problem: Json, load: Json, power: Any) -> Iterator[tuple[str, float, float]]:
    name, window = load["name"], slice(load["first_step"], load["last_step"] + 1)
    outside = np.delete(power, np.arange(len(power))[window])
    yield f"{name} outside its steps", float(np.abs(outside).max(initial=0.0)), load["max_w"]
    yield f"{name} max_w", float(power[window].max()) - load["max_w"], load["max_w"]
    yield f"{name} min_w", load["min_w"] - float(power[window].min()), load["max_w"]
    missing_wh = load["energy_wh"] - float(power.sum()) * problem["step_s"] / 3600.0
    if "curtail_cost_per_wh" not in load:
        yield f"{name} energy_wh", missing_wh, load["energy_wh"]


def cost_of(problem: Json, answer: Json) -> float:
    """Return what the schedule costs by the tariff."""
    step_h, total = problem["step_s"] / 3600.0, 0.0
    for t, power in enumerate(answer["import_w"]):
        price = import_price(problem, t) if power > 0.0 else problem["price_export_per_wh"][t]
        total += step_h * power * price
    for battery in problem["batteries"]:
        turned = float(np.abs(answer["batteries"][battery["name"]]["power_w"]).sum()) * step_h
        total += battery.get("wear_cost_per_wh", 0.0) / 2.0 * turned
    return total + further_cost(problem, answer)


def best_cost(problem: Json, limit_s: float = 60.0, gap_frac: float = 1e-4) -> tuple[float, float] | None:
    """Return cost and bound by the plain textbook program: a binary per battery and step, one per step for the side.

    None where it is infeasible. kW, kWh and prices times 1e3 keep the solver's tolerances meaningful.
    """
    solver = textbook(problem, limit_s, gap_frac)
    solver.run()
    status, info = solver.getModelStatus(), solver.getInfo()
    if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
        return None
    return info.objective_function_value, info.mip_dual_bound


def textbook(problem: Json, limit_s: float, gap_frac: float, *, whole: bool = True) -> highspy.Highs:
    """Return the solver with the textbook program in it, ready to run; without ``whole`` the linear one."""
    solver = _Textbook(problem, whole=whole).solver
    solver.setOptionValue("time_limit", limit_s)
    solver.setOptionValue("mip_rel_gap", gap_frac)
    return solver


class _Textbook:
    """The program written out one variable and one row at a time."""

    def __init__(self, problem: Json, *, whole: bool) -> None:
        self.whole = whole
        self.solver = highspy.Highs()  # type: ignore[no-untyped-call]
        self.solver.setOptionValue("output_flag", False)
        self.problem, self.steps = problem, len(problem["inflexible_load_w"])
        self.step_h = problem["step_s"] / 3600.0
        self.balance: list[dict[int, float]] = [{} for _ in range(self.steps)]
        self.at: dict[str, dict[int, int]] = defaultdict(dict)
        for t in range(self.steps):
            self._grid(t)
        for battery in problem["batteries"]:
            self._battery(battery)
        for source in problem["renewables"]:
            for t, most in enumerate(source["available_w"]):
                least = 0.0 if source["curtailable"] else most
                self.at[f"source/{source['name']}"][t] = given = self.add(least / 1e3, most / 1e3)
                self.balance[t][given] = 1.0
        for load in problem["flexible_loads"]:
            self._load(load)
        for t, load_w in enumerate(problem["inflexible_load_w"]):
            self.row(load_w / 1e3, load_w / 1e3, self.balance[t])
        FurtherRows(self).write()

    def add(self, lower: float, upper: float, price: float = 0.0, *, whole: bool = False) -> int:
        self.solver.addVar(lower, upper)
        column = self.solver.getNumCol() - 1
        self.solver.changeColCost(column, price)
        if whole:
            self.solver.changeColIntegrality(column, highspy.HighsVarType.kInteger)
        return int(column)

    def row(self, lower: float, upper: float, terms: dict[int, float]) -> None:
        self.solver.addRow(lower, upper, len(terms), np.array(list(terms), np.int32), np.array(list(terms.values())))

    def either(self, one: int, one_most: float, other: int, other_most: float) -> None:
        if not self.whole:
            return
        side = self.add(0.0, 1.0, whole=True)
        self.row(-np.inf, 0.0, {one: 1.0, side: -one_most})
        self.row(-np.inf, other_most, {other: 1.0, side: other_most})

    def _grid(self, t: int) -> None:
        into, out = self.problem["site"]["import_max_w"] / 1e3, self.problem["site"]["export_max_w"] / 1e3
        bought = self.add(0.0, into, import_price(self.problem, t) * 1e3 * self.step_h)
        sold = self.add(0.0, out, -self.problem["price_export_per_wh"][t] * 1e3 * self.step_h)
        self.either(bought, into, sold, out)
        self.balance[t] = {bought: 1.0, sold: -1.0}
        self.at["bought"][t], self.at["sold"][t] = bought, sold

    def _battery(self, battery: Json) -> None:
        most, least = battery["charge_max_w"] / 1e3, battery["discharge_max_w"] / 1e3
        wear = battery.get("wear_cost_per_wh", 0.0) * 1e3 / 2.0 * self.step_h
        before = -1
        for t in range(self.steps):
            charge, discharge = self.add(0.0, most, wear), self.add(0.0, least, wear)
            self.either(charge, most, discharge, least)
            floor = max(battery["reserve_wh"], battery["final_min_wh"] if t == self.steps - 1 else 0.0)
            stored = self.add(floor / 1e3, battery["energy_wh"] / 1e3)
            terms = {stored: 1.0, charge: -self.step_h * battery["efficiency_charge"]}
            terms[discharge] = self.step_h / battery["efficiency_discharge"]
            if t:
                terms[before] = -1.0
            start = 0.0 if t else battery["initial_wh"] / 1e3
            self.row(start, start, terms)
            self.balance[t] |= {charge: -1.0, discharge: 1.0}
            before = stored
            for kind, column in (("charge", charge), ("discharge", discharge), ("stored", stored)):
                self.at[f"{kind}/{battery['name']}"][t] = column

    def _load(self, load: Json) -> None:
        terms = {}
        for t in range(load["first_step"], load["last_step"] + 1):
            late_h = (t - load["first_step"]) * self.step_h
            late = load.get("delay_cost_per_wh_h", 0.0) * late_h * 1e3 * self.step_h
            self.at[f"load/{load['name']}"][t] = power = self.add(load["min_w"] / 1e3, load["max_w"] / 1e3, late)
            self.balance[t][power] = -1.0
            terms[power] = self.step_h
        if "curtail_cost_per_wh" in load:
            terms[self.add(0.0, np.inf, load["curtail_cost_per_wh"] * 1e3)] = 1.0
        self.row(load["energy_wh"] / 1e3, np.inf, terms)


def cheapest_by_enumeration(problem: Json, rungs: int) -> float:
    """Return the least cost when one battery alone may charge or discharge by k / rungs of its rates, by trying all."""
    battery = problem["batteries"][0]
    choices = np.linspace(-1.0, 1.0, 2 * rungs + 1)
    rates = np.where(choices > 0.0, choices * battery["charge_max_w"], choices * battery["discharge_max_w"])
    best = np.inf
    for powers in itertools.product(rates, repeat=len(problem["inflexible_load_w"])):
        answer = _answer_of(problem, battery, np.array(powers))
        if answer is not None and not breaches(problem, answer):
            best = min(best, cost_of(problem, answer))
    return best


def _answer_of(problem: Json, battery: Json, power: Any) -> Json:
    charge, discharge = np.maximum(power, 0.0), np.maximum(-power, 0.0)
    step_h = problem["step_s"] / 3600.0
    gain = step_h * (charge * battery["efficiency_charge"] - discharge / battery["efficiency_discharge"])
    stored = battery["initial_wh"] + np.cumsum(gain)
    net = np.array(problem["inflexible_load_w"]) + power
    batteries = {battery["name"]: {"power_w": power, "energy_wh": stored}}
    return {"import_w": net, "batteries": batteries, "renewables": {}, "flexible_loads": {}}
