"""What OpenADR events ask -> orders of ours; every signal that does not become one leaves a reason. Pure.

The events in hand are the whole truth: ``plan`` says what should be in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from vppd.grid.openadr3.model import Event, Program
from vppd.grid.openadr3.payloads import Ask, Terms, Unfit, ask_of, named, nothing_asked
from vppd.grid.openadr3.reading import Unread
from vppd.grid.openadr3.schedule import (
    IMPORT_LIMIT,
    LIMITS,
    MOST_PIECES,
    NEVER,
    SUBSCRIPTION,
    Note,
    Piece,
    Scene,
    Why,
    fall_back,
    settle,
    standing,
)
from vppd.grid.openadr3.unroll import unroll
from vppd.grid.reasons import Defect
from vppd.grid.site import authorise
from vppd.model import Interval, Order, OrderKind

PROTOCOL = "openadr3"
DISPATCH = frozenset({"DISPATCH_SETPOINT", "DISPATCH_SETPOINT_RELATIVE"})


@dataclass(frozen=True, slots=True)
class Book:
    """What is known of the server's objects."""

    programs: tuple[Program, ...] = ()
    events: tuple[Event, ...] = ()
    unread: tuple[Unread, ...] = ()
    seen: Mapping[str, datetime] = field(default_factory=dict)
    lost: bool = False
    """The server has not answered for too long."""
    discarded: bool = False
    """After an outage of the grid: limits are void until they have been fetched again."""
    absent: Mapping[str, datetime] = field(default_factory=dict)
    """When an event was known not to be there yet; one that was there from the start has none."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """A price or a carbon intensity over a time, for whoever plans by it."""

    payload_type: str
    interval: Interval
    value: float
    units: str
    currency: str
    event_id: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What should be in force now and within the horizon."""

    orders: tuple[Order, ...] = ()
    """Without ids: ``reconcile`` gives them."""
    tariffs: tuple[Tariff, ...] = ()
    notes: tuple[Note, ...] = ()


def plan(book: Book, terms: Terms, at: datetime, seed: str) -> Plan:
    """Return what the events in hand ask from ``at`` on."""
    notes = [Note(u.id, "", Why.UNREADABLE, u.sentence) for u in book.unread]
    by_resource: dict[str, list[Piece]] = {terms.site.vpp_id: []}
    programs = {program.id: program for program in book.programs}
    scene, count = Scene(at, seed, book.seen, terms.horizon, book.absent), 0
    for event in sorted(book.events, key=standing):
        program = programs.get(event.program_id)
        if program is None:
            said = f"its program {event.program_id} is not one that this site takes part in"
            notes.append(Note(event.id, "", Why.UNKNOWN_PROGRAM, said))
            continue
        if count > MOST_PIECES:
            said = f"the events before it come to more than {MOST_PIECES} pieces"
            notes.append(Note(event.id, "", Why.TOO_MANY, said))
            continue
        pieces, placed = unroll(event, program.interval_period, scene)
        count += len(pieces)
        fit, told = _fit(pieces, program, terms, book)
        notes += [*placed, *told]
        resources = dict.fromkeys(named(event.targets, terms).values())
        if not resources:
            said = f"none of its targets ({', '.join(event.targets)[:200]}) is of this site"
            notes.append(Note(event.id, "", Why.NOT_FOR_US, said))
        for resource in resources:
            by_resource.setdefault(resource, []).extend(fit)
    return _planned(by_resource, programs, terms, book, at, notes)


def _fit(pieces: Iterable[Piece], program: Program, terms: Terms, book: Book) -> tuple[list[Piece], list[Note]]:
    """Return the pieces that can be carried out, and why the others cannot: these must not overrule anything."""
    fit: list[Piece] = []
    notes: dict[tuple[str, Why], Note] = {}
    for piece in pieces:
        found: tuple[Why, str] | None = None
        try:
            if ask_of(piece, program, terms).kind is None:
                found = nothing_asked(piece)
        except Unfit as unfit:
            notes.setdefault((piece.payload_type, unfit.why), _note(piece, unfit.why, unfit.sentence))
            continue
        if book.discarded and piece.payload_type in LIMITS:
            found = (Why.DISCARDED, "the grid was out; limits are void until the server tells them again")
        else:
            fit.append(piece)
        if found:
            notes.setdefault((piece.payload_type, found[0]), _note(piece, *found))
    return fit, list(notes.values())


def _note(piece: Piece, why: Why, sentence: str) -> Note:
    return Note(piece.event.id, piece.payload_type, why, sentence)


def _planned(
    by_resource: Mapping[str, list[Piece]],
    programs: Mapping[str, Program],
    terms: Terms,
    book: Book,
    at: datetime,
    notes: list[Note],
) -> Plan:
    orders: list[Order] = []
    tariffs: list[Tariff] = []
    for resource, pieces in by_resource.items():
        found, told = _in_force(pieces, book, at)
        notes += told
        for piece in found:
            program = programs[piece.event.program_id]
            ask = ask_of(piece, program, terms)
            if ask.tariff:
                interval = Interval(piece.start, piece.end)
                tariffs.append(Tariff(piece.payload_type, interval, *ask.tariff, event_id=piece.event.id))
            if ask.kind is not None:
                orders.append(_order(resource, piece, ask, program, terms))
        if book.lost and resource == terms.site.vpp_id:
            orders += _last_resort(found, terms, at)
    granted, told = _granted(_merged(orders), terms)
    return Plan(granted, tuple(tariffs), tuple(dict.fromkeys((*notes, *told))))


def _in_force(pieces: Sequence[Piece], book: Book, at: datetime) -> tuple[list[Piece], list[Note]]:
    settled, notes = settle(pieces, _subject)
    limits = [p for p in settled if p.payload_type == IMPORT_LIMIT]
    rest, told = fall_back(
        limits, [p for p in settled if p.payload_type == SUBSCRIPTION], at, lost=book.lost or book.discarded
    )
    return [*(p for p in settled if p.payload_type != SUBSCRIPTION), *rest], [*notes, *told]


def _subject(piece: Piece) -> str:
    """Return what a piece is about: two about the same at once conflict."""
    return "DISPATCH" if piece.payload_type in DISPATCH else piece.payload_type


def _order(resource: str, piece: Piece, ask: Ask, program: Program, terms: Terms) -> Order:
    assert ask.kind is not None
    return Order(
        order_id="",
        issuer=terms.issuer,
        kind=ask.kind,
        resource=resource,
        interval=Interval(piece.start, piece.end),
        power_w=ask.power_w,
        priority=ask.priority,
        product=program.program_name,
        correlation_id=piece.event.id,
        protocol=PROTOCOL,
        group=piece.event.id,
    )


def _last_resort(found: Iterable[Piece], terms: Terms, at: datetime) -> list[Order]:
    """Return the site's own limit for a lost server, from when all that the server said of limits has run out."""
    out_at = max((p.until for p in found if p.payload_type in (SUBSCRIPTION, IMPORT_LIMIT)), default=at)
    if terms.fallback_limit_w is None or out_at == NEVER:
        return []
    interval = Interval(max(out_at, at))
    return [
        Order("", terms.issuer, OrderKind.LIMIT, terms.site.vpp_id, interval, terms.fallback_limit_w, protocol=PROTOCOL)
    ]


def _merged(orders: Iterable[Order]) -> list[Order]:
    """Join orders of one event that follow one another and ask the same."""
    found: list[Order] = []
    place: dict[Order, int] = {}
    """What an order that goes on with this one would look like, without its length -> where this one is."""
    for order in orders:
        start, end = order.interval.start, order.interval.end
        i = place.pop(replace(order, interval=Interval(start, start)), len(found))
        if i < len(found):
            found[i] = replace(order, interval=Interval(found[i].interval.start, end))
        else:
            found.append(order)
        if end is not None:
            place[replace(order, interval=Interval(end, end))] = i
    return found


def _granted(orders: Iterable[Order], terms: Terms) -> tuple[tuple[Order, ...], list[Note]]:
    found: list[Order] = []
    notes: list[Note] = []
    for order in orders:
        try:
            if order.group:  # our own last resort needs nobody's leave
                authorise(order, terms.grants)
            found.append(order)
        except Defect as defect:
            notes.append(Note(order.group, "", Why.UNAUTHORISED, defect.sentence))
    return tuple(found), notes
