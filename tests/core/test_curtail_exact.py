"""One step of curtailment against HiGHS, and its relaxation against what it promises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.curtail_reference import Job, optimum
from vppd.core.curtail.curves import Curves, tables
from vppd.core.curtail.shed import NO_PAUSE, Ask, cost_of, freed_w, relax, rounded
from vppd.core.curtail.shed_exact import exact


def drawn(seed: int, n: int) -> tuple[list[Job], Curves, Ask, float]:
    """Return jobs with tables of their own, dents and flat places included, and a need."""
    rng = np.random.default_rng(seed)
    jobs = []
    for _ in range(n):
        m = int(rng.integers(2, 6))
        power_w = np.sort(rng.uniform(90.0, 400.0, m))
        if rng.random() < 0.3:
            power_w[-2] = power_w[-1]
        throughput = np.sort(rng.uniform(0.1, 1.0, m))
        throughput[-1] = 1.0
        pausable = rng.random() < 0.6
        jobs.append(
            Job(
                cap_w=np.linspace(100.0, 400.0, m).tolist(),
                power_w=power_w.tolist(),
                throughput_frac=throughput.tolist(),
                idle_w=float(rng.uniform(20.0, 80.0)),
                gpus=float(rng.integers(1, 9)),
                weight=float(rng.choice([1.0, 2.0])),
                most_lost_frac=float(rng.choice([0.0, 0.1, 0.25, 0.5])),
                pause_lost_frac=float(rng.uniform(1.0, 1.3)) if pausable else None,
            )
        )
    curves = tables([(j.cap_w, j.power_w, j.throughput_frac, j.idle_w) for j in jobs])
    ask = Ask(
        curve=np.arange(n),
        gpus=np.asarray([j.gpus for j in jobs]),
        watt_factor=np.ones(n),
        weight=np.asarray([j.weight for j in jobs]),
        most_lost_frac=np.asarray([j.most_lost_frac for j in jobs]),
        pause_lost_frac=np.asarray([NO_PAUSE if j.pause_lost_frac is None else j.pause_lost_frac for j in jobs]),
        rank=np.arange(n, dtype=np.float64),
    )
    need_w = float(rng.uniform(0.02, 0.6)) * sum(j.gpus * j.power_w[-1] for j in jobs)
    return jobs, curves, ask, need_w


@given(seed=st.integers(0, 10**6), n=st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_few_jobs_are_divided_at_the_least_loss_there_is(seed: int, n: int) -> None:
    """The weighted loss equals that of a mixed-integer program, and where that has no answer the need is not met."""
    jobs, curves, ask, need_w = drawn(seed, n)
    best = optimum(jobs, need_w)
    found = exact(curves, ask, need_w)
    if best is None:
        assert found.short_w > 0.0
        return
    assert found.value == pytest.approx(best, abs=1e-4)
    assert freed_w(curves, ask, found) >= need_w - 1e-4
    assert found.value == pytest.approx(cost_of(curves, ask, found))


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_no_choice_of_whole_caps_and_pauses_is_better(seed: int) -> None:
    """Trying all points of all tables finds nothing cheaper that meets the need."""
    jobs, curves, ask, need_w = drawn(seed, 3)
    found = exact(curves, ask, need_w)
    options = []
    for job in jobs:
        mine = [
            (job.gpus * (job.power_w[-1] - p), job.gpus * job.weight * (1.0 - t))
            for p, t in zip(job.power_w, job.throughput_frac, strict=True)
            if 1.0 - t <= job.most_lost_frac
        ]
        if job.pause_lost_frac is not None:
            mine.append((job.gpus * (job.power_w[-1] - job.idle_w), job.gpus * job.weight * job.pause_lost_frac))
        options.append(mine)
    enough = [sum(c for _, c in way) for way in itertools.product(*options) if sum(s for s, _ in way) >= need_w]
    if enough:
        assert found.short_w == 0.0
        assert found.value <= min(enough) + 1e-9


@given(seed=st.integers(0, 10**6), n=st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_rounding_costs_little_more_than_the_relaxation(seed: int, n: int) -> None:
    """Many jobs: no job beyond its limit, the need met or all given, the cost above the relaxed one by a few jobs' worth at most."""
    _, curves, ask, need_w = drawn(seed, n)
    bound, found = relax(curves, ask, need_w), rounded(curves, ask, need_w)
    lost = curves.depth.lost_at_frac(ask.curve, found.capped_w)
    assert (lost <= ask.most_lost_frac + 1e-9).all()
    assert set(np.unique(found.paused_frac)) <= {0.0, 1.0}
    assert not (found.paused_frac > np.isfinite(ask.pause_lost_frac)).any()
    if found.short_w == 0.0:
        assert freed_w(curves, ask, found) >= need_w - 1e-3
        assert found.value <= bound.value + 2.6 * 2 * 8 * 2.0


def test_equal_jobs_are_capped_alike() -> None:
    """Jobs of one class share a price, so they also share the cap."""
    curves = tables([([100.0, 200.0, 400.0], [100.0, 200.0, 400.0], [0.3, 0.8, 1.0], 50.0)])
    ask = Ask(
        np.zeros(8, dtype=np.int64),
        np.full(8, 4.0),
        np.ones(8),
        np.ones(8),
        np.ones(8),
        np.full(8, NO_PAUSE),
        np.arange(8.0),
    )
    assert rounded(curves, ask, 1600.0).capped_w == pytest.approx(np.full(8, 50.0))


def test_a_cap_that_does_not_bind_frees_nothing() -> None:
    """Where power does not follow the cap, the need stays open and nobody is capped."""
    curves = tables([([300.0, 500.0, 700.0], [250.0, 250.0, 250.0], [1.0, 1.0, 1.0], 80.0)])
    ask = Ask(
        np.zeros(1, dtype=np.int64), np.ones(1), np.ones(1), np.ones(1), np.ones(1), np.full(1, NO_PAUSE), np.zeros(1)
    )
    found = exact(curves, ask, 10.0)
    assert found.short_w == pytest.approx(10.0)
    assert curves.depth.cap_at_w(ask.curve, found.capped_w) == pytest.approx([700.0])
