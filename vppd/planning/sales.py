"""What could be sold in which slots, and what is sold already: products and awards become the words of ``core.offering``. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from math import inf

import numpy as np

from vppd.config.market import MarketConfig
from vppd.core.bidding.bid import Offered
from vppd.core.bidding.qualify import Direction, Site, qualify
from vppd.core.bidding.quote import EPSILON_FRAC
from vppd.core.bidding.stock import Sale
from vppd.core.forecast.outlook import Outlook
from vppd.model import Interval, Obligation
from vppd.planning.gates import Slot
from vppd.planning.shelf import IMPORT_PRICE, Shelf
from vppd.ports import Window
from vppd.products import ProductConfig

WH_PER_MWH = 1e6


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


def _mean(outlook: Mapping[str, Outlook], start: datetime, length_s: float) -> float | None:
    """Return the expected price of a slot per Wh, None when nobody says."""
    price = outlook.get(IMPORT_PRICE)
    if price is None:
        return None
    mean = float(price.over(start, length_s, 1)[0])
    return mean if np.isfinite(mean) else None
