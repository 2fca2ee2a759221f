"""What has been offered: the newest revision of every bid, by the slot it is for. Pure: it is told the time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from vppd.core.bidding.bid import Bid, Offered, unfit_revision


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """What is cleared together: one product one way in one interval, with one gate."""

    gate: datetime
    product: str
    direction: str
    start: datetime
    end: datetime
    currency: str

    @property
    def length_h(self) -> float:
        """Return how long it is. [h]"""
        return (self.end - self.start).total_seconds() / 3600.0

    def __str__(self) -> str:
        """Return it for people and as a seed."""
        return f"{self.product} {self.direction} {self.start.isoformat()}/{self.end.isoformat()}"


def slot_of(offered: Offered) -> Slot:
    """Return the slot that an offer is for."""
    bid = offered.bid
    return Slot(offered.gate_closes_at, bid.product, bid.direction, bid.interval.start, bid.end, bid.currency)


@dataclass(frozen=True, slots=True)
class Entry:
    """The newest word about one bid."""

    vpp: str
    offered: Offered
    arrived: int
    """Place in the order of arrival of the revision that counts."""

    @property
    def bid(self) -> Bid:
        """Return the bid."""
        return self.offered.bid


@dataclass(slots=True)
class Book:
    """All bids heard of; a slot that has been cleared takes nothing more."""

    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    """By (vpp, bid id)."""
    cleared: set[Slot] = field(default_factory=set)
    heard: int = 0

    def take(self, vpp: str, offered: Offered, at: datetime, grace_s: float = 0.0) -> str:
        """Take an offer, a revision or a withdrawal; return why it does not count, empty when it does."""
        slot, bid = slot_of(offered), offered.bid
        before = self.entries.get((vpp, bid.bid_id))
        if before is not None and bid == before.bid and offered.state == before.offered.state:
            return "heard before"
        if slot in self.cleared or at > slot.gate + timedelta(seconds=grace_s):
            return "its gate has closed"
        if before is not None and slot_of(before.offered) != slot:
            return "a revision keeps product, direction, interval, gate and currency"
        if wrong := unfit_revision(before.offered if before else None, bid, offered.state):
            return wrong
        self.heard += 1
        self.entries[vpp, bid.bid_id] = Entry(vpp, offered, self.heard)
        return ""

    def close(self, at: datetime, grace_s: float = 0.0) -> list[Slot]:
        """Return the slots whose gate has closed since the last call, in the order of their gates; they are cleared now."""
        due = sorted(slot for slot in self._open() if slot.gate + timedelta(seconds=grace_s) <= at)
        self.cleared.update(due)
        return due

    def next_gate(self) -> datetime | None:
        """Return when the next open slot closes, None without one."""
        return min((slot.gate for slot in self._open()), default=None)

    def offers(self, slot: Slot) -> list[Entry]:
        """Return what stands offered in a slot, in the order of arrival."""
        found = [e for e in self.entries.values() if slot_of(e.offered) == slot and e.offered.state == "offered"]
        return sorted(found, key=lambda e: e.arrived)

    def forget(self, before: datetime) -> None:
        """Forget bids whose interval ended before then; a cleared slot that is forgotten is past its gate anyway."""
        self.entries = {key: entry for key, entry in self.entries.items() if entry.bid.end >= before}
        self.cleared = {slot for slot in self.cleared if slot.end >= before}

    def _open(self) -> Iterator[Slot]:
        yield from {slot_of(entry.offered) for entry in self.entries.values()} - self.cleared
