"""Sends the reports that events ask for, beside and never in the way of the orders."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

import structlog

from vppd.config.openadr import OpenAdrConfig
from vppd.errors import Garbled, Refused, Unreachable
from vppd.grid.openadr3.model import Event
from vppd.grid.openadr3.report_form import Figures, report_body
from vppd.grid.openadr3.reports import Courses, due_at, due_reports, on_what, unsupported
from vppd.grid.openadr3.rest import Vtn
from vppd.grid.openadr3.ven import Clock, Ven

EVERY_S = 5.0
"""How often it is looked whether a report is due. [s]"""
LOOK_BACK = timedelta(hours=24)
"""What became due while we were away is told as far back as this."""
MOST_WAITING = 500
"""Reports that wait for a server that does not answer; beyond, the oldest are dropped."""

MOST_MADE = 5_000
"""Names of reports that are remembered, so that none is sent twice."""

log = structlog.get_logger()


class Reporter:
    """What is due is put together at once and sent until the server has it; what it refuses is dropped."""

    def __init__(self, vtn: Vtn, ven: Ven, config: OpenAdrConfig, figures: Figures, clock: Clock) -> None:
        self.serve(vtn, ven, config)
        self._figures, self._clock = figures, clock
        self._since = clock.now()
        self._waiting: deque[dict[str, Any]] = deque(maxlen=MOST_WAITING)
        self._told: set[tuple[str, str]] = set()
        self._courses = Courses()
        self._collecting = Lock()
        self._has_looked = False
        self._stored: frozenset[str] = frozenset()
        self._made: dict[str, None] = {}
        """Names of reports put together lately: a link that begins anew sees every event for the first time."""
        self._resumes: dict[str, datetime] = {}
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
            if not self._has_looked:
                await self.look_back()
            if self._has_looked:
                self.attend()
                await asyncio.to_thread(self.collect)  # with many assets and intervals it takes seconds
                await self.send()
            await asyncio.sleep(EVERY_S)

    async def look_back(self) -> None:
        """Ask what the server has of ours, so that what became due while we were away is told, and nothing twice."""
        try:
            stored = await self._vtn.reports(self._config.client_name)
        except Unreachable as error:
            log.debug("openadr_reports_not_known", error=str(error))
            return
        except (Refused, Garbled) as error:  # not every server lets us read reports
            log.info("openadr_reports_not_known", error=str(error))
            stored = []
        self._has_looked, self._stored = True, frozenset(_name(said) for said in stored)
        for said in stored:
            event_id, at = _event(said), due_at(_name(said))
            if at is not None:
                self._resumes[event_id] = max(at, self._resumes.get(event_id, at))

    def collect(self) -> None:
        """Put together what has become due since the last time; one at a time, also when a cancelled one is still at it."""
        with self._collecting:
            since, until = self._since, self._clock.now()
            for event in self._asking():
                begin = max(min(since, self._resumes.pop(event.id, since)), until - LOOK_BACK)
                self._collect(event, begin, until)
                self._tell(event)
            present = {event.id for event in self._ven.book.events}
            self._courses.keep(present)
            self._told = {told for told in self._told if told[0] in present}
            while len(self._made) > MOST_MADE:
                del self._made[next(iter(self._made))]
            self._since = until

    def attend(self) -> None:
        """Keep account of what events ask about, from now on; to be called when they are news."""
        terms = self._ven.terms
        wishes = ((event, wanted) for event in self._asking() for wanted in event.report_descriptors)
        named = (on_what(event, wanted, terms).values() for event, wanted in wishes)
        self._figures.watch(tuple(dict.fromkeys(name for names in named for name in names)))

    def _asking(self) -> list[Event]:
        return [event for event in self._ven.book.events if event.report_descriptors]

    def _collect(self, event: Event, begin: datetime, until: datetime) -> None:
        book, terms = self._ven.book, self._ven.terms
        inherited = next((p.interval_period for p in book.programs if p.id == event.program_id), None)
        seen = book.seen.get(event.id, until)
        for due in due_reports(event, inherited, seen, begin, until, terms.site.vpp_id, self._courses):
            places = on_what(event, due.descriptor, terms)
            if not places:
                continue
            body = report_body(due, self._config.client_name, places, self._figures)
            name = body["reportName"]
            if name not in self._stored and name not in self._made:
                self._made[name] = None
                self._waiting.append(body)

    def _tell(self, event: Event) -> None:
        for note in unsupported(event, self._ven.terms):
            if (note.event_id, note.payload_type) not in self._told:
                self._told.add((note.event_id, note.payload_type))
                log.info(
                    "openadr_report_not_available",
                    event_id=event.id,
                    payload_type=note.payload_type,
                    reason=note.why.value,
                    detail=note.sentence,
                )

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


def _name(said: Any) -> str:
    return str(said.get("reportName", "")) if isinstance(said, dict) else ""


def _event(said: Any) -> str:
    return str(said.get("eventID", "")) if isinstance(said, dict) else ""
