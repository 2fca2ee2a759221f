"""What could be sold in which slots: products, forecasts, the timetable and the awards become the words of ``core.offering``. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil, gcd, inf

import numpy as np

from vppd.config.market import MarketConfig
from vppd.config.plant import STORAGE, AssetConfig
from vppd.core.bid import Offered
from vppd.core.bidding import EPSILON_FRAC
from vppd.core.failsafe import SOC_MARGIN_FRAC
from vppd.core.outlook import Outlook, resampled
from vppd.core.qualify import Direction, Site, qualify
from vppd.core.stock import Sale, Stock
from vppd.core.sureness import LEAST_ROWS
from vppd.core.timetable import Timetable
from vppd.model import TIERS, Interval, Kind, Obligation
from vppd.planning.gates import Slot
from vppd.ports import Window
from vppd.products import ProductConfig
from vppd.snapshot import Floats

WH_PER_MWH = 1e6
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


def why_not(product: ProductConfig, site: Site) -> str:
    """Return why a product is not offered by this site, empty when it is."""
    if product.price_form == "none":
        return "it is a duty, nobody buys it"
    if product.direction is Direction.INCREASE:
        return "an increase of consumption is not sold: no order asks for one"
    if product.direction is Direction.SYMMETRIC:
        return "both directions at once are not sold: no order asks for an increase"
    if product.local_response:
        return "it answers to frequency measured on the spot: devices are not armed for that from here"
    if product.delivery_interval_s is None:
        return "its file does not state delivery_interval_s"
    failing = qualify(product.terms, site).shortcomings
    return "; ".join(f"{s.requirement}: {s.have:g} {s.unit} of {s.need:g} {s.unit} ({s.what})" for s in failing)


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
    power_w = np.clip(asset.rated_discharge_w + planned_w, 0.0, None)
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


def sale_of(
    product: ProductConfig, slot: Slot, resource: str, market: MarketConfig, outlook: Mapping[str, Outlook]
) -> Sale:
    """Return a product in one slot as it may be offered, less consumption."""
    expect = market.expected(product.name)
    length_s = (slot.end - slot.start).total_seconds()
    limit = product.price_limit_per_mwh
    return Sale(
        product=product.name,
        resource=resource,
        direction="up",
        interval=slot.interval,
        currency=market.currency,
        activation_s=inf if product.activation_s is None else product.activation_s,
        sustain_s=None if product.dispatch == "scheduled" or product.sustain_s is None else product.sustain_s,
        min_w=product.min_bid_w or 0.0,
        step_w=product.bid_step_w or 1.0,
        max_w=product.max_bid_w or inf,
        divisible=product.divisible is not False,
        epsilon_frac=EPSILON_FRAC if product.availability_frac is None else 1.0 - product.availability_frac,
        price_limit_per_wh=inf if limit is None else limit / WH_PER_MWH,
        expected_price_per_wh=expect.price_per_mwh / WH_PER_MWH if expect else _mean(outlook, slot.start, length_s),
        use_frac=expect.use_frac if expect else 1.0,
        margin_per_wh=market.margin_per_mwh / WH_PER_MWH,
        penalty_per_wh=expect.penalty_per_mwh / WH_PER_MWH if expect else 0.0,
        dispatch=product.dispatch,
        resting_s=product.resting_s,
    )


def standing(
    obligations: Iterable[Obligation],
    offers: Mapping[str, Offered],
    now: datetime,
    open_ids: frozenset[str],
    since: datetime,
) -> tuple[Obligation, ...]:
    """Return what is sold already: awards, and offers that may still be awarded though nothing can be changed about them.

    ``open_ids``: the bids that are being decided anew; ``since``: the present step, what lies before it has been delivered.
    """
    found = [_left_of(sold, since) for sold in obligations if not sold.is_over(now)]
    for bid_id, offered in offers.items():
        bid = offered.bid
        if bid_id in open_ids or offered.left_w <= 0.0 or bid.interval.start <= now:
            continue
        found.append(
            Obligation(
                f"offered/{bid_id}", bid_id, "", bid.product, bid.resource, bid.direction, bid.interval, offered.left_w,
                dispatch=bid.dispatch, activation_s=bid.activation_s, sustain_s=bid.sustain_s,
            )
        )  # fmt: skip
    return tuple(found)


def _left_of(sold: Obligation, since: datetime) -> Obligation:
    """Return what is left of an award from ``since`` on: for what has been delivered no energy is needed any more."""
    if sold.interval.end is None or sold.interval.start >= since:
        return sold
    left_s = (sold.interval.end - since).total_seconds()
    sustain_s = None if sold.sustain_s is None else min(sold.sustain_s, left_s)
    return replace(sold, interval=Interval(since, sold.interval.end), sustain_s=sustain_s)


def window_of(sold: Obligation, shelf: Shelf, site: Site, clusters: Sequence[str]) -> Mapping[str, Window]:
    """Return what each cluster should keep free ahead for an award: its share by what all assets are expected to give.

    Only for awards that are carried out over their whole interval: nodes kept empty for power that is merely kept ready would
    draw nothing that could be shed when the order comes. Where nothing is foreseen, nameplates tell the shares.
    """
    if sold.dispatch != "scheduled" or sold.direction != "up" or sold.interval.end is None:
        return {}
    shares_w = _shares(shelf, sold.interval)
    if sum(shares_w.values()) <= 0.0:
        shares_w = {ability.name: ability.reduce_w for ability in site.abilities}
    total_w = max(sum(shares_w.values()), 1e-9)
    parts_w = {cluster: sold.power_w * shares_w.get(cluster, 0.0) / total_w for cluster in clusters}
    start, end = sold.interval.start, sold.interval.end
    return {cluster: Window(start, end, round(part_w, 3)) for cluster, part_w in parts_w.items() if part_w > 0.0}


def _shares(shelf: Shelf, interval: Interval) -> dict[str, float]:
    """Return what each asset is expected to give over an interval. [W]"""
    first, end = shelf.steps.span(interval)
    shares_w: dict[str, float] = {}
    for stock in shelf.stocks if end > first else ():
        part_w = stock.paths_w[:, first:end]
        if np.isfinite(part_w).any():
            asset = stock.name.partition("/")[0]
            shares_w[asset] = shares_w.get(asset, 0.0) + float(np.nanmean(part_w))
    return shares_w


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


def _mean(outlook: Mapping[str, Outlook], start: datetime, length_s: float) -> float | None:
    """Return the expected price of a slot per Wh, None when nobody says."""
    price = outlook.get(IMPORT_PRICE)
    if price is None:
        return None
    mean = float(price.over(start, length_s, 1)[0])
    return mean if np.isfinite(mean) else None


def floored(at: datetime, step_s: float) -> datetime:
    """Return the beginning of the step that ``at`` lies in."""
    return at - timedelta(seconds=at.timestamp() % step_s)
