"""vpp/v1, what we publish: order status, flexibility, telemetry, statements and availability."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from vppd.grid.envelope import Context, Kind, Sender
from vppd.grid.fields import stamp
from vppd.grid.quantities import given, interval_json, signed_power
from vppd.grid.routes import OFFLINE, ONLINE, availability_topic
from vppd.grid.strict_json import Json
from vppd.model import Interval, Order, OrderKind, Outbound

ORDER_STATUS: Final = "vpp.order.status.v1"
FLEXIBILITY: Final = "vpp.flexibility.v1"
TELEMETRY: Final = "vpp.telemetry.v1"
STATEMENT: Final = "vpp.statement.v1"
_DELIVERED_AS: Final = {OrderKind.REDUCE: "delivered_reduction", OrderKind.INCREASE: "delivered_increase"}
OrderPhase = Literal["scheduled", "active", "completed", "aborted"]


@dataclass(frozen=True, slots=True)
class OrderState:
    """Where an order is in its life, and what it has delivered so far."""

    order: Order
    phase: OrderPhase
    detail: str = ""
    delivered_w: float | None = None
    """Mean measured power of its resource since it became active; of a reduction or an increase, what was moved. [W]"""
    shortfall_w: float | None = None
    """What cannot be delivered at present. [W, >= 0]"""


@dataclass(frozen=True, slots=True)
class Flexibility:
    """How far, how fast and how long a resource can move. [W, + = consumption]"""

    resource: str
    power_w: float | None
    lowest_w: float
    highest_w: float
    ramp_down_w_per_s: float | None = None
    ramp_up_w_per_s: float | None = None
    lowest_for_s: float | None = None
    highest_for_s: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """Telemetry of one feed or asset; None is missing."""

    resource: str
    power_w: float | None
    quality: Literal["valid", "stale", "missing"]
    kind: str = ""
    """Kind of asset; empty for the site and feeds."""
    limit_w: float | None = None
    setpoint_w: float | None = None
    soc_frac: float | None = None
    age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """What one order asked and what was delivered."""

    statement_id: str
    order: Order
    start: datetime
    end: datetime
    metered_wh: float
    baseline_wh: float | None = None
    """What would have been drawn without the order. [Wh]"""
    shed_wh: float | None = None
    """Below the baseline; None for an increase. [Wh, >= 0]"""
    peak_w: float | None = None
    """Highest 10 s average after the ramp. [W]"""
    compliant_frac: float | None = None
    """Part of the time after the ramp in which the order was kept. [0-1]"""
    complete_frac: float = 1.0
    """Part of the time for which there are readings. [0-1]"""
    added_wh: float | None = None
    """Above the baseline, of an increase. [Wh, >= 0]"""


def order_status(state: OrderState, at: datetime, sender: Sender) -> Outbound:
    """Return the order's status; it carries on the order's trace and correlation."""
    order = state.order
    name = _DELIVERED_AS.get(order.kind, "delivered_power")
    data = given(
        at=stamp(at),
        order_id=order.order_id,
        issuer=order.issuer,
        command_id=order.group or None,
        correlation_id=order.correlation_id or None,
        protocol=order.protocol,
        kind=order.kind.value,
        resource=order.resource,
        product=order.product or None,
        interval=interval_json(order.interval),
        ordered_power=_power(order.power_w),
        status=state.phase,
        detail=state.detail or None,
        shortfall=_power(state.shortfall_w),
    ) | given(**{name: _power(state.delivered_w)})
    kind = Kind(ORDER_STATUS, f"vpp/v1/{sender.vpp_id}/order/status", "order")
    return sender.message(kind, data, at, _context(order))


def flexibility(entries: Iterable[Flexibility], at: datetime, sender: Sender) -> Outbound:
    """Return what the site, its feeds and assets could do now; retained, so that a newcomer knows at once."""
    resources: list[Json] = [
        given(
            resource=entry.resource,
            power=_power(entry.power_w),
            lowest=signed_power(entry.lowest_w),
            highest=signed_power(entry.highest_w),
            ramp_down_w_per_s=entry.ramp_down_w_per_s,
            ramp_up_w_per_s=entry.ramp_up_w_per_s,
            lowest_for_s=entry.lowest_for_s,
            highest_for_s=entry.highest_for_s,
        )
        for entry in entries
    ]
    kind = Kind(FLEXIBILITY, f"vpp/v1/{sender.vpp_id}/flexibility", "flexibility", retain=True)
    return sender.message(kind, {"at": stamp(at), "resources": resources}, at)


def telemetry(
    site: Measured, feeds: Iterable[Measured], assets: Iterable[Measured], at: datetime, sender: Sender
) -> Outbound:
    """Return the measured values of this moment; QoS 0, a lost one is replaced by the next."""
    data: dict[str, Json] = {
        "at": stamp(at),
        "site": _measured(site),
        "feeds": [_measured(feed) for feed in feeds],
        "assets": [_measured(asset) for asset in assets],
    }
    return sender.message(Kind(TELEMETRY, f"vpp/v1/{sender.vpp_id}/telemetry", "telemetry", qos=0), data, at)


def statement(account: Statement, at: datetime, sender: Sender) -> Outbound:
    """Return the account of one order."""
    order = account.order
    data = given(
        at=stamp(at),
        statement_id=account.statement_id,
        order_id=order.order_id,
        issuer=order.issuer,
        correlation_id=order.correlation_id or None,
        kind=order.kind.value,
        resource=order.resource,
        product=order.product or None,
        interval=interval_json(Interval(account.start, account.end)),
        ordered_power=_power(order.power_w),
        metered_wh=account.metered_wh,
        baseline_wh=account.baseline_wh,
        shed_wh=account.shed_wh,
        added_wh=account.added_wh,
        peak_power=_power(account.peak_w),
        compliant_frac=account.compliant_frac,
        complete_frac=account.complete_frac,
    )
    kind = Kind(STATEMENT, f"vpp/v1/{sender.vpp_id}/statement", "statement")
    return sender.message(kind, data, at, _context(order))


def availability(vpp_id: str, *, online: bool) -> Outbound:
    """Return the retained word that we are there or not; unsigned, because the broker sends it when we cannot."""
    return Outbound(availability_topic(vpp_id), ONLINE if online else OFFLINE, qos=1, retain=True)


def _context(order: Order) -> Context:
    return Context(order.correlation_id, order.traceparent)


def _power(power_w: float | None) -> dict[str, Json] | None:
    return None if power_w is None or not math.isfinite(power_w) else signed_power(power_w)


def _measured(entry: Measured) -> dict[str, Json]:
    return given(
        resource=entry.resource,
        kind=entry.kind or None,
        power=_power(entry.power_w),
        quality=entry.quality,
        limit=_power(entry.limit_w),
        setpoint=_power(entry.setpoint_w),
        soc_frac=entry.soc_frac,
        age_s=entry.age_s,
    )
