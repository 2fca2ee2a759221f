"""Reading the optional keys of an instance: see ``schedule_extra`` for what they mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vppd.core.schedule.extra import Carbon, DemandCharge, Extras, Feed, Green, GreenBefore, LoadTerms, Reserve
from vppd.core.schedule.form import MOST_STEPS, Table
from vppd.snapshot import Bools, Floats

KEYS = ("demand_charge", "reserves", "carbon_g_per_wh", "carbon_cost_per_g", "green", "feeds")
LOAD_KEYS = ("delay_cost_per_wh_h", "curtail_cost_per_wh", "rebound_frac", "rebound_steps")


@dataclass(frozen=True, slots=True)
class Named:
    """Names of everything that can be a member of something."""

    batteries: tuple[str, ...]
    renewables: tuple[str, ...]
    loads: tuple[str, ...]


def read_extras(top: Table, loads: list[Table], named: Named, steps: int) -> Extras | None:
    """Return what is asked for beyond energy; None where no such key is used. Mistakes are kept by the tables."""
    if not any(map(top.has, KEYS)) and not any(load.has(key) for load in loads for key in LOAD_KEYS):
        return None
    return Extras(
        demand=_demand(top),
        carbon=_carbon(top, steps),
        reserves=tuple(_reserve(table, named, steps) for table in _named_once(top.tables("reserves"), "name")),
        feeds=tuple(_feed(table, named, steps) for table in _named_once(top.tables("feeds"), "tag")),
        green=_green(top, steps),
        terms=_terms(loads),
    )


def _demand(top: Table) -> DemandCharge | None:
    if not top.has("demand_charge"):
        return None
    table = top.table("demand_charge")
    found = DemandCharge(
        cost_per_w=table.number("cost_per_w", lower=0.0),
        billed_peak_w=table.number("billed_peak_w", lower=0.0, value=0.0),
    )
    table.done()
    return found


def _carbon(top: Table, steps: int) -> Carbon | None:
    if not top.has("carbon_g_per_wh") and not top.has("carbon_cost_per_g"):
        return None
    intensity = top.series("carbon_g_per_wh", steps, lower=0.0)
    return Carbon(intensity, top.number("carbon_cost_per_g", lower=0.0, value=0.0))


def _reserve(table: Table, named: Named, steps: int) -> Reserve:
    name, everyone = table.text("name"), not table.has("resources")
    up = table.one_of("direction", "up", "down") == "up"
    power_w = table.series("power_w", steps, lower=0.0)
    sustain_h = table.number("sustain_h", lower=0.0)
    key = "shortfall_cost_per_wh"
    shortfall_cost_per_wh = table.number(key, lower=0.0) if table.has(key) else None
    among = Named(named.batteries, (), named.loads)
    wanted = [*named.batteries, *named.loads] if everyone else _members(table, "resources", among)
    table.done()
    return Reserve(
        name=name,
        up=up,
        power_w=power_w,
        sustain_h=sustain_h,
        shortfall_cost_per_wh=shortfall_cost_per_wh,
        batteries=_mask(named.batteries, wanted),
        loads=_mask(named.loads, wanted),
    )


def _feed(table: Table, named: Named, steps: int) -> Feed:
    tag = table.text("tag")
    import_max_w = table.number("import_max_w", lower=0.0)
    export_max_w = table.number("export_max_w", lower=0.0) if table.has("export_max_w") else np.inf
    inflexible_w = table.series("inflexible_load_w", steps) if table.has("inflexible_load_w") else np.zeros(steps)
    wanted = _members(table, "members", named)
    table.done()
    return Feed(
        tag=tag,
        import_max_w=import_max_w,
        export_max_w=export_max_w,
        inflexible_w=inflexible_w,
        batteries=_mask(named.batteries, wanted),
        renewables=_mask(named.renewables, wanted),
        loads=_mask(named.loads, wanted),
    )


def _green(top: Table, steps: int) -> Green | None:
    if not top.has("green"):
        return None
    table = top.table("green")
    rules = ("share_of_load_frac", "self_use_frac")
    share, own = (table.number(key, lower=0.0, upper=1.0) if table.has(key) else None for key in rules)
    if share is None and own is None:
        table.wrong("share_of_load_frac", "is missing, and so is self_use_frac: one of them is needed")
    priced = table.has("shortfall_cost_per_wh")
    window_steps = table.count("window_steps", 1, MOST_STEPS, max(steps, 1))
    found = Green(
        share_of_load_frac=share,
        self_use_frac=own,
        window_steps=window_steps,
        first_window_steps=table.count("first_window_steps", 1, window_steps, window_steps),
        shortfall_cost_per_wh=table.number("shortfall_cost_per_wh", lower=0.0) if priced else None,
        before=_before(table),
        contracted_w=table.series("contracted_w", steps, lower=0.0) if table.has("contracted_w") else np.zeros(steps),
        counted_load_w=table.series("counted_load_w", steps, lower=0.0) if table.has("counted_load_w") else None,
    )
    table.done()
    return found


def _before(green: Table) -> GreenBefore:
    if not green.has("before"):
        return GreenBefore()
    table = green.table("before")
    contracted_wh = table.number("contracted_wh", lower=0.0, value=0.0)
    used_wh, available_wh, load_wh = (table.number(key, lower=0.0) for key in ("used_wh", "available_wh", "load_wh"))
    found = GreenBefore(used_wh, available_wh, load_wh, contracted_wh)
    table.done()
    return found


def _terms(loads: list[Table]) -> LoadTerms:
    def per_load(key: str, upper: float = 1e15) -> Floats:
        return np.array([load.number(key, lower=0.0, upper=upper, value=0.0) for load in loads], dtype=np.float64)

    soft = np.array([load.has("curtail_cost_per_wh") for load in loads], dtype=np.bool_)
    for load in loads:
        if load.has("rebound_frac") != load.has("rebound_steps"):
            load.wrong("rebound_frac", "and rebound_steps need one another")
    return LoadTerms(
        delay_cost_per_wh_h=per_load("delay_cost_per_wh_h"),
        soft=soft,
        curtail_cost_per_wh=per_load("curtail_cost_per_wh"),
        rebound_frac=per_load("rebound_frac", 1.0),
        rebound_steps=np.array([load.count("rebound_steps", 1, MOST_STEPS, 1) for load in loads], dtype=np.int64),
    )


def _named_once(tables: list[Table], key: str) -> list[Table]:
    names: list[object] = []
    for table in tables:
        name = table.peek(key)
        if isinstance(name, str) and name in names:
            table.wrong(key, f"{name!r} is taken")
        names.append(name)
    return tables


def _members(table: Table, key: str, named: Named) -> list[str]:
    wanted = table.texts(key)
    kinds = ["battery", *(["renewable"] if named.renewables else []), "flexible load"]
    for name in wanted:
        times = [*named.batteries, *named.renewables, *named.loads].count(name)
        if not times:
            table.wrong(key, f"{name!r} is no {' or '.join(kinds)}")
        elif times > 1:
            table.wrong(key, f"{name!r} is the name of more than one thing")
    return wanted


def _mask(names: tuple[str, ...], wanted: list[str]) -> Bools:
    return np.array([name in wanted for name in names], dtype=np.bool_)
