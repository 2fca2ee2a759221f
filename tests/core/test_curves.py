"""Cap tables by depth, the prior, and curves learned while an event goes on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_curtail_horizon import CLASSES, mix
from vppd.core.curtail.accounts import TOLERANCE_FRAC, opened
from vppd.core.curtail.curves import Curves, prior, tables
from vppd.core.curtail.learn import believed, drift_w, observed
from vppd.core.curtail.plan import Jobs, State, plan
from vppd.core.curtail.prospect import Budget
from vppd.snapshot import Floats

A100 = tables(CLASSES)
STEP_S = 60.0


def one(value: float) -> Floats:
    """Return an array of one."""
    return np.asarray([value])


@given(cap_w=st.floats(50.0, 500.0), row=st.integers(0, 2))
def test_tables_are_linear_between_their_points(cap_w: float, row: int) -> None:
    """Power and throughput are what plain interpolation says, and the ends hold outside."""
    caps, powers, speeds, _ = CLASSES[row]
    curve = np.asarray([row])
    assert A100.power_at_w(curve, one(cap_w))[0] == pytest.approx(np.interp(cap_w, caps, powers))
    assert A100.throughput_at_frac(curve, one(cap_w))[0] == pytest.approx(np.interp(cap_w, caps, speeds))


@given(cap_w=st.floats(100.0, 400.0), row=st.integers(0, 2))
def test_depth_and_cap_are_two_words_for_one_point(cap_w: float, row: int) -> None:
    """From cap to saving and back; the loss there is what throughput is missing."""
    curve = np.asarray([row])
    saved_w = A100.power_w[curve, -1] - A100.power_at_w(curve, one(cap_w))
    assert A100.depth.cap_at_w(curve, saved_w)[0] == pytest.approx(cap_w)
    lost = A100.depth.lost_at_frac(curve, saved_w)
    assert lost[0] == pytest.approx(1.0 - A100.throughput_at_frac(curve, one(cap_w))[0])
    assert A100.depth.saved_within_w(curve, lost)[0] == pytest.approx(saved_w[0])


def test_a_table_that_is_not_monotonic_is_read_with_care() -> None:
    """A lower cap that seems to draw more saves nothing more, and a lower cap is never taken to be faster."""
    odd = tables([([100.0, 200.0, 300.0, 400.0], [150.0, 260.0, 250.0, 400.0], [0.5, 0.9, 0.85, 1.0], 50.0)])
    assert odd.depth.saved_w[0].tolist() == [0.0, 140.0, 140.0, 250.0]
    assert odd.depth.lost_frac[0] == pytest.approx([0.0, 0.15, 0.15, 0.5])


def test_the_order_of_caps_in_a_table_does_not_matter() -> None:
    """Tables may be given from the greatest cap down, and shorter ones beside longer ones."""
    caps, powers, speeds, idle_w = CLASSES[0]
    both = tables([CLASSES[1], (caps[::-1], powers[::-1], speeds[::-1], idle_w), ([400.0], [345.0], [1.0], 60.0)])
    assert both.power_at_w(np.asarray([1, 2]), np.asarray([225.0, 100.0])) == pytest.approx([219.0, 345.0])
    assert both.depth.saved_within_w(np.asarray([2]), one(1.0))[0] == 0.0


def test_the_prior_is_the_published_family() -> None:
    """The family t = 1 - a (1 - p)^b from half of the power on, and no deeper cap than the device takes."""
    curves = prior(
        np.asarray([400.0, 250.0]), np.asarray([400.0, 700.0]), np.full(2, 60.0), least_cap_w=np.asarray([100.0, 200.0])
    )
    at = curves.throughput_at_frac(np.asarray([0]), one(300.0))[0]
    assert at == pytest.approx(1.0 - 0.958 * 0.25**1.358, abs=0.005)
    assert curves.cap_w[:, 0] == pytest.approx([200.0, 200.0])


def test_observations_bend_the_curve_where_they_were_made() -> None:
    """After some steps under one cap the curve says what was measured there, and far away what it said before."""
    start = prior(one(368.0), one(400.0), one(60.0))
    learned = believed(start)
    for _ in range(30):
        learned = observed(learned, np.asarray([0]), one(250.0), one(242.0), one(0.871), one(1.0))
    now = learned.curves()
    assert now.power_at_w(np.asarray([0]), one(250.0))[0] == pytest.approx(242.0, abs=2.0)
    assert now.throughput_at_frac(np.asarray([0]), one(250.0))[0] == pytest.approx(0.871, abs=0.01)
    assert now.power_at_w(np.asarray([0]), one(368.0))[0] == pytest.approx(368.0)


def test_what_was_not_measured_changes_nothing() -> None:
    """NaN for the throughput leaves the throughput as it was, and the other way round."""
    learned = observed(believed(A100), np.asarray([0]), one(250.0), one(np.nan), one(0.5), one(1.0))
    assert (learned.curves().power_w == A100.power_w).all()
    assert learned.curves().throughput_at_frac(np.asarray([0]), one(250.0))[0] == pytest.approx(
        (0.2 * 0.891 + 0.5) / 1.2
    )


def led(truth: Curves, start: Curves, jobs: Jobs, part: float) -> tuple[Floats, Floats, Floats]:
    """Return power (t,), loss (t, n) and caps (t, n) of a two-hour cut, led by curves that are learned on the way."""
    steps, n = 120, len(jobs.tier)
    target_w = (1.0 - part) * float(jobs.gpus @ truth.power_w[jobs.curve, -1])
    learned = believed(start)
    state = State(opened(n, steps * STEP_S, 0.0), np.zeros(n, dtype=np.bool_), np.full(n, -np.inf), np.zeros(n))
    power_w, lost, caps = np.zeros(steps), np.zeros((steps, n)), np.zeros((steps, n))
    off_w = 0.0
    for k in range(steps):
        budget = Budget(
            np.arange(k + 1, steps + 1, dtype=np.float64) * STEP_S,
            np.full(steps - k, 0.99 * target_w - off_w),
            np.zeros(steps - k, dtype=np.bool_),
        )
        found = plan(learned.curves(), jobs, state, budget, k * STEP_S)
        caps[k] = found.cap_w
        each_w = np.where(found.paused, truth.idle_w[jobs.curve], truth.power_at_w(jobs.curve, found.cap_w))
        speed = np.where(found.paused, 0.0, truth.throughput_at_frac(jobs.curve, found.cap_w))
        power_w[k], lost[k] = jobs.gpus @ each_w, 1.0 - speed
        off_w = drift_w(off_w, found.expected_w, float(power_w[k]))
        runs = ~found.paused
        learned = observed(learned, jobs.curve[runs], found.cap_w[runs], each_w[runs], speed[runs], jobs.gpus[runs])
        state = replace(
            state,
            accounts=state.accounts.charged((k + 1) * STEP_S, lost[k]),
            paused=found.paused,
            since_s=np.where(found.paused != state.paused, k * STEP_S, state.since_s),
        )
    return power_w, lost, caps


def test_an_event_led_by_the_prior_alone_ends_up_as_good_as_with_the_true_tables() -> None:
    """The target holds after a few steps, every tier is kept by true throughput, and little is given away."""
    _, jobs = mix(11, 12)
    start = prior(A100.power_w[:, -1], np.full(3, 400.0), A100.idle_w)
    power_w, lost, _ = led(A100, start, jobs, 0.2)
    target_w = 0.8 * float(jobs.gpus @ A100.power_w[jobs.curve, -1])
    assert (power_w[5:] <= target_w).all()
    assert (lost.mean(axis=0) <= np.asarray(TOLERANCE_FRAC)[jobs.tier] + 1e-3).all()
    _, best, _ = led(A100, A100, jobs, 0.2)
    assert float((lost.mean(axis=0) - best.mean(axis=0)) @ jobs.gpus) <= 0.01 * float(jobs.gpus.sum())


def test_a_class_that_no_cap_moves_is_left_alone_once_that_is_seen() -> None:
    """Decode whose caps free nothing is let go, and the other jobs give what it was thought to give."""
    stuck = ([200.0, 300.0, 400.0], [368.0, 368.0, 368.0], [0.9, 0.95, 1.0], 60.0)
    truth = tables([CLASSES[0], stuck, CLASSES[2]])
    _, jobs = mix(11, 12)
    power_w, _, caps = led(truth, prior(truth.power_w[:, -1], np.full(3, 400.0), truth.idle_w), jobs, 0.1)
    target_w = 0.9 * float(jobs.gpus @ truth.power_w[jobs.curve, -1])
    assert (power_w[5:] <= target_w).all()
    assert (caps[5:, jobs.curve == 1] >= 360.0).all()
    assert (caps[0, jobs.curve == 1] < 360.0).any()
