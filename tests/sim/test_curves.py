"""The measured power-cap curves."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from vppd.sim.curves import CLASSES, gpu_power_w, throughput_frac

PREFIXES = {"fine-tune": "ft_", "inference": "infer_", "pre-train": "pt_"}
LIMIT_W = 400.0


def one(value: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return an array of one."""
    return np.array([value])


def test_curves_are_the_class_averages_of_the_measured_sweep(shared: Callable[..., Path]) -> None:
    """At every measured cap, power and throughput are the sweep's class averages."""
    rows = defaultdict(list)
    with shared("data", "emerald_dvfs_sweep.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            name = next(c for c, prefix in PREFIXES.items() if row["Workload"].startswith(prefix))
            rows[name, float(row["GPU power cap"])].append(
                (float(row["power per GPU"]), float(row["normalized throughput"]))
            )
    assert len(rows) == 18
    for (name, cap_w), measured in rows.items():
        index = np.array([CLASSES.index(name)])
        assert gpu_power_w(index, one(cap_w), LIMIT_W)[0] == pytest.approx(fmean(p for p, _ in measured), abs=1.0)
        assert throughput_frac(index, one(cap_w), LIMIT_W)[0] == pytest.approx(fmean(t for _, t in measured), abs=1e-3)


@pytest.mark.parametrize("job_class", range(len(CLASSES)), ids=CLASSES)
def test_less_cap_is_less_power_and_less_work(job_class: int) -> None:
    """Both curves rise with the cap, and power never exceeds it by more than the measured 2 %."""
    caps_w = np.linspace(100.0, LIMIT_W, 61)
    index = np.full(len(caps_w), job_class)
    power_w, work_frac = gpu_power_w(index, caps_w, LIMIT_W), throughput_frac(index, caps_w, LIMIT_W)
    assert (np.diff(power_w) > 0.0).all()
    assert (np.diff(work_frac) > 0.0).all()
    assert (power_w <= 1.02 * caps_w).all()
    assert work_frac[-1] == 1.0


def test_curves_scale_with_the_limit() -> None:
    """A GPU with a higher limit draws the same fraction of it."""
    index = np.array([1])
    assert gpu_power_w(index, one(350.0), 700.0)[0] == pytest.approx(1.75 * gpu_power_w(index, one(200.0), 400.0)[0])
