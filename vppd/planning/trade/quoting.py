"""What has to be told to the market so that it knows the bids as they are now: offers, revisions, withdrawals. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from vppd.core.bidding.bid import Bid, Offered, State, price_per_mwh, unfit_revision
from vppd.planning.trade.gates import Slot

Place = tuple[str, datetime, datetime]
"""A product and the ends of one delivery slot."""


@dataclass(frozen=True, slots=True)
class Change:
    """One message to the market."""

    bid: Bid
    state: State
    gate_closes_at: datetime

    @property
    def verb(self) -> str:
        """Return what is done: offered, revised or withdrawn."""
        return "withdrawn" if self.state == "withdrawn" else "offered" if self.bid.revision == 1 else "revised"


def place_of_slot(slot: Slot) -> Place:
    """Return where a slot is."""
    return slot.product, slot.start, slot.end


def place_of_bid(bid: Bid) -> Place:
    """Return which slot a bid is for."""
    return bid.product, bid.interval.start, bid.end


def undecided(offers: Mapping[str, Offered], now: datetime) -> frozenset[str]:
    """Return the bids that may still be changed: on offer, nothing of them taken, their gate open."""
    return frozenset(
        bid_id
        for bid_id, offered in offers.items()
        if offered.state == "offered" and offered.awarded_w <= 0.0 and now < offered.gate_closes_at
    )


def changes(
    bids: Iterable[Bid], play: Iterable[Slot], offers: Mapping[str, Offered], now: datetime
) -> tuple[Change, ...]:
    """Return what to tell, given the bids as they should be; nothing about a slot whose gate is closed, or of which some is sold.

    What is told already is not told again, however often it is computed; what is on offer and no longer wanted is withdrawn.
    """
    gates = {place_of_slot(slot): slot.gate_closes_at for slot in play if now < slot.gate_closes_at}
    wanted = {bid.bid_id: bid for bid in bids if place_of_bid(bid) in gates}
    found = []
    for bid_id, bid in wanted.items():
        known = offers.get(bid_id)
        if known is not None and (known.awarded_w > 0.0 or known.gate_closes_at <= now or _says_the_same(known, bid)):
            continue
        revised = replace(bid, revision=1 if known is None else known.bid.revision + 1)
        if not unfit_revision(known, revised, "offered"):
            found.append(Change(revised, "offered", gates[place_of_bid(bid)]))
    for bid_id in sorted(undecided(offers, now) - wanted.keys()):
        found.append(Change(offers[bid_id].bid, "withdrawn", offers[bid_id].gate_closes_at))
    return tuple(found)


def _says_the_same(known: Offered, bid: Bid) -> bool:
    """Say whether the market would read the same: to a milliwatt, and to the hundredth of a price."""
    return known.state == "offered" and _told(known.bid) == _told(bid)


def _told(bid: Bid) -> tuple[object, ...]:
    steps = tuple((round(step.upto_w, 3), price_per_mwh(step)) for step in bid.steps)
    terms = (bid.divisible, bid.currency, bid.dispatch, bid.exclusive_group, round(bid.min_w, 3))
    times = (bid.activation_s, bid.sustain_s, bid.max_duration_s, bid.resting_s)
    return (*place_of_bid(bid), bid.resource, bid.direction, terms, times, steps)
