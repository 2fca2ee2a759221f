"""Which power event a feed has: target set, ramp down, ramp up, or nothing new - as one pure step per feed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from vppd.grid.dsx_agent import PowerEvent

SETTLED_FRAC = 0.01
"""Within this of its limit a feed has arrived."""


@dataclass(frozen=True, slots=True)
class FeedView:
    """A feed at one moment."""

    targets: tuple[str, ...]
    """Ids of all its targets, in force or scheduled; a change means that one was set or removed."""
    limit_w: float | None
    """The tightest target in force; None without one. [W]"""
    load_w: float | None
    """Measured; None when the meter is stale. [W]"""
    moving: bool
    """Power is being given back, or setpoints have not landed."""
    at: datetime


@dataclass(frozen=True, slots=True)
class FeedTrack:
    """What the next step needs to know."""

    targets: tuple[str, ...] = ()
    limit_w: float | None = None
    ramp: PowerEvent | None = None
    """START_RAMP_DOWN or START_RAMP_UP while one is under way."""
    event_start: datetime | None = None
    """When the power event began; None when no target is in force and nothing moves."""

    @property
    def in_flight(self) -> bool:
        """Say whether the feed is between two power levels."""
        return self.ramp is not None


def track_feed(previous: FeedTrack, view: FeedView) -> tuple[FeedTrack, tuple[PowerEvent, ...]]:
    """Return the track after ``view`` and the events to publish, none when nothing changed."""
    events: list[PowerEvent] = []
    track = replace(previous, targets=view.targets, limit_w=view.limit_w)
    if set(view.targets) != set(previous.targets):
        events.append(PowerEvent.TARGET_SET)
    if started := _started(previous.limit_w, view.limit_w):
        events.append(started)
        track = replace(track, ramp=started, event_start=previous.event_start or view.at)
    if track.ramp and _arrived(track.ramp, view):
        events.append(PowerEvent.END_RAMP_DOWN if track.ramp is PowerEvent.START_RAMP_DOWN else PowerEvent.END_RAMP_UP)
        track = replace(track, ramp=None)
    if view.limit_w is None and track.ramp is None:
        track = replace(track, event_start=None)
    return track, tuple(events)


def is_compliant(view: FeedView, threshold_frac: float = 0.0) -> bool:
    """Say whether the load is within the target in force; without a target it is, with a stale meter it is not."""
    if view.limit_w is None:
        return True
    return view.load_w is not None and view.load_w <= view.limit_w * (1.0 + threshold_frac)


def _started(before_w: float | None, now_w: float | None) -> PowerEvent | None:
    if before_w == now_w:
        return None
    if before_w is None or (now_w is not None and now_w < before_w):
        return PowerEvent.START_RAMP_DOWN
    return PowerEvent.START_RAMP_UP


def _arrived(ramp: PowerEvent, view: FeedView) -> bool:
    if ramp is PowerEvent.START_RAMP_UP:
        return not view.moving
    if view.limit_w is None or view.load_w is None:
        return False
    return view.load_w <= view.limit_w * (1.0 + SETTLED_FRAC)
