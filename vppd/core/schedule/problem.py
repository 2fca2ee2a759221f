"""One scheduling instance as arrays, read strictly from its JSON form."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vppd.core.schedule.extra import Extras
from vppd.core.schedule.extra_form import Named, read_extras
from vppd.core.schedule.form import MOST_STEPS, Table
from vppd.errors import ConfigError
from vppd.snapshot import Bools, Floats, Ints

DEFAULT_TIME_LIMIT_S = 10.0
DEFAULT_MIP_GAP_FRAC = 1e-3


@dataclass(frozen=True, slots=True)
class Batteries:
    """Storage, one entry each in every array; powers at the terminals, energies stored. [W, Wh]"""

    names: tuple[str, ...]
    energy_wh: Floats
    reserve_wh: Floats
    initial_wh: Floats
    final_min_wh: Floats
    charge_max_w: Floats
    discharge_max_w: Floats
    efficiency_charge: Floats
    efficiency_discharge: Floats
    wear_cost_per_wh: Floats


@dataclass(frozen=True, slots=True)
class Renewables:
    """Generation by source; ``available_w`` has shape (source, step). [W]"""

    names: tuple[str, ...]
    available_w: Floats
    curtailable: Bools


@dataclass(frozen=True, slots=True)
class Loads:
    """Flexible loads; each runs between its powers from ``first_step`` to ``last_step``, both included. [W, Wh]"""

    names: tuple[str, ...]
    min_w: Floats
    max_w: Floats
    energy_wh: Floats
    first_step: Ints
    last_step: Ints


@dataclass(frozen=True, slots=True)
class Problem:
    """What there is to schedule, at what prices and within what limits. [W, Wh, s]"""

    step_s: float
    price_import_per_wh: Floats
    price_export_per_wh: Floats
    inflexible_load_w: Floats
    import_max_w: float
    export_max_w: float
    batteries: Batteries
    renewables: Renewables
    loads: Loads
    time_limit_s: float = DEFAULT_TIME_LIMIT_S
    mip_gap_frac: float = DEFAULT_MIP_GAP_FRAC
    extras: Extras | None = None
    """What is asked for beyond energy; a cost of carbon is in ``price_import_per_wh``."""

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.price_import_per_wh)

    @property
    def step_h(self) -> float:
        """Length of a step. [h]"""
        return self.step_s / 3600.0

    def load_range_w(self) -> tuple[Floats, Floats]:
        """Return the least and most power of each flexible load, shape (load, step). [W]"""
        step = np.arange(self.steps)
        runs = (step >= self.loads.first_step[:, None]) & (step <= self.loads.last_step[:, None])
        return np.where(runs, self.loads.min_w[:, None], 0.0), np.where(runs, self.loads.max_w[:, None], 0.0)

    def fixed_w(self) -> Floats:
        """Return what nobody decides: the inflexible load less what may not be curtailed, per step. [W]"""
        return np.asarray(
            self.inflexible_load_w - self.renewables.available_w[~self.renewables.curtailable].sum(axis=0)
        )

    def curtailable_w(self) -> Floats:
        """Return what may be generated or curtailed, per step. [W]"""
        return np.asarray(self.renewables.available_w[self.renewables.curtailable].sum(axis=0))


def parse(raw: object) -> Problem:
    """Return the instance of a decoded JSON document. Raises ConfigError with every mistake, each with its key."""
    top = Table(raw, "", [])
    prices = top.series("price_import_per_wh", None)
    steps = len(prices)
    if not steps:
        top.wrong("price_import_per_wh", "needs at least one step")
    if steps > MOST_STEPS:
        top.wrong("price_import_per_wh", f"has {steps} steps, at most {MOST_STEPS}")
    site, load_tables = top.table("site"), top.tables("flexible_loads")
    problem = Problem(
        step_s=top.number("step_s", lower=0.0, strict=True),
        price_import_per_wh=prices,
        price_export_per_wh=top.series("price_export_per_wh", steps),
        inflexible_load_w=top.series("inflexible_load_w", steps),
        import_max_w=site.number("import_max_w", lower=0.0),
        export_max_w=site.number("export_max_w", lower=0.0),
        batteries=_batteries(top.tables("batteries")),
        renewables=_renewables(top.tables("renewables"), steps),
        loads=_loads(load_tables, steps),
        time_limit_s=top.number("time_limit_s", lower=0.0, strict=True, value=DEFAULT_TIME_LIMIT_S),
        mip_gap_frac=top.number("mip_gap", lower=0.0, value=DEFAULT_MIP_GAP_FRAC),
    )
    site.done()
    named = Named(problem.batteries.names, problem.renewables.names, problem.loads.names)
    extras = read_extras(top, load_tables, named, steps)
    _done([*load_tables, top])
    if top.mistakes:
        raise ConfigError("\n".join(top.mistakes))
    return problem if extras is None else _with(problem, extras)


def _with(problem: Problem, extras: Extras) -> Problem:
    price, carbon = problem.price_import_per_wh, extras.carbon
    if carbon is not None:
        price = price + carbon.intensity_g_per_wh * carbon.cost_per_g
    return replace(problem, extras=extras, price_import_per_wh=price)


def _batteries(tables: list[Table]) -> Batteries:
    names = _names(tables)
    entries = {
        key: _array([t.number(key, lower=0.0) for t in tables])
        for key in ("energy_wh", "reserve_wh", "initial_wh", "final_min_wh", "charge_max_w", "discharge_max_w")
    }
    efficiency = {
        key: _array([t.number(key, lower=0.0, strict=True, upper=1.0) for t in tables])
        for key in ("efficiency_charge", "efficiency_discharge")
    }
    wear = _array([t.number("wear_cost_per_wh", lower=0.0, value=0.0) for t in tables])
    _done(tables)
    return Batteries(names=names, wear_cost_per_wh=wear, **entries, **efficiency)


def _renewables(tables: list[Table], steps: int) -> Renewables:
    names = _names(tables)
    available_w = [t.series("available_w", steps, lower=0.0) for t in tables]
    curtailable = [t.flag("curtailable") for t in tables]
    _done(tables)
    # A series of the wrong length is a mistake that is reported already; the shape must not fail before that.
    whole = [row if len(row) == steps else np.zeros(steps) for row in available_w]
    return Renewables(names, np.array(whole).reshape(len(tables), steps), np.array(curtailable, dtype=np.bool_))


def _loads(tables: list[Table], steps: int) -> Loads:
    names = _names(tables)
    powers = {key: _array([t.number(key, lower=0.0) for t in tables]) for key in ("min_w", "max_w", "energy_wh")}
    first = [t.step("first_step", 0, steps - 1) for t in tables]
    last = [t.step("last_step", start, steps - 1) for t, start in zip(tables, first, strict=True)]
    return Loads(names=names, first_step=np.array(first, np.int64), last_step=np.array(last, np.int64), **powers)


def _array(values: list[float]) -> Floats:
    return np.array(values, dtype=np.float64)


def _names(tables: list[Table]) -> tuple[str, ...]:
    names = tuple(t.text("name") for t in tables)
    for k, (table, name) in enumerate(zip(tables, names, strict=True)):
        if name in names[:k]:
            table.wrong("name", f"{name!r} is taken")
    return names


def _done(tables: list[Table]) -> None:
    for table in tables:
        table.done()
