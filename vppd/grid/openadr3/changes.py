"""What turns the open orders of an OpenADR server into those that its events ask for now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from vppd.grid.openadr3.orders import PROTOCOL
from vppd.grid.openadr3.schedule import Note, Why
from vppd.model import Interval, Order, OrderKind


@dataclass(frozen=True, slots=True)
class Changes:
    """What turns the open orders into the plan: releases of single orders, and new orders."""

    releases: tuple[Order, ...] = ()
    orders: tuple[Order, ...] = ()
    notes: tuple[Note, ...] = ()


def reconcile(wanted: Sequence[Order], opened: Iterable[Order], issuer: str, at: datetime, hold: str = "") -> Changes:
    """Return what is to be added and released so that of this issuer's open orders exactly the wanted ones are in force.

    An open order stays as it is, with its id and its baseline, when from now on it asks what is wanted. While orders are
    held up (``hold`` says why) nothing is added, and what is not wanted any more is released all the same. What has ended since it
    was planned is wanted no more.
    """
    mine = _in_hand(opened, issuer)
    kept, new = _compared(wanted, mine, at)
    gone = [o for o in mine if o.order_id not in kept and not _is_over(o, at)]
    if hold:  # a bound whose successor has to wait stays in force
        waiting = {order.group for order in new}
        notes = tuple(Note(group, "", Why.HELD, hold) for group in sorted(waiting))
        return Changes(tuple(_release(o, at) for o in gone if o.group not in waiting), (), notes)
    return Changes(tuple(_release(order, at) for order in gone), tuple(new))


def _in_hand(opened: Iterable[Order], issuer: str) -> list[Order]:
    """Return the open orders of this issuer, without those that a release ends already."""
    ours = [o for o in opened if o.protocol == PROTOCOL and o.issuer == issuer]
    leaving = {o.resource for o in ours if o.kind is OrderKind.RELEASE}  # the cycle has not closed these yet
    return [o for o in ours if o.kind is not OrderKind.RELEASE and o.order_id not in leaving]


def _compared(wanted: Sequence[Order], mine: Sequence[Order], at: datetime) -> tuple[set[str], list[Order]]:
    """Return the ids of the open orders that are wanted as they are, and what is wanted beyond."""
    by_group: dict[str, list[Order]] = {}
    for order in mine:
        by_group.setdefault(order.group, []).append(order)
    kept, new = set[str](), list[Order]()
    for order in wanted:
        if _is_over(order, at):
            continue
        same = (o for o in by_group.get(order.group, ()) if o.order_id not in kept and _same(o, order, at))
        match = next(same, None)
        if match is not None:
            kept.add(match.order_id)
        else:
            new.append(replace(order, order_id=_order_id(order, at), received_at=at))
    return kept, new


def _is_over(order: Order, at: datetime) -> bool:
    return order.interval.end is not None and order.interval.end <= at


def _same(opened: Order, wanted: Order, at: datetime) -> bool:
    start = opened.interval.start
    if start != wanted.interval.start and max(start, wanted.interval.start) > at:
        return False
    return opened == replace(
        wanted,
        order_id=opened.order_id,
        received_at=opened.received_at,
        interval=Interval(start, wanted.interval.end),
    )


def _order_id(order: Order, at: datetime) -> str:
    """Return an id that no other order has: the same wish at another time is another order."""
    return str(uuid5(NAMESPACE_URL, repr((PROTOCOL, order.to_body(), at.isoformat()))))


def _release(order: Order, at: datetime) -> Order:
    release = Order("", order.issuer, OrderKind.RELEASE, order.order_id, Interval(at), protocol=PROTOCOL)
    return replace(
        release, order_id=_order_id(release, at), received_at=at, group=order.group, correlation_id=order.correlation_id
    )
