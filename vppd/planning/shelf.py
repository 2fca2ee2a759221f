"""What a site can give over the steps of a round: forecasts and the timetable become stocks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil, gcd

import numpy as np

from vppd.config.plant import STORAGE, AssetConfig
from vppd.core.bidding.qualify import Site
from vppd.core.bidding.stock import Stock
from vppd.core.bidding.sureness import LEAST_ROWS
from vppd.core.failsafe import SOC_MARGIN_FRAC
from vppd.core.forecast.outlook import Outlook, resampled
from vppd.core.timetable import Timetable
from vppd.model import TIERS, Interval, Kind
from vppd.snapshot import Floats

LOW_FRAC = 0.1
"""The quantile that is taken of a forecast without samples. [0-1]"""
UNTRIED_FRAC = 0.8
"""Of a forecast that has never been compared with what came true, so much is counted on. [0-1]"""
MOST_STEPS = 1_000
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
class Shelf:
    """What the site can give over the steps of a round, and what it was that nothing is known of."""

    steps: Steps
    stocks: tuple[Stock, ...]
    missing: Mapping[str, str]
    """Assets that give nothing, and why."""


def steps_of(intervals: Iterable[Interval], now: datetime, step_s: float) -> Steps:
    """Return the grid from the present step to the end of the last interval, fine enough for the edges of all of them.

    ``step_s`` is that of the forecasts; a slot that is a part of a step has steps of its own, else the watts of one slot would
    be taken from its neighbour's.
    """
    start = end = floored(now, step_s)
    seconds = round(step_s)
    for interval in intervals:
        assert interval.end is not None
        end = max(end, interval.end)
        for edge in (interval.start, interval.end):
            seconds = gcd(seconds, round((edge - start).total_seconds()))
    span_s = (end - start).total_seconds()
    while span_s > MOST_STEPS * seconds and seconds < step_s:
        seconds = min(seconds * 2, round(step_s))
    return Steps(start, float(seconds), ceil(span_s / seconds - 1e-9))


def shelf_of(
    assets: Iterable[AssetConfig],
    site: Site,
    outlook: Mapping[str, Outlook],
    timetable: Timetable | None,
    steps: Steps,
    away: frozenset[str] = frozenset(),
) -> Shelf:
    """Return what can be sold upwards (less consumption) of each asset; ``away``: those that take no orders now."""
    quick = {ability.name: ability.response_s for ability in site.abilities}
    rows = _common_rows(outlook.values())
    stocks: list[Stock] = []
    missing: dict[str, str] = {}
    for asset in assets:
        if asset.id not in quick or asset.kind not in (*STORAGE, Kind.CLUSTER):
            continue
        found: Sequence[Stock] | str
        if asset.id in away:
            found = "it takes no orders now"
        elif asset.kind is Kind.CLUSTER:
            found = _cluster(asset, quick[asset.id], outlook, timetable, steps, rows)
        else:
            found = _storage(asset, quick[asset.id], outlook.get(IMPORT_PRICE), timetable, steps)
        if isinstance(found, str):
            missing[asset.id] = found
        else:
            stocks += found
    return Shelf(steps, tuple(stocks), missing)


def _cluster(
    asset: AssetConfig,
    response_s: float,
    outlook: Mapping[str, Outlook],
    timetable: Timetable | None,
    steps: Steps,
    rows: int,
) -> list[Stock] | str:
    """Return a stock per tier: what could be shed by forecast, less what the plan holds back anyway, deepest tier first."""
    name = f"compute/{asset.id}"
    tiers = {k: outlook[f"{name}/tier{k}"] for k in range(1, TIERS) if f"{name}/tier{k}" in outlook}
    if not tiers:
        return "there is no forecast of what could be shed"
    whole = outlook.get(name)
    back_w: Floats = np.zeros((1, steps.count))
    if whole is not None and timetable is not None:
        planned_w = _planned(asset.id, timetable, timetable.power_w, steps)
        back_w = np.nan_to_num(np.maximum(_on(whole.forecast.at(0.5)[None, :], whole, steps) - planned_w, 0.0))
    room_w = None if whole is None else np.maximum(_samples(whole, steps, rows) - asset.min_w - back_w, 0.0)
    stocks = []
    for tier in sorted(tiers, reverse=True):
        free_w = np.maximum(_samples(tiers[tier], steps, rows), 0.0)
        held_w = np.minimum(free_w, back_w)
        back_w, free_w = back_w - held_w, free_w - held_w
        if room_w is not None:
            free_w = np.minimum(free_w, room_w)
            room_w = room_w - np.nan_to_num(free_w)
        cost = asset.tier_cost_per_wh[tier]
        stocks.append(Stock(f"{asset.id}/tier{tier}", "up", response_s, cost, np.asarray(free_w)))
    return stocks


def _storage(
    asset: AssetConfig, response_s: float, price: Outlook | None, timetable: Timetable | None, steps: Steps
) -> list[Stock] | str:
    """Return what storage can give beyond its plan, and the energy behind it by its plan."""
    if timetable is None:
        return "there is no plan of its charge"
    planned_w = np.nan_to_num(_planned(asset.id, timetable, timetable.power_w, steps))
    stored_wh = _planned(asset.id, timetable, _least_stored(timetable.energy_wh), steps)
    if np.isnan(stored_wh).all():
        return "its charge is not planned"
    kept_wh = (asset.reserve_frac + SOC_MARGIN_FRAC) * asset.capacity_wh
    spare_wh = np.maximum(stored_wh - kept_wh, 0.0) * asset.efficiency_frac
    # A reduction is counted from rest: charging that stops is none. What is discharged anyway is not sold.
    power_w = np.clip(asset.rated_discharge_w + np.minimum(planned_w, 0.0), 0.0, None)
    power_w = np.where(np.isnan(spare_wh), np.nan, power_w)
    usable_wh = max(asset.capacity_wh - kept_wh, 0.0)
    refill_s = 3600.0 * usable_wh / asset.efficiency_frac / max(asset.rated_charge_w, 1e-9)
    recovery = min(ceil(refill_s / steps.step_s), steps.count)
    lost_frac = asset.efficiency_frac**-2 - 1.0
    energy_cost = (
        0.0 if price is None else max(float(np.nan_to_num(np.nanmax(price.forecast.at(0.5), initial=0.0))), 0.0)
    )
    cost = asset.wear_cost_per_wh + lost_frac * energy_cost
    energy_wh = np.asarray(np.nan_to_num(spare_wh[0]))
    return [Stock(asset.id, "up", response_s, cost, np.asarray(power_w), energy_wh, recovery)]


def _common_rows(outlooks: Iterable[Outlook]) -> int:
    """Return of how many past moments all forecasts of compute have samples, those aside that have too few."""
    counts = [len(found.forecast.paths) for found in outlooks if found.name.startswith("compute/")]
    return min((count for count in counts if count >= LEAST_ROWS), default=0)


def _samples(outlook: Outlook, steps: Steps, rows: int) -> Floats:
    """Return joint samples over the steps, (i, h), of the newest moments; too few: one low quantile, less when it is untried."""
    forecast = outlook.forecast
    if len(forecast.paths) >= LEAST_ROWS:
        return _on(forecast.paths[-rows:], outlook, steps)
    level = LOW_FRAC if LOW_FRAC in forecast.levels else min(forecast.levels)
    trusted_frac = 1.0 if forecast.score.known else UNTRIED_FRAC
    return np.asarray(trusted_frac * _on(forecast.at(level)[None, :], outlook, steps))


def _on(values: Floats, outlook: Outlook, steps: Steps) -> Floats:
    return resampled(values, outlook.start, outlook.forecast.step_s, steps.start, steps.step_s, steps.count)


def _planned(asset_id: str, timetable: Timetable, table: Floats, steps: Steps) -> Floats:
    """Return a row of the timetable over the steps, (1, h), NaN where it says nothing."""
    if asset_id not in timetable.asset_ids:
        return np.full((1, steps.count), np.nan)
    row = table[timetable.asset_ids.index(asset_id)][None, :]
    return resampled(row, timetable.start, timetable.step_s, steps.start, steps.step_s, steps.count)


def _least_stored(energy_wh: Floats) -> Floats:
    """Return the least energy stored at the two ends of each step, (n, h), given what is stored after each."""
    before_wh = np.concatenate([energy_wh[:, :1], energy_wh[:, :-1]], axis=1)
    return np.asarray(np.minimum(before_wh, energy_wh))


def floored(at: datetime, step_s: float) -> datetime:
    """Return the beginning of the step that ``at`` lies in."""
    return at - timedelta(seconds=at.timestamp() % step_s)
