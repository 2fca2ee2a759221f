"""Rings at given times of the clock on the wall: APScheduler behind three calls. Nothing is persisted, nothing but a flag is set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.asyncio import AsyncIOScheduler


class Alarms(Protocol):
    """Rings at given times."""

    def open(self, ring: Callable[[], None]) -> None:
        """Call ``ring`` from now on at each time that is set."""
        ...

    def set(self, moments: Iterable[datetime]) -> None:
        """Ring at these times and at no others; a time that has passed rings at once."""
        ...

    def close(self) -> None:
        """Ring no more."""
        ...


class ScheduledAlarms:
    """Alarms by the machine's clock, one job of APScheduler each.

    A job that is late (the machine was suspended, the clock was set forward) still rings, once for all that was missed: whoever is
    rung looks at the time himself. Timers count time that passes, so after a jump of the clock ``set`` has to be called again to
    be heeded at once; the desk does so every few seconds.
    """

    def __init__(self) -> None:
        self._scheduler: Any = AsyncIOScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )
        self._ring: Callable[[], None] = _silent
        self._moments: frozenset[datetime] = frozenset()

    def open(self, ring: Callable[[], None]) -> None:
        """Call ``ring`` from now on at each time that is set."""
        self._ring = ring
        self._scheduler.start()

    def set(self, moments: Iterable[datetime]) -> None:
        """Ring at these times and at no others; a time that has passed rings at once."""
        wanted = frozenset(moments)
        for moment in self._moments - wanted:
            self._drop(moment)
        for moment in wanted - self._moments:
            self._scheduler.add_job(self._rung, "date", run_date=moment, id=moment.isoformat(), replace_existing=True)
        self._moments = wanted
        self._scheduler.wakeup()

    def close(self) -> None:
        """Ring no more."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    @property
    def waiting(self) -> tuple[datetime, ...]:
        """Return the times that have not come yet."""
        return tuple(sorted(job.next_run_time for job in self._scheduler.get_jobs()))

    def _drop(self, moment: datetime) -> None:
        try:
            self._scheduler.remove_job(moment.isoformat())
        except JobLookupError:
            return  # it has rung

    async def _rung(self) -> None:
        """Only tell: a coroutine runs on the loop, a plain function would run in a thread."""
        self._ring()


def _silent() -> None:
    """Nobody is to be rung yet."""
