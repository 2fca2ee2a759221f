"""Which of the open orders that an earlier process left behind are carried on. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from vppd.model import Event, Order, OrderKind


def why_not(order: Order, known: Iterable[str], issuers: Mapping[str, str]) -> str:
    """Return why an order left behind is not carried on, empty when it is.

    ``known`` are the names of what there is; ``issuers`` says for a protocol whose orders are kept in step with their source,
    and so can be taken off, who its only issuer is. A release of a single order is about that order, whatever it is named.
    """
    if order.protocol in issuers and order.issuer != issuers[order.protocol]:
        return "its server is no longer configured"
    if order.kind is not OrderKind.RELEASE and order.resource not in known:
        return "its resource is no longer configured"
    return ""


def closed(order: Order, reason: str, at: datetime) -> Event:
    """Return the ledger's record of an order that is closed without having been carried on."""
    return Event("orders", "order_state", at, {"order_id": order.order_id, "state": "aborted", "reason": reason})
