"""A quarter off for three hours on 256 GPUs, with measured curves: the planner beside four published policies.

Run: ``python -m tests.bench.bench_emerald [path of emerald_dvfs_sweep.csv]``.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.bench.emerald_policies import (
    Cluster,
    Event,
    Outcome,
    exceeded_w,
    performance,
    policies,
    tiers_kept,
)
from vppd.sim.scenario import Scenario
from vppd.sim.simulate import result, simulate

RAMP_STEPS = 15
MIX = (
    ("infer_llama_8b", 16, 0, False),
    ("infer_llama_8b_48g", 48, 1, False),
    ("infer_llama_8b_32g", 32, 2, False),
    ("ft_llama_8b_dolly", 48, 2, True),
    ("pt_mpt_13b_lg", 64, 3, True),
    ("pt_mpt_13b_sm", 48, 3, True),
)
"""Workload of the sweep at its measured number of GPUs, flex tier, pausable: 256 GPUs."""


def replay(sweep: Path, target_frac: float = 0.75) -> Scenario:
    """Return the scenario with the measured curve of every workload."""
    rows: dict[str, list[dict[str, str]]] = {}
    with sweep.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["Workload"], []).append(row)

    def column(name: str, key: str) -> list[float]:
        return [float(row[key]) for row in rows[name]]

    return Scenario.model_validate(
        {
            "step_s": 60.0,
            "duration_s": 14_400.0,
            "window_s": 10_800.0,
            "classes": [
                {
                    "name": name,
                    "cap_w": column(name, "GPU power cap"),
                    "power_w": column(name, "power per GPU"),
                    "throughput": column(name, "normalized throughput"),
                    "idle_w": 60.0,
                }
                for name, *_ in MIX
            ],
            "jobs": [
                {"name": name, "class": name, "gpus": gpus, "tier": tier, "pausable": pausable, "restart_s": 300.0}
                for name, gpus, tier, pausable in MIX
            ],
            "events": [{"start_s": 1200.0, "end_s": 12_000.0, "ramp_s": 900.0, "target_frac": target_frac}],
        }
    )


def compare(scenario: Scenario) -> list[dict[str, object]]:
    """Return one line for the planner and one for each policy: held, kept, performance."""
    run = simulate(scenario)
    event = Event(run.target_w, scenario.step_s, scenario.window_steps)
    cluster = Cluster(scenario)
    ours = {"vppd": Outcome(run.power_w, run.throughput_frac)}
    assert result(scenario, run)["violations"] == []
    first = int(np.flatnonzero(~np.isnan(run.target_w))[0]) + RAMP_STEPS
    return [
        {
            "policy": name,
            "over_target_w": round(max(exceeded_w(event, outcome, first), 0.0), 3),
            "tiers_kept": tiers_kept(cluster, event, outcome),
            "weighted_performance": round(performance(cluster, event, outcome), 4),
        }
        for name, outcome in (ours | policies(cluster, event)).items()
    ]


def beaten(lines: list[dict[str, object]]) -> float:
    """Return how far the planner's performance lies above that of the best policy that holds the target and the tiers."""
    valid = {
        str(line["policy"]): float(str(line["weighted_performance"]))
        for line in lines
        if line["tiers_kept"] and float(str(line["over_target_w"])) <= 1.0
    }
    return valid["vppd"] - max(value for name, value in valid.items() if name != "vppd")


def test_emerald_replay(shared: Callable[..., Path]) -> None:
    """The planner holds the target and all tiers, and performs better than the best published policy that does."""
    lines = compare(replay(shared("data", "emerald_dvfs_sweep.csv")))
    say(lines)
    assert beaten(lines) > 0.0


def say(lines: list[dict[str, object]]) -> None:
    """Print the comparison."""
    for line in lines:
        print(json.dumps(line))


if __name__ == "__main__":
    for frac in (0.75, 0.68):
        print(json.dumps({"target_frac": frac}))
        say(compare(replay(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/emerald_dvfs_sweep.csv"), frac)))
