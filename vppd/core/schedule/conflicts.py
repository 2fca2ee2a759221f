"""Why there is no schedule: the constraints of a proof, by name.

The least total breach of all rows is a linear program that always has an answer. Where it is above 0 its multipliers
are a proof (Farkas): the constraints that bear one contradict one another, and nothing else is needed for that.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vppd.core.schedule.problem import Problem
from vppd.core.schedule.program import FREE, Fixed, Layout, Program, formulate
from vppd.core.schedule.solver import Verdict, solve_program
from vppd.snapshot import Bools, Floats, Ints

BEARS = 1e-7
"""A multiplier counts from here."""
BREACH = 1e-6
"""A total breach counts from here, in scaled units."""


def contradictions(problem: Problem) -> tuple[str, ...]:
    """Return what contradicts itself within one battery or load, by name."""
    return (*_of_batteries(problem), *_of_loads(problem))


def _of_batteries(problem: Problem) -> Iterator[str]:
    b = problem.batteries
    for k, name in enumerate(b.names):
        if b.reserve_wh[k] > b.energy_wh[k]:
            yield f"batteries.{name}: reserve_wh {b.reserve_wh[k]:g} is above energy_wh {b.energy_wh[k]:g}"
        elif b.final_min_wh[k] > b.energy_wh[k]:
            yield f"batteries.{name}: final_min_wh {b.final_min_wh[k]:g} is above energy_wh {b.energy_wh[k]:g}"


def _of_loads(problem: Problem) -> Iterator[str]:
    loads, extras = problem.loads, problem.extras
    for k, name in enumerate(loads.names):
        steps = loads.last_step[k] - loads.first_step[k] + 1
        most_wh = loads.max_w[k] * steps * problem.step_h
        if loads.min_w[k] > loads.max_w[k]:
            yield f"flexible_loads.{name}: min_w {loads.min_w[k]:g} is above max_w {loads.max_w[k]:g}"
        elif loads.energy_wh[k] > most_wh * (1.0 + 1e-9) and not (extras is not None and extras.terms.soft[k]):
            yield (
                f"flexible_loads.{name}: energy_wh {loads.energy_wh[k]:g} is more than max_w {loads.max_w[k]:g} gives "
                f"from step {loads.first_step[k]} to {loads.last_step[k]} ({most_wh:g} Wh)"
            )


def conflicts(problem: Problem, limit_s: float, fixed: Fixed = FREE) -> tuple[str, ...]:
    """Return the constraints that contradict one another; none where there is no contradiction, or no time to find it."""
    program, layout = formulate(problem, fixed, single=True)
    count = len(program.cost)
    found = solve_program(elastic(program, layout), limit_s=limit_s)
    if found.verdict is not Verdict.SOLVED or found.value < BREACH:
        return ()
    return tuple(_named(problem, layout, fixed, found.column_dual[:count], found.row_dual))


def elastic(program: Program, layout: Layout) -> Program:
    """Return the program of the least total breach of power balance, stored energy and loads' needs."""
    rows = np.concatenate((layout.balance, layout.dynamics.ravel(), layout.need))
    if layout.extra is not None:
        rows = np.concatenate((rows, layout.extra.elastic()))
    columns, count = len(program.cost), len(rows)
    one = np.ones(2 * count)
    return Program(
        cost=np.concatenate((np.zeros(columns), one)),
        lower=np.concatenate((program.lower, 0.0 * one)),
        upper=np.concatenate((program.upper, np.inf * one)),
        whole=np.concatenate((program.whole, one < 0.0)),
        row_lower=program.row_lower,
        row_upper=program.row_upper,
        entry_row=np.concatenate((program.entry_row, rows, rows)),
        entry_column=np.concatenate((program.entry_column, columns + np.arange(2 * count))),
        entry=np.concatenate((program.entry, np.ones(count), -np.ones(count))),
    )


def _named(problem: Problem, layout: Layout, fixed: Fixed, dual: Floats, row_dual: Floats) -> Iterator[str]:
    importing = np.ones(problem.steps, np.bool_) if fixed.importing is None else fixed.importing
    exporting = np.ones(problem.steps, np.bool_) if fixed.importing is None else ~fixed.importing
    yield from _steps(f"site.import_max_w {problem.import_max_w:g}", (dual[layout.imported] < -BEARS) & importing)
    yield from _steps(f"site.export_max_w {problem.export_max_w:g}", (dual[layout.exported] < -BEARS) & exporting)
    sides = (dual[layout.imported] < -BEARS) & ~importing | (dual[layout.exported] < -BEARS) & ~exporting
    yield from _steps("site: a step is either import or export", sides)
    balance = np.abs(row_dual[layout.balance]) > BEARS
    yield from _steps("inflexible_load_w", balance & (problem.inflexible_load_w != 0.0))
    for source, name in enumerate(problem.renewables.names):
        must = ~problem.renewables.curtailable[source] & (problem.renewables.available_w[source] > 0.0)
        short = problem.renewables.curtailable[source] & (dual[layout.generated] < -BEARS)
        yield from _steps(f"renewables.{name}.available_w", balance & must | short)
    for k, name in enumerate(problem.batteries.names):
        yield from _battery(problem, layout, fixed, dual, k, f"batteries.{name}")
    least_w, _ = problem.load_range_w()
    load_dual = np.zeros(least_w.shape)
    load_dual[layout.load_at] = dual[layout.load]
    for k, name in enumerate(problem.loads.names):
        yield from _steps(
            f"flexible_loads.{name}.min_w {problem.loads.min_w[k]:g}", (load_dual[k] > BEARS) & (least_w[k] > 0.0)
        )
        yield from _steps(f"flexible_loads.{name}.max_w {problem.loads.max_w[k]:g}", load_dual[k] < -BEARS)
        if abs(row_dual[layout.need[k]]) > BEARS:
            yield f"flexible_loads.{name}.energy_wh {problem.loads.energy_wh[k]:g}"
    if layout.extra is not None:
        for block in layout.extra.named:
            yield from _steps(block.name, _at(problem.steps, block.steps[np.abs(row_dual[block.rows]) > BEARS]))


def _battery(problem: Problem, layout: Layout, fixed: Fixed, dual: Floats, k: int, name: str) -> Iterator[str]:
    b = problem.batteries
    steps = np.arange(problem.steps)
    charging = np.ones(problem.steps, np.bool_) if fixed.charging is None else fixed.charging[k]
    discharging = np.ones(problem.steps, np.bool_) if fixed.charging is None else ~fixed.charging[k]
    low, high = dual[layout.stored[k]] > BEARS, dual[layout.stored[k]] < -BEARS
    last = (steps == problem.steps - 1) & (b.final_min_wh[k] > b.reserve_wh[k])
    rate_in, rate_out = dual[layout.charge[k]] < -BEARS, dual[layout.discharge[k]] < -BEARS
    touched = bool((low | high | rate_in | rate_out).any())
    if touched:
        yield f"{name}.initial_wh {b.initial_wh[k]:g}"
    yield from _steps(f"{name}.energy_wh {b.energy_wh[k]:g}", high)
    yield from _steps(f"{name}.reserve_wh {b.reserve_wh[k]:g}", low & ~last)
    if bool((low & last).any()):
        yield f"{name}.final_min_wh {b.final_min_wh[k]:g}"
    yield from _steps(f"{name}.charge_max_w {b.charge_max_w[k]:g}", rate_in & charging)
    yield from _steps(f"{name}.discharge_max_w {b.discharge_max_w[k]:g}", rate_out & discharging)
    yield from _steps(f"{name}: no charging and discharging at once", rate_in & ~charging | rate_out & ~discharging)


def _at(steps: int, which: Ints) -> Bools:
    found = np.zeros(steps, np.bool_)
    found[which] = True
    return found


def _steps(name: str, where: Bools) -> Iterator[str]:
    at = np.flatnonzero(where).astype(np.int64)
    if len(at):
        yield f"{name} at {_ranges(at)}"


def _ranges(at: Ints) -> str:
    runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
    shown = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ("step " if len(at) == 1 else "steps ") + ", ".join(shown)
