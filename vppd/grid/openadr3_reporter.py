"""Sends the reports that events ask for, beside and never in the way of the orders."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import structlog

from vppd.config.openadr import OpenAdrConfig
from vppd.errors import Garbled, Refused, Unreachable
from vppd.grid.openadr3 import Clock, Ven
from vppd.grid.openadr3_reports import Courses, Figures, due_reports, report_body, unsupported
from vppd.grid.openadr3_rest import Vtn

EVERY_S = 5.0
"""How often it is looked whether a report is due. [s]"""
MOST_WAITING = 500
"""Reports that wait for a server that does not answer; beyond, the oldest are dropped."""

log = structlog.get_logger()


class Reporter:
    """What is due is put together at once and sent until the server has it; what it refuses is dropped."""

    def __init__(
        self, vtn: Vtn, ven: Ven, config: OpenAdrConfig, resource: str, figures: Figures, clock: Clock
    ) -> None:
        self.serve(vtn, ven, config)
        self._resource, self._figures, self._clock = resource, figures, clock
        self._since = clock.now()
        self._waiting: deque[dict[str, Any]] = deque(maxlen=MOST_WAITING)
        self._told: set[tuple[str, str]] = set()
        self._courses = Courses()
        self.sent = 0
        """Reports the server has."""

    @property
    def waiting(self) -> int:
        """Return how many reports the server does not have yet."""
        return len(self._waiting)

    def serve(self, vtn: Vtn, ven: Ven, config: OpenAdrConfig) -> None:
        """Report from now on for another configuration of the link; what waits goes there too."""
        self._vtn, self._ven, self._config = vtn, ven, config

    async def run(self) -> None:
        """Send what is due for ever."""
        while True:
            self.collect()
            await self.send()
            await asyncio.sleep(EVERY_S)

    def collect(self) -> None:
        """Put together what has become due since the last time."""
        book, since, until = self._ven.book, self._since, self._clock.now()
        periods = {program.id: program.interval_period for program in book.programs}
        for event in book.events:
            if not event.report_descriptors:
                continue
            seen = book.seen.get(event.id, until)
            inherited = periods.get(event.program_id)
            for due in due_reports(event, inherited, seen, since, until, self._resource, self._courses):
                self._waiting.append(report_body(due, self._config.client_name, self._resource, self._figures))
            for note in unsupported(event):
                if (note.event_id, note.payload_type) not in self._told:
                    self._told.add((note.event_id, note.payload_type))
                    log.info("openadr_report_not_available", event_id=event.id, payload_type=note.payload_type)
        present = {event.id for event in book.events}
        self._courses.keep(present)
        self._told = {told for told in self._told if told[0] in present}
        self._since = until

    async def send(self) -> None:
        """Send what waits, oldest first, as far as the server answers."""
        while self._waiting:
            body = self._waiting[0]
            try:
                await self._vtn.report(body)
            except Unreachable as error:
                log.warning("openadr_report_waits", error=str(error), waiting=len(self._waiting))
                return
            except (Refused, Garbled) as error:
                log.error("openadr_report_refused", report=body["reportName"], error=str(error))
            else:
                self.sent += 1
            if self._waiting and self._waiting[0] is body:
                self._waiting.popleft()
