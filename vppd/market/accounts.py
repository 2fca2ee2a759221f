"""What is owed for an award: the energy that was delivered at the clearing price, less a penalty for what is missing. Pure, exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum

from vppd.market.rounds import Deal

CENT = Decimal("0.01")
MILLI = Decimal("0.001")


class Pays(StrEnum):
    """What the price is for."""

    ENERGY = "energy"
    """Delivered MWh."""
    CAPACITY = "capacity"
    """MW kept ready, per hour; only for what is delivered on an order."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """How a market pays."""

    pays: Pays = Pays.ENERGY
    penalty_part: Decimal = Decimal(1)
    """Penalty for what is missing, as a part of the clearing price."""


@dataclass(frozen=True, slots=True)
class Account:
    """One award settled; energies exact to a thousandth, money to a hundredth."""

    obliged_wh: Decimal
    """What was to be delivered: over the whole slot, or in the activation; of capacity, power times hours."""
    delivered_wh: Decimal
    """What was, never more than obliged."""
    pay: Decimal
    penalty: Decimal

    @property
    def owed(self) -> Decimal:
        """Return what the power plant gets; negative when it has to pay."""
        return self.pay - self.penalty


def account(deal: Deal, tariff: Tariff) -> Account | None:
    """Return the account of an award, None while its statement is missing, or when it was never accepted."""
    if deal.state != "accepted":
        return None
    if deal.dispatch == "order" and tariff.pays is Pays.CAPACITY:
        part = _number(deal.statements.get("award", {}), "held_frac")
        return None if part is None else _account(deal, tariff, _slot_wh(deal), _slot_wh(deal) * part)
    if deal.dispatch == "order" and not deal.order_id:
        return Account(Decimal(0), Decimal(0), Decimal(0), Decimal(0))
    given_wh = _given_wh(deal)
    return None if given_wh is None else _account(deal, tariff, obliged_wh(deal), given_wh)


def obliged_wh(deal: Deal) -> Decimal:
    """Return the energy that an award obliges to: over its slot, or over its activation; both ways what the signal moves. [Wh]"""
    if deal.dispatch == "scheduled":
        return _slot_wh(deal)
    if deal.order_start is None or deal.order_end is None:
        return Decimal(0)
    whole_wh = _wh(deal.power_w, (deal.order_end - deal.order_start).total_seconds())
    if deal.direction != "symmetric":
        return whole_wh
    return (whole_wh * Decimal(str(deal.swing_frac))).quantize(MILLI, ROUND_HALF_EVEN)


def _given_wh(deal: Deal) -> Decimal | None:
    """Return what was moved in the direction that was sold, by the statement of its order; None without one. [Wh]"""
    told = deal.statements.get("order", {})
    if not told and _is_never_carried_out(deal):
        return Decimal(0)
    match deal.direction:
        case "up":
            return _number(told, "shed_wh")
        case "down":
            return _number(told, "added_wh")
        case _:
            followed = _number(told, "compliant_frac")
            return None if followed is None else followed * obliged_wh(deal)


def _is_never_carried_out(deal: Deal) -> bool:
    """Say whether no statement of an order will come: then a scheduled award has one of its own."""
    return deal.order_state in ("rejected", "unanswered") or (
        deal.dispatch == "scheduled" and "award" in deal.statements
    )


def _slot_wh(deal: Deal) -> Decimal:
    return _wh(deal.power_w, (deal.end - deal.start).total_seconds())


def _wh(power_w: int, span_s: float) -> Decimal:
    return (power_w * Decimal(str(span_s)) / 3600).quantize(MILLI, ROUND_HALF_EVEN)


def _account(deal: Deal, tariff: Tariff, due_wh: Decimal, given_wh: Decimal) -> Account:
    delivered_wh = min(max(given_wh, Decimal(0)), due_wh).quantize(MILLI, ROUND_HALF_EVEN)
    pay = delivered_wh * deal.price / 1_000_000
    # A negative price is paid for all the same; what is missing is never rewarded.
    penalty = (due_wh - delivered_wh) * max(deal.price, Decimal(0)) * tariff.penalty_part / 1_000_000
    cents = (money.quantize(CENT, ROUND_HALF_EVEN) for money in (pay, penalty))
    return Account(due_wh, delivered_wh, *cents)


def _number(statement: Mapping[str, object], key: str) -> Decimal | None:
    found = statement.get(key)
    return None if isinstance(found, bool) or not isinstance(found, int | float) else Decimal(repr(found))
