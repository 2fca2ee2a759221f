"""When a feed is above its load target: from watching to active, escalated and resolved, as one pure step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class Status(StrEnum):
    """Life of a breach."""

    ACTIVE = "active"
    ESCALATED = "escalated"
    RESOLVED = "resolved"


class Severity(StrEnum):
    """How far above the target: critical beyond 20 %."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class BreachRules:
    """When an excess is a breach, and what we then suggest to the infrastructure."""

    threshold_frac: float = 0.02
    critical_frac: float = 0.20
    persist_s: float = 10.0
    """An excess shorter than this is none. [s]"""
    escalate_s: float = 60.0
    """An active breach is escalated after this time, and at once when critical. [s]"""
    clear_s: float = 10.0
    """Back under the target for this long: resolved. [s]"""
    active_actions: tuple[str, ...] = ("SHUTDOWN_NODES",)
    escalated_actions: tuple[str, ...] = ("SHUTDOWN_NODES", "SHUTDOWN_RACKS")
    """Nothing that cuts a supply unless the operator configures it."""


@dataclass(frozen=True, slots=True)
class Target:
    """The load target in force on a feed."""

    correlation_id: str
    limit_w: float
    due_mono_s: float
    """When the feed must have come down to it: the end of the ramp. [s]"""


@dataclass(frozen=True, slots=True)
class Breach:
    """A breach that is not resolved."""

    breach_id: str
    status: Status
    severity: Severity
    detected_at: datetime
    detected_mono_s: float


@dataclass(frozen=True, slots=True)
class Watch:
    """One feed under watch; blank when nothing is wrong."""

    target: Target | None = None
    over_since_s: float | None = None
    """Monotonic time since which it has been above the threshold. [s]"""
    under_since_s: float | None = None
    breach: Breach | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """What is to be published about a breach."""

    feed_tag: str
    status: Status
    severity: Severity
    breach_id: str
    detected_at: datetime
    resolved_at: datetime | None
    correlation_id: str
    limit_w: float
    measured_w: float
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of a feed at one moment; ``measured_w`` None when its meter is stale."""

    feed_tag: str
    target: Target | None
    measured_w: float | None
    at: datetime
    mono_s: float


def watch_breach(
    previous: Watch, sight: Sight, rules: BreachRules, new_id: Callable[[], str]
) -> tuple[Watch, tuple[Alert, ...]]:
    """Return the watch after ``sight`` and the alerts to publish; a stale meter changes nothing."""
    old, target = previous.target, sight.target
    if old is not None and _key(old) != _key(target):
        gone = (_alert(previous.breach, old, sight, resolved=True),) if previous.breach else ()
        return Watch(target), gone
    if target is None or sight.measured_w is None:
        return previous, ()
    watch = _timed(replace(previous, target=target), target, sight.measured_w, sight.mono_s, rules)
    if watch.breach is not None:
        return _follow(watch, watch.breach, target, sight, rules)
    if watch.over_since_s is None or sight.mono_s - watch.over_since_s < rules.persist_s:
        return watch, ()
    severity = _severity(target, sight.measured_w, rules)
    begun = Breach(new_id(), Status.ACTIVE, severity, sight.at, sight.mono_s)
    return replace(watch, breach=begun), (_alert(begun, target, sight, actions=rules.active_actions),)


def _key(target: Target | None) -> tuple[str, float] | None:
    return (target.correlation_id, target.limit_w) if target else None


def _timed(watch: Watch, target: Target, measured_w: float, mono_s: float, rules: BreachRules) -> Watch:
    """Note since when the feed has been over or under; before the ramp's end nothing counts as over."""
    over = measured_w > target.limit_w * (1.0 + rules.threshold_frac) and mono_s >= target.due_mono_s
    if over:
        since_s = mono_s if watch.over_since_s is None else watch.over_since_s
        return replace(watch, over_since_s=since_s, under_since_s=None)
    since_s = mono_s if watch.under_since_s is None else watch.under_since_s
    return replace(watch, over_since_s=None, under_since_s=since_s)


def _severity(target: Target, measured_w: float, rules: BreachRules) -> Severity:
    critical = measured_w > target.limit_w * (1.0 + rules.critical_frac)
    return Severity.CRITICAL if critical else Severity.WARNING


def _follow(
    watch: Watch, breach: Breach, target: Target, sight: Sight, rules: BreachRules
) -> tuple[Watch, tuple[Alert, ...]]:
    """Resolve, escalate, or leave as it is; a severity is never taken back while the breach lasts."""
    if watch.under_since_s is not None:
        if sight.mono_s - watch.under_since_s < rules.clear_s:
            return watch, ()
        return replace(watch, breach=None), (_alert(breach, target, sight, resolved=True),)
    now = _severity(target, sight.measured_w or 0.0, rules)
    severity = Severity.CRITICAL if Severity.CRITICAL in (now, breach.severity) else Severity.WARNING
    late = sight.mono_s - breach.detected_mono_s >= rules.escalate_s
    due = late or severity is Severity.CRITICAL
    if not due or (breach.status is Status.ESCALATED and severity is breach.severity):
        return watch, ()
    worse = replace(breach, status=Status.ESCALATED, severity=severity)
    return replace(watch, breach=worse), (_alert(worse, target, sight, actions=rules.escalated_actions),)


def _alert(
    breach: Breach, target: Target, sight: Sight, *, resolved: bool = False, actions: tuple[str, ...] = ()
) -> Alert:
    return Alert(
        feed_tag=sight.feed_tag,
        status=Status.RESOLVED if resolved else breach.status,
        severity=breach.severity,
        breach_id=breach.breach_id,
        detected_at=breach.detected_at,
        resolved_at=sight.at if resolved else None,
        correlation_id=target.correlation_id,
        limit_w=target.limit_w,
        measured_w=target.limit_w if sight.measured_w is None else sight.measured_w,
        actions=actions,
    )
