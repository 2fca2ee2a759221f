"""What the site has to report to an OpenADR server: what it measured lately, and what it foresees.

Kept in steps of a few seconds for a little over a day, also over a restart: an interval that was not measured for the most part is not
known.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from vppd.core.aggregate import Image, aggregate, is_storage, perceive
from vppd.core.envelope import envelope, flexibility
from vppd.core.failsafe import Severity
from vppd.core.forecast.outlook import MEDIAN_FRAC, Outlook
from vppd.core.state import Decision
from vppd.grid.openadr3_trail import Trail
from vppd.model import TIERS, Interval, Kind
from vppd.snapshot import KINDS, Plant, Snapshot

STEP_S = 5.0
"""Figures are means, or the last word, over steps of this length. [s]"""
KEPT_S = 25 * 3_600.0
"""Steps are kept for this long. [s]"""
LEAST_COVERED_FRAC = 0.9
"""An interval is known when at least this part of it was measured. [0-1]"""
SUSTAIN_S = 900.0
"""What could be shed or moved is told as what could be held for so long. [s]"""
PERSISTS_S = 3_600.0
"""What can be shed now is taken to hold for intervals that begin within so long, where there is no forecast. [s]"""
SURE_FRAC = 0.1
"""What can be shed is forecast at this level: it will be more in nine of ten cases. [0-1]"""
MEANS = ("DEMAND", "BASELINE", "LOAD_SHED_DELTA_AVAILABLE", "STORAGE_MAX_CHARGE_POWER", "STORAGE_MAX_DISCHARGE_POWER")
LEVELS = ("STORAGE_CHARGE_LEVEL", "STORAGE_USABLE_CAPACITY")
"""Of these the last word in an interval counts."""
_COLUMNS = (*MEANS, *LEVELS)
_FIRST_SHED_TIER = 1

Outlooks = Callable[[], Mapping[str, Outlook]]


class SiteFigures:
    """Takes every decision, and answers what the site has to say for a time; an implementation of ``openadr3_reports.Figures``."""

    def __init__(
        self, plant: Plant, now: Callable[[], datetime], outlooks: Outlooks = dict, path: Path | None = None
    ) -> None:
        """Prepare; ``outlooks`` returns the newest forecasts by series, none where nothing is foreseen. ``path``: kept there."""
        self._plant, self._now, self._outlooks = plant, now, outlooks
        self._storage = is_storage(plant) & plant.controllable
        self._at_s: list[float] = []
        """Beginnings of the steps that are over."""
        self._said: list[dict[str, float]] = []
        self._states: list[str] = []
        self._step_s, self._total_w, self._count = -math.inf, 0.0, 0
        self._newest: tuple[Snapshot, Decision] | None = None
        self._trail, now_s = Trail(path, len(_COLUMNS)), now().timestamp()
        for at_s, said, state in self._trail.load(now_s - KEPT_S, now_s):
            self._keep(at_s, dict(zip(_COLUMNS, map(float, said), strict=True)), state)

    def take(self, snapshot: Snapshot, decision: Decision) -> None:
        """Note a decision; cheap but once a step."""
        step_s = math.floor(snapshot.at.timestamp() / STEP_S) * STEP_S
        if step_s > self._step_s:
            if self._newest is not None and self._count:
                self._close(*self._newest)
            self._step_s, self._total_w, self._count = step_s, 0.0, 0
        power_w = float(decision.node_power_w[0])
        if np.isfinite(power_w):
            self._total_w, self._count = self._total_w + power_w, self._count + 1
        self._newest = (snapshot, decision)

    def __call__(self, payload_type: str, interval: Interval) -> float | str | None:
        """Return a power [W], an energy [Wh], a fraction or a word for a time; None when it is not known."""
        assert interval.end is not None
        if interval.end > self._now() + timedelta(seconds=STEP_S):
            return self._expected(payload_type, interval.start, interval.end)
        span_s = (interval.end - interval.start).total_seconds()
        if payload_type == "USAGE":
            mean_w = self._mean("DEMAND", interval.start, span_s)
            return None if mean_w is None else mean_w * span_s / 3_600.0
        if payload_type in MEANS:
            return self._mean(payload_type, interval.start, span_s)
        i = bisect_left(self._at_s, interval.end.timestamp()) - 1
        if i < 0 or self._at_s[i] + STEP_S < interval.start.timestamp():
            return None
        return self._states[i] if payload_type == "OPERATING_STATE" else _finite(self._said[i].get(payload_type))

    def _close(self, snapshot: Snapshot, decision: Decision) -> None:
        """Put away the step that is over, with what the last decision in it says."""
        image = self._image(snapshot, decision)
        said = {"DEMAND": self._total_w / self._count, **self._abilities(snapshot, image, SUSTAIN_S)}
        state = _operating_state(decision)
        self._trail.append(self._step_s, np.array([said.get(name, math.nan) for name in _COLUMNS]), state)
        self._keep(self._step_s, said, state)

    def _keep(self, at_s: float, said: dict[str, float], state: str) -> None:
        if self._at_s and at_s <= self._at_s[-1]:
            return  # the step in which an earlier process ended
        self._at_s.append(at_s)
        self._said.append(said)
        self._states.append(state)
        if self._at_s[0] < at_s - KEPT_S - 600.0:  # now and then, not step by step
            old = bisect_right(self._at_s, at_s - KEPT_S)
            for kept in (self._at_s, self._said, self._states):
                del kept[:old]

    def _image(self, snapshot: Snapshot, decision: Decision) -> Image:
        senses = perceive(snapshot, decision.state, self._plant)
        return aggregate(snapshot, decision.state, self._plant, senses, decision.severity >= Severity.ISOLATE)

    def _abilities(self, snapshot: Snapshot, image: Image, sustain_s: float) -> dict[str, float]:
        plant, storage = self._plant, self._storage & image.usable
        bounds = envelope(snapshot.readings, image, plant, sustain_s)
        could = flexibility(snapshot.readings, image, plant, sustain_s)
        found = {
            "BASELINE": float(image.unheld_w[0]),
            "LOAD_SHED_DELTA_AVAILABLE": max(float(could.power_w[0] - could.lower_w[0]), 0.0),
        }
        if not storage.any():
            return found
        usable_wh = np.nan_to_num(plant.capacity_wh[storage]) * (1.0 - plant.reserve_frac[storage])
        above_frac = np.maximum(image.soc_frac[storage] - plant.reserve_frac[storage], 0.0)
        stored_wh = float((np.nan_to_num(plant.capacity_wh[storage]) * np.nan_to_num(above_frac)).sum())
        return found | {
            "STORAGE_MAX_CHARGE_POWER": float(bounds.upper_w[storage].sum()),
            "STORAGE_MAX_DISCHARGE_POWER": float(-bounds.lower_w[storage].sum()),
            "STORAGE_USABLE_CAPACITY": float(usable_wh.sum()),
            "STORAGE_CHARGE_LEVEL": stored_wh / float(usable_wh.sum()) if usable_wh.sum() > 0.0 else math.nan,
        }

    def _mean(self, name: str, start: datetime, span_s: float) -> float | None:
        """Return the mean over a time that has been measured for the most part; None otherwise. [W]"""
        start_s = start.timestamp()
        i, j = bisect_right(self._at_s, start_s - STEP_S), bisect_right(self._at_s, start_s + span_s)
        covered_s = total_ws = 0.0
        for at_s, said in zip(self._at_s[i:j], self._said[i:j], strict=True):
            overlap_s = min(at_s + STEP_S, start_s + span_s) - max(at_s, start_s)
            power_w = said.get(name, math.nan)
            if overlap_s > 0.0 and math.isfinite(power_w):
                covered_s, total_ws = covered_s + overlap_s, total_ws + overlap_s * power_w
        return total_ws / covered_s if covered_s and covered_s >= LEAST_COVERED_FRAC * span_s - STEP_S else None

    def _expected(self, payload_type: str, start: datetime, end: datetime) -> float | None:
        """Return what is foreseen, for an interval that is not over; None when nothing is."""
        span_s = (end - start).total_seconds()
        match payload_type:
            case "BASELINE" | "DEMAND":
                return self._foreseen_load_w(start, span_s)
            case "USAGE":
                load_w = self._foreseen_load_w(start, span_s)
                return None if load_w is None else load_w * span_s / 3_600.0
            case "LOAD_SHED_DELTA_AVAILABLE":
                return self._foreseen_shed_w(start, span_s)
            case "STORAGE_USABLE_CAPACITY":
                return _finite(self._said[-1].get(payload_type)) if self._said else None
            case _:
                return None

    def _foreseen_load_w(self, start: datetime, span_s: float) -> float | None:
        """Return what the site will draw if it is left alone, None when any part of it is not foreseen. [W]"""
        total_w = 0.0
        for name, sign in self._series():
            power_w = self._foreseen(name, start, span_s, MEDIAN_FRAC)
            if power_w is None:
                return None
            total_w += sign * power_w
        return total_w

    def _series(self) -> list[tuple[str, float]]:
        plant, named = self._plant, {Kind.CLUSTER: ("compute", 1.0), Kind.PV: ("generation", -1.0)}
        named[Kind.WIND] = named[Kind.PV]
        found = [(f"load/{tag}", 1.0) for tag in plant.nodes[1:]]
        for i, asset in enumerate(plant.asset_ids):
            if plant.controllable[i] and (kind := KINDS[plant.kind[i]]) in named:
                found.append((f"{named[kind][0]}/{asset}", named[kind][1]))
        return found

    def _foreseen(self, name: str, start: datetime, span_s: float, level_frac: float) -> float | None:
        outlook = self._outlooks().get(name)
        if outlook is None or level_frac not in outlook.forecast.levels:
            return None
        return _finite(float(outlook.over(start, span_s, 1, level_frac)[0]))

    def _foreseen_shed_w(self, start: datetime, span_s: float) -> float | None:
        """Return what clusters are sure to have to shed, and what storage could give now; what could be shed now where nothing is foreseen. [W]"""
        if self._newest is None:
            return None
        snapshot, decision = self._newest
        could = self._abilities(snapshot, self._image(snapshot, decision), max(span_s, SUSTAIN_S))
        clusters = [a for i, a in enumerate(self._plant.asset_ids) if KINDS[self._plant.kind[i]] is Kind.CLUSTER]
        names = [f"compute/{a}/tier{k}" for a in clusters for k in range(_FIRST_SHED_TIER, TIERS)]
        foreseen = [self._foreseen(name, start, span_s, SURE_FRAC) for name in names]
        known_w = [power_w for power_w in foreseen if power_w is not None]
        if len(known_w) == len(names) and names:
            return sum(known_w) + could.get("STORAGE_MAX_DISCHARGE_POWER", 0.0)
        near = start <= self._now() + timedelta(seconds=PERSISTS_S)
        return could["LOAD_SHED_DELTA_AVAILABLE"] if near else None


def _operating_state(decision: Decision) -> str:
    """Return the state of the whole site in the specification's words."""
    if "operator" in decision.site_causes:
        return "RUNNING_OPTED_OUT"
    if decision.site_severity >= Severity.ISOLATE:
        return "ERROR"
    return "RUNNING_CURTAILED" if decision.demands else "NORMAL"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
