"""Pay-as-cleared: the cheapest offers that meet a need, all at the price of the dearest watt taken. Pure, exact.

What may not be cut at will (a block: indivisible, with a least quantity, or one of an exclusive group) is taken whole or passed
over. A block may be passed over although it was cheap enough; nobody is ever taken below his price, and what can be cut at will
is never passed over below the price.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from itertools import groupby

MOST_NODES = 4000
"""Combinations of blocks looked at; beyond it the best found so far is taken."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of an offer: up to this power [W] for no less than this price [per MWh]."""

    upto_w: int
    price: Decimal


@dataclass(frozen=True, slots=True)
class Offer:
    """What one participant would deliver, in rungs whose prices never fall."""

    name: str
    rungs: tuple[Rung, ...]
    min_w: int = 0
    """Least that may be taken of it. [W]"""
    divisible: bool = True
    group: str = ""
    """At most one offer of a group is taken; empty: no group."""
    arrived: int = 0
    """Place in the order of arrival, for ties."""

    def __post_init__(self) -> None:
        """Refuse what cannot be cleared. Raises ValueError."""
        pairs = list(zip(self.rungs, self.rungs[1:], strict=False))
        if not self.rungs or self.rungs[0].upto_w <= 0:
            raise ValueError(f"{self.name}: an offer needs a rung of more than 0 W")
        if any(b.upto_w <= a.upto_w or b.price < a.price for a, b in pairs):
            raise ValueError(f"{self.name}: the rungs of an offer rise in power and do not fall in price")
        if self.min_w > self.power_w:
            raise ValueError(f"{self.name}: the least quantity is above the power")

    @property
    def power_w(self) -> int:
        """Return all that is offered. [W]"""
        return self.rungs[-1].upto_w

    @property
    def least_w(self) -> int:
        """Return the least that can be taken of it, all where it is indivisible. [W]"""
        return self.min_w if self.divisible else self.power_w

    @property
    def is_block(self) -> bool:
        """Say whether it is taken or left as a whole decision."""
        return self.least_w > 0 or bool(self.group)

    def price_at(self, power_w: int) -> Decimal:
        """Return the price of the last of so many watts. [per MWh]"""
        return next(rung.price for rung in self.rungs if rung.upto_w >= power_w)


@dataclass(frozen=True, slots=True)
class Need:
    """What is bought at most, and for how much at most."""

    power_w: int
    price_cap: Decimal


class Ties(StrEnum):
    """How offers of one price share what is left of the need."""

    PRO_RATA = "pro-rata"
    TIME = "time"
    """First come, first served."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """What a market came to."""

    price: Decimal | None
    """Of every watt taken [per MWh]; None when nothing is."""
    taken_w: Mapping[str, int]
    """By offer, those of which nothing is taken left out. [W]"""
    passed_over: Mapping[str, str]
    """Why nothing was taken of the others."""
    surplus: Decimal
    """Sum of (price cap - price of the offer) x power over all that is taken: what is maximised. [W per MWh]"""
    exact: bool = True
    """No other choice of blocks has a larger surplus."""

    @property
    def total_w(self) -> int:
        """Return all that is taken. [W]"""
        return sum(self.taken_w.values())


def clear(offers: Iterable[Offer], need: Need, *, ties: Ties = Ties.PRO_RATA, share_w: int = 1) -> Cleared:
    """Return what is taken of each offer; shares of a tie are whole multiples of ``share_w`` where that goes. Raises ValueError."""
    given = sorted(offers, key=lambda o: (o.price_at(o.power_w), o.arrived, o.name))
    if len({o.name for o in given}) != len(given):
        raise ValueError("two offers have the same name")
    within = [cut for o in given if (cut := _within(o, need)) is not None]
    search = _Search([o for o in within if o.is_block], [o for o in within if not o.is_block], need, ties, share_w)
    search.run()
    taken_w, price = search.best
    why = {o.name: _why(o, within, taken_w, price) for o in given if o.name not in taken_w}
    return Cleared(price, taken_w, why, _surplus(within, taken_w, need), search.nodes < MOST_NODES)


def _within(offer: Offer, need: Need) -> Offer | None:
    """Return the part of an offer that the price cap leaves, None where nothing or less than its least is left."""
    rungs = tuple(rung for rung in offer.rungs if rung.price <= need.price_cap)
    if not rungs or rungs[-1].upto_w < offer.least_w or offer.least_w > need.power_w:
        return None
    return Offer(offer.name, rungs, offer.min_w, offer.divisible, offer.group, offer.arrived)


def _why(offer: Offer, within: Sequence[Offer], taken_w: Mapping[str, int], price: Decimal | None) -> str:
    if all(o.name != offer.name for o in within):
        return "above the price cap, or more at least than is needed"
    if offer.group and any(o.group == offer.group and o.name in taken_w for o in within):
        return "another offer of its group was taken"
    if price is None or offer.rungs[0].price > price:
        return "dearer than what was needed"
    return "did not fit: passed over although its price was met" if offer.is_block else "its price was met by others"


class _Search:
    """Depth first over the blocks, cheap ones first; a branch that cannot beat the best is cut."""

    def __init__(self, blocks: list[Offer], plain: list[Offer], need: Need, ties: Ties, share_w: int) -> None:
        self._blocks, self._plain, self._need, self._ties, self._share_w = blocks, plain, need, ties, share_w
        self.best: tuple[Mapping[str, int], Decimal | None] = ({}, None)
        self._most = (Decimal(-1), 0)
        self.nodes = 0

    def run(self) -> None:
        """Find the choice of blocks with the largest surplus, of those the one with the most power."""
        self._leaf(())  # without any block there is always an answer
        self._visit(0, ())

    def _visit(self, at: int, chosen: tuple[Offer, ...]) -> None:
        self.nodes += 1
        if self.nodes >= MOST_NODES:
            return
        if sum(o.least_w for o in chosen) > self._need.power_w or self._bound(at, chosen) <= self._most:
            return
        if at == len(self._blocks):
            self._leaf(chosen)
            return
        block = self._blocks[at]
        if not block.group or all(o.group != block.group for o in chosen):
            self._visit(at + 1, (*chosen, block))
        self._visit(at + 1, chosen)

    def _bound(self, at: int, chosen: tuple[Offer, ...]) -> tuple[Decimal, int]:
        """Return a surplus and power that no choice below this node exceeds: what is undecided may be cut at will."""
        fixed_w = {o.name: o.least_w for o in chosen}
        offers = [*chosen, *self._plain, *self._blocks[at:]]
        taken_w = _merit(offers, fixed_w, self._need.power_w - sum(fixed_w.values()), Ties.TIME, 1)
        return _surplus(offers, taken_w, self._need), sum(taken_w.values())

    def _leaf(self, chosen: tuple[Offer, ...]) -> None:
        offers = [*chosen, *self._plain]
        fixed_w = {o.name: o.least_w for o in chosen}
        left_w = self._need.power_w - sum(fixed_w.values())
        taken_w = _merit(offers, fixed_w, left_w, self._ties, self._share_w)
        taken_w = {name: power_w for name, power_w in taken_w.items() if power_w > 0}
        price = max((o.price_at(taken_w[o.name]) for o in offers if o.name in taken_w), default=None)
        # What can be cut at will and is cheaper than the price must be taken whole: else this choice of blocks is none.
        if price is not None and any(_cheaper_left(o, taken_w.get(o.name, 0), price) for o in offers):
            return
        found = _surplus(offers, taken_w, self._need), sum(taken_w.values())
        if found > self._most:
            self._most, self.best = found, (taken_w, price)


def _cheaper_left(offer: Offer, taken_w: int, price: Decimal) -> bool:
    return taken_w < offer.power_w and offer.price_at(taken_w + 1) < price and not (offer.group and not taken_w)


def _merit(
    offers: Sequence[Offer], fixed_w: Mapping[str, int], left_w: int, ties: Ties, share_w: int
) -> dict[str, int]:
    """Return what is taken by offer: what is fixed, then the rest by price. [W]"""
    taken_w = dict(fixed_w)
    slices = sorted((price, o.arrived, o.name, w) for o in offers for price, w in _slices(o, fixed_w.get(o.name, 0)))
    for _, level in groupby(slices, key=lambda s: s[0]):
        if left_w <= 0:
            break
        entries = [(name, w) for _, _, name, w in level]
        for name, w in _share(entries, left_w, ties, share_w):
            taken_w[name] = taken_w.get(name, 0) + w
            left_w -= w
    return taken_w


def _slices(offer: Offer, from_w: int) -> list[tuple[Decimal, int]]:
    """Return (price, power [W]) of each rung beyond ``from_w``; nothing beyond it of what is indivisible."""
    begun_w, found = from_w, []
    for rung in offer.rungs:
        if rung.upto_w > begun_w:
            found.append((rung.price, rung.upto_w - begun_w))
            begun_w = rung.upto_w
    return found


def _share(entries: Sequence[tuple[str, int]], left_w: int, ties: Ties, share_w: int) -> list[tuple[str, int]]:
    """Return what each of the offers of one price gets of what is left, in the order of arrival. [W]"""
    total_w = sum(w for _, w in entries)
    if total_w <= left_w:
        return list(entries)
    shares = [0 if ties is Ties.TIME else left_w * w // total_w // share_w * share_w for _, w in entries]
    spare_w = left_w - sum(shares)
    for grain_w in (spare_w,) if ties is Ties.TIME else (share_w, spare_w):
        for i, (_, w) in enumerate(entries):
            more_w = min(grain_w, spare_w, w - shares[i])
            shares[i] += more_w
            spare_w -= more_w
    return [(name, share) for (name, _), share in zip(entries, shares, strict=True)]


def _surplus(offers: Sequence[Offer], taken_w: Mapping[str, int], need: Need) -> Decimal:
    found = Decimal(0)
    for offer in offers:
        left_w = taken_w.get(offer.name, 0)
        for price, w in _slices(offer, 0):
            found += (need.price_cap - price) * min(w, left_w)
            left_w -= min(w, left_w)
    return found
