"""Instances to schedule: the day that peers were measured on, and random ones of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

Json = dict[str, Any]
STEPS = 96
HOURS = np.arange(STEPS) / 4.0


def prices(seed: int, lower_by: float) -> Any:
    """Return a day of prices around 80 per MWh less ``lower_by``, per Wh."""
    noise = np.random.default_rng(seed).normal(0.0, 3.0, STEPS)
    return (80.0 + 40.0 * np.sin(2.0 * np.pi * (HOURS - 9.0) / 24.0) + noise - lower_by) * 1e-6


def day(batteries: int, loads: int, *, negative: bool = False, mixed: int | None = None) -> Json:
    """Return a day of 15 min steps with PV; ``mixed`` seeds sizes, efficiencies and wear that all differ."""
    buy = prices(7, 75.0 if negative else 0.0)
    rng = None if mixed is None else np.random.default_rng(mixed)
    sun = np.maximum(0.0, 2e6 * np.sin(np.pi * (HOURS - 6.0) / 12.0))
    return {
        "step_s": 900.0,
        "price_import_per_wh": buy.tolist(),
        "price_export_per_wh": (buy - 0.1 * np.abs(buy)).tolist(),
        "inflexible_load_w": [5e6] * STEPS,
        "site": {"import_max_w": (5.0 + 0.2 * batteries + 0.5 * loads) * 1e6, "export_max_w": 5e6},
        "batteries": [_battery(k, rng) for k in range(batteries)],
        "renewables": [{"name": "pv", "available_w": sun.tolist(), "curtailable": True}],
        "flexible_loads": [_load(k, rng) for k in range(loads)],
        "time_limit_s": 15.0,
        "mip_gap": 1e-3,
    }


def _battery(k: int, rng: np.random.Generator | None) -> Json:
    size, hours = (1.0, 1.5) if rng is None else rng.uniform((0.3, 0.7), (2.0, 3.0))
    into, out = (0.95, 0.95) if rng is None else rng.uniform(0.9, 0.98, 2)
    whole = 200e3 * size * hours
    return {
        "name": f"bess-{k}",
        "energy_wh": 0.95 * whole,
        "reserve_wh": 0.1 * whole,
        "initial_wh": 0.5 * whole,
        "final_min_wh": 0.5 * whole,
        "charge_max_w": 200e3 * size,
        "discharge_max_w": 200e3 * size,
        "efficiency_charge": into,
        "efficiency_discharge": out,
        "wear_cost_per_wh": 0.0 if rng is None else rng.uniform(0.0, 10e-6),
    }


def _load(k: int, rng: np.random.Generator | None) -> Json:
    size = 1.0 if rng is None else rng.uniform(0.5, 1.5)
    first, last = (0, STEPS - 1) if rng is None or k % 2 else (int(rng.integers(0, 30)), int(rng.integers(60, STEPS)))
    need = min((8.0 + k % 8) * 0.5e6 * size, 0.8 * (last - first + 1) / 4.0 * 0.5e6 * size)
    return {
        "name": f"job-{k}",
        "min_w": 0.0,
        "max_w": 0.5e6 * size,
        "energy_wh": need,
        "first_step": first,
        "last_step": last,
    }


def floors(*, convex: bool) -> Json:
    """Return 10 batteries, 5 PV plants and 5 loads that never fall below half, with prices below 0 half of the day."""
    rng, buy = np.random.default_rng(42), prices(42, 85.0)
    batteries: list[Json] = []
    loads: list[Json] = []
    sources: list[Json] = []
    for k in range(10):
        power = rng.uniform(0.1e6, 0.5e6)
        whole = power * rng.uniform(0.25, 2.0)
        shape = {"energy_wh": whole, "reserve_wh": 0.1 * whole, "initial_wh": 0.5 * whole, "final_min_wh": 0.1 * whole}
        rates = {"charge_max_w": power, "discharge_max_w": power}
        losses = {"efficiency_charge": 0.95, "efficiency_discharge": 0.95, "wear_cost_per_wh": 0.0}
        batteries.append({"name": f"bess-{k}", **shape, **rates, **losses})
    for k in range(5):
        power, peak = rng.uniform(0.2e6, 1e6), rng.uniform(0.2e6, 0.8e6)
        need: Json = {"min_w": 0.5 * power, "max_w": power, "energy_wh": 0.85 * 24.0 * power}
        loads.append({"name": f"job-{k}", **need, "first_step": 0, "last_step": STEPS - 1})
        sun = np.maximum(0.0, peak * np.sin(np.pi * (HOURS - 6.0) / 12.0))
        sources.append({"name": f"pv-{k}", "available_w": sun.tolist(), "curtailable": True})
    most_w = 0.9 * (sum(b["charge_max_w"] for b in batteries) + sum(j["max_w"] for j in loads))
    return {
        "step_s": 900.0,
        "price_import_per_wh": buy.tolist(),
        "price_export_per_wh": (buy - 0.2 * np.abs(buy) if convex else 0.8 * buy).tolist(),
        "inflexible_load_w": [0.0] * STEPS,
        "site": {"import_max_w": most_w, "export_max_w": most_w},
        "batteries": batteries,
        "renewables": sources,
        "flexible_loads": loads,
        "time_limit_s": 15.0,
        "mip_gap": 1e-3,
    }


def rich_day(batteries: int, loads: int, *, negative: bool = False) -> Json:
    """Return a day that uses every optional key."""
    problem = day(batteries, loads, negative=negative, mixed=3)
    steps = len(problem["inflexible_load_w"])
    names = [asset["name"] for kind in ("batteries", "flexible_loads") for asset in problem[kind]]
    sold = [0.1e6 * batteries if 32 <= t < 64 else 0.0 for t in range(steps)]
    for k, load in enumerate(problem["flexible_loads"]):
        load |= {"delay_cost_per_wh_h": 1e-6} if k % 2 else {"curtail_cost_per_wh": 1e-3}
    return problem | {
        "demand_charge": {"cost_per_w": 1e-3, "billed_peak_w": 6e6},
        "reserves": [{"name": "mfrr", "direction": "up", "power_w": sold, "sustain_h": 0.5}],
        "carbon_g_per_wh": [0.4 - 0.2 * (40 <= t < 60) for t in range(steps)],
        "carbon_cost_per_g": 5e-5,
        "green": {"self_use_frac": 0.6, "shortfall_cost_per_wh": 1e-4},
        "feeds": [{"tag": "a", "import_max_w": 3e6 + 0.3e6 * len(names), "members": names[::2]}],
    }


def odd_day(seed: int) -> Json:
    """Return a day of up to 11 batteries and 11 loads with every optional key, everything drawn by ``seed``."""
    rng = np.random.default_rng(seed)
    batteries, loads = int(rng.integers(1, 12)), int(rng.integers(0, 12))
    problem = rich_day(batteries, loads, negative=bool(seed % 2))
    problem["batteries"] = [
        battery | {"efficiency_charge": rng.uniform(0.7, 1.0), "efficiency_discharge": rng.uniform(0.7, 1.0)}
        for battery in problem["batteries"]
    ]
    if rng.random() < 0.7:
        del problem["carbon_g_per_wh"], problem["carbon_cost_per_g"]
        buy = np.array(problem["price_import_per_wh"]) - rng.uniform(0.0, 5e-5)
        sell = buy * rng.choice([0.7, 0.9, 1.0, 1.1])
        problem |= {"price_import_per_wh": buy.tolist(), "price_export_per_wh": sell.tolist()}
    up = rng.random(STEPS) < 0.5
    problem["reserves"] = [_sold("up", up, rng.uniform(0.0, 0.15e6) * batteries, rng)]
    problem["reserves"] += [_sold("down", ~up, rng.uniform(0.0, 0.1e6) * batteries, rng)]
    problem["green"] = {"self_use_frac": rng.uniform(0.0, 1.0)}
    if rng.random() < 0.7:
        problem["green"]["shortfall_cost_per_wh"] = 10.0 ** rng.uniform(-6.0, -3.0)
    for load in problem["flexible_loads"]:
        if rng.random() < 0.3:
            load |= {"rebound_frac": rng.uniform(0.0, 1.0), "rebound_steps": int(rng.integers(1, 12))}
    return problem


def _sold(direction: str, at: Any, power_w: float, rng: np.random.Generator) -> Json:
    sold = {"name": direction, "direction": direction, "power_w": (at * power_w).tolist()}
    sold["sustain_h"] = rng.uniform(0.0, 1.0)
    return sold | ({"shortfall_cost_per_wh": 10.0 ** rng.uniform(-6.0, -3.0)} if rng.random() < 0.5 else {})


@st.composite
def random_instance(draw: st.DrawFn) -> Json:
    """Return an instance of a few steps: feasible or not, prices of any sign, either side the dearer."""
    steps = draw(st.integers(1, 6))
    price = st.integers(-100, 100).map(lambda v: v * 1e-6)
    power = st.integers(0, 20).map(lambda v: v * 100.0)
    series = st.lists(price, min_size=steps, max_size=steps)
    return {
        "step_s": draw(st.sampled_from([300.0, 900.0, 3600.0])),
        "price_import_per_wh": draw(series),
        "price_export_per_wh": draw(series),
        "inflexible_load_w": draw(st.lists(power, min_size=steps, max_size=steps)),
        "site": {"import_max_w": draw(power) * 2.0 + draw(power), "export_max_w": draw(power)},
        "batteries": [draw(_any_battery(k)) for k in range(draw(st.integers(0, 3)))],
        "renewables": [draw(_any_source(k, steps)) for k in range(draw(st.integers(0, 2)))],
        "flexible_loads": [draw(_any_load(k, steps)) for k in range(draw(st.integers(0, 2)))],
        "time_limit_s": 5.0,
        "mip_gap": 1e-4,
    }


@st.composite
def _any_battery(draw: st.DrawFn, k: int) -> Json:
    part = st.integers(0, 10).map(lambda v: v / 10.0)
    whole = draw(st.integers(1, 20)) * 100.0
    return {
        "name": f"bess-{k}",
        "energy_wh": whole,
        "reserve_wh": draw(part) * 0.3 * whole,
        "initial_wh": draw(part) * 1.05 * whole,
        "final_min_wh": draw(part) * draw(part) * 0.9 * whole,
        "charge_max_w": draw(st.integers(0, 10)) * 100.0,
        "discharge_max_w": draw(st.integers(0, 10)) * 100.0,
        "efficiency_charge": draw(st.sampled_from([0.6, 0.9, 0.95, 1.0])),
        "efficiency_discharge": draw(st.sampled_from([0.6, 0.9, 0.95, 1.0])),
        "wear_cost_per_wh": draw(st.sampled_from([0.0, 0.0, 1e-6, 2e-5])),
    }


@st.composite
def _any_source(draw: st.DrawFn, k: int, steps: int) -> Json:
    power = st.integers(0, 10).map(lambda v: v * 100.0)
    available = draw(st.lists(power, min_size=steps, max_size=steps))
    return {"name": f"pv-{k}", "available_w": available, "curtailable": draw(st.booleans())}


@st.composite
def _any_load(draw: st.DrawFn, k: int, steps: int) -> Json:
    first = draw(st.integers(0, steps - 1))
    least = draw(st.sampled_from([0.0, 0.0, 100.0, 300.0]))
    return {
        "name": f"job-{k}",
        "min_w": least,
        "max_w": least + draw(st.integers(0, 10)) * 100.0,
        "energy_wh": draw(st.integers(0, 12)) * draw(st.sampled_from([10.0, 50.0])),
        "first_step": first,
        "last_step": draw(st.integers(first, steps - 1)),
    }


MOSTLY = st.sampled_from([True, True, False])
"""Rules are rather priced than hard: hard ones leave few instances with a schedule."""


@st.composite
def rich_instance(draw: st.DrawFn) -> Json:
    """Return an instance of a few steps that uses any of the optional keys."""
    problem = draw(random_instance())
    steps = len(problem["inflexible_load_w"])
    names = [asset["name"] for kind in ("batteries", "renewables", "flexible_loads") for asset in problem[kind]]
    for load in problem["flexible_loads"]:
        load |= draw(_any_terms(steps))
    if draw(st.booleans()):
        problem["demand_charge"] = {"cost_per_w": draw(st.sampled_from([0.0, 1e-5, 1e-3]))}
        if draw(st.booleans()):
            problem["demand_charge"]["billed_peak_w"] = draw(st.integers(0, 20)) * 100.0
    if draw(st.booleans()):
        grams = st.integers(0, 8).map(lambda v: v * 0.1)
        problem["carbon_g_per_wh"] = draw(st.lists(grams, min_size=steps, max_size=steps))
        problem["carbon_cost_per_g"] = draw(st.sampled_from([0.0, 1e-5, 1e-4]))
    if draw(st.booleans()):
        problem["reserves"] = [draw(_any_reserve(k, problem)) for k in range(draw(st.integers(1, 3)))]
    if draw(st.booleans()):
        problem["green"] = draw(_any_green(steps))
    if draw(st.booleans()):
        problem["feeds"] = [draw(_any_feed(k, names, steps)) for k in range(draw(st.integers(1, 2)))]
    return problem


@st.composite
def _any_terms(draw: st.DrawFn, steps: int) -> Json:
    found: Json = {}
    if draw(st.booleans()):
        found["delay_cost_per_wh_h"] = draw(st.sampled_from([0.0, 1e-5, 1e-4]))
    if draw(st.booleans()):
        found["curtail_cost_per_wh"] = draw(st.sampled_from([0.0, 5e-5, 1e-3]))
    if draw(st.booleans()):
        found["rebound_frac"] = draw(st.sampled_from([0.0, 0.3, 1.0]))
        found["rebound_steps"] = draw(st.integers(1, steps + 2))
    return found


@st.composite
def _any_reserve(draw: st.DrawFn, k: int, problem: Json) -> Json:
    steps = len(problem["inflexible_load_w"])
    names = [asset["name"] for kind in ("batteries", "flexible_loads") for asset in problem[kind]]
    found: Json = {
        "name": f"reserve-{k}",
        "direction": draw(st.sampled_from(["up", "down"])),
        "power_w": draw(st.lists(st.sampled_from([0.0, 0.0, 20.0, 50.0, 300.0]), min_size=steps, max_size=steps)),
        "sustain_h": draw(st.sampled_from([0.0, 0.1, 0.5, 1.5])),
    }
    if draw(MOSTLY):
        found["shortfall_cost_per_wh"] = draw(st.sampled_from([0.0, 1e-5, 1e-3]))
    some: bool = draw(st.booleans())
    if names and some:
        found["resources"] = draw(st.lists(st.sampled_from(names), unique=True))
    return found


@st.composite
def _any_green(draw: st.DrawFn, steps: int) -> Json:
    part: st.SearchStrategy[Any] = st.sampled_from([0.0, 0.1, 0.3, 0.6])
    found: Json = {draw(st.sampled_from(["share_of_load_frac", "self_use_frac"])): draw(part)}
    if draw(st.booleans()):
        found |= {"share_of_load_frac": draw(part), "self_use_frac": draw(part)}
    if draw(st.booleans()):
        found["window_steps"] = draw(st.integers(1, steps + 2))
        found["first_window_steps"] = draw(st.integers(1, found["window_steps"]))
    power = st.lists(st.sampled_from([0.0, 0.0, 100.0, 300.0]), min_size=steps, max_size=steps)
    found |= {key: draw(power) for key in ("contracted_w", "counted_load_w") if draw(st.booleans())}
    if draw(MOSTLY):
        found["shortfall_cost_per_wh"] = draw(st.sampled_from([1e-5, 1e-3]))
    if draw(st.booleans()):
        energy = st.sampled_from([0.0, 100.0, 500.0, 2000.0])
        found["before"] = {f"{of}_wh": draw(energy) for of in ("used", "available", "load", "contracted")}
    return found


@st.composite
def _any_feed(draw: st.DrawFn, k: int, names: list[str], steps: int) -> Json:
    power = st.integers(0, 20).map(lambda v: v * 100.0)
    found: Json = {"tag": f"feed-{k}", "import_max_w": 3.0 * draw(power) + draw(power)}
    found["members"] = draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    if draw(st.booleans()):
        found["export_max_w"] = draw(power)
    if draw(st.booleans()):
        found["inflexible_load_w"] = draw(st.lists(power, min_size=steps, max_size=steps))
    return found
