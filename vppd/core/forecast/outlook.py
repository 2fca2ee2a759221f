"""What is expected of one series, and how values on one time grid become values on another. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from vppd.core.forecast.quantiles import Forecast
from vppd.snapshot import Floats

MEDIAN_FRAC = 0.5
LEAST_COVERED_FRAC = 0.5
"""A step is known when at least this part of it is. [0-1]"""


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """The newest forecast of a series: means over the steps from ``start`` on, the first of which is under way."""

    name: str
    """The series: ``load/{feed}``, ``generation/{asset}``, ``compute/{asset}``, ``compute/{asset}/tier{k}``, ``contract/{name}``,
    ``price/import``, ``price/export`` or ``carbon``."""
    source: str
    """A method (``seasonal``, ...), ``feed:NAME`` or ``constant``."""
    made_at: datetime
    start: datetime
    """Beginning of step 0, on the grid of steps; aware UTC."""
    forecast: Forecast

    @property
    def end(self) -> datetime:
        """Return the end of the last step."""
        return self.start + timedelta(seconds=self.forecast.step_s * self.forecast.values.shape[1])

    def over(self, start: datetime, step_s: float, steps: int, level_frac: float = MEDIAN_FRAC) -> Floats:
        """Return one level on another grid, (steps,), NaN where nothing is said. Raises KeyError for an unknown level."""
        return resampled(self.forecast.at(level_frac), self.start, self.forecast.step_s, start, step_s, steps)


def resampled(
    values: Floats, start: datetime, step_s: float, new_start: datetime, new_step_s: float, steps: int
) -> Floats:
    """Return the means (..., steps) over new steps of what is constant over old ones (..., h); NaN is not known.

    A new step is the mean of what is known of it, and NaN when that is less than half. [units of the values]
    """
    shift_s = (new_start - start).total_seconds()
    first = round(shift_s / step_s)
    if new_step_s == step_s and abs(first * step_s - shift_s) < 1e-6:
        return _shifted(values, first, steps)
    if not values.shape[-1]:
        return np.full((*values.shape[:-1], steps), np.nan)
    edges = np.clip((shift_s + new_step_s * np.arange(steps + 1)) / step_s, 0.0, values.shape[-1])
    known = np.isfinite(values)
    total, weight = _between(np.where(known, values, 0.0), edges), _between(known.astype(np.float64), edges)
    enough = weight * step_s >= LEAST_COVERED_FRAC * new_step_s - 1e-6
    return np.asarray(np.where(enough, total / np.where(enough, weight, 1.0), np.nan))


def _shifted(values: Floats, first: int, steps: int) -> Floats:
    """Return ``steps`` values from the first on, NaN where there are none: same grid, same numbers."""
    found = np.full((*values.shape[:-1], steps), np.nan)
    begin, end = max(first, 0), min(first + steps, values.shape[-1])
    if end > begin:
        found[..., begin - first : end - first] = values[..., begin:end]
    return found


def _between(values: Floats, edges: Floats) -> Floats:
    """Return the integral of a step function between neighbouring edges, which count in steps."""
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
    whole = np.minimum(np.floor(edges).astype(np.int64), values.shape[-1] - 1)
    at = sums[..., whole] + (edges - whole) * values[..., whole]
    return np.asarray(np.diff(at, axis=-1))
