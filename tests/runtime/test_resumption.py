"""Which orders a restarted daemon goes on with."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from vppd.model import Interval, Order, OrderKind
from vppd.runtime.resumption import closed, why_not

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)


def order(resource: str, kind: OrderKind = OrderKind.LIMIT, protocol: str = "vpp_v1", issuer: str = "tso") -> Order:
    """Return an order left behind."""
    return Order("order-1", issuer, kind, resource, Interval(AT), 1e3, protocol=protocol)


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        (order("main-a"), ""),
        (order("main-z"), "resource"),
        (order("another-order", OrderKind.RELEASE), ""),
        (order("main-a", protocol="openadr3"), "server"),
        (order("main-a", protocol="openadr3", issuer="utility"), ""),
        (order("another-order", OrderKind.RELEASE, "openadr3", "utility"), ""),
        (order("main-z", protocol="openadr3", issuer="utility"), "resource"),
    ],
)
def test_what_is_carried_on(left: Order, reason: str) -> None:
    """Orders about something gone and those of a server that is gone are closed; a release of a single order is carried on."""
    found = why_not(left, {"main-a", "*"}, {"openadr3": "utility"})
    assert reason in found
    assert bool(reason) is bool(found)


def test_a_closed_order_is_recorded() -> None:
    """The ledger says that the order was aborted, and why."""
    assert closed(order("main-z"), "gone", AT).body == {"order_id": "order-1", "state": "aborted", "reason": "gone"}
