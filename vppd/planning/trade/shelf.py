"""What a site can give over the steps of a round: forecasts and the timetable become stocks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil, gcd

import numpy as np

from vppd.config.plant import STORAGE, AssetConfig
from vppd.core.bidding.qualify import Site
from vppd.core.bidding.stock import Room, Stock
from vppd.core.failsafe import SOC_MARGIN_FRAC
from vppd.core.forecast.outlook import Outlook
from vppd.core.timetable import Timetable
from vppd.model import TIERS, Interval, Kind
from vppd.planning.trade.connection import Node, rooms_of, unknown
from vppd.planning.trade.increases import charging, held_back, put_off
from vppd.planning.trade.sight import IMPORT_PRICE, LOW_FRAC, UNTRIED_FRAC, Sight, Steps, common_rows
from vppd.snapshot import Floats

__all__ = ["IMPORT_PRICE", "LOW_FRAC", "UNTRIED_FRAC", "Shelf", "Steps", "floored", "shelf_of", "steps_of"]

MOST_STEPS = 1_000


@dataclass(frozen=True, slots=True, eq=False)
class Shelf:
    """What the site can give over the steps of a round, and what it was that nothing is known of."""

    steps: Steps
    stocks: tuple[Stock, ...]
    missing: Mapping[str, str]
    """Assets that give nothing, and why; feeds through which nothing more is drawn."""
    rooms: tuple[Room, ...] = ()
    """What fits through the connection and the feeds."""


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
    nodes: Sequence[Node] = (),
) -> Shelf:
    """Return what can be sold of each asset, upwards (less consumption) and downwards.

    ``away``: those that take no orders now; ``nodes``: whose limits it has to fit.
    """
    quick = {ability.name: ability.response_s for ability in site.abilities}
    sight = Sight(outlook, timetable, steps, common_rows(outlook))
    assets = tuple(assets)
    stocks: list[Stock] = []
    missing: dict[str, str] = {}
    for asset in assets:
        if asset.id not in quick or asset.kind not in (*STORAGE, Kind.CLUSTER, Kind.PV, Kind.WIND):
            continue
        found = "it takes no orders now" if asset.id in away else _stocks(asset, quick[asset.id], sight)
        if isinstance(found, str):
            missing[asset.id] = found
        else:
            stocks += found
    rooms = rooms_of(nodes, assets, stocks, sight, away)
    missing |= dict.fromkeys(
        unknown(nodes, stocks, assets, sight), "its load is not foreseen: nothing more is drawn there"
    )
    return Shelf(steps, tuple(stocks), missing, rooms)


def floored(at: datetime, step_s: float) -> datetime:
    """Return the beginning of the step that ``at`` lies in."""
    return at - timedelta(seconds=at.timestamp() % step_s)


def _stocks(asset: AssetConfig, response_s: float, sight: Sight) -> list[Stock] | str:
    """Return what an asset can give, or why it gives nothing."""
    if asset.kind is Kind.CLUSTER:
        return _cluster(asset, response_s, sight)
    if asset.kind in STORAGE:
        return _storage(asset, response_s, sight)
    found = held_back(asset, response_s, sight)
    return found if isinstance(found, str) else [found]


def _cluster(asset: AssetConfig, response_s: float, sight: Sight) -> list[Stock] | str:
    """Return a stock per tier: what could be shed by forecast, less what the plan holds back anyway, deepest tier first."""
    name = f"compute/{asset.id}"
    found = {k: sight.low(f"{name}/tier{k}") for k in range(1, TIERS)}
    tiers_w = {k: free_w for k, free_w in found.items() if free_w is not None}
    if not tiers_w:
        return "there is no forecast of what could be shed"
    whole_w, expected_w = sight.low(name), sight.median(name)
    back_w: Floats = np.zeros((1, sight.steps.count))
    if expected_w is not None and sight.timetable is not None:
        back_w = np.nan_to_num(np.maximum(expected_w - sight.planned_w(asset.id), 0.0))
    room_w = None if whole_w is None else np.maximum(whole_w - asset.min_w - back_w, 0.0)
    stocks, waits_w = [], back_w * 0.0
    for tier in sorted(tiers_w, reverse=True):
        free_w = np.maximum(tiers_w[tier], 0.0)
        held_w = np.minimum(free_w, back_w)
        back_w, free_w, waits_w = back_w - held_w, free_w - held_w, waits_w + held_w
        if room_w is not None:
            free_w = np.minimum(free_w, room_w)
            room_w = room_w - np.nan_to_num(free_w)
        cost = asset.tier_cost_per_wh[tier]
        stocks.append(Stock(f"{asset.id}/tier{tier}", "up", response_s, cost, np.asarray(free_w)))
    return [*stocks, put_off(asset, response_s, waits_w, sight)] if np.nan_to_num(waits_w).any() else stocks


def _storage(asset: AssetConfig, response_s: float, sight: Sight) -> list[Stock] | str:
    """Return what storage can give beyond its plan with the energy behind it by its plan, and what it can draw."""
    if sight.timetable is None:
        return "there is no plan of its charge"
    stored_wh = sight.least_stored_wh(asset.id)
    if np.isnan(stored_wh).all():
        return "its charge is not planned"
    kept_wh = (asset.reserve_frac + SOC_MARGIN_FRAC) * asset.capacity_wh
    spare_wh = np.maximum(stored_wh - kept_wh, 0.0) * asset.efficiency_frac
    planned_w = np.nan_to_num(sight.planned_w(asset.id))
    # A reduction is counted from rest: charging that stops is none. What is discharged anyway is not sold.
    power_w = np.clip(asset.rated_discharge_w + np.minimum(planned_w, 0.0), 0.0, None)
    power_w = np.where(np.isnan(spare_wh), np.nan, power_w)
    usable_wh = max(asset.capacity_wh - kept_wh, 0.0)
    refill_s = 3600.0 * usable_wh / asset.efficiency_frac / max(asset.rated_charge_w, 1e-9)
    recovery = min(ceil(refill_s / sight.steps.step_s), sight.steps.count)
    lost_frac = asset.efficiency_frac**-2 - 1.0
    cost = asset.wear_cost_per_wh + lost_frac * sight.dearest_per_wh()
    energy_wh = np.asarray(np.nan_to_num(spare_wh[0]))
    gives = Stock(asset.id, "up", response_s, cost, np.asarray(power_w), energy_wh, recovery)
    return [gives, charging(asset, response_s, sight)] if asset.rated_charge_w > 0.0 else [gives]
