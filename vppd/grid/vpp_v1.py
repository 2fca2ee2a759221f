"""vpp/v1, what we receive: orders, regulation signals and awards."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from vppd.core.bidding.bid import DIRECTIONS
from vppd.grid.envelope import Envelope
from vppd.grid.fields import Fields
from vppd.grid.offers import bid_id_of, read_amount
from vppd.grid.quantities import read_interval, read_power
from vppd.grid.reasons import Defect, Reason
from vppd.grid.site import EVERYTHING, Site
from vppd.grid.strict_json import Json
from vppd.model import Interval, Order, OrderKind, Priority

ORDER: Final = "vpp.order.set.v1"
REGULATION: Final = "vpp.regulation.v1"
AWARD: Final = "vpp.bid.award.v1"
MOST_SEQ = 2**53 - 1
LONGEST_RAMP_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Regulation:
    """One regulation signal: ``level_frac`` of the capacity under order, + = more consumption. [-1, 1]"""

    issuer: str
    seq: int
    sent_at: datetime
    level_frac: float
    is_dated: bool = True
    """Both seq and sent_at were signed; what is missing follows from the envelope, which anybody could rewrite."""


@dataclass(frozen=True, slots=True)
class Award:
    """A bid that won."""

    award_id: str
    issuer: str
    bid_id: str
    seq: int
    expires_at: datetime
    resource: str
    product: str
    direction: str
    """up: less consumption; down: more."""
    power_w: float
    interval: Interval
    price: Decimal | None = None
    """Per MWh; None: what was offered."""
    currency: str = ""
    revision: int | None = None
    """The revision of the bid that was cleared, when the market says so."""


def read_order(data: dict[str, Json], envelope: Envelope, site: Site, at: datetime) -> Order:
    """Return the order. Raises Defect."""
    fields = Fields(data)
    check_audience(fields, site)
    kind = OrderKind(fields.word("kind", tuple(k.value for k in OrderKind)))
    order = Order(
        order_id=fields.uuid("order_id"),
        issuer=envelope.identifier,
        kind=kind,
        resource=_resource(fields, site, kind),
        interval=read_interval(fields.maybe(fields.object, "interval"), at),
        power_w=_power(fields, kind),
        ramp_s=_ramp(fields),
        priority=_priority(fields, kind),
        product=fields.maybe(fields.text, "product") or "",
        best_effort=bool(fields.maybe(fields.flag, "best_effort")),
        seq=fields.whole("seq", 0, MOST_SEQ),
        expires_at=fields.time("expires_at"),
        received_at=at,
        correlation_id=envelope.correlationid or envelope.id,
        traceparent=envelope.traceparent,
        protocol="vpp_v1",
        group=envelope.id,
    )
    fields.done()
    return order


def read_regulation(data: dict[str, Json], envelope: Envelope, site: Site) -> Regulation:
    """Return the regulation signal; one without sent_at or seq takes them from its envelope's time. Raises Defect."""
    fields = Fields(data)
    check_audience(fields, site)
    level_frac = fields.number("signal")
    if not -1.0 <= level_frac <= 1.0:
        raise Defect(Reason.BAD_POWER, f"a signal of {level_frac:g} is not between -1 and 1")
    seq = fields.maybe(lambda name: fields.whole(name, 0, MOST_SEQ), "seq")
    sent_at = fields.maybe(fields.time, "sent_at")
    fields.done()
    is_dated = seq is not None and sent_at is not None
    sent_at = envelope.time if sent_at is None else sent_at
    return Regulation(envelope.identifier, _ordinal(sent_at) if seq is None else seq, sent_at, level_frac, is_dated)


def read_award(data: dict[str, Json], envelope: Envelope, site: Site, at: datetime) -> Award:
    """Return the award. Raises Defect."""
    fields = Fields(data)
    check_audience(fields, site)
    price = fields.maybe(fields.object, "price")
    award = Award(
        award_id=fields.uuid("award_id"),
        issuer=envelope.identifier,
        bid_id=bid_id_of(fields),
        seq=fields.whole("seq", 0, MOST_SEQ),
        expires_at=fields.time("expires_at"),
        resource=_resource(fields, site, None),
        product=fields.text("product"),
        direction=fields.word("direction", DIRECTIONS),
        power_w=read_power(fields.object("power")),
        interval=read_interval(fields.object("interval"), at),
        price=read_amount(price, "amount") if price else None,
        currency=price.text("currency", 3) if price else "",
        revision=fields.maybe(lambda name: fields.whole(name, 1, MOST_SEQ), "revision"),
    )
    if price:
        price.done()
    fields.done()
    return award


def _ordinal(at: datetime) -> int:
    """Return a sequence number that rises with time: milliseconds since 1970."""
    return max(0, round(at.timestamp() * 1000.0))


def check_audience(fields: Fields, site: Site) -> None:
    """Refuse what was signed for another site. Raises Defect (unauthorised)."""
    audience = fields.maybe(fields.text, "audience")
    if audience is not None and audience != site.vpp_id:
        raise Defect(Reason.UNAUTHORISED, f"the command was signed for site {audience!r}, not for {site.vpp_id!r}")


def _resource(fields: Fields, site: Site, kind: OrderKind | None) -> str:
    resource = fields.text("resource")
    if site.knows(resource) or (resource == EVERYTHING and kind is OrderKind.RELEASE):
        return resource
    raise Defect(Reason.UNKNOWN_RESOURCE, f"there is no site, feed or asset {resource[:64]!r} here")


def _power(fields: Fields, kind: OrderKind) -> float | None:
    if kind is OrderKind.RELEASE:
        if not fields.null("power") and fields.has("power"):
            raise Defect(Reason.BAD_POWER, "a release has no power")
        return None
    if not fields.has("power"):
        raise Defect(Reason.BAD_POWER, f"a {kind.value} needs a power")
    power_w = read_power(fields.object("power"))
    if power_w == 0.0 and kind in (OrderKind.REDUCE, OrderKind.INCREASE, OrderKind.REGULATION):
        raise Defect(Reason.BAD_POWER, f"a {kind.value} needs a power greater than 0")
    return power_w


def _ramp(fields: Fields) -> float | None:
    ramp_s = fields.maybe(fields.number, "ramp_s")
    if ramp_s is not None and not 0.0 <= ramp_s <= LONGEST_RAMP_S:
        raise Defect(Reason.BAD_INTERVAL, f"ramp_s must be from 0 to {LONGEST_RAMP_S:g}")
    return ramp_s


def _priority(fields: Fields, kind: OrderKind) -> int:
    """An issuer may lower its order's priority; above a grid limit are only the operator and safety."""
    given = fields.maybe(lambda name: fields.whole(name, 1, Priority.GRID_LIMIT), "priority")
    if given is not None:
        return given
    return Priority.GRID_LIMIT if kind in (OrderKind.LIMIT, OrderKind.RELEASE) else Priority.AWARD
