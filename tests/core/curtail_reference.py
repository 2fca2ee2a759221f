"""One step of curtailment as a plain mixed-integer program, written without the planner's code, for HiGHS."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import highspy
import numpy as np


@dataclass
class Job:
    """A job's cap table and what it may be asked for."""

    cap_w: list[float]
    power_w: list[float]
    throughput_frac: list[float]
    idle_w: float
    gpus: float
    weight: float
    most_lost_frac: float
    pause_lost_frac: float | None


@dataclass
class Program:
    """A mixed-integer program, put together row by row."""

    cost: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    binary: list[int] = field(default_factory=list)
    rows: list[tuple[float, float, dict[int, float]]] = field(default_factory=list)

    def variable(self, cost: float, upper: float, *, binary: bool = False) -> int:
        """Return the number of a new variable from 0 to ``upper``."""
        self.cost.append(cost)
        self.upper.append(upper)
        if binary:
            self.binary.append(len(self.cost) - 1)
        return len(self.cost) - 1

    def solve(self) -> float | None:
        """Return the optimum, None where there is none."""
        solver = highspy.Highs()  # type: ignore[no-untyped-call]
        solver.setOptionValue("output_flag", False)
        solver.setOptionValue("mip_rel_gap", 0.0)
        solver.setOptionValue("mip_abs_gap", 1e-9)
        n = len(self.cost)
        solver.addVars(n, np.zeros(n), np.asarray(self.upper))
        solver.changeColsCost(n, np.arange(n, dtype=np.int32), np.asarray(self.cost))
        for i in self.binary:
            solver.changeColIntegrality(i, highspy.HighsVarType.kInteger)
        for lower, upper, row in self.rows:
            solver.addRow(lower, upper, len(row), np.asarray(list(row), dtype=np.int32), np.asarray(list(row.values())))
        solver.run()
        if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        return float(solver.getInfo().objective_function_value)


def optimum(jobs: list[Job], need_w: float) -> float | None:
    """Return the least weighted loss that frees ``need_w``, None where nothing does."""
    program = Program()
    frees: dict[int, float] = {}
    for job in jobs:
        _add(program, job, frees)
    program.rows.append((need_w, np.inf, frees))
    return program.solve()


def _add(program: Program, job: Job, frees: dict[int, float]) -> None:
    """Add a job: on exactly one piece of its table, at two weights on the ends of the piece, or paused."""
    points = sorted(zip(job.cap_w, job.power_w, job.throughput_frac, strict=True))
    full_w = points[-1][1]
    one: dict[int, float] = {}
    lost: dict[int, float] = {}
    for (_, p0, t0), (_, p1, t1) in itertools.pairwise(points):
        on = program.variable(0.0, 1.0, binary=True)
        ends = []
        for power_w, throughput in ((p0, t0), (p1, t1)):
            end = program.variable(job.gpus * job.weight * (1.0 - throughput), 1.0)
            frees[end] = job.gpus * (full_w - power_w)
            lost[end] = 1.0 - throughput
            ends.append(end)
        program.rows.append((0.0, 0.0, {on: 1.0, ends[0]: -1.0, ends[1]: -1.0}))
        one[on] = 1.0
    program.rows.append((-np.inf, job.most_lost_frac, lost))
    if job.pause_lost_frac is not None:
        pause = program.variable(job.gpus * job.weight * job.pause_lost_frac, 1.0, binary=True)
        frees[pause] = job.gpus * (full_w - job.idle_w)
        one[pause] = 1.0
    program.rows.append((1.0, 1.0, one))


def horizon_optimum(jobs: list[Job], most_w: list[float]) -> float | None:
    """Return the least weighted loss over all steps, each job's mean loss within its limit; None where nothing does."""
    program = Program()
    spent: list[dict[int, float]] = [{} for _ in jobs]
    for limit_w in most_w:
        frees: dict[int, float] = {}
        for job, account in zip(jobs, spent, strict=True):
            first = len(program.cost)
            _add(program, _free(job), frees)
            worth = job.gpus * job.weight
            account |= {i: program.cost[i] / worth for i in range(first, len(program.cost)) if program.cost[i]}
        full_w = sum(job.gpus * max(job.power_w) for job in jobs)
        if np.isfinite(limit_w):
            program.rows.append((full_w - limit_w, np.inf, frees))
    for job, account in zip(jobs, spent, strict=True):
        program.rows.append((-np.inf, job.most_lost_frac * len(most_w), account))
    return program.solve()


def _free(job: Job) -> Job:
    """Return the job without a limit for a single step."""
    return Job(**{**vars(job), "most_lost_frac": 2.0})
