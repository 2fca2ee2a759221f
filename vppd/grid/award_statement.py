"""The account of one award: what was sold, whether it was there, and what was delivered of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import NAMESPACE_URL, uuid5

from vppd.grid.envelope import Context, Kind, Sender
from vppd.grid.fields import stamp
from vppd.grid.offers import owed
from vppd.grid.quantities import given, interval_json, signed_power
from vppd.grid.vpp_agent import STATEMENT
from vppd.model import Event, Obligation, Outbound

KIND: Final = "award"
"""Kind of the ledger event; a scheduled award may have the statement of its order (kind ``statement``) instead."""


@dataclass(frozen=True, slots=True)
class AwardStatement:
    """What became of an award over its whole interval."""

    obligation: Obligation
    held_frac: float
    """Part of the time that was measured in which at least the sold power was there or delivered. [0-1]"""
    complete_frac: float = 1.0
    """Part of the interval for which there are readings. [0-1]"""
    ordered_wh: float | None = None
    """What orders of the product asked for. [Wh]"""
    delivered_wh: float | None = None
    """What they moved in the direction that was sold; of a symmetric award in either. [Wh]"""
    lowest_w: float | None = None
    """Least power that was there at any time. [W, >= 0]"""

    @property
    def statement_id(self) -> str:
        """Return the id of the only statement this award ever has."""
        return str(uuid5(NAMESPACE_URL, f"vppd:statement:award:{self.obligation.award_id}"))


def award_statement(found: AwardStatement, at: datetime, sender: Sender) -> Outbound:
    """Return the statement for the market."""
    sold = found.obligation
    data = given(
        at=stamp(at),
        statement_id=found.statement_id,
        award_id=sold.award_id,
        bid_id=sold.bid_id,
        issuer=sold.issuer,
        product=sold.product,
        resource=sold.resource,
        direction=sold.direction,
        interval=interval_json(sold.interval),
        sold_power=signed_power(sold.power_w),
        price={"amount": sold.price, "currency": sold.currency} if sold.price else None,
        held_frac=found.held_frac,
        complete_frac=found.complete_frac,
        ordered_wh=found.ordered_wh,
        delivered_wh=found.delivered_wh,
        lowest_power=None if found.lowest_w is None else signed_power(found.lowest_w),
    )
    kind = Kind(STATEMENT, f"vpp/v1/{sender.vpp_id}/statement", "statement")
    return sender.message(kind, data, at, Context())


def award_statement_event(found: AwardStatement, at: datetime, message: Outbound | None) -> Event:
    """Return the ledger's entry, which owes ``message`` to the market; it can be appended once per award, for ever."""
    sold = found.obligation
    body = {
        "statement_id": found.statement_id,
        "award_id": sold.award_id,
        "issuer": sold.issuer,
        "resource": sold.resource,
        "product": sold.product,
        "start": sold.interval.start.isoformat(),
        "end": sold.interval.end.isoformat() if sold.interval.end else None,
        "sold_w": sold.power_w,
        "price": sold.price,
        "currency": sold.currency,
        "held_frac": found.held_frac,
        "complete_frac": found.complete_frac,
        "ordered_wh": found.ordered_wh,
        "delivered_wh": found.delivered_wh,
        "lowest_w": found.lowest_w,
        "receipts": owed(message),
    }
    return Event("statements", KIND, at, body, key=f"statement/award/{sold.award_id}")
