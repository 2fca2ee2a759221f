"""Receipts: the signed answer to every command, also to a refused one."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from vppd.grid.envelope import Context, Kind, Sender
from vppd.grid.fields import stamp
from vppd.grid.quantities import given
from vppd.grid.routes import receipt_topic
from vppd.grid.strict_json import Json
from vppd.grid.verdict import About, Accepted, Duplicate, Rejected, Verdict
from vppd.model import Outbound

RECEIPT: Final = "vpp.receipt.v1"
MOST_ORDER_IDS = 64
"""A receipt for more orders than this does not list them."""


def receipts(verdict: Verdict, at: datetime, sender: Sender) -> tuple[Outbound, ...]:
    """Return the receipts to commit together with the command and then to publish, in this order.

    An accepted command: ``received``, ``accepted``. A rejected one: ``rejected``, after ``received`` only when its
    signature holds - nobody may be told that a forgery of his command was received. A duplicate: the stored ones.
    Regulation signals and enforcement reports get none unless they are rejected. Without a known issuer in the topic
    there is nobody to tell: none.
    """
    match verdict:
        case Duplicate():
            return verdict.receipts
        case Accepted() if not verdict.is_command:
            return ()
        case Accepted():
            ids = [order.order_id for order in verdict.orders]
            listed: list[Json] = [*ids] if 0 < len(ids) <= MOST_ORDER_IDS else []
            return (
                _receipt(verdict.about, at, sender, status="received"),
                _receipt(verdict.about, at, sender, status="accepted", order_ids=listed or None),
            )
        case Rejected() if not verdict.about.issuer:
            return ()
        case Rejected():
            first = (_receipt(verdict.about, at, sender, status="received"),) if verdict.about.authenticated else ()
            last = _receipt(
                verdict.about, at, sender, status="rejected", reason=verdict.reason.value, detail=verdict.sentence
            )
            return (*first, last)


def _receipt(about: About, at: datetime, sender: Sender, **more: Json) -> Outbound:
    data = given(
        at=stamp(at),
        issuer=about.issuer,
        command_id=about.command_id or None,
        command_type=about.type,
        command_digest=about.digest,
        correlation_id=about.correlation_id or None,
        order_id=about.order_id or None,
        **more,
    )
    kind = Kind(RECEIPT, receipt_topic(sender.vpp_id, about.issuer), "receipt")
    return sender.message(kind, data, at, Context(about.correlation_id, about.traceparent))
