"""When a product's delivery slots are, and until when one may bid for them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from math import floor
from zoneinfo import ZoneInfo

from vppd.model import Interval
from vppd.products import GateConfig, ProductConfig

HOUR_S = 3600.0
MOST_SLOTS = 400
"""No more slots of a product are looked at in one round: a horizon of days over slots of a minute is a mistake."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One delivery interval of a product."""

    product: str
    interval: Interval
    gate_closes_at: datetime
    """From then on nothing may be offered, revised or withdrawn; aware UTC."""

    @property
    def start(self) -> datetime:
        """Return when delivery begins."""
        return self.interval.start

    @property
    def end(self) -> datetime:
        """Return when delivery ends."""
        assert self.interval.end is not None
        return self.interval.end


def slots(product: ProductConfig, after: datetime, horizon_s: float, ahead_s: float) -> tuple[Slot, ...]:
    """Return the slots that begin within the horizon and whose gate closes after ``after``, the first to close first.

    ``ahead_s``: so long before delivery a product is offered whose gate nobody states. A product without a delivery interval
    has no slots.
    """
    if product.delivery_interval_s is None:
        return ()
    end = after + timedelta(seconds=horizon_s)
    found = []
    for start, stop in _deliveries(product, after, end):
        slot = Slot(product.name, Interval(start, stop), closes_at(product.gate, start, ahead_s))
        if slot.gate_closes_at > after:
            found.append(slot)
        if len(found) == MOST_SLOTS:
            break
    return tuple(sorted(found, key=lambda slot: (slot.gate_closes_at, slot.start)))


def closes_at(gate: GateConfig | None, start: datetime, ahead_s: float) -> datetime:
    """Return when the gate for a delivery that begins at ``start`` closes; aware UTC."""
    if gate is None:
        return start - timedelta(seconds=ahead_s)
    if gate.before_delivery_s is not None:
        return start - timedelta(seconds=gate.before_delivery_s)
    assert gate.days_before is not None
    assert gate.local_time is not None
    assert gate.time_zone is not None
    zone = ZoneInfo(gate.time_zone)
    day = start.astimezone(zone).date() - timedelta(days=gate.days_before)
    return _local(day, time.fromisoformat(gate.local_time), zone)


def next_moments(found: Iterable[Slot], now: datetime, lead_s: float) -> tuple[datetime, ...]:
    """Return when something is to be done next: ``lead_s`` before each gate and at each gate, the next first."""
    gates = {slot.gate_closes_at for slot in found}
    moments = gates | {gate - timedelta(seconds=lead_s) for gate in gates}
    return tuple(sorted(moment for moment in moments if moment > now))


def in_play(found: Iterable[Slot], now: datetime, lead_s: float) -> tuple[Slot, ...]:
    """Return the slots that are offered now: the gate is open, and closes within ``lead_s``."""
    last = now + timedelta(seconds=lead_s)
    return tuple(slot for slot in found if now < slot.gate_closes_at <= last)


def overlapping(found: Iterable[Slot], others: Sequence[Slot]) -> tuple[Slot, ...]:
    """Return those that deliver while one of the others does, the others left out."""
    taken = set(others)
    return tuple(s for s in found if s not in taken and any(s.start < o.end and o.start < s.end for o in others))


def _deliveries(product: ProductConfig, after: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield the delivery intervals that begin in (after, end), day by day of the product's zone."""
    zone = ZoneInfo(product.gate.time_zone) if product.gate and product.gate.time_zone else ZoneInfo("UTC")
    day = after.astimezone(zone).date()
    while _local(day, time(0), zone) < end:
        for start, stop in _day(day, product.delivery_interval_s or HOUR_S, zone):
            if after < start < end:
                yield start, stop
        day += timedelta(days=1)


def _day(day: date, interval_s: float, zone: ZoneInfo) -> Iterator[tuple[datetime, datetime]]:
    """Yield the intervals of a local day, which has 23, 24 or 25 hours.

    What divides an hour is counted out from midnight, so that the day has an hour less or more of them; longer ones begin at
    the same time by the clock on the wall every day, and one of them is an hour shorter or longer.
    """
    begin, finish = _local(day, time(0), zone), _local(day + timedelta(days=1), time(0), zone)
    if HOUR_S % interval_s == 0.0:
        count = round((finish - begin).total_seconds() / interval_s)
        edges = [begin + timedelta(seconds=k * interval_s) for k in range(count)]
    else:
        count = max(floor(24 * HOUR_S / interval_s), 1)
        edges = [_local(day, _wall(k * interval_s), zone) for k in range(count)]
    yield from zip(edges, [*edges[1:], finish], strict=True)


def _wall(since_midnight_s: float) -> time:
    minutes, seconds = divmod(round(since_midnight_s), 60)
    return time(*divmod(minutes, 60), seconds)


def _local(day: date, at: time, zone: ZoneInfo) -> datetime:
    """Return a time by the clock on the wall in UTC; one that the clock leaves out is an hour later, one it has twice the first."""
    return datetime.combine(day, at, zone).astimezone(UTC)
