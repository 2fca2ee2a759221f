"""What is known of the steps of a round: forecasts as joint samples, and the plan, on one time grid. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import ceil

import numpy as np

from vppd.core.bidding.sureness import LEAST_ROWS
from vppd.core.forecast.outlook import MEDIAN_FRAC, Outlook, resampled
from vppd.core.timetable import Timetable
from vppd.model import Interval
from vppd.snapshot import Floats

LOW_FRAC = 0.1
"""The quantile that is taken of a forecast without samples; where much is the worse, the one as far from the top. [0-1]"""
UNTRIED_FRAC = 0.8
"""Of a forecast that has never been compared with what came true, so much is counted on. [0-1]"""
IMPORT_PRICE = "price/import"


@dataclass(frozen=True, slots=True)
class Steps:
    """The time grid of one round."""

    start: datetime
    step_s: float
    count: int

    def span(self, interval: Interval) -> tuple[int, int]:
        """Return the first step that an interval touches and the first after it; equal when it touches none."""
        assert interval.end is not None
        first = int((interval.start - self.start).total_seconds() // self.step_s)
        end = ceil((interval.end - self.start).total_seconds() / self.step_s - 1e-9)
        return min(max(first, 0), self.count), min(max(end, 0), self.count)


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """The newest forecasts and the plan, as they are seen from the steps of a round."""

    outlook: Mapping[str, Outlook]
    timetable: Timetable | None
    steps: Steps
    rows: int
    """Of so many past moments there are joint samples, see ``common_rows``."""

    def low(self, name: str) -> Floats | None:
        """Return joint samples of a series, (i, h); too few: one low quantile, less when it is untried. None: not foreseen."""
        return self._samples(name, is_low=True)

    def high(self, name: str) -> Floats | None:
        """Return the same where much is the worse: without samples one high quantile, more when it is untried."""
        return self._samples(name, is_low=False)

    def median(self, name: str) -> Floats | None:
        """Return what is expected of a series, (1, h), None when it is not foreseen."""
        found = self.outlook.get(name)
        return None if found is None else self._on(found.forecast.at(MEDIAN_FRAC)[None, :], found)

    def planned_w(self, asset_id: str) -> Floats:
        """Return the planned power of an asset, (1, h), NaN where the plan says nothing. [W]"""
        return self._planned(asset_id, None if self.timetable is None else self.timetable.power_w)

    def least_stored_wh(self, asset_id: str) -> Floats:
        """Return the least energy stored at the two ends of each step, (1, h), NaN where the plan says nothing. [Wh]"""
        return self._planned(asset_id, None if self.timetable is None else _ends(self.timetable.energy_wh).min(axis=0))

    def most_stored_wh(self, asset_id: str) -> Floats:
        """Return the most energy stored at the two ends of each step, (1, h). [Wh]"""
        return self._planned(asset_id, None if self.timetable is None else _ends(self.timetable.energy_wh).max(axis=0))

    def dearest_per_wh(self) -> float:
        """Return the highest price of energy that is expected, 0 where nobody says. [>= 0]"""
        return max([0.0, *self._prices_per_wh()])

    def spread_per_wh(self) -> float:
        """Return how much dearer energy may be now than later, by the prices that are expected. [>= 0]"""
        found = self._prices_per_wh()
        return max(found) - min(found) if found else 0.0

    def _prices_per_wh(self) -> list[float]:
        price = self.outlook.get(IMPORT_PRICE)
        found = np.zeros(0) if price is None else price.forecast.at(MEDIAN_FRAC)
        return [float(x) for x in found[np.isfinite(found)]]

    def _samples(self, name: str, *, is_low: bool) -> Floats | None:
        found = self.outlook.get(name)
        if found is None:
            return None
        forecast = found.forecast
        if len(forecast.paths) >= max(self.rows, LEAST_ROWS):
            return self._on(forecast.paths[-self.rows :], found)
        wanted_frac, last = (LOW_FRAC, min) if is_low else (1.0 - LOW_FRAC, max)
        level_frac = wanted_frac if wanted_frac in forecast.levels else last(forecast.levels)
        trusted_frac = 1.0 if forecast.score.known else UNTRIED_FRAC if is_low else 1.0 / UNTRIED_FRAC
        return np.asarray(trusted_frac * self._on(forecast.at(level_frac)[None, :], found))

    def _on(self, values: Floats, found: Outlook) -> Floats:
        steps = self.steps
        return resampled(values, found.start, found.forecast.step_s, steps.start, steps.step_s, steps.count)

    def _planned(self, asset_id: str, table: Floats | None) -> Floats:
        """Return a row of the timetable over the steps, (1, h), NaN where it says nothing."""
        plan, steps = self.timetable, self.steps
        if plan is None or table is None or asset_id not in plan.asset_ids:
            return np.full((1, steps.count), np.nan)
        row = table[plan.asset_ids.index(asset_id)][None, :]
        return resampled(row, plan.start, plan.step_s, steps.start, steps.step_s, steps.count)


def common_rows(outlook: Mapping[str, Outlook]) -> int:
    """Return of how many past moments there are samples of all compute, those forecasts aside that have too few.

    Other forecasts with fewer samples give a quantile: they shall not take samples from what there is most of. Where nothing
    computes, generation counts, and then load.
    """
    for kind in ("compute/", "generation/", "load/"):
        counts = [len(found.forecast.paths) for name, found in outlook.items() if name.startswith(kind)]
        if enough := [count for count in counts if count >= LEAST_ROWS]:
            return min(enough)
    return 0


def _ends(energy_wh: Floats) -> Floats:
    """Return the energy stored at the beginning and at the end of each step, (2, n, h), given what is stored after each."""
    before_wh = np.concatenate([energy_wh[:, :1], energy_wh[:, :-1]], axis=1)
    return np.asarray(np.stack([before_wh, energy_wh]))
