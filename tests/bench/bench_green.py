"""How much more of its own renewables a site uses when it is scheduled: one JSON line per case.

Run: ``python -m tests.bench.bench_green``. A week in steps of 15 min; PV and wind could give 60 % of the energy that the
site needs. A quarter of its compute may wait 4 h, a quarter 12 h, and no longer; a battery is there. Unscheduled, work
runs when it comes and the battery rests. Self-use is what is generated and not exported, of what could be generated.
The week is known in advance, or planned anew every hour for a day on a forecast that is the worse the further it looks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np

from tests.core.schedule_instances import Json
from tests.core.schedule_oracle import breaches
from vppd.core.schedule.budget import hourly_budgets
from vppd.core.schedule.problem import parse
from vppd.core.schedule.report import report
from vppd.core.schedule.solve import solve
from vppd.core.schedule.solver import load_solver
from vppd.snapshot import Floats

DAYS, STEP_H = 7, 0.25
STEPS = int(DAYS * 24 / STEP_H)
PER_HOUR = int(1 / STEP_H)
GREEN_FRAC = 0.6
DEFER_H = (4, 12)
CLUSTER_W = 6.0e6
LIMIT_S = 30.0
MISSING_WH = 1.0


def weather(seed: int) -> tuple[Floats, Floats]:
    """Return a week of PV and wind as parts of their size. [0-1]"""
    rng = np.random.default_rng(seed)
    hour = np.arange(STEPS) * STEP_H
    clear = np.repeat(rng.uniform(0.35, 1.0, DAYS), 24 * PER_HOUR)
    sun = clear * np.maximum(0.0, np.sin(np.pi * ((hour % 24.0) - 6.0) / 12.0))
    wind, now = np.empty(STEPS), 0.4
    for t in range(STEPS):
        now += 0.01 * (0.4 - now) + rng.normal(0.0, 0.03)
        wind[t] = now
    return sun, np.clip(wind, 0.0, 1.0)


def week(seed: int, sun_frac: float, export_frac: float = 0.3) -> tuple[Json, dict[str, Floats]]:
    """Return the week as an instance, and the draw of each deferrable load if nobody holds it back. [W]

    ``sun_frac`` of the renewable energy is PV's; what is sold earns ``export_frac`` of what is paid. [0-1]
    """
    rng = np.random.default_rng(seed + 100)
    hour = np.arange(STEPS) * STEP_H
    compute_w = 4.5e6 * (1.0 + 0.15 * np.sin(2.0 * np.pi * (hour - 9.0) / 24.0)) + 0.1e6 * rng.normal(size=STEPS)
    sun, wind = weather(seed)
    need_wh = float((compute_w + 1.0e6).sum())
    parts = ((sun_frac, sun), (1.0 - sun_frac, wind))
    pv_w, wind_w = (GREEN_FRAC * of_it * need_wh / part.sum() * part for of_it, part in parts)
    price = (80.0 + 40.0 * np.sin(2.0 * np.pi * ((hour % 24.0) - 9.0) / 24.0)) * 1e-6
    unheld = {f"tier{k + 2}/{h}": _draw(compute_w, h) for h in range(DAYS * 24) for k in range(len(DEFER_H))}
    loads = [_load(name, power_w) for name, power_w in unheld.items()]
    names = [load["name"] for load in loads]
    return {
        "step_s": 900.0,
        "price_import_per_wh": price.tolist(),
        "price_export_per_wh": (export_frac * price).tolist(),
        "inflexible_load_w": (1.0e6 + 0.5 * compute_w).tolist(),
        "site": {"import_max_w": 12e6, "export_max_w": 12e6},
        "batteries": [_battery()],
        "renewables": [
            {"name": "pv", "available_w": pv_w.tolist(), "curtailable": True},
            {"name": "wind", "available_w": wind_w.tolist(), "curtailable": True},
        ],
        "flexible_loads": loads,
        "feeds": [_cluster(names, 0.5 * compute_w)],
        "time_limit_s": LIMIT_S,
    }, unheld


def _draw(compute_w: Floats, hour: int) -> Floats:
    power_w = np.zeros(STEPS)
    steps = slice(hour * PER_HOUR, (hour + 1) * PER_HOUR)
    power_w[steps] = 0.25 * compute_w[steps]
    return power_w


def _load(name: str, power_w: Floats) -> Json:
    tier, hour = name.split("/")
    first = int(hour) * PER_HOUR
    last = min(first + (DEFER_H[int(tier[-1]) - 2] + 1) * PER_HOUR, STEPS) - 1
    need = {"min_w": 0.0, "max_w": 3.0 * float(power_w.max()), "energy_wh": float(power_w.sum()) * STEP_H}
    return {"name": name, **need, "first_step": first, "last_step": last}


def _battery() -> Json:
    sizes = {"energy_wh": 4e6, "reserve_wh": 0.8e6, "initial_wh": 2e6, "final_min_wh": 2e6}
    rates = {"charge_max_w": 2e6, "discharge_max_w": 2e6, "efficiency_charge": 0.95, "efficiency_discharge": 0.95}
    return {"name": "bess", **sizes, **rates, "wear_cost_per_wh": 1e-6}


def _cluster(names: list[str], always_w: Floats) -> Json:
    return {"tag": "cluster", "import_max_w": CLUSTER_W, "members": names, "inflexible_load_w": always_w.tolist()}


def shares(problem: Json, drawn_w: Floats) -> tuple[float, float]:
    """Return self-use and share of load when the site draws ``drawn_w`` beside its renewables, all of them given. [0-1]"""
    available_w = np.sum([source["available_w"] for source in problem["renewables"]], axis=0)
    used_w = available_w - np.maximum(available_w - drawn_w, 0.0)
    loads_wh = sum(load["energy_wh"] for load in problem["flexible_loads"])
    total_wh = float(np.sum(problem["inflexible_load_w"])) * STEP_H + loads_wh
    return float(used_w.sum() / available_w.sum()), float(used_w.sum() * STEP_H / total_wh)


def missed(problem: Json, loads_w: dict[str, Any]) -> int:
    """Return how many loads do not get their energy within their steps."""
    found = 0
    for load in problem["flexible_loads"]:
        served = np.array(loads_w[load["name"]])[load["first_step"] : load["last_step"] + 1]
        found += bool(float(served.sum()) * STEP_H < load["energy_wh"] - MISSING_WH)
    return found


def whole(problem: Json) -> Json:
    """Return the answer for the whole week at once."""
    instance = parse(problem)
    answer = report(instance, solve(instance, perf_counter))
    assert not breaches(problem, answer), breaches(problem, answer)
    return answer


def rolling(problem: Json, error_frac: float, seed: int) -> Json:
    """Return what is done when every hour plans a day anew, on a forecast off by ``error_frac`` a day ahead. [0-1]"""
    rng = np.random.default_rng(seed)
    left_wh = {load["name"]: load["energy_wh"] for load in problem["flexible_loads"]}
    done = {name: np.zeros(STEPS) for name in left_wh}
    battery_w, stored_wh, took_s = np.zeros(STEPS), problem["batteries"][0]["initial_wh"], 0.0
    for now in range(0, STEPS, PER_HOUR):
        seen = _ahead(problem, now, left_wh, stored_wh, error_frac * rng.normal(size=2))
        answer = report(parse(seen), solve(parse(seen), perf_counter))
        assert answer["status"] != "infeasible", answer["conflicts"]
        took_s = max(took_s, answer["solve_s"])
        steps = slice(now, now + PER_HOUR)
        for name, power_w in answer["flexible_loads"].items():
            done[name][steps] = power_w[:PER_HOUR]
            left_wh[name] -= sum(power_w[:PER_HOUR]) * STEP_H
        bess = answer["batteries"]["bess"]
        battery_w[steps], stored_wh = bess["power_w"][:PER_HOUR], bess["energy_wh"][PER_HOUR - 1]
    return {"flexible_loads": done, "batteries": {"bess": {"power_w": battery_w}}, "solve_s": took_s, "gap": 0.0}


def _ahead(problem: Json, now: int, left_wh: dict[str, float], stored_wh: float, off_frac: Floats) -> Json:
    """Return the next day as it is seen at step ``now``; what is seen of its sources is the worse the further ahead."""
    end = min(now + 24 * PER_HOUR, STEPS)
    growing = np.sqrt(np.arange(1, end - now + 1) / (24.0 * PER_HOUR))
    loads = [_rest(load, now, end, left_wh[load["name"]]) for load in problem["flexible_loads"]]
    open_loads = [load for load in loads if load is not None]
    names = {load["name"] for load in open_loads}
    sources = [
        source | {"available_w": np.maximum(source["available_w"][now:end] * (1.0 + off * growing), 0.0).tolist()}
        for source, off in zip(problem["renewables"], off_frac, strict=True)
    ]
    series = ("price_import_per_wh", "price_export_per_wh", "inflexible_load_w")
    feed = problem["feeds"][0]
    always_w = feed["inflexible_load_w"][now:end]
    return (
        problem
        | {key: problem[key][now:end] for key in series}
        | {
            "renewables": sources,
            "flexible_loads": open_loads,
            "batteries": [problem["batteries"][0] | {"initial_wh": stored_wh}],
            "feeds": [feed | {"members": sorted(names), "inflexible_load_w": always_w}],
        }
    )


def _rest(load: Json, now: int, end: int, left_wh: float) -> Json | None:
    """Return what is left of a load within a horizon, None where that is nothing; a later end is met by its part."""
    if load["last_step"] < now or load["first_step"] >= end or left_wh < MISSING_WH:
        return None
    first, last = max(load["first_step"], now), min(load["last_step"], end - 1)
    beyond_wh = (load["last_step"] - last) * load["max_w"] * STEP_H
    need_wh = min(max(left_wh - beyond_wh, 0.0), load["max_w"] * (last - first + 1) * STEP_H)
    return load | {"first_step": first - now, "last_step": last - now, "energy_wh": need_wh}


def case(name: str, problem: Json, unheld: dict[str, Floats], answer: Json) -> dict[str, Any]:
    """Return the figures of one week."""
    inflexible_w = np.array(problem["inflexible_load_w"])
    planned_w = np.sum(list(answer["flexible_loads"].values()), axis=0) + answer["batteries"]["bess"]["power_w"]
    before, share_before = shares(problem, inflexible_w + np.sum(list(unheld.values()), axis=0))
    after, share_after = shares(problem, inflexible_w + planned_w)
    groups = {"cluster": list(answer["flexible_loads"])}
    always_w = {"cluster": problem["feeds"][0]["inflexible_load_w"]}
    budget_w = hourly_budgets(answer["flexible_loads"], groups, 900.0, always_w=always_w)["cluster"]
    return {
        "bench": "green",
        "case": name,
        "self_use_unscheduled_frac": round(before, 4),
        "self_use_scheduled_frac": round(after, 4),
        "raised_frac": round(after - before, 4),
        "share_of_load_unscheduled_frac": round(share_before, 4),
        "share_of_load_scheduled_frac": round(share_after, 4),
        "missed_deadlines": missed(problem, answer["flexible_loads"]),
        "limit_missed_deadlines": 0,
        "loads": len(problem["flexible_loads"]),
        "budget_least_kw": round(float(budget_w.min()) / 1e3, 1),
        "budget_most_kw": round(float(budget_w.max()) / 1e3, 1),
        "solve_s": round(answer["solve_s"], 3),
        "limit_solve_s": LIMIT_S,
    }


def cases() -> Iterator[dict[str, Any]]:
    """Yield the figures of all cases."""
    load_solver()
    even, even_unheld = week(1, 0.5)
    yield case("half PV, half wind", even, even_unheld, whole(even))
    sunny, unheld = week(1, 0.8)
    yield case("four fifths PV", sunny, unheld, whole(sunny))
    yield case("the same, hourly, 20 % off a day ahead", sunny, unheld, rolling(sunny, 0.2, 1))
    dear, unheld = week(1, 0.8, 1.0)
    rule = {"green": {"self_use_frac": 0.9, "share_of_load_frac": 0.5}}
    yield case("the same, sold as dear as bought", dear, unheld, whole(dear))
    yield case("the same, 90 % self-use asked for", dear, unheld, whole(dear | rule))


def main() -> None:
    """Print the cases."""
    for found in cases():
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
