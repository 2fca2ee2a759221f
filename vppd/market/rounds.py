"""One slot cleared: what is needed, what is taken of whom at what price, and the awards that follow. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from vppd.core.bidding.bid import price_per_mwh
from vppd.errors import ConfigError
from vppd.market.book import Entry, Slot
from vppd.market.clearing import Cleared, Need, Offer, Rung, Ties, clear
from vppd.market.rivals import RIVAL, Crowd, rivals

_NEED = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(W|kW|MW|%)\s*")
_UNITS = {"W": Decimal(1), "kW": Decimal(1000), "MW": Decimal(1_000_000)}


@dataclass(frozen=True, slots=True)
class Demand:
    """How much the market buys in a slot: a power, or a part of all that is offered there."""

    amount: Decimal
    is_part: bool = False

    @classmethod
    def read(cls, text: str) -> Demand:
        """Return "500 kW", "2 MW" or "60 %". Raises ConfigError."""
        found = _NEED.fullmatch(text)
        if found is None or not Decimal(found[1]):
            raise ConfigError(
                f"--need: {text!r} is neither a power (500 kW, 2 MW) nor a part of what is offered (60 %)"
            )
        if found[2] == "%":
            return cls(Decimal(found[1]) / 100, is_part=True)
        return cls(Decimal(found[1]) * _UNITS[found[2]])

    def power_w(self, offered_w: int) -> int:
        """Return what is bought at most where so much is offered. [W]"""
        return int(self.amount * offered_w) if self.is_part else int(self.amount)


NOTHING = "none"


def demand_of(text: str) -> tuple[str, Demand | None]:
    """Return where something is bought (empty: everywhere) and how much, None for nothing: "60 %", "down:2 MW", "symmetric:none".

    Raises ConfigError.
    """
    where, colon, amount = text.rpartition(":")
    if colon and not where.strip():
        raise ConfigError(f"--need: {text!r} names no product and no direction before its colon")
    if where and amount.strip() == NOTHING:
        return where.strip(), None
    return where.strip(), Demand.read(amount)


@dataclass(frozen=True, slots=True)
class Rules:
    """How this market clears."""

    issuer: str
    demand: Demand
    price_cap: Decimal = Decimal(1000)
    """[per MWh]"""
    scarcity_price: Decimal | None = None
    """What is paid where more is needed than anybody offers; None: the price cap. [per MWh]"""
    ties: Ties = Ties.PRO_RATA
    share_w: int = 1000
    """Shares of a tie are whole multiples of this. [W]"""
    crowd: Crowd = field(default_factory=Crowd)
    demands: Mapping[str, Demand | None] = field(default_factory=dict)
    """What is bought other than ``demand``: by product, direction, or product/direction; None buys nothing there."""

    def need_w(self, slot: Slot, offered_w: int) -> int:
        """Return what is bought at most in a slot where so much is offered. [W]"""
        said = self._said(slot)
        return 0 if said is None else said.power_w(offered_w)

    def buys(self, slot: Slot) -> bool:
        """Say whether anything is bought in such slots."""
        return self._said(slot) is not None

    def _said(self, slot: Slot) -> Demand | None:
        """Return what is said most closely of a slot."""
        for where in (f"{slot.product}/{slot.direction}", slot.product, slot.direction):
            if where in self.demands:
                return self.demands[where]
        return self.demand


@dataclass(slots=True)
class Deal:
    """One award to one power plant, and what has become of it."""

    award_id: str
    vpp: str
    bid_id: str
    revision: int
    product: str
    resource: str
    direction: str
    start: datetime
    end: datetime
    power_w: int
    price: Decimal
    """Clearing price. [per MWh]"""
    currency: str
    dispatch: str
    sustain_s: float | None = None
    swing_frac: float = 0.0
    """Mean size of the signals that its order was followed by, where it is symmetric. [0-1]"""
    state: str = "new"
    """new, accepted, rejected or unanswered."""
    reason: str = ""
    order_id: str = ""
    """Of the activation; empty where none was ordered."""
    order_start: datetime | None = None
    order_end: datetime | None = None
    order_state: str = ""
    order_reason: str = ""
    statements: dict[str, Mapping[str, object]] = field(default_factory=dict)
    """Signed data of the statements about it: ``award`` and ``order``."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a slot came to."""

    slot: Slot
    offered_w: int
    """By the power plants. [W]"""
    rivals_w: int
    """By the others. [W]"""
    need_w: int
    price: Decimal | None
    taken_w: Mapping[str, int]
    """By participant: ``vpp/bid id``, or a rival's name. [W]"""
    passed_over: Mapping[str, str]
    exact: bool
    scarce: bool = False
    """More was needed than anybody offered, and paid for accordingly."""


def held(slot: Slot, entries: Sequence[Entry], rules: Rules) -> tuple[Round, list[Deal]]:
    """Clear one slot; return what came of it and the awards, one per bid of which something is taken."""
    ours = {name_of(entry): entry for entry in entries}
    offers, unfit = _readable(entries)
    others = rivals(rules.crowd, slot)
    offered_w, rivals_w = sum(o.power_w for o in offers), sum(o.power_w for o in others)
    need = Need(rules.need_w(slot, offered_w + rivals_w), rules.price_cap)
    found = clear([*offers, *others], need, ties=rules.ties, share_w=rules.share_w)
    scarce = is_scarce([*offers, *others], need)
    price = _paid(found, rules, scarce=scarce)
    deals = [_deal(ours[name], slot, w, price, rules) for name, w in found.taken_w.items() if name in ours]
    why = {name: text for name, text in found.passed_over.items() if not name.startswith(RIVAL)} | unfit
    return Round(slot, offered_w, rivals_w, need.power_w, price, found.taken_w, why, found.exact, scarce), deals


def is_scarce(offers: Sequence[Offer], need: Need) -> bool:
    """Say whether more is needed than everybody together offers within the price cap, one offer of each group."""
    most_w: dict[str, int] = {}
    for offer in offers:
        inside_w = max((rung.upto_w for rung in offer.rungs if rung.price <= need.price_cap), default=0)
        inside_w = inside_w if inside_w >= offer.least_w else 0
        most_w[offer.group or offer.name] = max(most_w.get(offer.group or offer.name, 0), inside_w)
    return need.power_w > sum(most_w.values())


def _paid(found: Cleared, rules: Rules, *, scarce: bool) -> Decimal | None:
    """Return the price of every watt taken: of the dearest, or what a watt is worth that nobody has. [per MWh]"""
    if found.price is None or not scarce:
        return found.price
    worth = rules.price_cap if rules.scarcity_price is None else rules.scarcity_price
    return max(found.price, worth)


def award_id_of(issuer: str, vpp: str, bid_id: str) -> str:
    """Return the id of the award on a bid: always the same, so that a market that has forgotten does not award twice."""
    digest = hashlib.sha256(f"{issuer} {vpp} {bid_id}".encode()).digest()
    return str(UUID(bytes=digest[:16], version=4))


def name_of(entry: Entry) -> str:
    """Return the name of a bid among all participants."""
    return f"{entry.vpp}/{entry.bid.bid_id}"


def _readable(entries: Sequence[Entry]) -> tuple[list[Offer], dict[str, str]]:
    """Return the bids as offers in whole watts, and why the others cannot be."""
    offers, unfit = [], {}
    for entry in entries:
        try:
            offers.append(offer_of(entry))
        except ValueError as error:
            unfit[name_of(entry)] = str(error)
        except ArithmeticError:
            unfit[name_of(entry)] = "its price has too many digits"
    return offers, unfit


def offer_of(entry: Entry) -> Offer:
    """Return a bid in whole watts, never more than offered. Raises ValueError where that leaves nothing to clear."""
    bid = entry.bid
    rungs: dict[int, Decimal] = {}
    for step in bid.steps:
        rungs.setdefault(int(step.upto_w + 1e-6), price_per_mwh(step))
    rungs.pop(0, None)
    if not bid.divisible and abs(bid.power_w - round(bid.power_w)) > 1e-6:
        raise ValueError("an indivisible bid must be of whole watts here")
    least_w = -int(-bid.min_w // 1)
    group = f"{entry.vpp} {bid.exclusive_group}" if bid.exclusive_group else ""
    return Offer(
        name_of(entry),
        tuple(Rung(upto_w, price) for upto_w, price in rungs.items()),
        least_w,
        bid.divisible,
        group,
        entry.arrived,
    )


def _deal(entry: Entry, slot: Slot, power_w: int, price: Decimal | None, rules: Rules) -> Deal:
    assert price is not None
    bid = entry.bid
    return Deal(
        award_id=award_id_of(rules.issuer, entry.vpp, bid.bid_id),
        vpp=entry.vpp,
        bid_id=bid.bid_id,
        revision=bid.revision,
        product=bid.product,
        resource=bid.resource,
        direction=bid.direction,
        start=slot.start,
        end=slot.end,
        power_w=power_w,
        price=price,
        currency=bid.currency,
        dispatch=bid.dispatch,
        sustain_s=bid.sustain_s,
    )
