"""The nouns everybody shares: frozen values, SI units, + = consumption (into the asset).

Missing is ``None`` in single values and NaN in arrays, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, Self


class Kind(StrEnum):
    """What an asset is."""

    METER = "meter"
    BATTERY = "battery"
    UPS = "ups"
    PV = "pv"
    WIND = "wind"
    CLUSTER = "cluster"
    LOAD = "load"
    GENSET = "genset"


TIERS = 4
"""Flex tiers 0-3: 0, 10, 25 and 50 % tolerated average slow-down."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one device said in one answer; the poller stamps it into a Reading."""

    power_w: float | None = None
    """Measured power. [W, + = into the asset]"""
    soc_frac: float | None = None
    """State of charge. [0-1]"""
    energy_wh: float | None = None
    """Import counter. [Wh]"""
    available_w: float | None = None
    """What it would draw if nobody held it back; a PV plant's is negative. [W, + = consumption]"""
    lower_w: float | None = None
    """Least power the device itself allows now. [W, + = consumption]"""
    upper_w: float | None = None
    """Most power the device itself allows now. [W, + = consumption]"""
    tier_shed_w: tuple[float, ...] = ()
    """Power a cluster could shed from ``available_w``, one figure per flex tier 0-3. [W, >= 0]"""
    setpoint_w: float | None = None
    """The setpoint the device says it follows now; None when it follows none. [W]"""
    on_battery: bool = False
    """A UPS carries its load from the battery because the mains failed."""
    fault: str = ""
    """The device's own alarm text; empty when it is well."""
    shed_first: tuple[tuple[str, float], ...] = ()
    """Nodes the infrastructure could throttle, the first to shed first: (name, power [W])."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A Sample with its asset and the time of the device's reply."""

    asset_id: str
    sample: Sample
    mono_s: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Bounds:
    """A closed range of power. [W, + = consumption]"""

    lower_w: float
    upper_w: float

    def clamp(self, power_w: float) -> float:
        """Return the nearest power inside the range. [W]"""
        return max(self.lower_w, min(self.upper_w, power_w))


@dataclass(frozen=True, slots=True)
class Setpoint:
    """What an asset is told: absolute, idempotent, good for ``valid_for_s`` and no longer."""

    asset_id: str
    power_w: float
    """Power to follow (storage) or not to exceed (compute); for PV the most it may generate. [W, + = consumption]"""
    valid_for_s: float
    """Lease: without renewal the device falls back to its own safe default. [s]"""
    cause: str = ""
    """The order id or rule behind it."""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """What the device says after a write, by reading back. ``power_w`` None: it has no such register."""

    power_w: float | None
    """Effective setpoint read back. [W]"""
    detail: str = ""


class Outcome(StrEnum):
    """What became of a setpoint."""

    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class OrderKind(StrEnum):
    """What a dispatch order asks for."""

    LIMIT = "limit"
    SETPOINT = "setpoint"
    REDUCE = "reduce"
    INCREASE = "increase"
    REGULATION = "regulation"
    RELEASE = "release"


class Priority(IntEnum):
    """Who wins: higher narrows, lower chooses within."""

    SAFETY = 100
    OPERATOR = 95
    GRID_LIMIT = 90
    AWARD = 70
    CURTAIL = 50
    ECONOMICS = 10


@dataclass(frozen=True, slots=True)
class Interval:
    """Half-open span of time; ``end`` None means until replaced."""

    start: datetime
    end: datetime | None = None

    def contains(self, at: datetime) -> bool:
        """Say whether ``at`` lies in [start, end)."""
        return self.start <= at and (self.end is None or at < self.end)


@dataclass(frozen=True, slots=True)
class Order:
    """A dispatch instruction as every codec delivers it."""

    order_id: str
    issuer: str
    kind: OrderKind
    resource: str
    """Site name, feed tag or asset id."""
    interval: Interval
    power_w: float | None = None
    """limit: most import; setpoint: meter power; reduce: amount off the baseline; increase: amount above it; regulation: capacity. None for release. [W]"""
    ramp_s: float | None = None
    priority: int = Priority.GRID_LIMIT
    product: str = ""
    best_effort: bool = False
    seq: int | None = None
    expires_at: datetime | None = None
    received_at: datetime | None = None
    correlation_id: str = ""
    traceparent: str = ""
    protocol: str = "vpp_v1"
    """Codec it came through: vpp_v1 or dsx_flex. A later dsx_flex target replaces an earlier one on the same feed."""
    group: str = ""
    """Id of the message it came in: one DSX Flex message may hold several targets."""

    def to_body(self) -> dict[str, Any]:
        """Return plain JSON values that ``from_body`` turns back into an equal Order."""
        body = {
            k: getattr(self, k)
            for k in (
                "order_id",
                "issuer",
                "resource",
                "power_w",
                "ramp_s",
                "priority",
                "product",
                "best_effort",
                "seq",
                "correlation_id",
                "traceparent",
                "protocol",
                "group",
            )
        }
        body["kind"] = self.kind.value
        body["start"] = self.interval.start.isoformat()
        body["end"] = self.interval.end.isoformat() if self.interval.end else None
        body["expires_at"] = self.expires_at.isoformat() if self.expires_at else None
        body["received_at"] = self.received_at.isoformat() if self.received_at else None
        return body

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> Self:
        """Return the Order that ``to_body`` described."""

        def when(key: str) -> datetime | None:
            return datetime.fromisoformat(body[key]) if body.get(key) else None

        start = when("start")
        assert start is not None
        rest = {k: v for k, v in body.items() if k not in ("kind", "start", "end", "expires_at", "received_at")}
        return cls(
            kind=OrderKind(body["kind"]),
            interval=Interval(start, when("end")),
            expires_at=when("expires_at"),
            received_at=when("received_at"),
            **rest,
        )


@dataclass(frozen=True, slots=True)
class Obligation:
    """What an award obliges us to: a part of a bid, at a price, for the bid's whole interval."""

    award_id: str
    bid_id: str
    issuer: str
    product: str
    resource: str
    """Site name, feed tag or asset id."""
    direction: str
    """up: less consumption or more generation; down: more consumption; symmetric: as much of either."""
    interval: Interval
    power_w: float
    """The part of the bid that was taken. [W, > 0]"""
    price: str = ""
    """Exact decimal text, per MWh; of capacity per MW and hour."""
    currency: str = ""
    dispatch: str = "order"
    """scheduled: carried out over the whole interval without a further order; order: kept ready, delivered when ordered."""
    activation_s: float | None = None
    """Until full power. [s]"""
    sustain_s: float | None = None
    """For how long full power can be asked for. [s]"""

    def is_over(self, at: datetime) -> bool:
        """Say whether its interval has ended at ``at``."""
        return self.interval.end is not None and self.interval.end <= at

    def to_body(self) -> dict[str, Any]:
        """Return plain JSON values that ``from_body`` turns back into an equal Obligation."""
        body = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "interval"}
        body["start"] = self.interval.start.isoformat()
        body["end"] = self.interval.end.isoformat() if self.interval.end else None
        return body

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> Self:
        """Return the Obligation that ``to_body`` described."""
        end = datetime.fromisoformat(body["end"]) if body.get("end") else None
        rest = {k: v for k, v in body.items() if k not in ("start", "end")}
        return cls(interval=Interval(datetime.fromisoformat(body["start"]), end), **rest)


@dataclass(frozen=True, slots=True)
class Signal:
    """The newest regulation signal of one issuer."""

    issuer: str
    value: float
    """Signal in [-1, 1]; + = more consumption."""
    mono_s: float


@dataclass(frozen=True, slots=True)
class Event:
    """One append-only ledger record; ``body`` holds plain JSON values only."""

    stream: str
    kind: str
    at: datetime
    body: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    """When not empty: may occur once in the whole ledger, for ever; a second append is Refused and writes nothing."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An Event with its place and hash in the chain."""

    id: int
    event: Event
    hash: str


@dataclass(frozen=True, slots=True)
class Inbound:
    """A message as it came from a broker."""

    topic: str
    payload: bytes
    qos: int
    retained: bool
    token: int = 0
    """The transport's handle for acknowledging it."""


@dataclass(frozen=True, slots=True)
class Outbound:
    """A message to publish."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
