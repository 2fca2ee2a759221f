"""What one OpenADR payload asks of the site, by what has been agreed with the operator of the server. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from vppd.config.openadr import Relative
from vppd.grid.openadr3.model import Descriptor, Program
from vppd.grid.openadr3.schedule import Piece, Why
from vppd.grid.quantities import MOST_W
from vppd.grid.site import Grant, Site
from vppd.model import OrderKind, Priority

WATTS = {"W": 1.0, "KW": 1e3, "MW": 1e6}
ECONOMIC = frozenset({"PRICE", "EXPORT_PRICE", "GHG"})


@dataclass(frozen=True, slots=True)
class Terms:
    """What has been agreed with the operator of the server."""

    issuer: str
    site: Site
    grants: tuple[Grant, ...]
    targets: Mapping[str, str] = field(default_factory=dict)
    """Target of theirs -> site, feed or asset of ours; our own names need no entry."""
    relative: Relative = Relative.CHANGE
    assume_units: str = ""
    """Units of a power whose descriptor says none; empty: such a power is refused."""
    simple_w: tuple[float, ...] = ()
    """What levels 1, 2 and 3 of SIMPLE shed; without all three it is not carried out. [W, >= 0]"""
    emergency_limit_w: float | None = None
    """Most import during ALERT_GRID_EMERGENCY. [W]"""
    fallback_limit_w: float | None = None
    """Most import of the site when the server is lost and has told no subscription. [W]"""
    horizon: timedelta = timedelta(days=2)


def named(targets: Collection[str], terms: Terms) -> dict[str, str]:
    """Return the targets that are of this site, each with our name for it; without any target, the whole site."""
    if not targets:
        return {terms.site.vpp_id: terms.site.vpp_id}
    ours = {target: terms.targets.get(target, target) for target in targets}
    return {target: name for target, name in ours.items() if terms.site.knows(name)}


@dataclass(frozen=True, slots=True)
class Ask:
    """What a payload asks; ``kind`` None: nothing, though it may overrule what asks something."""

    kind: OrderKind | None
    power_w: float = 0.0
    priority: int = Priority.AWARD
    tariff: tuple[float, str, str] | None = None


class Unfit(Exception):
    """The payload cannot be carried out."""

    def __init__(self, why: Why, sentence: str) -> None:
        self.why, self.sentence = why, sentence


def ask_of(piece: Piece, program: Program, terms: Terms) -> Ask:
    """Return what the payload asks. Raises Unfit."""
    match piece.payload_type:
        case "DISPATCH_SETPOINT":
            return Ask(OrderKind.SETPOINT, _power(piece, program, terms))
        case "DISPATCH_SETPOINT_RELATIVE":
            return _relative(piece, program, terms)
        case "IMPORT_CAPACITY_LIMIT" | "IMPORT_CAPACITY_SUBSCRIPTION":
            return Ask(OrderKind.LIMIT, _power(piece, program, terms), Priority.GRID_LIMIT)
        case "SIMPLE":
            return _simple(piece, terms)
        case "ALERT_GRID_EMERGENCY":
            return _emergency(piece, terms)
        case "PRICE" | "EXPORT_PRICE" | "GHG":
            units, currency = _descriptor(piece, program)
            return Ask(None, tariff=(_number(piece), units, currency))
        case "EXPORT_CAPACITY_LIMIT" | "EXPORT_CAPACITY_SUBSCRIPTION":
            said = "no order of this site bounds its export: what is configured as export_max_w always holds"
            raise Unfit(Why.NOT_SUPPORTED, said)
        case _:
            raise Unfit(Why.NOT_SUPPORTED, f"{piece.payload_type[:64]} is not something this site can carry out")


def _number(piece: Piece) -> float:
    value = piece.values[0] if len(piece.values) == 1 else None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer of hundreds of digits
        pass
    raise Unfit(Why.BAD_VALUE, f"{str(list(piece.values))[:80]} is not one number")


def _descriptor(piece: Piece, program: Program) -> tuple[str, str]:
    """Return units and currency of a payload, empty where nobody says; the event's word goes before the program's."""
    said: tuple[Descriptor, ...] = (*piece.event.payload_descriptors, *program.payload_descriptors)
    of_type = [d for d in said if d.payload_type == piece.payload_type]
    units = next((d.units for d in of_type if d.units), "")
    return units, next((d.currency for d in of_type if d.currency), "")


def _signed(piece: Piece, program: Program, terms: Terms) -> float:
    units = _descriptor(piece, program)[0] or terms.assume_units.upper()
    if not units:
        raise Unfit(Why.MISSING_UNITS, "neither the event nor its program says the units")
    if units not in WATTS:
        raise Unfit(Why.BAD_UNITS, f"{units[:32]} is no unit of active power; allowed: {', '.join(WATTS)}")
    power_w = _number(piece) * WATTS[units]
    if abs(power_w) > MOST_W:
        raise Unfit(Why.BAD_VALUE, f"{power_w:g} W is beyond reason")
    return power_w


def _power(piece: Piece, program: Program, terms: Terms) -> float:
    power_w = _signed(piece, program, terms)
    if power_w < 0.0:
        raise Unfit(Why.BAD_VALUE, f"a {piece.payload_type} is never negative, this one is {power_w:g} W")
    return power_w


def _relative(piece: Piece, program: Program, terms: Terms) -> Ask:
    """Return a reduction or an increase, by the sign that the program has agreed: an amount to shed has none. Raises Unfit."""
    shed_w = _power(piece, program, terms) if terms.relative is Relative.SHED else -_signed(piece, program, terms)
    if not shed_w:
        return Ask(None)
    return Ask(OrderKind.REDUCE if shed_w > 0.0 else OrderKind.INCREASE, abs(shed_w))


def _simple(piece: Piece, terms: Terms) -> Ask:
    level = _number(piece)
    if level not in (0.0, 1.0, 2.0, 3.0):
        raise Unfit(Why.BAD_VALUE, f"a level of SIMPLE is 0, 1, 2 or 3, not {level:g}")
    if len(terms.simple_w) != 3:
        raise Unfit(Why.NOT_ENABLED, "what the levels of SIMPLE mean has not been configured")
    shed_w = terms.simple_w[int(level) - 1] if level else 0.0
    return Ask(OrderKind.REDUCE if shed_w else None, shed_w)


def _emergency(piece: Piece, terms: Terms) -> Ask:
    if terms.emergency_limit_w is None:
        said = f"{str(piece.values[0])[:128]!r}" if piece.values else "no text"
        raise Unfit(Why.NOT_ENABLED, f"told, and nothing else is configured for an emergency: {said}")
    return Ask(OrderKind.LIMIT, terms.emergency_limit_w, Priority.GRID_LIMIT)


def nothing_asked(piece: Piece) -> tuple[Why, str]:
    """Return what there is to say of a payload that is understood and leads to no order."""
    if piece.payload_type in ECONOMIC:
        return Why.ECONOMICS, "handed on to whoever plans by it; no order follows"
    return Why.NOTHING_ASKED, f"a {piece.payload_type} of {piece.values[0]} asks nothing"
