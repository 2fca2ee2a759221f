"""DSX Flex 1.7.0, what we publish: power state and breach alerts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

from vppd.grid.breach import Alert, Status
from vppd.grid.envelope import Context, Kind, Sender
from vppd.grid.fields import stamp
from vppd.grid.quantities import given, interval_json, power_unit
from vppd.grid.strict_json import Json
from vppd.model import Interval, Outbound

POWER_STATE: Final = "grid.powerstate.status.v1"
POWER_BREACH: Final = "grid.powerbreach.alert.v1"


class PowerEvent(StrEnum):
    """What made us publish a status."""

    TARGET_SET = "target_set"
    START_RAMP_DOWN = "start_ramp_down"
    END_RAMP_DOWN = "end_ramp_down"
    START_RAMP_UP = "start_ramp_up"
    END_RAMP_UP = "end_ramp_up"
    PERIODIC = "periodic"


@dataclass(frozen=True, slots=True)
class FeedTarget:
    """A load target of a feed, in force or scheduled."""

    active: bool
    limit_w: float
    interval: Interval
    best_effort: bool
    correlation_id: str
    """The correlationid of its command, or that command's id when it had none."""


@dataclass(frozen=True, slots=True)
class FeedState:
    """One feed as a status shows it."""

    tag: str
    power_minimum_w: float
    power_maximum_w: float
    default_w: float
    """Limit without a load target. [W]"""
    targets: tuple[FeedTarget, ...]
    load_w: float | None
    """Load as it is to be after shedding; the measured one when nothing is shed. None: unknown, told as the maximum. [W]"""
    in_flight: bool
    event: PowerEvent
    compliant: bool
    event_start: datetime | None = None
    """When the present power event began; None without one."""


@dataclass(frozen=True, slots=True)
class ShedHint:
    """A resource that the infrastructure could throttle, the first to shed having priority 1."""

    resource_id: str
    resource_type: Literal["node", "gpu", "chassis"]
    action: Literal["power_cap", "throttle", "suspend"]
    priority: int
    target_w: float | None = None


def power_state(feeds: Iterable[FeedState], at: datetime, sender: Sender, context: Context | None = None) -> Outbound:
    """Return a full snapshot of all feeds; ``context`` is that of the command that caused it, if one did."""
    states: dict[str, Json] = {feed.tag: _feed(feed) for feed in feeds}
    kind = Kind(POWER_STATE, f"grid/v1/dsx-flex-agent/{sender.agent_id}/powerstate/status", "powerstate")
    return sender.message(kind, {"snapshot_time": stamp(at), "feeds": states}, at, context)


def breach_alert(alert: Alert, hints: tuple[ShedHint, ...], at: datetime, sender: Sender) -> Outbound:
    """Return a breach alert; shed hints are left out once it is resolved. Published at QoS 2, as DSX Flex asks."""
    breach = given(
        breach_id=alert.breach_id,
        detected_at=stamp(alert.detected_at),
        resolved_at=stamp(alert.resolved_at) if alert.resolved_at else None,
    )
    listed: list[Json] = [_hint(hint) for hint in hints]
    data = given(
        feed_tag=alert.feed_tag,
        status=alert.status.value,
        severity=alert.severity.value,
        breach=breach,
        target={"correlation_id": alert.correlation_id, "load_constraint": power_unit(alert.limit_w)},
        measured_load=power_unit(alert.measured_w),
        shed_hints=None if alert.status is Status.RESOLVED else listed,
        infrastructure_actions=[*alert.actions],
    )
    kind = Kind(POWER_BREACH, f"grid/v1/dsx-flex-agent/{sender.agent_id}/powerbreach", "powerbreach", qos=2)
    return sender.message(kind, data, at, Context(alert.correlation_id))


def _feed(feed: FeedState) -> dict[str, Json]:
    metadata: dict[str, Json] = {
        "power_minimum": power_unit(feed.power_minimum_w),
        "power_maximum": power_unit(feed.power_maximum_w),
        "default_constraint": power_unit(feed.default_w),
    }
    return given(
        metadata=metadata,
        targets=[_target(target) for target in feed.targets],
        calculated_load=power_unit(feed.power_maximum_w if feed.load_w is None else feed.load_w),
        in_flight=feed.in_flight,
        event=feed.event.value,
        power_event_start_time=stamp(feed.event_start) if feed.event_start else None,
        compliant=feed.compliant,
    )


def _target(target: FeedTarget) -> dict[str, Json]:
    return {
        "active": target.active,
        "load_constraint": power_unit(target.limit_w),
        "interval": interval_json(target.interval),
        "strategy": {"best_effort": target.best_effort},
        "correlation_id": target.correlation_id,
    }


def _hint(hint: ShedHint) -> dict[str, Json]:
    return given(
        resource_id=hint.resource_id,
        resource_type=hint.resource_type,
        action=hint.action,
        priority=hint.priority,
        target_power=None if hint.target_w is None else power_unit(hint.target_w),
    )
