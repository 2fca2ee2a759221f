"""Jobs in a hall: power, work, starts and ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vppd.sim.hall import End, Hall, HallCommands, HallSpec, HallState, default_slots


@pytest.fixture
def hall() -> Hall:
    """A hall of the default shape."""
    return Hall(HallSpec("hall-a", default_slots()), seed=1, first_id=1000)


def run(hall: Hall, state: HallState, commands: HallCommands, seconds: int, dt_s: float = 1.0) -> HallState:
    """Return the hall after so many steps, without noise."""
    quiet = np.zeros(len(hall.spec.slots))
    for _ in range(seconds):
        state = hall.step(state, commands, quiet, dt_s, dt_s)
    return state


def jobs_of_tier(hall: Hall, state: HallState, *tiers: int) -> frozenset[int]:
    """Return the running jobs of some tiers."""
    return frozenset(int(j) for j, s in zip(state.job, hall.spec.slots, strict=True) if s.tier in tiers)


def test_default_slots_fill_every_node_with_one_tier() -> None:
    """Each node is fully used, and by jobs of one tier only."""
    gpus, tiers = [0] * 32, [set[int]() for _ in range(32)]
    for slot in default_slots():
        for node in slot.nodes:
            gpus[node] += slot.gpus_per_node
            tiers[node].add(slot.tier)
    assert gpus == [8] * 32
    assert all(len(t) == 1 for t in tiers)


def test_a_busy_hall_draws_what_its_nodes_are_rated_for(hall: Hall) -> None:
    """Uncapped nodes draw 85-100 % of their rating."""
    state = run(hall, hall.start(), hall.no_commands(), 30)
    assert (state.power_w > 0.85 * hall.spec.node_max_w).all()
    assert (state.power_w <= hall.spec.node_max_w).all()


def test_a_capped_node_stays_under_its_cap_and_works_more_slowly(hall: Hall) -> None:
    """A cap binds within seconds, on the capped nodes alone, and costs throughput."""
    caps = np.full(32, np.inf)
    caps[:8] = 5600.0
    free = run(hall, hall.start(), hall.no_commands(), 60)
    capped = run(hall, hall.start(), replace(hall.no_commands(), cap_w=caps), 60)
    assert (capped.power_w[:8] <= 5600.0 + 1.0).all()
    assert capped.power_w[8:] == pytest.approx(free.power_w[8:])
    begun = hall.start().done_gpu_s
    slow, fast = (capped.done_gpu_s - begun)[:8].sum(), (free.done_gpu_s - begun)[:8].sum()
    assert slow == pytest.approx(0.781 * fast, rel=1e-3)


def test_a_cap_below_the_floor_is_kept_as_far_as_the_gpus_can(hall: Hall) -> None:
    """GPUs do not go below their least limit, however low the cap."""
    caps = np.full(32, 1.0)
    state = run(hall, hall.start(), replace(hall.no_commands(), cap_w=caps), 60)
    assert (state.power_w <= hall.spec.node_min_cap_w + 30.0).all()
    assert (state.power_w > hall.spec.node_busy_w).all()


def test_a_paused_job_neither_works_nor_loses_work(hall: Hall) -> None:
    """Stopped jobs stand still where they are and go on from there."""
    paused = jobs_of_tier(hall, hall.start(), 2, 3)
    stopped = run(hall, hall.start(), replace(hall.no_commands(), paused=paused), 60)
    is_paused = np.isin(stopped.job, list(paused))
    assert (stopped.done_gpu_s[is_paused] == hall.start().done_gpu_s[is_paused]).all()
    assert hall.start().total_w - stopped.total_w > 80_000.0
    resumed = run(hall, stopped, hall.no_commands(), 60)
    assert (resumed.done_gpu_s[is_paused] > stopped.done_gpu_s[is_paused]).all()
    assert resumed.lost_gpu_s == 0.0


def test_the_load_is_steady_over_hours_and_no_work_is_lost(hall: Hall) -> None:
    """Jobs end with exactly their size of work done, others take their place, and the power stays level."""
    state, powers_w = hall.start(), list[float]()
    sizes: dict[int, float] = {}
    for _ in range(4 * 360):
        sizes |= dict(zip(state.job.tolist(), state.total_gpu_s.tolist(), strict=True))
        state = hall.step(state, hall.no_commands(), np.zeros(38), 10.0, 10.0)
        powers_w.append(state.total_w)
        assert all(e.how is End.COMPLETED and e.done_gpu_s == pytest.approx(sizes[e.job_id]) for e in state.ended)
    assert state.completed > 50
    assert state.lost_gpu_s == 0.0
    assert max(powers_w) - min(powers_w) < 0.02 * max(powers_w)


def test_a_held_job_does_not_start(hall: Hall) -> None:
    """A slot whose next job is held falls idle when its job ends, and fills when the hold goes."""
    held = frozenset(int(j) for j in hall.start().queued)
    state = run(hall, hall.start(), replace(hall.no_commands(), held=held), 700, dt_s=10.0)
    assert (state.job == 0).all()
    assert state.total_w == pytest.approx(32 * 2070.0, rel=0.01)
    assert (run(hall, state, hall.no_commands(), 1).job > 0).all()


def test_cancelling_a_running_job_loses_its_work(hall: Hall) -> None:
    """A killed job is replaced, and what it had done is counted as lost."""
    victim, done_gpu_s = int(hall.start().job[0]), float(hall.start().done_gpu_s[0])
    state = run(hall, hall.start(), replace(hall.no_commands(), cancelled=frozenset({victim})), 1)
    assert victim not in state.job
    assert state.cancelled == 1
    assert state.lost_gpu_s >= done_gpu_s > 0.0


def test_cancelling_a_pending_job_puts_another_in_the_queue(hall: Hall) -> None:
    """A job that never started can be cancelled too, and nothing is lost."""
    victim = int(hall.start().queued[0])
    state = run(hall, hall.start(), replace(hall.no_commands(), cancelled=frozenset({victim})), 1)
    assert victim not in state.queued
    assert (state.cancelled, state.lost_gpu_s) == (1, 0.0)
