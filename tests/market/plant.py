"""The other end of the market: a power plant that offers, answers awards and orders with real receipts, and gives account."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.grid.schemas import check
from vppd.core.bidding.bid import Bid, State
from vppd.core.bidding.quote import Step
from vppd.demo.keys import KeyPair, key_pair, write_jwks
from vppd.grid.envelope import Kind, Sender
from vppd.grid.fields import stamp
from vppd.grid.ids import SeededIds
from vppd.grid.offers import offer_message
from vppd.grid.reasons import Reason
from vppd.grid.receipts import receipts
from vppd.grid.signing import KeyRing, PinnedKey
from vppd.grid.verdict import About, Accepted, Rejected
from vppd.grid.vpp_agent import STATEMENT
from vppd.model import Interval, Order, OrderKind, Outbound

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ISSUER, VPP, AGENT = "market", "dc1", "dc1-agent"
PRODUCT = "day-ahead"
Verdict = Accepted | Rejected | None


def accept(about: About, data: dict[str, Any]) -> Verdict:
    """Accept everything."""
    order = Order(
        about.command_id,
        about.issuer,
        OrderKind(data.get("kind", "reduce")),
        VPP,
        Interval(NOW),
        data["power"]["value"],
    )
    return Accepted(about, orders=(order,))


def refuse(reason: Reason, sentence: str) -> Callable[[About, dict[str, Any]], Verdict]:
    """Reject everything for one reason."""
    return lambda about, data: Rejected(about, reason, sentence)


@dataclass(frozen=True, slots=True)
class Keys:
    """Key pairs of both sides, and the plant's JWK set on disk."""

    market: KeyPair
    agent: KeyPair
    jwks: Path


def keys_in(folder: Path) -> Keys:
    """Return fresh keys in a folder."""
    keys = Keys(
        key_pair(folder, "market", "market-1"), key_pair(folder, "agent", "agent-1"), folder / "agent.jwks.json"
    )
    write_jwks(keys.agent, keys.jwks)
    return keys


@dataclass
class Plant:
    """A scripted power plant."""

    keys: Keys
    vpp: str = VPP
    agent: str = AGENT
    verdict: Callable[[About, dict[str, Any]], Verdict] = accept
    """What is said to a command; None: silence."""
    got: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Type and signed data of every delivery, duplicates too."""

    def __post_init__(self) -> None:
        pem = self.keys.market.public.read_bytes()
        self._ring = KeyRing([PinnedKey.from_pem(ISSUER, "market-1", "ES256", pem)])
        self.sender = Sender(self.vpp, self.agent, self.keys.agent.signer(), SeededIds(7))

    def offer(self, bid: Bid, gate: datetime, at: datetime = NOW, state: State = "offered") -> Outbound:
        """Return an offer, or its withdrawal, that fits the published schema."""
        message = offer_message(bid, state, gate, at, self.sender)
        check(message)
        return message

    def answer(self, topic: str, payload: bytes, at: datetime) -> tuple[Outbound, ...]:
        """Take a command, which must fit the published schema, and return its receipts."""
        check(Outbound(topic, payload))
        event = json.loads(payload)
        data = json.loads(self._ring.verify(event["data"], ISSUER).payload)
        assert data["audience"] == self.vpp
        self.got.append((event["type"], data))
        digest = hashlib.sha256(payload).hexdigest()
        about = About(topic, digest, "vpp_v1", event["type"], ISSUER, event["id"], event["correlationid"], "", True)
        verdict = self.verdict(about, data)
        return receipts(verdict, at, self.sender) if verdict else ()

    def statement(self, order_id: str, shed_wh: float, at: datetime) -> Outbound:
        """Return the statement of an order, or of a scheduled award, which is its order."""
        return self.order_statement(order_id, at, kind="reduce", metered_wh=1.0, shed_wh=shed_wh)

    def order_statement(self, order_id: str, at: datetime, **said: Any) -> Outbound:
        """Return the statement of an order of any kind."""
        span = {"start_time": stamp(at - timedelta(minutes=15)), "end_time": stamp(at)}
        return self._account(at, order_id=order_id, interval=span, **said)

    def award_statement(self, award_id: str, bid: Bid, held_frac: float, at: datetime) -> Outbound:
        """Return the statement of an award that was kept ready."""
        span = {"start_time": stamp(bid.interval.start), "end_time": stamp(bid.end)}
        sold = {"sold_power": {"value": bid.power_w, "unit": "watt"}, "held_frac": held_frac}
        about = {"award_id": award_id, "bid_id": bid.bid_id, "product": bid.product, "direction": bid.direction}
        return self._account(at, interval=span, **about, **sold)

    def _account(self, at: datetime, **data: Any) -> Outbound:
        first = {"at": stamp(at), "statement_id": self.sender.ids.uuid(), "issuer": ISSUER, "resource": self.vpp}
        kind = Kind(STATEMENT, f"vpp/v1/{self.vpp}/statement", "statement")
        message = self.sender.message(kind, {**first, "complete_frac": 1.0, **data}, at)
        check(message)
        return message


def bid_of(number: int = 1, *steps: tuple[float, float], **more: Any) -> Bid:
    """Return a bid on the quarter hour from 13:00 with (up to [W], price per MWh) steps."""
    rungs = tuple(Step(upto_w, per_mwh / 1e6) for upto_w, per_mwh in steps or ((100e3, 80.0),))
    start = more.pop("start", NOW + timedelta(hours=1))
    interval = Interval(start, more.pop("end", start + timedelta(minutes=15)))
    given = {"product": PRODUCT, "resource": VPP, "direction": "up", "currency": "EUR", "dispatch": "scheduled"}
    bid_id = f"{number:08d}-0000-5000-8000-000000000000"
    return Bid(bid_id=bid_id, interval=interval, steps=rungs, **{**given, **more})
