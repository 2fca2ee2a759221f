"""A thread that writes what others put in: putting waits for nobody, and a disk that takes nothing costs memory up to a bound."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

LOOK_S = 0.5
"""So often somebody who waits for the thread looks whether it still runs. [s]"""


class Behind(Generic[T]):
    """Takes from any thread and writes in its own, from ``start`` to ``close``."""

    def __init__(
        self,
        name: str,
        write: Callable[[deque[T]], None],
        end: Callable[[], None],
        *,
        most: int,
        every_s: float | None = None,
    ) -> None:
        """``write`` gets what has come, oldest first, and does not raise; ``end`` is called last; both in the thread.

        ``most``: beyond so much the oldest gives way. ``every_s``: what comes within it is written together; None: at once. [s]
        """
        self.dropped = 0
        """What gave way, or was given up."""
        self._write, self._end, self._most, self._every_s = write, end, most, every_s
        self._waiting: deque[T] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._flushed: list[threading.Event] = []
        self._ending = False
        self._begin: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name=name)

    def start(self, begin: Callable[[], None] = lambda: None) -> None:
        """Start the thread; ``begin`` is called first in it."""
        self._begin = begin
        self._thread.start()

    def put(self, what: T) -> None:
        """Have something written soon."""
        with self._lock:
            self._waiting.append(what)
            self._bound()
        if self._every_s is None:
            self._wake.set()

    def put_back(self, batch: deque[T]) -> None:
        """Have what could not be written wait for the next time, before all that has come since."""
        with self._lock:
            self._waiting.extendleft(reversed(batch))
            self._bound()

    def give_up(self, batch: deque[T]) -> None:
        """Count what could not be written as lost."""
        with self._lock:
            self.dropped += len(batch)

    async def flush(self) -> None:
        """Return when everything put in so far has been written, or could not be."""
        await asyncio.get_running_loop().run_in_executor(None, self._flush)

    async def close(self) -> None:
        """Write what waits, if the disk takes it, and end the thread."""
        self._ending = True
        self._wake.set()
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        finally:
            self._thread.join()

    def _bound(self) -> None:
        while len(self._waiting) > self._most:
            self._waiting.popleft()
            self.dropped += 1

    def _flush(self) -> None:
        done = threading.Event()
        with self._lock:
            self._flushed.append(done)
        self._wake.set()
        while self._thread.is_alive() and not done.wait(LOOK_S):
            pass

    def _run(self) -> None:
        self._begin()
        ending = False
        while not ending:
            self._wake.wait(self._every_s)
            self._wake.clear()
            ending = self._ending
            with self._lock:
                batch, self._waiting = self._waiting, deque()
                flushed, self._flushed = self._flushed, []
            if batch:
                self._write(batch)
            for done in flushed:
                done.set()
        self._end()
