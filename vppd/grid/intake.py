"""From a message on the wire to an order in force: judge, commit, act, answer, acknowledge - in that order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import structlog

from vppd.grid.admit import admit
from vppd.grid.commit import committed
from vppd.grid.envelope import Sender
from vppd.grid.receipts import receipts
from vppd.grid.site import Registry
from vppd.grid.verdict import Accepted, Conditions, Duplicate, Rejected, Seen, Verdict
from vppd.model import Event, Inbound, Outbound
from vppd.ports import DispatchChannel, Ledger

"""Pause before a commit that failed is tried again; until then nothing is answered. [s]"""

STRANGERS_MOST = 120
"""Messages that nobody has signed that are answered and kept at once; beyond, they are dropped unheard."""
STRANGERS_PER_S = 2.0
"""How many more each second. [1/s]"""

AWARDS_END = "/bid/award"

log = structlog.get_logger()


class Allowance:
    """So many at once and so many a second: what nobody has signed must not fill the ledger."""

    def __init__(self, most: int, rate_per_s: float) -> None:
        self._most, self._rate_per_s, self._left = most, rate_per_s, float(most)
        self._at: datetime | None = None

    def take(self, at: datetime) -> bool:
        """Say whether one more is allowed at ``at``, and count it."""
        if self._at is not None:
            self._left = min(
                self._left + max((at - self._at).total_seconds(), 0.0) * self._rate_per_s, float(self._most)
            )
        self._at = at
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Memory(Seen, Protocol):
    """What has been seen, kept up with the ledger."""

    def catch_up(self) -> None:
        """Take in what has been committed since."""
        ...

    @property
    def trading(self) -> asyncio.Lock:
        """Held by whoever changes what is offered or awarded, from the look at what is there to the commit."""
        ...

    def note_signal(self, issuer: str, seq: int, jws_digest: str) -> None:
        """Remember a signal's sequence number, and its signed data."""
        ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What the intake works with."""

    channel: DispatchChannel
    ledger: Ledger
    memory: Memory
    sender: Sender
    now: Callable[[], datetime]
    registry: Callable[[], Registry]
    """The present one: a reload may replace it."""
    conditions: Callable[[], Conditions]
    deliver: Callable[[Accepted], None]
    """Tell the cycle; it acts at once."""
    answer: Callable[[], None]
    """Tell the outbox that something is owed."""
    resend: Callable[[tuple[Outbound, ...]], None]
    """Publish stored receipts again."""
    faulty: Callable[[bool], None]
    """Tell the failsafe whether commits fail."""
    judged: Callable[[str], None]
    """Count a verdict."""


async def take_all(desk: Desk) -> None:
    """Take every message of the channel, for ever. Raises Garbled when the ledger is corrupt."""
    strangers = Allowance(STRANGERS_MOST, STRANGERS_PER_S)
    async for message in desk.channel.messages():
        # An award must meet the offer that it was judged by: nobody may revise it before the award is committed.
        async with desk.memory.trading if message.topic.endswith(AWARDS_END) else nullcontext():
            at = desk.now()
            verdict = admit(message, at, desk.registry(), desk.memory, desk.conditions())
            desk.judged(type(verdict).__name__.lower())
            if not isinstance(verdict, Rejected) or verdict.about.authenticated or strangers.take(at):
                await _settle(desk, message, verdict)
        await desk.channel.ack(message)


async def _settle(desk: Desk, message: Inbound, verdict: Verdict) -> None:
    match verdict:
        case Accepted() if verdict.is_command:
            if await _commit(desk, verdict):
                desk.deliver(verdict)
                desk.answer()
                what = "order_accepted" if verdict.award is None else "award_accepted"
                log.info(what, **_facts(verdict), orders=len(verdict.orders))
        case Accepted():
            if verdict.regulation is not None:
                desk.memory.note_signal(verdict.about.issuer, verdict.regulation.seq, verdict.about.jws_digest)
            desk.deliver(verdict)
        case Duplicate():
            desk.resend(verdict.receipts)
        case Rejected():
            log.warning(
                "message_rejected",
                topic=message.topic,
                reason=verdict.reason.value,
                detail=verdict.sentence,
                **_facts(verdict),
            )
            await _commit(desk, verdict)
            desk.answer()


async def _commit(desk: Desk, verdict: Accepted | Rejected) -> bool:
    """Put the verdict and its receipts on disk, however long it takes; False when it is there already."""
    if not await committed(desk.ledger, _event(verdict, desk.now(), desk.sender), desk.faulty):
        return False
    desk.memory.catch_up()
    return True


def _event(verdict: Accepted | Rejected, at: datetime, sender: Sender) -> Event:
    about = verdict.about
    accepted = isinstance(verdict, Accepted)
    body = {
        "command_id": about.command_id,
        "issuer": about.issuer,
        "topic": about.topic,
        "protocol": about.protocol,
        "type": about.type,
        "authenticated": about.authenticated,
        "digest": about.digest,
        "jws_digest": about.jws_digest,
        "traceparent": about.traceparent,
        "verdict": "accepted" if accepted else "rejected",
        "reason": "" if isinstance(verdict, Accepted) else verdict.reason.value,
        "detail": "" if isinstance(verdict, Accepted) else verdict.sentence,
        "orders": [order.to_body() for order in verdict.orders] if isinstance(verdict, Accepted) else [],
        **(_award(verdict) if isinstance(verdict, Accepted) else {}),
        "receipts": [
            {"topic": r.topic, "payload": r.payload.decode(), "qos": r.qos, "retain": r.retain}
            for r in receipts(verdict, at, sender)
        ],
    }
    key = f"signed/{about.jws_digest}" if accepted else ""
    return Event("orders", "command_received", at, body, key=key)


def _award(verdict: Accepted) -> dict[str, Any]:
    if verdict.obligation is None:
        return {}
    return {"seq": verdict.seq, "award": verdict.obligation.to_body()}


def _facts(verdict: Accepted | Rejected) -> dict[str, str]:
    about = verdict.about
    return {"issuer": about.issuer, "command_id": about.command_id, "traceparent": about.traceparent}
