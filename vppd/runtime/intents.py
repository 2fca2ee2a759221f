"""What is wanted of one device, what was tried, what came of it; and what a reading proves about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vppd.errors import DeviceError
from vppd.model import Kind, Outcome, Sample

AT_MOST = (Kind.CLUSTER, Kind.LOAD)
"""Kinds whose setpoint is a budget: less is obedience too."""
AT_LEAST = (Kind.PV, Kind.WIND, Kind.GENSET)
"""Kinds whose setpoint is the most they may generate, a negative power: nearer to zero is obedience too."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How one device is handled."""

    kind: Kind
    tolerance_w: float
    """A read-back within this is a confirmation; a change within this is no new intent. [W]"""
    limit_s: float
    """Outer time limit of one write with its read-back. [s]"""
    fresh_s: float
    """How long a wish may wait for its write before it is stale: a few cycles. [s]"""
    settle_s: float = 5.0
    """How long after a write a reading may still show the old setpoint. [s]"""
    prove_s: float = 15.0
    """How long after an acknowledged write that cannot be read back the measured power may disagree. [s]"""
    probe_s: float = 10.0
    """Pause before a device that refused is tried again; doubled each time up to ``probe_most_s``. [s]"""
    probe_most_s: float = 300.0

    @property
    def step_w(self) -> float:
        """A change within this waits for the next renewal. [W]"""
        return 0.1 * self.tolerance_w


@dataclass(frozen=True, slots=True)
class Wish:
    """What the control loop wants now."""

    power_w: float | None
    """None: give the device back to its own default. [W, + = consumption]"""
    not_after_s: float
    """Monotonic time after which it is stale and never written. [s]"""
    valid_for_s: float = 0.0
    """Lease of a setpoint. [s]"""
    cause: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Intent:
    """A changed target, put on disk before it is written; renewals are not intents."""

    intent_id: str
    asset_id: str
    power_w: float | None
    """None: release. [W]"""
    cause: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a write, or what a later reading proved about it."""

    intent: Intent
    outcome: Outcome
    power_w: float | None
    """Effective setpoint read back. [W]"""
    detail: str
    latency_s: float
    """From the start of the write to its read-back; 0 when a reading settled it. [s]"""
    is_news: bool
    """The intent has another outcome than before: to be recorded. False for renewals."""


class IntentBook(Protocol):
    """Where intents and outcomes are kept."""

    async def intent(self, intent: Intent) -> None:
        """Return once the intent is on disk. Raises DeviceError."""
        ...

    def outcome(self, report: Report) -> None:
        """Take what came of a write; must not block."""
        ...


@dataclass(frozen=True, slots=True)
class Took:
    """The device took the write; ``power_w`` None when it cannot be read back. [W]"""

    power_w: float | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Denied:
    """The device said no, or reads back something else."""

    detail: str
    power_w: float | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """Nobody knows: no answer, or none that makes sense."""

    error: DeviceError


Result = Took | Denied | Lost


def matches(kind: Kind, power_w: float, target_w: float, tolerance_w: float) -> bool:
    """Say whether a read-back setpoint is the wanted one; a budget that came out smaller is kept too."""
    if kind in AT_MOST:
        return power_w <= target_w + tolerance_w
    return abs(power_w - target_w) <= tolerance_w


def is_refused(kind: Kind, power_w: float, target_w: float, tolerance_w: float) -> bool:
    """Say whether a read-back right after a write means no; a budget that is not quite kept is kept as far as can be."""
    return kind not in AT_MOST and not matches(kind, power_w, target_w, tolerance_w)


def obeys(kind: Kind, power_w: float, target_w: float, tolerance_w: float) -> bool:
    """Say whether a measured power keeps to a setpoint, by what a setpoint means to that kind."""
    if kind in AT_LEAST:
        return power_w >= target_w - tolerance_w
    return matches(kind, power_w, target_w, tolerance_w)


def is_another(power_w: float | None, target_w: float | None, terms: Terms) -> bool:
    """Say whether a target differs so much from what was written that it cannot wait for the next renewal."""
    if power_w is None or target_w is None:
        return power_w is not target_w
    # Stopping is exact: a trickle is not a stop.
    return abs(power_w - target_w) > terms.step_w or (power_w == 0.0) is not (target_w == 0.0)


def proof(sample: Sample, target_w: float | None, terms: Terms, shows: bool) -> bool | None:
    """Say whether a reading proves that the device follows ``target_w`` (None: nothing); None when it proves nothing.

    ``shows``: its readings tell the setpoint, so that none means it follows none. Measured power speaks only where
    they do not, and only in favour: a slow device is not a disobedient one.
    """
    if target_w is None:
        return (sample.setpoint_w is None) if shows else None
    if sample.setpoint_w is not None:
        return matches(terms.kind, sample.setpoint_w, target_w, terms.tolerance_w)
    if shows:
        return False
    kept = sample.power_w is not None and obeys(terms.kind, sample.power_w, target_w, terms.tolerance_w)
    return True if kept else None
