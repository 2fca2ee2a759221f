"""HiGHS, asked for one program within a time: the only module of the core that knows a solver."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from vppd.core.schedule.program import Program
from vppd.snapshot import Floats

if TYPE_CHECKING:
    import highspy

NONE = np.zeros(0)
LEAST_LIMIT_S = 1e-3
LARGE_COLUMNS = 60_000
"""A linear program of so many columns is not presolved: with many batteries and negative prices the presolved one takes the
simplex up to five times as long (100 batteries and 50 loads over 288 steps: 31 s against 6 s of processor)."""


class Verdict(StrEnum):
    """What came of a solve."""

    SOLVED = "solved"
    """Within the gap asked for, or the optimum of a linear program."""
    FOUND = "found"
    """A feasible point; time ran out before it was proven good enough."""
    INFEASIBLE = "infeasible"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Solution:
    """A point and what is proven, in the program's own units; no columns where there is no point."""

    verdict: Verdict
    value: float
    lower: float
    """No point is better than this."""
    columns: Floats
    row_dual: Floats
    column_dual: Floats


def load_solver() -> None:
    """Load the solver's library now: what comes first would else be charged for it."""
    import highspy  # noqa: F401


def solve_program(program: Program, *, limit_s: float, gap_frac: float = 0.0, start: Floats | None = None) -> Solution:
    """Return the best point found within ``limit_s`` and what is proven about it.

    ``start`` is a point to begin with, NaN where it is not known.
    """
    # Loaded here: the daemon and the command line must not pay for a solver that they may never ask.
    import highspy

    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("time_limit", max(limit_s, LEAST_LIMIT_S))
    solver.setOptionValue("mip_rel_gap", gap_frac)
    if len(program.cost) >= LARGE_COLUMNS and not program.whole.any():
        solver.setOptionValue("presolve", "off")
    solver.passModel(_model(program))
    if start is not None and np.isnan(start).any():
        known = np.flatnonzero(~np.isnan(start)).astype(np.int32)
        solver.setSolution(len(known), known, start[known])
    elif start is not None:
        point = highspy.HighsSolution()
        point.col_value = start
        solver.setSolution(point)
    solver.run()
    if solver.getModelStatus() == highspy.HighsModelStatus.kSolveError:
        # Seen where a presolved program was solved and the way back was numerically lost.
        solver.clearSolver()
        solver.setOptionValue("presolve", "off")
        solver.run()
    return _solution(solver, is_whole=bool(program.whole.any()))


def _model(program: Program) -> highspy.HighsLp:
    import highspy

    count = len(program.cost)
    order = np.lexsort((program.entry_row, program.entry_column))
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = count, len(program.row_lower)
    model.col_cost_, model.col_lower_, model.col_upper_ = program.cost, program.lower, program.upper
    model.row_lower_, model.row_upper_ = program.row_lower, program.row_upper
    matrix = model.a_matrix_
    matrix.format_ = highspy.MatrixFormat.kColwise
    starts = np.searchsorted(program.entry_column[order], np.arange(count + 1))
    matrix.start_, matrix.index_ = starts.astype(np.int32), program.entry_row[order].astype(np.int32)
    matrix.value_ = program.entry[order]
    if program.whole.any():
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        model.integrality_ = [kinds[whole] for whole in program.whole.tolist()]
    return model


def _solution(solver: highspy.Highs, *, is_whole: bool) -> Solution:
    import highspy

    status, info = solver.getModelStatus(), solver.getInfo()
    states = highspy.HighsModelStatus
    if status in (states.kInfeasible, states.kUnboundedOrInfeasible):
        return Solution(Verdict.INFEASIBLE, np.inf, np.inf, NONE, NONE, NONE)
    lower = info.mip_dual_bound if is_whole else -np.inf
    solved = status == states.kOptimal
    if not solved and not (is_whole and info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible):
        return Solution(Verdict.NOTHING, np.inf, lower, NONE, NONE, NONE)
    value = info.objective_function_value
    found = solver.getSolution()
    return Solution(
        verdict=Verdict.SOLVED if solved else Verdict.FOUND,
        value=value,
        lower=lower if is_whole else value,
        columns=np.array(found.col_value),
        row_dual=NONE if is_whole else np.array(found.row_dual),
        column_dual=NONE if is_whole else np.array(found.col_dual),
    )
