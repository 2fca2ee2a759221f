"""What could be sold in which slots, and what is sold already: products and awards become the words of ``core.offering``. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from math import inf
from typing import Final

import numpy as np

from vppd.config.market import MarketConfig
from vppd.core.bidding.bid import Offered
from vppd.core.bidding.lots import SYMMETRIC
from vppd.core.bidding.qualify import Direction, Site, qualify
from vppd.core.bidding.quote import EPSILON_FRAC
from vppd.core.bidding.stock import Sale, bid_id
from vppd.core.forecast.outlook import Outlook
from vppd.model import Interval, Obligation
from vppd.planning.trade.gates import Slot
from vppd.planning.trade.shelf import Shelf
from vppd.planning.trade.sight import IMPORT_PRICE
from vppd.ports import Window
from vppd.products import ProductConfig

WH_PER_MWH = 1e6
_WAYS: Final = {Direction.REDUCE: "up", Direction.INCREASE: "down", Direction.SYMMETRIC: SYMMETRIC}


def why_not(product: ProductConfig, site: Site) -> str:
    """Return why a product is not offered by this site, empty when it is."""
    if product.price_form == "none":
        return "it is a duty, nobody buys it"
    if product.local_response:
        return "it answers to frequency measured on the spot: devices are not armed for that from here"
    if product.delivery_interval_s is None:
        return "its file does not state delivery_interval_s"
    if product.direction is Direction.SYMMETRIC and product.dispatch == "scheduled":
        return (
            "nothing can be carried out in both directions over a whole slot: only what is kept ready is sold that way"
        )
    failing = qualify(product.terms, site).shortcomings
    return "; ".join(f"{s.requirement}: {s.have:g} {s.unit} of {s.need:g} {s.unit} ({s.what})" for s in failing)


def directions(product: ProductConfig, site: Site) -> tuple[str, ...]:
    """Return in which directions a site sells a product: of one that goes either way, those it has enough for."""
    if product.direction is not Direction.EITHER:
        return (_WAYS[product.direction],)
    ways = (Direction.REDUCE, Direction.INCREASE)
    return tuple(_WAYS[way] for way in ways if qualify(replace(product.terms, direction=way), site).qualifies)


def possible_sales(
    play: Iterable[Slot], later: Iterable[Slot], products: Mapping[str, ProductConfig], site: Site, market: MarketConfig,
    outlook: Mapping[str, Outlook], resource: str, sold_ids: frozenset[str],
) -> tuple[Sale, ...]:  # fmt: skip
    """Return what may be offered now, beside what could be sold for the same time later on at a price that somebody named.

    ``sold_ids``: bids of which some is sold; nothing is offered in their place again, but perhaps in the other direction.
    """
    ways = {name: directions(product, site) for name, product in products.items()}
    found = []
    for slot, is_later in (*((slot, False) for slot in play), *((slot, True) for slot in later)):
        for way in ways[slot.product]:
            is_priced = market.expected(slot.product, way) is not None
            if bid_id(slot.product, resource, way, slot.interval) not in sold_ids and (is_priced or not is_later):
                found.append(sale_of(products[slot.product], slot, resource, market, outlook, way))
    return tuple(found)


def sale_of(
    product: ProductConfig, slot: Slot, resource: str, market: MarketConfig, outlook: Mapping[str, Outlook],
    direction: str = "up",
) -> Sale:  # fmt: skip
    """Return a product in one slot as it may be offered in one direction."""
    expect = market.expected(product.name, direction)
    limit = product.price_limit_per_mwh
    expected_price_per_wh = expect.price_per_mwh / WH_PER_MWH if expect else None
    if expect is None and direction == "up":  # the price of energy says what less of it brings, and nothing of more
        expected_price_per_wh = _mean(outlook, slot.start, (slot.end - slot.start).total_seconds())
    return Sale(
        product=product.name,
        resource=resource,
        direction=direction,
        interval=slot.interval,
        currency=market.currency,
        activation_s=inf if product.activation_s is None else product.activation_s,
        sustain_s=_sustain_s(product, market),
        min_w=product.min_bid_w or 0.0,
        step_w=product.bid_step_w or 1.0,
        max_w=product.max_bid_w or inf,
        divisible=product.divisible is not False,
        epsilon_frac=EPSILON_FRAC if product.availability_frac is None else 1.0 - product.availability_frac,
        price_limit_per_wh=inf if limit is None else limit / WH_PER_MWH,
        expected_price_per_wh=expected_price_per_wh,
        is_capacity=product.price_form == "capacity" or direction == SYMMETRIC,
        use_frac=expect.use_frac if expect else 1.0,
        margin_per_wh=market.margin_per_mwh / WH_PER_MWH,
        penalty_per_wh=expect.penalty_per_mwh / WH_PER_MWH if expect else 0.0,
        dispatch=product.dispatch,
        resting_s=product.resting_s,
    )


def _sustain_s(product: ProductConfig, market: MarketConfig) -> float | None:
    """Return for how long full power may be asked for in one direction; None: the whole slot. [s]"""
    if product.dispatch == "scheduled":
        return None
    if product.sustain_s is None and product.direction is Direction.SYMMETRIC and product.signal_s is not None:
        return market.signal_sustain_s  # a signal that goes to and fro is meant to be neutral in the end
    return product.sustain_s


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
    for own_id, offered in offers.items():
        bid = offered.bid
        if own_id in open_ids or offered.left_w <= 0.0 or bid.interval.start <= now:
            continue
        found.append(
            Obligation(
                f"offered/{own_id}", own_id, "", bid.product, bid.resource, bid.direction, bid.interval, offered.left_w,
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
    """Return how much less each asset is expected to draw over an interval when it is asked to. [W]"""
    first, end = shelf.steps.span(interval)
    shares_w: dict[str, float] = {}
    for stock in (stock for stock in shelf.stocks if stock.direction == "up" and end > first):
        part_w = stock.paths_w[:, first:end]
        if np.isfinite(part_w).any():
            asset = stock.name.partition("/")[0]
            shares_w[asset] = shares_w.get(asset, 0.0) + float(np.nanmean(part_w))
    return shares_w


def _mean(outlook: Mapping[str, Outlook], start: datetime, length_s: float) -> float | None:
    """Return the expected price of a slot per Wh, None when nobody says."""
    price = outlook.get(IMPORT_PRICE)
    if price is None:
        return None
    mean = float(price.over(start, length_s, 1)[0])
    return mean if np.isfinite(mean) else None
