"""Prices and carbon intensities of an OpenADR server -> series on a grid of steps, for whoever plans by them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import numpy as np

from vppd.grid.openadr3.orders import Tariff
from vppd.snapshot import Floats

SERIES = {"PRICE": "price/import", "EXPORT_PRICE": "price/export", "GHG": "carbon"}
"""Payload type -> series."""
CARBON = "carbon"
WATT_HOURS = {"WH": 1.0, "KWH": 1e3, "MWH": 1e6}
GRAMS_PER_KWH = ("GHG", "G/KWH")
"""Units of a carbon intensity: the specification has GHG for g/kWh."""


def tariff_series(
    tariffs: Iterable[Tariff], start: datetime, step_s: float, steps: int, currency: str
) -> dict[str, Floats]:
    """Return the means of each series over steps, (steps,), NaN where less than half is told. [currency/Wh, g/Wh]

    Prices in another currency and values in units that are none of theirs are left out: a wrong price is worse than none.
    """
    total: dict[str, Floats] = {}
    told: dict[str, Floats] = {}
    edges_s = step_s * np.arange(steps + 1)
    for name, entry, value in _readable(tariffs, currency):
        begin_s = (entry.interval.start - start).total_seconds()
        end_s = (entry.interval.end - start).total_seconds() if entry.interval.end else edges_s[-1]
        part = np.clip(np.minimum(edges_s[1:], end_s) - np.maximum(edges_s[:-1], begin_s), 0.0, None) / step_s
        total[name] = total.get(name, np.zeros(steps)) + part * value
        told[name] = told.get(name, np.zeros(steps)) + part
    return {
        name: np.where(told[name] >= 0.5, total[name] / np.where(told[name] > 0.0, told[name], 1.0), np.nan)
        for name in total
    }


def _readable(tariffs: Iterable[Tariff], currency: str) -> Iterator[tuple[str, Tariff, float]]:
    """Yield series, tariff and its value per Wh; what is said for several resources counts once."""
    seen = set()
    for entry in tariffs:
        name, units = SERIES.get(entry.payload_type), entry.units.upper()
        if name is None or (key := (entry.payload_type, entry.interval, entry.event_id)) in seen:
            continue
        seen.add(key)
        if name == CARBON:
            if units in GRAMS_PER_KWH:
                yield name, entry, entry.value / 1e3
        elif units in WATT_HOURS and entry.currency.upper() == currency.upper():
            yield name, entry, entry.value / WATT_HOURS[units]
