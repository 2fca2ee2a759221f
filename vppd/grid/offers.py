"""Offers on the wire: ``vpp.bid.offer.v1`` from the one internal bid, and back as a market reads it."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from vppd.core.bidding.bid import DIRECTIONS, Bid, Offered, State, price_per_mwh
from vppd.core.bidding.quote import Step
from vppd.grid.envelope import Context, Kind, Sender
from vppd.grid.fields import Fields, stamp
from vppd.grid.quantities import given, interval_json, read_power
from vppd.grid.reasons import Defect, Reason
from vppd.grid.strict_json import Json
from vppd.model import Event, Interval, Outbound

OFFER: Final = "vpp.bid.offer.v1"
_AMOUNT = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def offer_message(bid: Bid, state: State, gate_closes_at: datetime, at: datetime, sender: Sender) -> Outbound:
    """Return the offer, or its withdrawal, for the market. Raises ValueError for a bid that may not go out."""
    check_offerable(bid)
    data = given(
        at=stamp(at),
        bid_id=bid.bid_id,
        revision=bid.revision,
        state=state,
        product=bid.product,
        resource=bid.resource,
        direction=bid.direction,
        interval=interval_json(bid.interval),
        gate_closes_at=stamp(gate_closes_at),
        steps=[{"power": _watts(step.upto_w), "price": f"{price_per_mwh(step):f}"} for step in bid.steps],
        min_power=_watts(bid.min_w) if bid.min_w > 0.0 else None,
        divisible=bid.divisible,
        currency=bid.currency,
        dispatch=bid.dispatch,
        activation_s=bid.activation_s,
        sustain_s=bid.sustain_s,
        max_duration_s=bid.max_duration_s,
        resting_s=bid.resting_s,
        exclusive_group=bid.exclusive_group or None,
    )
    return sender.message(Kind(OFFER, offer_topic(sender.vpp_id), "bid"), data, at, Context())


def offer_event(bid: Bid, state: State, gate_closes_at: datetime, at: datetime, message: Outbound | None) -> Event:
    """Return the ledger's entry, which owes ``message`` to the market; it can be appended once for ever."""
    kind = "withdrawn" if state == "withdrawn" else "offered" if bid.revision == 1 else "revised"
    body = {"bid": bid.to_body(), "gate_closes_at": gate_closes_at.isoformat(), "receipts": owed(message)}
    return Event("bids", kind, at, body, key=f"bid/{bid.bid_id}/{bid.revision}/{state}")


def owed(message: Outbound | None) -> list[dict[str, Json]]:
    """Return what makes the outbox send a message, once the event with it is on disk."""
    if message is None:
        return []
    return [{"topic": message.topic, "payload": message.payload.decode(), "qos": message.qos, "retain": message.retain}]


def check_offerable(bid: Bid) -> None:
    """Raise ValueError for a bid that the wire cannot say or that nothing would carry out."""
    if str(UUID(bid.bid_id)) != bid.bid_id:
        raise ValueError(f"the id of a bid is a UUID in lower case, not {bid.bid_id!r}")
    if bid.direction == "symmetric" and bid.dispatch == "scheduled":
        raise ValueError("nothing can be carried out in both directions over a whole slot: offer it kept ready")


def offer_topic(vpp_id: str) -> str:
    """Return where the market hears our offers."""
    return f"vpp/v1/{vpp_id}/bid/offer"


def _watts(power_w: float) -> dict[str, Json]:
    """Return a PowerUnit that is never more than the power: what is offered is there."""
    return {"value": int(power_w * 1e3 + 1e-6) / 1e3, "unit": "watt"}


def read_offer(data: dict[str, Json]) -> Offered:
    """Return the bid that an offer's signed data holds, as a market sees it. Raises Defect."""
    fields = Fields(data)
    fields.time("at")
    state: State = "offered" if fields.word("state", ("offered", "withdrawn")) == "offered" else "withdrawn"
    gate_closes_at = fields.time("gate_closes_at")
    span = fields.object("interval")
    interval = Interval(span.time("start_time"), span.time("end_time"))
    span.done()
    least = fields.maybe(fields.object, "min_power")
    try:
        bid = Bid(
            bid_id=bid_id_of(fields),
            product=fields.text("product"),
            resource=fields.text("resource"),
            direction=fields.word("direction", DIRECTIONS),
            interval=interval,
            steps=tuple(_step(step) for step in fields.objects("steps")),
            currency=fields.text("currency", 3),
            min_w=read_power(least) if least else 0.0,
            divisible=fields.flag("divisible"),
            revision=fields.whole("revision", 1, 2**31),
            activation_s=fields.maybe(fields.number, "activation_s"),
            max_duration_s=fields.maybe(fields.number, "max_duration_s"),
            resting_s=fields.maybe(fields.number, "resting_s"),
            exclusive_group=fields.maybe(fields.text, "exclusive_group") or "",
            dispatch=fields.word("dispatch", ("scheduled", "order")),
            sustain_s=fields.maybe(fields.number, "sustain_s"),
        )
    except ValueError as error:
        raise Defect(Reason.MALFORMED, str(error)) from error
    fields.done()
    return Offered(bid, state, gate_closes_at)


def bid_id_of(fields: Fields) -> str:
    """Return a bid's id in lower case: a UUID of any version, since ours follow from what is offered. Raises Defect."""
    text = fields.text("bid_id", 36).lower()
    try:
        if str(UUID(text)) == text:
            return text
    except ValueError:
        pass
    raise Defect(Reason.MALFORMED, "bid_id is not a UUID")


def _step(fields: Fields) -> Step:
    upto_w = read_power(fields.object("power"))
    price_per_mwh = read_amount(fields, "price")
    fields.done()
    return Step(upto_w, float(price_per_mwh) / 1e6)


def read_amount(fields: Fields, name: str) -> Decimal:
    """Return an exact amount of money. Raises Defect (malformed) for what is not plainly a decimal number."""
    text = fields.text(name, 32)
    if not _AMOUNT.fullmatch(text):
        raise Defect(Reason.MALFORMED, f"{name} is not a decimal number")
    return Decimal(text)
