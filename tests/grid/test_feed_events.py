"""The power events of a feed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.grid.dispatcher import NOW
from vppd.grid.dsx_agent import PowerEvent
from vppd.grid.feed_events import FeedTrack, FeedView, is_compliant, track_feed


def view(
    at_s: float, *, targets: tuple[str, ...] = ("t",), limit_w: float | None, load_w: float | None, moving: bool = False
) -> FeedView:
    """Return a feed seen that many seconds after NOW."""
    return FeedView(targets, limit_w, load_w, moving, NOW + timedelta(seconds=at_s))


def test_a_whole_power_event() -> None:
    """Target set, down, there, restored, up, there: each once, and the event begins and ends."""
    course = [
        (view(0, targets=(), limit_w=None, load_w=9e5), []),
        (view(1, limit_w=7e5, load_w=9e5, moving=True), ["target_set", "start_ramp_down"]),
        (view(2, limit_w=7e5, load_w=8e5, moving=True), []),
        (view(3, limit_w=7e5, load_w=7.02e5), ["end_ramp_down"]),
        (view(4, limit_w=7e5, load_w=6.9e5), []),
        (view(5, targets=(), limit_w=None, load_w=6.9e5, moving=True), ["target_set", "start_ramp_up"]),
        (view(6, targets=(), limit_w=None, load_w=8e5, moving=True), []),
        (view(7, targets=(), limit_w=None, load_w=9e5), ["end_ramp_up"]),
    ]
    track, began = FeedTrack(), NOW + timedelta(seconds=1)
    for seen, expected in course:
        track, events = track_feed(track, seen)
        assert [e.value for e in events] == expected
        assert track.event_start == (began if 1 <= (seen.at - NOW).total_seconds() < 7 else None)
    assert not track.in_flight


def test_a_tighter_and_a_looser_target_are_ramps_of_the_same_event() -> None:
    """A change of the limit while an event lasts does not begin a new one."""
    track, _ = track_feed(FeedTrack(), view(0, limit_w=7e5, load_w=6e5))
    track, events = track_feed(track, view(1, targets=("u",), limit_w=5e5, load_w=6e5))
    assert events == (PowerEvent.TARGET_SET, PowerEvent.START_RAMP_DOWN)
    track, events = track_feed(track, view(2, targets=("v",), limit_w=8e5, load_w=6e5, moving=True))
    assert events == (PowerEvent.TARGET_SET, PowerEvent.START_RAMP_UP)
    assert track.event_start == NOW


def test_a_scheduled_target_is_set_but_moves_nothing() -> None:
    """A target of later is news, but no ramp."""
    track, events = track_feed(FeedTrack(), view(0, limit_w=None, load_w=6e5))
    assert events == (PowerEvent.TARGET_SET,)
    assert track.event_start is None


@pytest.mark.parametrize(
    ("limit_w", "load_w", "compliant"),
    [(None, 9e9, True), (None, None, True), (5e5, 5e5, True), (5e5, 5.01e5, False), (5e5, None, False)],
)
def test_compliance(limit_w: float | None, load_w: float | None, compliant: bool) -> None:
    """A feed without a target complies; one that cannot be measured does not claim to."""
    assert is_compliant(view(0, limit_w=limit_w, load_w=load_w)) is compliant
