"""A breach from first excess to its end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.grid.dispatcher import NOW
from vppd.grid.breach import Alert, BreachRules, Severity, Sight, Status, Target, Watch, watch_breach

RULES = BreachRules()
TARGET = Target("6b3f6a10-9b1c-4c60-8a54-0d3e9a8f1c11", 100e3, due_mono_s=100.0)
OVER_W, FAR_OVER_W, UNDER_W = 105e3, 125e3, 99e3


def play(
    *course: tuple[float, float | None], target: Target | None = TARGET, begin: Watch | None = None
) -> tuple[Watch, list[Alert]]:
    """Return the watch and all alerts after the (mono_s, measured_w) of the course."""
    alerts: list[Alert] = []
    watch, names = begin or Watch(), iter(f"breach-{i}" for i in range(1000))
    for mono_s, measured_w in course:
        at = NOW + timedelta(seconds=mono_s)
        sight = Sight("main-a", target, measured_w, at, mono_s)
        watch, found = watch_breach(watch, sight, RULES, lambda: next(names))
        alerts += found
    return watch, alerts


def test_nothing_counts_before_the_end_of_the_ramp() -> None:
    """A feed that is still coming down breaks nothing."""
    assert play((0.0, FAR_OVER_W), (99.0, FAR_OVER_W), (109.0, FAR_OVER_W))[1] == []


def test_an_excess_that_lasts_becomes_active() -> None:
    """After the persistence time, once, with the target's correlation."""
    _, alerts = play((100.0, OVER_W), (109.9, OVER_W), (110.0, OVER_W), (111.0, OVER_W))
    assert [(a.status, a.severity) for a in alerts] == [(Status.ACTIVE, Severity.WARNING)]
    assert alerts[0].correlation_id == TARGET.correlation_id
    assert alerts[0].measured_w == OVER_W
    assert alerts[0].actions == ("SHUTDOWN_NODES",)


def test_a_short_excess_is_no_breach() -> None:
    """Coming back under the threshold starts the count again."""
    assert play((100.0, OVER_W), (108.0, UNDER_W), (112.0, OVER_W), (121.0, OVER_W))[1] == []


def test_within_the_threshold_is_no_breach() -> None:
    """One or two percent over is the meter, not the plant."""
    assert play((100.0, 101.9e3), (200.0, 101.9e3))[1] == []


def test_a_long_breach_escalates_and_resolves_under_one_id() -> None:
    """Active, escalated, resolved: one breach."""
    course = [(float(t), OVER_W) for t in range(100, 175)] + [(float(t), UNDER_W) for t in range(175, 190)]
    _, alerts = play(*course)
    assert [a.status for a in alerts] == [Status.ACTIVE, Status.ESCALATED, Status.RESOLVED]
    assert {a.breach_id for a in alerts} == {"breach-0"}
    assert alerts[1].actions == ("SHUTDOWN_NODES", "SHUTDOWN_RACKS")
    assert alerts[2].actions == ()
    assert alerts[2].resolved_at == NOW + timedelta(seconds=185)
    assert {a.detected_at for a in alerts} == {NOW + timedelta(seconds=110)}


def test_far_over_is_critical_and_escalates_at_once() -> None:
    """Beyond 20 % nobody waits; the severity is not taken back while it lasts."""
    _, alerts = play((100.0, OVER_W), (110.0, OVER_W), (111.0, FAR_OVER_W), (112.0, OVER_W), (113.0, FAR_OVER_W))
    assert [(a.status, a.severity) for a in alerts] == [
        (Status.ACTIVE, Severity.WARNING),
        (Status.ESCALATED, Severity.CRITICAL),
    ]


def test_an_escalated_warning_that_gets_critical_is_told_again() -> None:
    """The infrastructure learns of the higher severity."""
    _, alerts = play((100.0, OVER_W), (110.0, OVER_W), (170.0, OVER_W), (171.0, FAR_OVER_W))
    assert [a.severity for a in alerts] == [Severity.WARNING, Severity.WARNING, Severity.CRITICAL]


@pytest.mark.parametrize("target", [None, replace(TARGET, limit_w=200e3), replace(TARGET, correlation_id="other")])
def test_a_new_target_ends_the_old_breach(target: Target | None) -> None:
    """What was breached is no longer in force."""
    watch, _ = play((100.0, OVER_W), (110.0, OVER_W))
    after, alerts = play((111.0, OVER_W), target=target, begin=watch)
    assert [a.status for a in alerts] == [Status.RESOLVED]
    assert alerts[0].limit_w == TARGET.limit_w
    assert after == Watch(target)


def test_a_stale_meter_neither_raises_nor_resolves() -> None:
    """Without a reading nothing is known."""
    watch, _ = play((100.0, OVER_W), (110.0, OVER_W))
    assert play((111.0, None), (500.0, None), begin=watch) == (watch, [])


@given(course=st.lists(st.tuples(st.floats(0.0, 30.0), st.floats(0.0, 300e3) | st.none()), max_size=60))
def test_every_breach_is_active_first_and_resolved_last(course: list[tuple[float, float | None]]) -> None:
    """Whatever the meter says, the alerts of one breach come in the order of its life."""
    mono_s, points = 0.0, []
    for step_s, measured_w in course:
        mono_s += step_s
        points.append((mono_s, measured_w))
    _, alerts = play(*points)
    for breach_id in {a.breach_id for a in alerts}:
        life = [a.status for a in alerts if a.breach_id == breach_id]
        assert life[0] is Status.ACTIVE
        assert life.count(Status.ACTIVE) == 1
        assert Status.RESOLVED not in life[:-1]
