"""Whether what was sold is there, minute by minute, and the account of it at the end. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Self

from vppd.core.aggregate import Image, aggregate, perceive
from vppd.core.failsafe import Severity
from vppd.core.settle import TOLERANCE_FRAC
from vppd.core.state import Decision
from vppd.grid.award_statement import AwardStatement
from vppd.model import Obligation, OrderKind
from vppd.planning.trade.leeway import Leeway, Side, distinct
from vppd.planning.trade.moved import Move, moves, place_of, reference_w
from vppd.snapshot import Plant, Snapshot

EVERY_S = 60.0
"""So often it is looked whether the sold power is there. [s]"""
_SIDES: Mapping[str, tuple[Side, ...]] = MappingProxyType(
    {"up": ("up",), "down": ("down",), "symmetric": ("up", "down")}
)
_CALLED_BY: Mapping[str, OrderKind] = MappingProxyType(
    {"up": OrderKind.REDUCE, "down": OrderKind.INCREASE, "symmetric": OrderKind.REGULATION}
)


@dataclass(frozen=True, slots=True)
class Held:
    """Running account of one award; times are sums of whole looks."""

    known_s: float = 0.0
    """For so long there were readings. [s]"""
    held_s: float = 0.0
    """For so long at least the sold power was there or delivered. [s]"""
    lowest_w: float | None = None
    ordered_wh: float = 0.0
    delivered_wh: float = 0.0

    def to_body(self, award_id: str) -> dict[str, Any]:
        """Return plain JSON values that ``from_body`` turns back."""
        return {
            "award_id": award_id, "known_s": self.known_s, "held_s": self.held_s, "lowest_w": self.lowest_w,
            "ordered_wh": self.ordered_wh, "delivered_wh": self.delivered_wh,
        }  # fmt: skip

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """Return the account that ``to_body`` described. Raises KeyError or TypeError for anything else."""
        return cls(*(body[key] for key in ("known_s", "held_s", "lowest_w", "ordered_wh", "delivered_wh")))


@dataclass(frozen=True, slots=True)
class Look:
    """What was there of one award at one moment."""

    there_w: float | None
    """Deliverable or delivered, of a symmetric award the lesser of both sides; None when nobody can say. [W, >= 0]"""
    ordered_w: float = 0.0
    """What is asked for in the direction that was sold, of a symmetric award in either. [W, >= 0]"""
    delivered_w: float = 0.0
    """What has been moved of it. [W, >= 0]"""


def account(held: Held, look: Look, sold_w: float, for_s: float) -> Held:
    """Return the account after ``for_s`` more in which as much was there as the look says."""
    if look.there_w is None:
        return held
    is_held = look.there_w >= sold_w * (1.0 - TOLERANCE_FRAC)
    lowest_w = look.there_w if held.lowest_w is None else min(held.lowest_w, look.there_w)
    return replace(
        held,
        known_s=held.known_s + for_s,
        held_s=held.held_s + (for_s if is_held else 0.0),
        lowest_w=lowest_w,
    )


def booked(held: Held, look: Look, for_s: float) -> Held:
    """Return the account after ``for_s`` more in which as much was ordered and delivered as the look says."""
    hours = for_s / 3600.0
    return replace(
        held,
        ordered_wh=held.ordered_wh + look.ordered_w * hours,
        delivered_wh=held.delivered_wh + look.delivered_w * hours,
    )


def delivered(
    obligations: Sequence[Obligation], snapshot: Snapshot, decision: Decision, plant: Plant
) -> Mapping[str, Look]:
    """Return what is ordered and delivered now of the awards that are called, by award id; what is there is not looked at."""
    names = {demand.order.product for demand in decision.demands}
    if not any(sold.product in names for sold in obligations):
        return {}
    moved = moves(decision, _image(snapshot, decision, plant), plant, snapshot.at)
    credited_w: dict[tuple[str, ...], float] = {}
    found = {sold.award_id: _own(sold, moved, credited_w) for sold in obligations}
    return {
        key: Look(None, own.ordered_w, own.less_w + own.more_w) for key, own in found.items() if own.ordered_w > 0.0
    }


def looks(
    obligations: Sequence[Obligation], snapshot: Snapshot, decision: Decision, plant: Plant
) -> Mapping[str, Look]:
    """Return what is there of each award now, by award id.

    What orders of the award's product have moved counts as there; the rest must be possible from the present power on and for as
    long as can be asked for, in both directions for a symmetric one. Nothing counts twice: what the meters show is shared out
    among all orders of products, and what one award needs of the rest is not there for the next, in the order that is given.
    """
    image = _image(snapshot, decision, plant)
    moved = moves(decision, image, plant, snapshot.at)
    lasting_s = {sold.award_id: _sustained_s(sold, snapshot.at) for sold in obligations}
    spoken = [_spoken(move, obligations, lasting_s) for move in moved]
    leeway = Leeway(
        snapshot, decision, image, plant, reference_w(moved, image, plant),
        distinct([*lasting_s.values(), *(claim_s for _, claim_s in spoken)]),
    )  # fmt: skip
    for move, (claimed_w, claim_s) in zip(moved, spoken, strict=True):
        leeway.claim("up" if claimed_w < 0.0 else "down", move.place, abs(claimed_w), claim_s)
    # What nobody could order now is not there: the site takes no orders, or has been released.
    barred_now = decision.site_severity >= Severity.HOLD or snapshot.health.operator_release
    credited_w: dict[tuple[str, ...], float] = {}
    found: dict[str, Look] = {}
    for sold in obligations:
        place, own = place_of(sold.resource, plant), _own(sold, moved, credited_w)
        if place is None:
            found[sold.award_id] = Look(0.0)
        elif not leeway.knows(place):
            found[sold.award_id] = Look(None, own.ordered_w, own.less_w + own.more_w)
        else:
            there_w = _there_w(sold, own, leeway, place, lasting_s[sold.award_id], barred=barred_now)
            found[sold.award_id] = Look(there_w, own.ordered_w, own.less_w + own.more_w)
    return found


def statement_of(sold: Obligation, held: Held) -> AwardStatement:
    """Return what is told of an award when it is over."""
    assert sold.interval.end is not None
    length_s = max((sold.interval.end - sold.interval.start).total_seconds(), 1e-9)
    ordered = held.ordered_wh > 0.0
    return AwardStatement(
        sold,
        held_frac=round(held.held_s / held.known_s, 6) if held.known_s > 0.0 else 0.0,
        complete_frac=round(min(held.known_s / length_s, 1.0), 6),
        ordered_wh=round(held.ordered_wh, 3) if ordered else None,
        delivered_wh=round(held.delivered_wh, 3) if ordered else None,
        lowest_w=None if held.lowest_w is None else round(held.lowest_w, 3),
    )


def _image(snapshot: Snapshot, decision: Decision, plant: Plant) -> Image:
    senses = perceive(snapshot, decision.state, plant)
    return aggregate(snapshot, decision.state, plant, senses, decision.severity >= Severity.ISOLATE)


@dataclass(frozen=True, slots=True)
class _Own:
    """An award's part of what the orders of its product ask for and have moved."""

    ordered_w: float
    less_w: float
    more_w: float


def _own(sold: Obligation, moved: Sequence[Move], credited_w: dict[tuple[str, ...], float]) -> _Own:
    """Return an award's part of its product's orders: they fill one award after another. [W]"""
    mine = [move for move in moved if _is_for(move, sold)]
    key = (sold.product, sold.resource, sold.issuer, sold.direction)
    before_w = credited_w.get(key, 0.0)
    credited_w[key] = before_w + sold.power_w
    ordered_w = sum(abs(move.asked_w) for move in mine)
    less_w, more_w = (sum(max(sign * move.done_w, 0.0) for move in mine) for sign in (-1.0, 1.0))
    if sold.direction == "symmetric":  # the signal moves the whole capacity at once, each award by its part of it
        capacity_w = sum(move.order.power_w or 0.0 for move in mine)
        part = min(max(capacity_w - before_w, 0.0), sold.power_w) / capacity_w if capacity_w > 0.0 else 0.0
        return _Own(part * ordered_w, part * less_w, part * more_w)
    return _Own(*(min(max(w - before_w, 0.0), sold.power_w) for w in (ordered_w, less_w, more_w)))


def _there_w(sold: Obligation, own: _Own, leeway: Leeway, place: int, lasts_s: float, *, barred: bool) -> float:
    """Return what is there of an award on every side that was sold, and speak for it. [W, >= 0]"""
    done_w: dict[Side, float] = {"up": own.less_w, "down": own.more_w}
    there_w = sold.power_w
    for side in _SIDES[sold.direction]:
        free_w = 0.0 if barred else leeway.free_w(side, place, lasts_s)
        if side == "down" and sold.direction == "symmetric":  # a signal counts from a baseline with what is put off
            free_w = max(free_w - float(leeway.put_off_w[place]), 0.0)
        there_w = min(there_w, done_w[side] + free_w)
    for side in _SIDES[sold.direction]:
        leeway.claim(side, place, there_w - done_w[side], lasts_s)
    return there_w


def _spoken(move: Move, obligations: Sequence[Obligation], lasting_s: Mapping[str, float]) -> tuple[float, float]:
    """Return what a running order needs before anything is free, [W, + = more consumption], and for how long. [s]

    One that fills awards needs what it has moved: what those still lack is theirs to look for. Of a signal nobody knows how long
    it stays; it needs what was sold for as long as it was sold.
    """
    awards = [sold for sold in obligations if _is_for(move, sold)]
    left_s = max(move.left_s, EVERY_S)
    if move.order.kind is OrderKind.REGULATION:
        left_s = min(left_s, max((lasting_s[sold.award_id] for sold in awards), default=EVERY_S))
    return move.done_w if awards else move.asked_w, left_s


def _is_for(move: Move, sold: Obligation) -> bool:
    """Say whether an order calls on an award: of its issuer, product and resource, and of the kind for its direction."""
    order = move.order
    same = (order.product, order.resource, order.issuer) == (sold.product, sold.resource, sold.issuer)
    return same and order.kind is _CALLED_BY[sold.direction]


def _sustained_s(sold: Obligation, at: datetime) -> float:
    """Return for how long full power may still be asked for. [s]"""
    assert sold.interval.end is not None
    left_s = (sold.interval.end - at).total_seconds()
    wanted_s = left_s if sold.sustain_s is None else min(sold.sustain_s, left_s)
    return max(wanted_s, EVERY_S)
