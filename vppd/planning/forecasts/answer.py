"""What a worker answered, as outlooks: its words say where each series stands in its file of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from vppd.core.forecast.outlook import Outlook
from vppd.core.forecast.quantiles import LEVELS, Forecast, Score
from vppd.errors import Garbled
from vppd.snapshot import Floats


def numbers_of(path: Path) -> Floats:
    """Return the rows that a worker has written. Raises Garbled."""
    try:
        numbers: Floats = np.load(path)
    except (OSError, ValueError) as error:
        raise Garbled(f"{path}: {error}") from error
    return numbers


def outlooks_of(
    told: Sequence[Mapping[str, Any]], numbers: Floats, now: datetime, start: datetime, step_s: float
) -> dict[str, Outlook]:
    """Return the outlooks whose numbers stand one after the other in the file. Raises Garbled when they do not fit."""
    found, row = {}, 0
    for one in told:
        if "rows" in one:
            values, row = numbers[row : row + one["rows"]], row + one["rows"]
            paths, row = numbers[row : row + one["paths"]], row + one["paths"]
            forecast = Forecast(one["method"], step_s, LEVELS, values, _score(one["score"]), paths)
            found[one["name"]] = Outlook(one["name"], one["source"], now, start, forecast)
    if row != len(numbers):
        raise Garbled(f"the file of forecasts has {len(numbers)} rows instead of {row}")
    return found


def _score(said: Mapping[str, Any]) -> Score:
    coverage = np.array([np.nan if x is None else x for x in said["coverage"]])
    return Score(np.inf if said["pinball"] is None else said["pinball"], coverage, said["samples"])
