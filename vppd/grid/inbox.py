"""Messages between the socket and whoever judges them, in bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque

from vppd.model import Inbound


class Inbox:
    """A queue in which a flood of unacknowledged samples pushes out samples, never commands."""

    def __init__(self, most_samples: int = 256, most_commands: int = 1024) -> None:
        self._most_samples, self._most_commands = most_samples, most_commands
        self._queue: deque[Inbound] = deque()
        self._samples = 0
        self._filled = asyncio.Event()
        self.dropped = 0
        """Samples that were pushed out."""

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, message: Inbound) -> bool:
        """Take ``message``; False when there are too many commands, so that the link must be dropped to be safe.

        Commands (QoS > 0) come again after a reconnect; the oldest sample (QoS 0) gives way to the newest.
        """
        if message.qos:
            if len(self._queue) - self._samples >= self._most_commands:
                return False
        elif self._samples >= self._most_samples:
            self._drop_sample()
        self._samples += message.qos == 0
        self._queue.append(message)
        self._filled.set()
        return True

    async def get(self) -> Inbound:
        """Return the oldest message, waiting for one."""
        while not self._queue:
            self._filled.clear()
            await self._filled.wait()
        message = self._queue.popleft()
        self._samples -= message.qos == 0
        return message

    def forget_commands(self) -> None:
        """Drop the commands that were not acknowledged on a link that is gone: the broker sends them again."""
        self._queue = deque(message for message in self._queue if message.qos == 0)
        self._samples = len(self._queue)

    def _drop_sample(self) -> None:
        oldest = next(i for i, message in enumerate(self._queue) if message.qos == 0)
        del self._queue[oldest]
        self._samples -= 1
        self.dropped += 1
