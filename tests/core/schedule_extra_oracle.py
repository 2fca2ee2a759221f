"""What the optional keys of an instance demand and cost, worked out from the JSON alone, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

Json = dict[str, Any]


class Writer(Protocol):
    """The textbook program as it is written down: kW, kWh, prices per kWh."""

    problem: Json
    steps: int
    step_h: float
    at: dict[str, dict[int, int]]

    def add(self, lower: float, upper: float, price: float = 0.0) -> int:
        """Add a column and return its number."""

    def row(self, lower: float, upper: float, terms: dict[int, float]) -> None:
        """Add a row."""


def import_price(problem: Json, t: int) -> float:
    """Return what a Wh bought costs with its carbon."""
    grams = problem["carbon_g_per_wh"][t] if "carbon_g_per_wh" in problem else 0.0
    return float(problem["price_import_per_wh"][t] + grams * problem.get("carbon_cost_per_g", 0.0))


def window_steps(problem: Json) -> list[range]:
    """Return the steps of each window of the green rules."""
    steps = len(problem["inflexible_load_w"])
    length = problem["green"].get("window_steps", steps)
    first = min(problem["green"].get("first_window_steps", length), steps)
    return [range(first), *(range(at, min(at + length, steps)) for at in range(first, steps, length))]


def able(problem: Json, reserve: Json, kind: str) -> list[Json]:
    """Return the batteries or flexible loads that may hold a reserve."""
    return [asset for asset in problem[kind] if asset["name"] in reserve.get("resources", [asset["name"]])]


def call_steps(problem: Json) -> int:
    """Return how many steps the longest call towards less consumption may last."""
    longest_h: float = max([r["sustain_h"] for r in problem.get("reserves", []) if r["direction"] == "up"], default=0.0)
    return max(1, math.ceil(longest_h / (float(problem["step_s"]) / 3600.0) - 1e-9))


def further_cost(problem: Json, answer: Json) -> float:
    """Return what the schedule costs beyond energy and wear."""
    step_h, total = problem["step_s"] / 3600.0, 0.0
    if "demand_charge" in problem:
        charge = problem["demand_charge"]
        total += charge["cost_per_w"] * max(0.0, max(answer["import_w"]) - charge.get("billed_peak_w", 0.0))
    for load in problem["flexible_loads"]:
        power = answer["flexible_loads"][load["name"]]
        for t, power_w in enumerate(power):
            late_h = max(0, t - load["first_step"]) * step_h
            total += load.get("delay_cost_per_wh_h", 0.0) * late_h * power_w * step_h
        total += load.get("curtail_cost_per_wh", 0.0) * max(0.0, load["energy_wh"] - sum(power) * step_h)
    for reserve in problem.get("reserves", []):
        held = answer["reserves"][reserve["name"]].values()
        for t, asked in enumerate(reserve["power_w"]):
            missing = max(0.0, asked - sum(series[t] for series in held))
            total += reserve.get("shortfall_cost_per_wh", 0.0) * missing * step_h
    price = problem.get("green", {}).get("shortfall_cost_per_wh", 0.0)
    return float(total + price * sum(max(0.0, short) for _, short, _ in _green(problem, answer)))


def further_constraints(problem: Json, answer: Json) -> Iterator[tuple[str, float, float]]:
    """Yield each further constraint: its name, by how much it is broken, and the size that counts."""
    if "shortfall_cost_per_wh" not in problem.get("green", {}):
        yield from _green(problem, answer)
    for load in problem["flexible_loads"]:
        if "rebound_frac" in load:
            yield from _rebound(load, answer["flexible_loads"][load["name"]])
    for feed in problem.get("feeds", []):
        yield from _feed(problem, answer, feed)
    if "reserves" in problem:
        yield from _reserves(problem, answer)


def _green(problem: Json, answer: Json) -> Iterator[tuple[str, float, float]]:
    rules, step_h = problem.get("green", {}), problem["step_s"] / 3600.0
    for window in window_steps(problem) if rules else []:
        before = rules.get("before", {}) if not window.start else {}
        used, load, available = (before.get(f"{of}_wh", 0.0) / step_h for of in ("used", "load", "available"))
        matched = before.get("contracted_wh", 0.0) / step_h
        for t in window:
            matched += min(max(0.0, answer["import_w"][t]), rules.get("contracted_w", {t: 0.0})[t])
            used += sum(series[t] for series in answer["renewables"].values()) - max(0.0, -answer["import_w"][t])
            load += rules.get("counted_load_w", problem["inflexible_load_w"])[t]
            load += sum(series[t] for series in answer["flexible_loads"].values())
            available += sum(source["available_w"][t] for source in problem["renewables"])
        size = step_h * (abs(load) + available)
        if "share_of_load_frac" in rules:
            yield f"green share {window}", step_h * (rules["share_of_load_frac"] * load - used - matched), size
        if "self_use_frac" in rules:
            yield f"green use {window}", step_h * (rules["self_use_frac"] * available - used), size


def _rebound(load: Json, power: list[float]) -> Iterator[tuple[str, float, float]]:
    for t in range(load["first_step"] + 1, load["last_step"] + 1):
        before = range(max(load["first_step"], t - load["rebound_steps"]), t)
        back = sum(load["max_w"] - power[s] for s in before) * load["rebound_frac"] / load["rebound_steps"]
        yield f"{load['name']} rebound", load["min_w"] + back - power[t], load["max_w"]


def _feed(problem: Json, answer: Json, feed: Json) -> Iterator[tuple[str, float, float]]:
    for t in range(len(answer["import_w"])):
        net = feed.get("inflexible_load_w", [0.0] * (t + 1))[t]
        net += sum(series["power_w"][t] for name, series in answer["batteries"].items() if name in feed["members"])
        net += sum(series[t] for name, series in answer["flexible_loads"].items() if name in feed["members"])
        net -= sum(series[t] for name, series in answer["renewables"].items() if name in feed["members"])
        held = {"up": 0.0, "down": 0.0}
        for reserve in problem.get("reserves", []):
            for name, series in answer["reserves"][reserve["name"]].items():
                held[reserve["direction"]] += series[t] if name in feed["members"] else 0.0
        yield f"{feed['tag']} import", net + held["down"] - feed["import_max_w"], feed["import_max_w"]
        yield f"{feed['tag']} export", held["up"] - net - feed.get("export_max_w", np.inf), feed["import_max_w"]


def _reserves(problem: Json, answer: Json) -> Iterator[tuple[str, float, float]]:
    site, size_w = problem["site"], max(problem["site"].values())
    for t, net in enumerate(answer["import_w"]):
        asked = {"up": 0.0, "down": 0.0}
        for reserve in problem["reserves"]:
            held = answer["reserves"][reserve["name"]]
            names = {
                asset["name"] for kind in ("batteries", "flexible_loads") for asset in able(problem, reserve, kind)
            }
            yield f"{reserve['name']} by others", float(len(held.keys() - names)), 0.0
            given = sum(series[t] for series in held.values())
            short = reserve["power_w"][t] - given
            yield f"{reserve['name']} step {t}", short * ("shortfall_cost_per_wh" not in reserve), size_w
            yield f"{reserve['name']} too much {t}", -short, size_w
            asked[reserve["direction"]] += given
        yield "room for down", (net + asked["down"] - site["import_max_w"]) * (asked["down"] > 0.0), size_w
        yield "room for up", (asked["up"] - net - site["export_max_w"]) * (asked["up"] > 0.0), size_w
    for battery in problem["batteries"]:
        yield from _battery(problem, answer, battery)
    for load in problem["flexible_loads"]:
        yield from _load(problem, answer, load)


def _held(problem: Json, answer: Json, name: str, direction: str, t: int) -> tuple[float, float]:
    """Return power held by an asset at a step and the energy of the calls. [W, Wh]"""
    power = energy = 0.0
    for reserve in problem["reserves"]:
        if reserve["direction"] == direction and name in answer["reserves"][reserve["name"]]:
            held = answer["reserves"][reserve["name"]][name][t]
            power, energy = power + held, energy + held * reserve["sustain_h"]
    return power, energy


def _battery(problem: Json, answer: Json, battery: Json) -> Iterator[tuple[str, float, float]]:
    name, told = battery["name"], answer["batteries"][battery["name"]]
    size_wh = max(battery["energy_wh"], battery["initial_wh"])
    for t, power in enumerate(told["power_w"]):
        up, up_wh = _held(problem, answer, name, "up", t)
        down, down_wh = _held(problem, answer, name, "down", t)
        for stored in (told["energy_wh"][t], told["energy_wh"][t - 1] if t else battery["initial_wh"]):
            least = battery["reserve_wh"] + up_wh / battery["efficiency_discharge"]
            most = battery["energy_wh"] - down_wh * battery["efficiency_charge"]
            yield f"{name} energy up {t}", (least - stored) * (up > 0.0), size_wh
            yield f"{name} energy down {t}", (stored - most) * (down > 0.0), size_wh
        yield f"{name} headroom up {t}", up - battery["discharge_max_w"] - power, battery["discharge_max_w"]
        yield f"{name} headroom down {t}", power + down - battery["charge_max_w"], battery["charge_max_w"]


def _load(problem: Json, answer: Json, load: Json) -> Iterator[tuple[str, float, float]]:
    name, power, step_h = load["name"], answer["flexible_loads"][load["name"]], problem["step_s"] / 3600.0
    for t in range(len(power)):
        runs = load["first_step"] <= t <= load["last_step"]
        up, up_wh = _held(problem, answer, name, "up", t)
        down, _ = _held(problem, answer, name, "down", t)
        yield f"{name} headroom up {t}", (up - power[t] + load["min_w"] * runs) * (up > 0.0), load["max_w"]
        yield f"{name} headroom down {t}", (power[t] + down - load["max_w"] * runs) * (down > 0.0), load["max_w"]
        end = min(t + call_steps(problem) - 1, load["last_step"])
        most_wh = (sum(power[: end + 1]) + load["max_w"] * (load["last_step"] - end)) * step_h - up_wh
        if "curtail_cost_per_wh" not in load and up > 0.0:
            yield f"{name} energy up {t}", load["energy_wh"] - most_wh, load["energy_wh"]


class FurtherRows:
    """The further columns and rows of the textbook program."""

    def __init__(self, to: Writer) -> None:
        self.to, self.problem = to, to.problem
        self.held: dict[tuple[str, str, int], int] = {}

    def write(self) -> None:
        """Write them all."""
        self._demand()
        if "green" in self.problem:
            self._green()
        for load in self.problem["flexible_loads"]:
            if "rebound_frac" in load:
                self._rebound(load)
        if "reserves" in self.problem:
            self._reserves()
        for feed in self.problem.get("feeds", []):
            self._feed(feed)

    def _demand(self) -> None:
        if "demand_charge" not in self.problem:
            return
        charge = self.problem["demand_charge"]
        above = self.to.add(0.0, np.inf, charge["cost_per_w"] * 1e3)
        for bought in self.to.at["bought"].values():
            self.to.row(-np.inf, charge.get("billed_peak_w", 0.0) / 1e3, {bought: 1.0, above: -1.0})

    def _rebound(self, load: Json) -> None:
        power, first = self.to.at[f"load/{load['name']}"], load["first_step"]
        for t in range(first + 1, load["last_step"] + 1):
            part, least = load["rebound_frac"] / load["rebound_steps"], load["min_w"] / 1e3
            terms = {power[t]: 1.0}
            for s in range(max(first, t - load["rebound_steps"]), t):
                terms[power[s]], least = part, least + part * load["max_w"] / 1e3
            self.to.row(least, np.inf, terms)

    def _green(self) -> None:
        rules, matched = self.problem["green"], self._matched()
        for window in window_steps(self.problem):
            before = rules.get("before", {}) if not window.start else {}
            for key, of in (("share_of_load_frac", "load_wh"), ("self_use_frac", "available_wh")):
                if key not in rules:
                    continue
                fill = self._share if of == "load_wh" else self._own
                terms, least = fill(window, rules[key], matched)
                had = before.get("used_wh", 0.0) + before.get("contracted_wh", 0.0) * (of == "load_wh")
                least += (rules[key] * before.get(of, 0.0) - had) / 1e3
                if "shortfall_cost_per_wh" in rules:
                    terms[self.to.add(0.0, np.inf, rules["shortfall_cost_per_wh"] * 1e3)] = 1.0
                self.to.row(least, np.inf, terms)

    def _matched(self) -> dict[int, int]:
        contracted = self.problem["green"].get("contracted_w", [])
        found = {t: self.to.add(0.0, most / 1e3, 0.0) for t, most in enumerate(contracted)}
        for t, column in found.items():
            self.to.row(-np.inf, 0.0, {column: 1.0, self.to.at["bought"][t]: -1.0})
        return found

    def _used(self, window: range) -> dict[int, float]:
        step_h, at = self.to.step_h, self.to.at
        terms = {at["sold"][t]: -step_h for t in window}
        return terms | {at[f"source/{s['name']}"][t]: step_h for s in self.problem["renewables"] for t in window}

    def _own(self, window: range, part: float, _: dict[int, int]) -> tuple[dict[int, float], float]:
        available = sum(source["available_w"][t] for source in self.problem["renewables"] for t in window)
        return self._used(window), part * self.to.step_h * available / 1e3

    def _share(self, window: range, part: float, matched: dict[int, int]) -> tuple[dict[int, float], float]:
        step_h, at = self.to.step_h, self.to.at
        counted = self.problem["green"].get("counted_load_w", self.problem["inflexible_load_w"])
        terms = self._used(window) | {matched[t]: step_h for t in window if t in matched}
        for load in self.problem["flexible_loads"]:
            power = at[f"load/{load['name']}"]
            terms |= {power[t]: -part * step_h for t in window if t in power}
        return terms, part * step_h * sum(counted[t] for t in window) / 1e3

    def _reserves(self) -> None:
        for reserve in self.problem["reserves"]:
            for t in range(self.to.steps):
                self._asked(reserve, t)
        for t in range(self.to.steps):
            self._connection(t)
            for battery in self.problem["batteries"]:
                for direction in ("up", "down"):
                    self._battery(battery, direction, t)
            for load in self.problem["flexible_loads"]:
                if t in self.to.at[f"load/{load['name']}"]:
                    self._load(load, t)

    def _asked(self, reserve: Json, t: int) -> None:
        terms = {}
        for battery in able(self.problem, reserve, "batteries"):
            terms[self._hold(reserve, battery["name"], t)] = 1.0
        for load in able(self.problem, reserve, "flexible_loads"):
            if t in self.to.at[f"load/{load['name']}"]:
                terms[self._hold(reserve, load["name"], t)] = 1.0
        if "shortfall_cost_per_wh" in reserve:
            terms[self.to.add(0.0, np.inf, reserve["shortfall_cost_per_wh"] * 1e3 * self.to.step_h)] = 1.0
        if reserve["power_w"][t] > 0.0:
            self.to.row(reserve["power_w"][t] / 1e3, np.inf, terms)

    def _hold(self, reserve: Json, name: str, t: int) -> int:
        most = np.inf if reserve["power_w"][t] > 0.0 else 0.0
        column = self.held[reserve["name"], name, t] = self.to.add(0.0, most)
        return column

    def _sum(self, name: str, direction: str, t: int) -> tuple[dict[int, float], dict[int, float]]:
        """Return the terms of power and of energy that an asset holds."""
        power, energy = {}, {}
        for reserve in self.problem["reserves"]:
            column = self.held.get((reserve["name"], name, t))
            if column is not None and reserve["direction"] == direction and reserve["power_w"][t] > 0.0:
                power[column], energy[column] = 1.0, reserve["sustain_h"]
        return power, energy

    def _connection(self, t: int) -> None:
        bought, sold, site = self.to.at["bought"][t], self.to.at["sold"][t], self.problem["site"]
        for direction, key, into, out in (("down", "import_max_w", bought, sold), ("up", "export_max_w", sold, bought)):
            terms = {into: 1.0, out: -1.0}
            for kind in ("batteries", "flexible_loads"):
                for asset in self.problem[kind]:
                    terms |= self._sum(asset["name"], direction, t)[0]
            if len(terms) > 2:
                self.to.row(-np.inf, site[key] / 1e3, terms)

    def _battery(self, battery: Json, direction: str, t: int) -> None:
        name, at = battery["name"], self.to.at
        power, energy = self._sum(name, direction, t)
        if not power:
            return
        charge, discharge = at[f"charge/{name}"][t], at[f"discharge/{name}"][t]
        sign, rate = (-1.0, "discharge_max_w") if direction == "up" else (1.0, "charge_max_w")
        self.to.row(-np.inf, battery[rate] / 1e3, power | {charge: sign, discharge: -sign})
        for s in (t, t - 1):
            low, high = battery["initial_wh"] < battery["reserve_wh"], battery["initial_wh"] > battery["energy_wh"]
            if s < 0 and (low if direction == "up" else high):
                self.to.row(0.0, 0.0, power)
                continue
            stored = {at[f"stored/{name}"][s]: 1.0} if s >= 0 else {}
            known = 0.0 if s >= 0 else battery["initial_wh"] / 1e3
            if direction == "up":
                terms = {column: -hours / battery["efficiency_discharge"] for column, hours in energy.items()}
                self.to.row(battery["reserve_wh"] / 1e3 - known, np.inf, terms | stored)
            else:
                terms = {column: hours * battery["efficiency_charge"] for column, hours in energy.items()}
                self.to.row(-np.inf, battery["energy_wh"] / 1e3 - known, terms | stored)

    def _load(self, load: Json, t: int) -> None:
        power = self.to.at[f"load/{load['name']}"]
        up, energy = self._sum(load["name"], "up", t)
        down, _ = self._sum(load["name"], "down", t)
        if up:
            self.to.row(-np.inf, -load["min_w"] / 1e3, up | {power[t]: -1.0})
        if down:
            self.to.row(-np.inf, load["max_w"] / 1e3, down | {power[t]: 1.0})
        if not up or "curtail_cost_per_wh" in load:
            return
        end = min(t + call_steps(self.problem) - 1, load["last_step"])
        least = load["energy_wh"] / 1e3 - self.to.step_h * load["max_w"] / 1e3 * (load["last_step"] - end)
        terms = {power[s]: self.to.step_h for s in range(load["first_step"], end + 1)}
        self.to.row(least, np.inf, terms | {column: -hours for column, hours in energy.items()})

    def _feed(self, feed: Json) -> None:
        for t in range(self.to.steps):
            known = feed["inflexible_load_w"][t] / 1e3 if "inflexible_load_w" in feed else 0.0
            net: dict[int, float] = {}
            for name in feed["members"]:
                for kind, sign in (("charge", 1.0), ("discharge", -1.0), ("source", -1.0), ("load", 1.0)):
                    if t in self.to.at.get(f"{kind}/{name}", {}):
                        net[self.to.at[f"{kind}/{name}"][t]] = sign
            held: dict[str, dict[int, float]] = {"up": {}, "down": {}}
            for reserve in self.problem.get("reserves", []):
                for name in feed["members"]:
                    if (column := self.held.get((reserve["name"], name, t))) is not None:
                        held[reserve["direction"]][column] = 1.0
            self.to.row(-np.inf, feed["import_max_w"] / 1e3 - known, net | held["down"])
            if "export_max_w" in feed:
                less = {column: -sign for column, sign in net.items()}
                self.to.row(-np.inf, feed["export_max_w"] / 1e3 + known, less | held["up"])
