"""What each asset was told last, when, and what came of it: for people who ask why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from vppd.model import Outcome
from vppd.runtime.intents import Intent, IntentBook, Report


@dataclass(frozen=True, slots=True)
class Telling:
    """The newest changed setpoint of one asset."""

    at: datetime
    power_w: float | None
    """None: given back to itself. [W]"""
    cause: str
    outcome: Outcome | None = None
    """None while the write is under way."""
    outcome_at: datetime | None = None
    readback_w: float | None = None
    """Effective setpoint read back. [W]"""
    detail: str = ""
    latency_s: float = 0.0
    intent_id: str = ""


class Told:
    """An intent book that remembers the newest of each asset on the way to the one behind it."""

    def __init__(
        self,
        book: IntentBook,
        now: Callable[[], datetime],
        wrote: Callable[[Outcome, float], None] = lambda _outcome, _latency_s: None,
    ) -> None:
        """``wrote`` is told the outcome of every write and how long it took with its read-back [s]."""
        self._book, self._now, self._wrote = book, now, wrote
        self.newest: dict[str, Telling] = {}

    async def intent(self, intent: Intent) -> None:
        """Return once the intent is on disk. Raises DeviceError."""
        self.newest[intent.asset_id] = Telling(self._now(), intent.power_w, intent.cause, intent_id=intent.intent_id)
        await self._book.intent(intent)

    def outcome(self, report: Report) -> None:
        """Take what came of a write; a renewal changes what is read back, and not when it was told."""
        self._book.outcome(report)
        if report.latency_s > 0.0:  # else a reading settled it, long after the write
            self._wrote(report.outcome, report.latency_s)
        intent = report.intent
        known = self.newest.get(intent.asset_id)
        if known is None or known.intent_id != intent.intent_id:  # of an earlier process
            known = Telling(self._now(), intent.power_w, intent.cause, intent_id=intent.intent_id)
        self.newest[intent.asset_id] = replace(
            known,
            outcome=report.outcome,
            outcome_at=self._now() if report.is_news or known.outcome_at is None else known.outcome_at,
            readback_w=report.power_w,
            detail=report.detail,
            latency_s=report.latency_s if report.is_news else known.latency_s,
        )
