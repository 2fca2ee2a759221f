"""DSX Flex 1.7.0, what we receive: load targets and enforcement reports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

from vppd.grid.envelope import Envelope
from vppd.grid.fields import Fields
from vppd.grid.quantities import read_interval, read_power
from vppd.grid.reasons import Defect, Reason
from vppd.grid.strict_json import Json
from vppd.model import Interval, Order, OrderKind

LOAD_TARGET: Final = "grid.loadtarget.set.v1"
ENFORCEMENT: Final = "grid.powerbreach.enforcement.v1"
MOST_ORDERS = 1024
"""Targets times feeds of one message."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the infrastructure agent did to one resource."""

    resource_id: str
    resource_type: str
    requested_action: str
    code: str
    message: str = ""
    applied_w: float | None = None


@dataclass(frozen=True, slots=True)
class Enforcement:
    """What the infrastructure agent did about a breach."""

    issuer: str
    breach_id: str
    feed_tag: str
    action: str
    code: str
    results: tuple[Result, ...]
    at: datetime
    detail: str = ""


def read_load_target(
    data: dict[str, Json], envelope: Envelope, feeds: tuple[str, ...], at: datetime
) -> tuple[Order, ...]:
    """Return one order per target and feed, in the order of the message. Raises Defect."""
    fields = Fields(data)
    targets = fields.objects("targets")
    fields.done()
    if not targets:
        raise Defect(Reason.MALFORMED, "targets must not be empty")
    orders = [order for i, target in enumerate(targets) for order in _orders(target, i, envelope, feeds, at)]
    if len(orders) > MOST_ORDERS:
        raise Defect(Reason.MALFORMED, f"one message may set at most {MOST_ORDERS} targets")
    return tuple(orders)


def _orders(target: Fields, i: int, envelope: Envelope, feeds: tuple[str, ...], at: datetime) -> Iterator[Order]:
    power_w = None if target.null("load_constraint") else _constraint(target.object("load_constraint"))
    interval = read_interval(target.object("interval"), at)
    strategy = target.maybe(target.object, "strategy")
    best_effort = bool(strategy.maybe(strategy.flag, "best_effort")) if strategy else False
    if strategy:
        strategy.done()
    tags = _tags(target, feeds)
    target.done()
    for tag in tags:
        yield _order(envelope, tag, f"{i}/{tag}", power_w, interval, at, best_effort=best_effort)


def _constraint(fields: Fields) -> float:
    power_w = read_power(fields)
    if power_w == 0.0:
        raise Defect(Reason.BAD_POWER, "a load constraint must be greater than 0")
    return power_w


def _tags(target: Fields, feeds: tuple[str, ...]) -> tuple[str, ...]:
    tags = tuple(dict.fromkeys(target.maybe(target.texts, "feed_tags") or feeds))
    for tag in tags:
        if tag not in feeds:
            raise Defect(Reason.UNKNOWN_RESOURCE, f"there is no feed {tag[:64]!r}; there are {', '.join(feeds)}")
    return tags


def _order(
    envelope: Envelope,
    tag: str,
    place: str,
    power_w: float | None,
    interval: Interval,
    at: datetime,
    *,
    best_effort: bool,
) -> Order:
    """Build the order; its id follows from the message, so that reading it again gives the same one."""
    return Order(
        order_id=str(uuid5(UUID(envelope.id), place)),
        issuer=envelope.identifier,
        kind=OrderKind.RELEASE if power_w is None else OrderKind.LIMIT,
        resource=tag,
        interval=interval,
        power_w=power_w,
        best_effort=best_effort,
        received_at=at,
        correlation_id=envelope.correlationid or envelope.id,
        traceparent=envelope.traceparent,
        protocol="dsx_flex",
        group=envelope.id,
    )


def read_enforcement(data: dict[str, Json], envelope: Envelope) -> Enforcement:
    """Return what the infrastructure agent reports. Raises Defect."""
    fields = Fields(data)
    found = Enforcement(
        issuer=envelope.identifier,
        breach_id=fields.uuid("breach_id"),
        feed_tag=fields.text("feed_tag"),
        action=fields.word("action", ("applied", "reverted")),
        code=fields.word("code", ("success", "partial", "error")),
        results=tuple(_result(entry) for entry in fields.objects("results")),
        at=fields.time("timestamp"),
        detail=fields.maybe(lambda name: fields.text(name, 1024), "diag_msg") or "",
    )
    fields.done()
    return found


def _result(fields: Fields) -> Result:
    applied = fields.maybe(fields.object, "applied_power")
    found = Result(
        resource_id=fields.text("resource_id"),
        resource_type=fields.word("resource_type", ("node", "gpu", "chassis")),
        requested_action=fields.word("requested_action", ("power_cap", "throttle", "suspend")),
        code=fields.word("code", ("applied", "failed", "skipped")),
        message=fields.maybe(lambda name: fields.text(name, 1024), "message") or "",
        applied_w=read_power(applied) if applied else None,
    )
    fields.done()
    return found
