"""Delivery slots and gate closures, also on the days that have 23 and 25 hours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vppd.planning.trade.gates import closes_at, in_play, next_moments, overlapping, slots
from vppd.products import GateConfig, ProductConfig, products_in, shipped

NOON = datetime(2026, 6, 10, 12, 0, 5, tzinfo=UTC)
DAY_S = 86_400.0
DAILY = {"days_before": 1, "local_time": "08:30", "time_zone": "Europe/Helsinki"}


def product(**changes: Any) -> ProductConfig:
    """A product with a slot per quarter of an hour and a gate 45 minutes before."""
    values = {
        "name": "p", "title": "P", "market": "m", "direction": "reduce", "delivery_interval_s": 900.0,
        "gate": {"before_delivery_s": 2700.0}, "sources": ("s",), **changes,
    }  # fmt: skip
    return ProductConfig.model_validate(values)


def test_quarter_hours_close_45_minutes_before() -> None:
    """Slots lie on the quarter hours; the first still open is the first whose gate is ahead."""
    found = slots(product(), NOON, 3 * 3600.0, 0.0)
    assert found[0].start == datetime(2026, 6, 10, 13, 0, tzinfo=UTC)
    assert found[0].gate_closes_at == datetime(2026, 6, 10, 12, 15, tzinfo=UTC)
    assert found[0].end == found[1].start
    assert found[-1].start == datetime(2026, 6, 10, 15, 0, tzinfo=UTC)


def test_a_gate_that_nobody_states_closes_the_configured_time_ahead() -> None:
    """Without a gate the product is offered so long before delivery."""
    first = slots(product(gate=None), NOON, DAY_S, 3600.0)[0]
    assert first.start - first.gate_closes_at == timedelta(hours=1)


def test_without_a_delivery_interval_there_is_no_slot() -> None:
    """What is not known is not guessed."""
    assert slots(product(delivery_interval_s=None), NOON, DAY_S, 3600.0) == ()


def test_a_daily_gate_is_by_the_clock_on_the_wall() -> None:
    """08:30 in Helsinki the day before: an hour earlier by UTC in summer than in winter."""
    gate = GateConfig.model_validate(DAILY)
    summer, winter = datetime(2026, 6, 11, 9, tzinfo=UTC), datetime(2026, 12, 11, 9, tzinfo=UTC)
    assert closes_at(gate, summer, 0.0) == datetime(2026, 6, 10, 5, 30, tzinfo=UTC)
    assert closes_at(gate, winter, 0.0) == datetime(2026, 12, 10, 6, 30, tzinfo=UTC)


def test_the_day_of_delivery_is_the_local_one() -> None:
    """22:30 UTC in summer is the next day in Helsinki already: its gate is a day later."""
    gate = GateConfig.model_validate(DAILY)
    late = datetime(2026, 6, 10, 22, 30, tzinfo=UTC)
    assert closes_at(gate, late, 0.0) == datetime(2026, 6, 10, 5, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("day", "interval_s", "count", "longest_h"),
    [
        (datetime(2026, 3, 29, tzinfo=UTC), 3600.0, 23, 1.0),
        (datetime(2026, 10, 25, tzinfo=UTC), 3600.0, 25, 1.0),
        (datetime(2026, 6, 10, tzinfo=UTC), 3600.0, 24, 1.0),
        (datetime(2026, 3, 29, tzinfo=UTC), 900.0, 92, 0.25),
        (datetime(2026, 10, 25, tzinfo=UTC), 900.0, 100, 0.25),
        (datetime(2026, 10, 25, tzinfo=UTC), 14_400.0, 6, 5.0),
        (datetime(2026, 3, 29, tzinfo=UTC), 14_400.0, 6, 4.0),
    ],
)
def test_days_have_23_24_or_25_hours(day: datetime, interval_s: float, count: int, longest_h: float) -> None:
    """Hours and quarter hours are counted out; blocks of four hours keep their place on the clock."""
    found = slots(product(delivery_interval_s=interval_s, gate=DAILY), day - timedelta(days=2), 4 * DAY_S, 0.0)
    gate = closes_at(GateConfig.model_validate(DAILY), day + timedelta(hours=12), 0.0)
    of_day = sorted((s for s in found if s.gate_closes_at == gate), key=lambda s: s.start)
    assert len(of_day) == count
    assert max((s.end - s.start).total_seconds() for s in of_day) == longest_h * 3600.0
    assert all(a.end == b.start for a, b in pairwise(of_day))


@settings(max_examples=60, deadline=None)
@given(
    at=st.integers(0, 2 * 365 * 86_400).map(lambda s: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=s)),
    interval_s=st.sampled_from([60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0]),
    zone=st.sampled_from(
        ["Europe/Helsinki", "Europe/London", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe"]
    ),
)
def test_slots_follow_one_another_without_gap(at: datetime, interval_s: float, zone: str) -> None:
    """Whenever and wherever: no gap, no overlap, every gate ahead and before delivery."""
    gate = {"days_before": 0, "local_time": "00:00", "time_zone": zone}
    found = slots(product(delivery_interval_s=interval_s, gate=gate), at, 3 * DAY_S, 0.0)
    in_order = sorted(found, key=lambda s: s.start)
    assert all(a.end == b.start for a, b in pairwise(in_order))
    assert all(at < s.gate_closes_at <= s.start < s.end for s in found)


def test_what_is_in_play_closes_within_the_lead() -> None:
    """Offers go out a quarter of an hour before their gate and not after it."""
    found = slots(product(), NOON, DAY_S, 0.0)
    (only,) = in_play(found, NOON, 900.0)
    assert only is found[0]
    assert in_play(found, only.gate_closes_at, 900.0) == (found[1],)


def test_the_next_moments_are_leads_and_gates() -> None:
    """A job before each gate, and one at it; what is past is past."""
    found = slots(product(), NOON, 2 * 3600.0, 0.0)
    gate = found[0].gate_closes_at
    assert next_moments(found, NOON, 600.0)[:3] == (gate - timedelta(seconds=600), gate, gate + timedelta(seconds=300))


def test_slots_that_deliver_at_the_same_time_are_found() -> None:
    """An hour overlaps its four quarters and no others."""
    hour = slots(product(delivery_interval_s=3600.0), NOON, DAY_S, 0.0)[:1]
    quarters = slots(product(), NOON, DAY_S, 0.0)
    assert [s.start.minute for s in overlapping(quarters, hour)] == [0, 15, 30, 45]
    assert overlapping(hour, hour) == ()


@pytest.mark.parametrize(
    "gate",
    [
        {},
        {"days_before": 1},
        {"before_delivery_s": 60.0, **DAILY},
        {**DAILY, "time_zone": "Europe/Atlantis"},
        {**DAILY, "time_zone": "../etc/passwd"},
        {**DAILY, "local_time": "25:00"},
    ],
)
def test_half_a_gate_is_refused(gate: dict[str, Any]) -> None:
    """A gate is one or the other, whole, in a zone that there is."""
    with pytest.raises(ValidationError):
        GateConfig.model_validate(gate)


def test_what_is_cleared_ahead_is_scheduled() -> None:
    """By their sources: Guangdong's day-ahead response is a schedule, mFRR waits for an order."""
    found = {p.name: p.dispatch for p in products_in(shipped())}
    assert (found["guangdong-day-ahead"], found["gb-dfs"]) == ("scheduled", "scheduled")
    assert (found["nordic-mfrr"], found["eu-mfrr"], found["eu-afrr"]) == ("order", "order", "order")
