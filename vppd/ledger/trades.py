"""What was offered and awarded, folded from the ledger: a part of the projection, each event in constant time.

Event kinds and their bodies:

stream ``bids``
    ``offered`` | ``revised`` | ``withdrawn`` {bid: Bid, gate_closes_at, receipts}
stream ``orders``
    ``command_received`` with ``award``: Obligation
stream ``statements``
    ``award`` {award_id, ...}; ``statement`` {order_id, ...} of a scheduled award's order, which has the award's id
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from heapq import heappop, heappush
from types import MappingProxyType
from typing import Any

from vppd.core.bidding.bid import Bid, Offered, State
from vppd.model import Obligation, Recorded

OFFERS_KEPT = timedelta(days=2)
"""An offer is forgotten so long after its interval: an award of it could only be late."""
AWARDS_KEPT = timedelta(days=2)
UNSETTLED_KEPT = timedelta(days=32)
"""An obligation without a statement is remembered so long after its interval."""


class Trades:
    """Offers by bid, obligations by award; what is long over is forgotten."""

    def __init__(self) -> None:
        self._offers: dict[str, Offered] = {}
        self._winners: dict[str, str] = {}
        self._obligations: dict[str, Obligation] = {}
        self._settled: set[str] = set()
        self._over: list[tuple[datetime, str, str]] = []

    @property
    def offers(self) -> Mapping[str, Offered]:
        """What was told to the market last of each bid, by its id."""
        return MappingProxyType(self._offers)

    @property
    def obligations(self) -> Mapping[str, Obligation]:
        """What awards oblige us to, or did until lately, by award id."""
        return MappingProxyType(self._obligations)

    def is_settled(self, award_id: str) -> bool:
        """Say whether the award has its statement."""
        return award_id in self._settled

    def winner(self, exclusive_group: str) -> str | None:
        """Return the bid of the group that has been awarded."""
        return self._winners.get(exclusive_group)

    def take_offer(self, recorded: Recorded, body: Mapping[str, Any]) -> None:
        """Fold an offer, revision or withdrawal; one older than what is known changes nothing."""
        bid = Bid.from_body(body["bid"])
        state: State = "withdrawn" if recorded.event.kind == "withdrawn" else "offered"
        gate_closes_at, known = datetime.fromisoformat(body["gate_closes_at"]), self._offers.get(bid.bid_id)
        if known is None:
            heappush(self._over, (bid.end + OFFERS_KEPT, "offer", bid.bid_id))
        elif bid.revision < known.bid.revision or (bid.revision == known.bid.revision and state == "offered"):
            return
        self._offers[bid.bid_id] = Offered(bid, state, gate_closes_at, known.awarded_w if known else 0.0)
        self._forget(recorded.event.at)

    def take_award(self, recorded: Recorded, body: dict[str, Any]) -> None:
        """Fold an accepted award."""
        found = Obligation.from_body(body)
        if found.award_id in self._obligations:
            return
        self._obligations[found.award_id] = found
        if found.interval.end is not None:
            heappush(self._over, (found.interval.end + AWARDS_KEPT, "award", found.award_id))
        offered = self._offers.get(found.bid_id)
        if offered is not None:
            self._offers[found.bid_id] = replace(offered, awarded_w=offered.awarded_w + found.power_w)
            if offered.bid.exclusive_group:
                self._winners.setdefault(offered.bid.exclusive_group, found.bid_id)
        self._forget(recorded.event.at)

    def take_statement(self, _: Recorded, body: Mapping[str, Any]) -> None:
        """Fold the account of an award, or of the order that carried one out."""
        award_id = body.get("award_id") or body.get("order_id")
        if award_id in self._obligations:
            self._settled.add(award_id)

    def _forget(self, at: datetime) -> None:
        """Drop what is long over at ``at``, the time of the newest trade."""
        while self._over and self._over[0][0] <= at:
            due, what, name = heappop(self._over)
            if what == "offer":
                self._forget_offer(name)
            elif what == "award" and name not in self._settled:
                heappush(self._over, (due - AWARDS_KEPT + UNSETTLED_KEPT, "unsettled", name))
            else:
                del self._obligations[name]
                self._settled.discard(name)

    def _forget_offer(self, bid_id: str) -> None:
        group = self._offers.pop(bid_id).bid.exclusive_group
        if self._winners.get(group) == bid_id:
            del self._winners[group]
