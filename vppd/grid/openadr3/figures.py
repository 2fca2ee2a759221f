"""What there is to report to an OpenADR server of the site, its feeds and its assets: what was measured lately, and what is foreseen."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from vppd.core.state import Decision
from vppd.grid.openadr3.foresight import SUSTAIN_S, Foresight, Outlooks, Plans
from vppd.grid.openadr3.past import MEANS, STEP_S, Past
from vppd.grid.openadr3.places import Place, Places
from vppd.grid.openadr3.survey import Survey
from vppd.model import Interval
from vppd.snapshot import Plant, Snapshot

PERSISTS_S = 3_600.0
"""What is available now is taken to hold for intervals that begin within so long, where nothing is foreseen. [s]"""
PERSISTENT = ("LOAD_SHED_DELTA_AVAILABLE", "UP_REGULATION_AVAILABLE", "DOWN_REGULATION_AVAILABLE")
MOST_PLACES = 50
"""So many feeds and assets are kept account of beside the site; each takes about 2 MB."""
VERSION = 2
"""Of the files that steps are kept in."""

log = structlog.get_logger()


class _Account:
    """One place: what is being summed up, and what has been."""

    def __init__(self, place: Place, past: Past) -> None:
        self.place, self.past = place, past
        self.total_w, self.count = 0.0, 0


class SiteFigures:
    """Takes every decision, and answers what there is to say of a place for a time; an ``openadr3_report_form.Figures``."""

    def __init__(
        self,
        plant: Plant,
        now: Callable[[], datetime],
        outlooks: Outlooks = dict,
        folder: Path | None = None,
        plans: Plans = lambda: None,
    ) -> None:
        """Prepare; ``outlooks`` returns the newest forecasts by series, ``plans`` the newest plan. What was measured is kept in ``folder``."""
        self._plant, self._now, self._folder = plant, now, folder
        self._places = Places(plant)
        self._foresight = Foresight(plant, self._places, outlooks, plans)
        self._step_s = -math.inf
        self._newest: tuple[Snapshot, Decision] | None = None
        self._survey: tuple[tuple[Snapshot, Decision], float, Survey] | None = None
        """The newest survey with what it is of: the intervals of a report are mostly equally long."""
        self._told = False
        self._accounts = {plant.nodes[0]: self._opened(plant.nodes[0])}

    def watch(self, names: Collection[str]) -> None:
        """Keep account of these feeds and assets from now on, and of the site in any case."""
        site = self._plant.nodes[0]
        wanted = [name for name in dict.fromkeys(names) if name != site]
        known, self._accounts = self._accounts, {site: self._accounts[site]}
        for name in wanted[:MOST_PLACES]:
            self._accounts[name] = known.get(name) or self._opened(name)
        beyond = len(wanted[MOST_PLACES:])
        if beyond and not self._told:
            log.warning("openadr_reports_on_too_many", most=MOST_PLACES, left_out=beyond)
        self._told = beyond > 0

    def outermost(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the names that lie within no other of them."""
        return self._places.outermost(names)

    def take(self, snapshot: Snapshot, decision: Decision) -> None:
        """Note a decision; cheap but once a step."""
        step_s = math.floor(snapshot.at.timestamp() / STEP_S) * STEP_S
        if step_s > self._step_s:
            self._close()
            self._step_s = step_s
        for account in self._accounts.values():
            place = account.place
            power_w = decision.node_power_w[place.node] if place.asset < 0 else self._believed_w(snapshot, place)
            if math.isfinite(power_w):
                account.total_w, account.count = account.total_w + float(power_w), account.count + 1
        self._newest = (snapshot, decision)

    def __call__(self, payload_type: str, name: str, interval: Interval) -> float | str | None:
        """Return a power [W], an energy [Wh], a fraction or a word for a place and a time; None when it is not known."""
        assert interval.end is not None
        account, span_s = self._accounts.get(name), (interval.end - interval.start).total_seconds()
        if account is None:
            return None
        if interval.end > self._now():
            return self._expected(payload_type, account, interval.start, span_s)
        past, start_s = account.past, interval.start.timestamp()
        if payload_type == "USAGE":
            mean_w = past.mean("DEMAND", start_s, span_s)
            return None if mean_w is None else mean_w * span_s / 3_600.0
        if payload_type in MEANS:
            return past.mean(payload_type, start_s, span_s)
        return past.last(payload_type, start_s, start_s + span_s)

    def _opened(self, name: str) -> _Account:
        path = self._folder / f"openadr-figures-{VERSION}-{name}.bin" if self._folder is not None else None
        return _Account(self._places.of(name), Past(path, self._now().timestamp()))

    def _believed_w(self, snapshot: Snapshot, place: Place) -> float:
        """Return what an asset said last, NaN when that is too old. [W]"""
        readings, i = snapshot.readings, place.asset
        fresh = snapshot.mono_s - readings.mono_s[i] <= self._plant.stale_after_s[i]
        return float(readings.power_w[i]) if fresh else math.nan

    def _close(self) -> None:
        """Put away the step that is over, with what the last decision in it says."""
        if self._newest is None:
            return
        survey = Survey(*self._newest, self._plant, self._places, SUSTAIN_S)
        for account in self._accounts.values():
            if account.count:
                said = {"DEMAND": account.total_w / account.count, **survey.figures(account.place)}
                account.past.add(self._step_s, said, survey.state(account.place))
            account.total_w, account.count = 0.0, 0
        for account in self._accounts.values():
            if account.past.tidy(self._step_s):
                break  # it takes a few milliseconds, and the control loop waits

    def _expected(self, payload_type: str, account: _Account, start: datetime, span_s: float) -> float | None:
        """Return what is foreseen for an interval that is not over; what is available now where nothing is, for a while."""
        if payload_type == "STORAGE_USABLE_CAPACITY":
            return self._now_available(payload_type, account.place, span_s)
        found = self._foresight.expected(
            payload_type, account.place, start, span_s,
            lambda: self._now_available("STORAGE_MAX_DISCHARGE_POWER", account.place, span_s),
        )  # fmt: skip
        if found is None and payload_type in PERSISTENT and start <= self._now() + timedelta(seconds=PERSISTS_S):
            return self._now_available(payload_type, account.place, span_s)
        return found

    def _now_available(self, payload_type: str, place: Place, span_s: float) -> float | None:
        if self._newest is None:
            return None
        newest, sustain_s = self._newest, max(span_s, SUSTAIN_S)
        known = self._survey
        if known is None or known[0] is not newest or known[1] != sustain_s:
            known = self._survey = (newest, sustain_s, Survey(*newest, self._plant, self._places, sustain_s))
        value = known[2].figures(place).get(payload_type, math.nan)
        return value if math.isfinite(value) else None
