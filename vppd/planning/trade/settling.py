"""Keeps account of what was sold while it is owed, and tells the market when it is over: one statement per award, ever."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog

from vppd.core.cycle import LONGEST_STEP_S
from vppd.core.state import Decision
from vppd.grid.award_statement import award_statement, award_statement_event
from vppd.grid.envelope import Sender
from vppd.model import Event, Obligation, Recorded
from vppd.planning.trade.holding import EVERY_S, Held, Look, account, booked, delivered, looks, statement_of
from vppd.snapshot import Plant, Snapshot

STREAM = "holding"
SAVE_S = 300.0
"""Running accounts are put into the ledger so often, and at every look while something is delivered; a restart loses no more than
that, and the statement says so. [s]"""
LOOKS_PER_SLOT = 15
"""A slot that is shorter than a quarter of an hour is looked at more often than every minute."""
SCHEDULED_GRACE_S = 30.0
"""A scheduled award's order has its own statement; one that has none by then (it was never carried out) gets one here. [s]"""

log = structlog.get_logger()


class Settled(Protocol):
    """What has been sold, as the ledger says."""

    def obligations_at(self, at: datetime) -> tuple[Obligation, ...]:
        """Return what is not over."""
        ...

    def unsettled_at(self, at: datetime) -> tuple[Obligation, ...]:
        """Return what is over and has no statement yet."""
        ...


class Settling:
    """Looks at every running award now and then; nothing in here waits."""

    def __init__(self, records: Settled, plant: Plant, sender: Sender | None, write: Callable[[Event], None]) -> None:
        self._records, self._plant, self._sender, self._write = records, plant, sender, write
        self._held: dict[str, Held] = {}
        self._looks: dict[str, Look] = {}
        self._looked: datetime | None = None
        self._looked_s = self._saved_s = 0.0
        self._booked_s: float | None = None
        self._written: set[str] = set()

    def restore(self, events: Iterable[Recorded]) -> None:
        """Go on with the accounts that an earlier process kept."""
        for recorded in events:
            self._held[recorded.event.body["award_id"]] = Held.from_body(recorded.event.body)

    def take(self, snapshot: Snapshot, decision: Decision) -> None:
        """Look whether what was sold is there, if it is time to, and settle what is over."""
        found = (*self._records.unsettled_at(snapshot.at), *self._records.obligations_at(snapshot.at))
        owed = [sold for sold in found if sold.interval.start <= snapshot.at and sold.award_id not in self._written]
        kept = [sold for sold in owed if sold.dispatch == "order"]
        over = [sold for sold in owed if sold.is_over(snapshot.at)]
        self._book(kept, snapshot, decision)
        if self._is_time(kept, snapshot) or any(sold.dispatch == "order" for sold in over):
            self._look(kept, snapshot, decision)
        for sold in over:
            self._settle(sold, snapshot.at)

    def view(self) -> list[dict[str, Any]]:
        """Return the awards that are running as plain JSON values."""
        return [
            {
                "award_id": award_id,
                "there_w": look.there_w,
                "ordered_w": look.ordered_w,
                "delivered_w": look.delivered_w,
                **{k: v for k, v in self._held.get(award_id, Held()).to_body(award_id).items() if k != "award_id"},
            }
            for award_id, look in self._looks.items()
        ]

    def _is_time(self, kept: Sequence[Obligation], snapshot: Snapshot) -> bool:
        return bool(kept) and snapshot.mono_s - self._looked_s >= _every_s(kept)

    def _book(self, kept: Sequence[Obligation], snapshot: Snapshot, decision: Decision) -> None:
        """Add up what is ordered and delivered, in every cycle: a signal changes within seconds."""
        most_s = max(LONGEST_STEP_S, self._plant.cycle_s)
        before_s, self._booked_s = self._booked_s, snapshot.mono_s
        for_s = self._plant.cycle_s if before_s is None else min(max(snapshot.mono_s - before_s, 0.0), most_s)
        running = [sold for sold in kept if not sold.is_over(snapshot.at)]
        for award_id, look in delivered(running, snapshot, decision, self._plant).items():
            self._held[award_id] = booked(self._held.get(award_id, Held()), look, for_s)

    def _look(self, kept: Sequence[Obligation], snapshot: Snapshot, decision: Decision) -> None:
        """Take what is there now for what has been there since the last look."""
        every_s = _every_s(kept)
        since = self._looked if snapshot.mono_s - self._looked_s <= 2.0 * every_s else None
        since = since or snapshot.at - timedelta(seconds=min(every_s, self._plant.cycle_s))
        now = looks(kept, snapshot, decision, self._plant)
        for sold in kept:
            end = min(snapshot.at, sold.interval.end or snapshot.at)
            for_s = (end - max(since, sold.interval.start)).total_seconds()
            # When it is over its order is too, and power is only coming back: the rest was as at the look before.
            look = (
                self._looks.get(sold.award_id, now[sold.award_id]) if sold.is_over(snapshot.at) else now[sold.award_id]
            )
            if for_s > 0.0:
                self._note(sold, look, for_s)
        self._looks = {sold.award_id: now[sold.award_id] for sold in kept if not sold.is_over(snapshot.at)}
        self._looked, self._looked_s = snapshot.at, snapshot.mono_s
        self._save(kept, now, snapshot)

    def _save(self, kept: Sequence[Obligation], now: Mapping[str, Look], snapshot: Snapshot) -> None:
        """Put running accounts on disk: now and then, and of what is being delivered at every look."""
        due = snapshot.mono_s - self._saved_s >= SAVE_S
        self._saved_s = snapshot.mono_s if due else self._saved_s
        for sold in kept:
            if due or now[sold.award_id].ordered_w > 0.0:
                body = self._held.get(sold.award_id, Held()).to_body(sold.award_id)
                self._write(Event(STREAM, "held", snapshot.at, body))

    def _note(self, sold: Obligation, look: Look, for_s: float) -> None:
        before = self._looks.get(sold.award_id)
        was_short, is_short = _is_short(before, sold), _is_short(look, sold)
        if is_short and not was_short:
            log.warning(
                "sold_power_missing",
                award_id=sold.award_id,
                product=sold.product,
                sold_w=sold.power_w,
                there_w=look.there_w,
            )
        elif was_short and not is_short:
            log.info("sold_power_back", award_id=sold.award_id, product=sold.product)
        self._held[sold.award_id] = account(self._held.get(sold.award_id, Held()), look, sold.power_w, for_s)

    def _settle(self, sold: Obligation, at: datetime) -> None:
        assert sold.interval.end is not None
        if sold.dispatch == "scheduled" and at < sold.interval.end + timedelta(seconds=SCHEDULED_GRACE_S):
            return
        told = statement_of(sold, self._held.pop(sold.award_id, Held()))
        message = None if self._sender is None else award_statement(told, at, self._sender)
        self._write(award_statement_event(told, at, message))
        self._written.add(sold.award_id)
        log.info("award_settled", award_id=sold.award_id, held_frac=told.held_frac, complete_frac=told.complete_frac)


def _is_short(look: Look | None, sold: Obligation) -> bool:
    return look is not None and look.there_w is not None and look.there_w < 0.98 * sold.power_w


def _every_s(kept: Sequence[Obligation]) -> float:
    """Return the time between two looks: a minute, less where a slot is short. [s]"""
    lengths_s = [(s.interval.end - s.interval.start).total_seconds() for s in kept if s.interval.end is not None]
    return min(EVERY_S, max(min(lengths_s, default=EVERY_S) / LOOKS_PER_SLOT, 1.0))
