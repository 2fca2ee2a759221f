"""Jobs that were let go on a moment ago: a signal to stop that comes late, after its request was given up, is taken back once."""

from __future__ import annotations

from collections.abc import Iterable

from adapters._slurm_jobs import STOPPED, Job
from adapters._slurm_journal import Held

_LATE_S = 30.0
"""A request that was given up has been carried out by then, if ever."""


class Freed:
    """Remembers for some time who was let go on."""

    def __init__(self) -> None:
        self._until_s: dict[int, float] = {}

    def note(self, job_ids: Iterable[int], now_s: float) -> None:
        """Remember jobs that have just been let go on."""
        self._until_s |= dict.fromkeys(job_ids, now_s + _LATE_S)

    def watched(self, now_s: float) -> bool:
        """Say whether somebody is remembered still."""
        self._until_s = {i: until_s for i, until_s in self._until_s.items() if now_s < until_s}
        return bool(self._until_s)

    def late(self, jobs: Iterable[Job], wanted: frozenset[int], held: Held, now_s: float) -> list[int]:
        """Return, once each, those that are stopped again and that nobody of us wants stopped."""
        if not self.watched(now_s):
            return []
        for job_id in wanted:
            self._until_s.pop(job_id, None)
        found = [
            job.id
            for job in jobs
            if job.id in self._until_s and job.state == STOPPED and not job.mark and job.id not in held.touched
        ]
        for job_id in found:
            del self._until_s[job_id]
        return found
