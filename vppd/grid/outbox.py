"""What is owed to the dispatcher goes out until the broker has taken it; what is merely news goes out once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import structlog

from vppd.errors import DeviceError, Refused, Unreachable
from vppd.model import Event, Outbound
from vppd.ports import DispatchChannel, Ledger

NEWS_KEPT = 256
"""Unsent news beyond this drops the oldest; receipts are never dropped, they are on disk."""
AGAIN_AFTER_S = 5.0
"""A receipt the broker did not take is offered again after this. [s]"""

log = structlog.get_logger()


class Debt(Protocol):
    """Messages of one ledger event that are still owed."""

    @property
    def event_id(self) -> int:
        """The event they belong to."""
        ...

    @property
    def messages(self) -> tuple[Outbound, ...]:
        """In the order in which they go out."""
        ...


class Outbox:
    """One publisher task: receipts first, then the newest of each topic."""

    def __init__(
        self,
        channel: DispatchChannel,
        ledger: Ledger,
        owed: Callable[[], Sequence[Debt]],
        caught_up: Callable[[], None],
        now: Callable[[], datetime],
    ) -> None:
        self._channel, self._ledger, self._owed, self._caught_up, self._now = channel, ledger, owed, caught_up, now
        self._wake = asyncio.Event()
        self._again: deque[Outbound] = deque(maxlen=NEWS_KEPT)
        self._news: OrderedDict[str, deque[Outbound]] = OrderedDict()
        self._done: set[int] = set()

    def wake(self) -> None:
        """Say that something is owed."""
        self._wake.set()

    def resend(self, messages: tuple[Outbound, ...]) -> None:
        """Publish stored receipts once more."""
        self._again.extend(messages)
        self._wake.set()

    def post(self, *messages: Outbound, latest_only: bool = False) -> None:
        """Publish news; with ``latest_only`` an unsent older one of the same topic is dropped."""
        for message in messages:
            queue = self._news.setdefault(message.topic, deque(maxlen=NEWS_KEPT))
            if latest_only:
                queue.clear()
            queue.append(message)
        self._wake.set()

    @property
    def busy(self) -> bool:
        """Say whether anything waits to go out besides what is owed."""
        return bool(self._again) or any(self._news.values())

    async def run(self) -> None:
        """Publish for ever; a link that is down delays, it does not lose what is owed."""
        while True:
            try:
                async with asyncio.timeout(AGAIN_AFTER_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self._flush()
            except Unreachable as error:
                log.debug("publish_delayed", error=str(error))
                await asyncio.sleep(0.2)

    async def _flush(self) -> None:
        for debt in self._owed():
            if debt.event_id not in self._done:
                await self._pay(debt)
        while self._again:
            await self._channel.publish(self._again[0])
            self._again.popleft()
        for queue in list(self._news.values()):
            while queue:
                await self._publish_news(queue)

    async def _publish_news(self, queue: deque[Outbound]) -> None:
        try:
            await self._channel.publish(queue[0])
        except Refused as error:
            log.warning("publish_refused", topic=queue[0].topic, error=str(error))
        queue.popleft()

    async def _pay(self, debt: Debt) -> None:
        for message in debt.messages:
            try:
                await self._channel.publish(message)
            except Refused as error:
                log.error("receipt_refused_by_broker", topic=message.topic, error=str(error))
        self._done.add(debt.event_id)
        try:
            await self._ledger.append(Event("outbox", "published", self._now(), {"ref": debt.event_id}))
        except DeviceError as error:
            log.warning("published_not_recorded", ref=debt.event_id, error=str(error))
            return
        self._caught_up()
        self._done.discard(debt.event_id)
