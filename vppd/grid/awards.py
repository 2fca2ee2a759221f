"""Awards against what was offered: a pure judgement, and what follows from one that holds."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from vppd.core.bidding.bid import Bid, Offered, price_per_mwh
from vppd.grid.envelope import Envelope
from vppd.grid.fields import stamp
from vppd.grid.reasons import Defect, Reason
from vppd.grid.vpp_v1 import Award
from vppd.model import Interval, Obligation, Order, OrderKind, Priority

_SCHEDULED_AS = {"up": OrderKind.REDUCE, "down": OrderKind.INCREASE}
SLACK_W = 1e-3
"""Powers nearer than this are the same: the wire writes whole milliwatts, and a dispatcher reckons in megawatts. [W]"""


def match(award: Award, offered: Offered | None, rival: str | None, at: datetime) -> Obligation:
    """Return what the award obliges to; ``rival`` is the bid of its exclusive group that has an award already.

    All awards of a bid together stay inside what is offered. Raises Defect: unknown_bid, late or mismatch.
    """
    if offered is None:
        raise Defect(Reason.UNKNOWN_BID, f"no bid {award.bid_id} was offered here")
    bid = offered.bid
    _check_in_time(award, offered, at)
    _check_same(award, bid)
    if rival is not None and rival != bid.bid_id:
        raise Defect(Reason.MISMATCH, f"bid {rival} of the same exclusive group has been awarded")
    _check_power(award, offered)
    power_w = min(award.power_w, offered.left_w)
    return Obligation(
        award_id=award.award_id,
        bid_id=bid.bid_id,
        issuer=award.issuer,
        product=bid.product,
        resource=bid.resource,
        direction=bid.direction,
        interval=bid.interval,
        power_w=power_w,
        price=f"{_paid_per_mwh(award, bid, offered.awarded_w + power_w):f}",
        currency=bid.currency,
        dispatch=bid.dispatch,
        activation_s=bid.activation_s,
        sustain_s=bid.sustain_s,
    )


def orders_of(found: Obligation, award: Award, envelope: Envelope, at: datetime) -> tuple[Order, ...]:
    """Return the order that carries out a scheduled award by itself; what is kept ready waits for one to come."""
    kind = _SCHEDULED_AS.get(found.direction)
    if found.dispatch != "scheduled" or kind is None:
        return ()
    return (
        Order(
            order_id=found.award_id,
            issuer=found.issuer,
            kind=kind,
            resource=found.resource,
            interval=found.interval,
            power_w=found.power_w,
            priority=Priority.AWARD,
            product=found.product,
            seq=award.seq,
            expires_at=award.expires_at,
            received_at=at,
            correlation_id=envelope.correlationid or envelope.id,
            traceparent=envelope.traceparent,
            protocol="vpp_v1",
            group=envelope.id,
        ),
    )


def _check_in_time(award: Award, offered: Offered, at: datetime) -> None:
    bid = offered.bid
    if offered.state == "withdrawn":
        raise Defect(Reason.LATE, f"bid {bid.bid_id} has been withdrawn")
    if award.revision is not None and award.revision != bid.revision:
        raise Defect(Reason.LATE, f"revision {award.revision} is not the newest, which is {bid.revision}")
    if bid.interval.start <= at:
        raise Defect(Reason.LATE, f"delivery began at {stamp(bid.interval.start)}")


def _check_same(award: Award, bid: Bid) -> None:
    for name, awarded, offered in (
        ("product", award.product, bid.product),
        ("resource", award.resource, bid.resource),
        ("direction", award.direction, bid.direction),
        ("interval", _span(award.interval), _span(bid.interval)),
        ("currency", award.currency or bid.currency, bid.currency),
    ):
        if awarded != offered:
            raise Defect(Reason.MISMATCH, f"the {name} awarded is {awarded!r}, the bid's is {offered!r}")


def _check_power(award: Award, offered: Offered) -> None:
    bid, power_w = offered.bid, award.power_w
    if power_w <= SLACK_W:
        raise Defect(Reason.MISMATCH, "an award of nothing")
    if power_w > offered.left_w + SLACK_W:
        raise Defect(Reason.MISMATCH, f"{power_w:g} W are more than the {offered.left_w:g} W left of the offer")
    if not bid.divisible and power_w < bid.power_w - SLACK_W:
        raise Defect(Reason.MISMATCH, f"{power_w:g} W are a part of a bid of {bid.power_w:g} W that is not divisible")
    if offered.awarded_w + power_w < bid.min_w - SLACK_W:
        raise Defect(Reason.MISMATCH, f"{power_w:g} W are less than the {bid.min_w:g} W that must be taken at least")


def _paid_per_mwh(award: Award, bid: Bid, upto_w: float) -> Decimal:
    """Return the price of the award; without one the price that was offered holds. Raises Defect (mismatch) below it."""
    step = next((step for step in bid.steps if upto_w <= step.upto_w + SLACK_W), bid.steps[-1])
    asked_per_mwh = price_per_mwh(step)
    if award.price is None:
        return asked_per_mwh
    if award.price < asked_per_mwh:
        said = f"{award.price:f} is below the {asked_per_mwh:f} {bid.currency}"
        raise Defect(Reason.MISMATCH, f"a price of {said} per MWh that were asked for up to {step.upto_w:g} W")
    return award.price


def _span(interval: Interval) -> str:
    return f"{stamp(interval.start)}/{stamp(interval.end) if interval.end else ''}"
