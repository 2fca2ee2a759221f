"""Bids as IEC 62325-451-7 ``ReserveBid_MarketDocument`` 7.4, as the Nordic balancing market takes them.

Source: element order and codes as in the Nordic implementation guide (type A37, process A47 mFRR, roles A46 to A34, business
type B74, MAW, quantities in whole MW, UTC to the minute); the tests check every document with an independent reader.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from uuid import NAMESPACE_OID, uuid5
from xml.etree import ElementTree as ET

from vppd.core.bidding.bid import Bid
from vppd.errors import Refused

NAMESPACE = "urn:iec62325.351:tc57wg16:451-7:reservebiddocument:7:4"
MTU = timedelta(minutes=15)
MOST_MW = 9999
_DIRECTIONS = {"up": "A01", "down": "A02", "symmetric": "A03"}
_YES, _NO = "A01", "A02"


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody with a code in the market."""

    code: str
    scheme: str = "A01"
    """A01: EIC; A10: GS1; NNO and the like: national."""


@dataclass(frozen=True, slots=True)
class Market:
    """Who bids to whom, and about which area."""

    sender: Party
    receiver: Party
    domain: Party
    """The control area."""
    acquiring: Party
    """The area that buys."""
    resources: tuple[tuple[str, Party], ...]
    """Our resource names and the market's codes for them."""
    auction: str = "MFRR_ENERGY_ACTIVATION_MARKET"
    product_type: str = "A07"
    """Scheduled and direct activation."""
    price_limit_per_mwh: float = 10_000.0


def reserve_bid(bids: Sequence[Bid], market: Market, document_id: str, created: datetime) -> bytes:
    """Return the document with all bids, a time series per step and quarter hour. Raises Refused for what the market would not take."""
    if not bids:
        raise Refused("a document needs a bid")
    root = ET.Element("ReserveBid_MarketDocument", xmlns=NAMESPACE)
    _texts(root, ("mRID", document_id), ("revisionNumber", "1"), ("type", "A37"), ("process.processType", "A47"))
    _party(root, "sender_MarketParticipant", market.sender, "A46")
    _party(root, "receiver_MarketParticipant", market.receiver, "A34")
    _texts(root, ("createdDateTime", created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")))
    starts, ends = zip(*(_span(bid) for bid in bids), strict=True)
    _span_element(root, "reserveBid_Period.timeInterval", min(starts), max(ends))
    _coded(root, "domain.mRID", market.domain)
    _party(root, "subject_MarketParticipant", market.sender, "A46")
    for bid in bids:
        for series in _series(bid, market):
            root.append(series)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _span(bid: Bid) -> tuple[datetime, datetime]:
    end = bid.interval.end
    assert end is not None
    start, end = bid.interval.start.astimezone(UTC), end.astimezone(UTC)
    for at in (start, end):
        if at.minute % 15 or at.second or at.microsecond:
            raise Refused(f"{at.isoformat()} is not on a quarter hour, as the market's time units are")
    return start, end


def _series(bid: Bid, market: Market) -> Iterator[ET.Element]:
    """Yield a series per quarter hour and step: the steps are parts of one bid, the quarter hours are linked."""
    start, end = _span(bid)
    units = round((end - start) / MTU)
    parts = list(_parts(bid, market.price_limit_per_mwh))
    for unit in range(units):
        begin = start + unit * MTU
        for place, (quantity_mw, least_mw, price) in enumerate(parts):
            groups = (
                ("linkedBidsIdentification", str(_id(bid, "link", str(place))) if units > 1 else ""),
                ("multipartBidIdentification", str(_id(bid, "parts", str(unit))) if len(parts) > 1 else ""),
                ("exclusiveBidsIdentification", bid.exclusive_group),
            )
            series = ET.Element("Bid_TimeSeries")
            _head(series, bid, market, str(_id(bid, str(unit), str(place))), least_mw < quantity_mw, groups)
            _period(series, begin, quantity_mw, least_mw, price)
            yield series


def _parts(bid: Bid, limit_per_mwh: float) -> Iterator[tuple[int, int, Decimal]]:
    """Yield quantity, least quantity [MW] and price [per MWh] of each step; in whole MW, prices rounded up."""
    begun_w = 0.0
    for step in bid.steps:
        quantity_mw = (step.upto_w - begun_w) / 1e6
        if abs(quantity_mw - round(quantity_mw)) > 1e-9 or not 1 <= round(quantity_mw) <= MOST_MW:
            raise Refused(f"a step of {quantity_mw:g} MW: the market takes 1 to {MOST_MW} MW in whole MW")
        price = Decimal(repr(step.price_per_wh * 1e6)).quantize(Decimal("0.01"), ROUND_CEILING)
        if abs(price) > Decimal(repr(limit_per_mwh)):
            raise Refused(f"a price of {price} per MWh is beyond the limit of {limit_per_mwh:g}")
        least_w = min(max(bid.min_w - begun_w, 1e6), step.upto_w - begun_w) if bid.divisible else quantity_mw * 1e6
        yield round(quantity_mw), math.ceil(least_w / 1e6 - 1e-9), price
        begun_w = step.upto_w


def _head(
    series: ET.Element, bid: Bid, market: Market, mrid: str, divisible: bool, groups: tuple[tuple[str, str], ...]
) -> None:
    _texts(series, ("mRID", mrid), ("auction.mRID", market.auction), ("businessType", "B74"))
    _coded(series, "acquiring_Domain.mRID", market.acquiring)
    _texts(series, ("quantity_Measurement_Unit.name", "MAW"), ("currency_Unit.name", bid.currency))
    _texts(series, ("divisible", _YES if divisible else _NO), *((name, text) for name, text in groups if text))
    _texts(ET.SubElement(series, "status"), ("value", "A06"))
    _coded(series, "registeredResource.mRID", _resource(bid, market))
    _texts(series, ("flowDirection.direction", _DIRECTIONS[bid.direction]))
    _texts(series, ("energyPrice_Measurement_Unit.name", "MWH"))
    if bid.resting_s is not None:
        _texts(series, ("resting_ConstraintDuration.duration", _minutes(bid.resting_s)))
    if bid.max_duration_s is not None:
        _texts(series, ("maximum_ConstraintDuration.duration", _minutes(bid.max_duration_s)))
    _texts(series, ("standard_MarketProduct.marketProductType", market.product_type))


def _period(series: ET.Element, begin: datetime, quantity_mw: int, least_mw: int, price: Decimal) -> None:
    period = ET.SubElement(series, "Period")
    _span_element(period, "timeInterval", begin, begin + MTU)
    _texts(period, ("resolution", "PT15M"))
    point = ET.SubElement(period, "Point")
    _texts(point, ("position", "1"), ("quantity.quantity", str(quantity_mw)))
    if least_mw < quantity_mw:
        _texts(point, ("minimum_Quantity.quantity", str(least_mw)))
    _texts(point, ("energy_Price.amount", f"{price:f}"))


def _resource(bid: Bid, market: Market) -> Party:
    codes = dict(market.resources)
    if bid.resource not in codes:
        raise Refused(f"the market has no code for {bid.resource!r} (known: {', '.join(codes) or 'none'})")
    return codes[bid.resource]


def _id(bid: Bid, *parts: str) -> object:
    """Return the same id for the same part of the same revision, so that a document sent twice says the same."""
    return uuid5(NAMESPACE_OID, "/".join((bid.bid_id, str(bid.revision), *parts)))


def _minutes(duration_s: float) -> str:
    return f"PT{math.ceil(duration_s / 60.0)}M"


def _texts(parent: ET.Element, *pairs: tuple[str, str]) -> None:
    for name, text in pairs:
        ET.SubElement(parent, name).text = text


def _coded(parent: ET.Element, name: str, party: Party) -> None:
    ET.SubElement(parent, name, codingScheme=party.scheme).text = party.code


def _party(parent: ET.Element, name: str, party: Party, role: str) -> None:
    _coded(parent, f"{name}.mRID", party)
    _texts(parent, (f"{name}.marketRole.type", role))


def _span_element(parent: ET.Element, name: str, start: datetime, end: datetime) -> None:
    element = ET.SubElement(parent, name)
    _texts(element, ("start", start.strftime("%Y-%m-%dT%H:%MZ")), ("end", end.strftime("%Y-%m-%dT%H:%MZ")))
