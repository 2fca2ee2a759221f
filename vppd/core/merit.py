"""The merit order: what moving each asset away from its preferred power costs, as convex curves."""

from __future__ import annotations

import numpy as np

from vppd.core.aggregate import Image, is_storage
from vppd.core.allocate import Curves
from vppd.core.envelope import Envelope
from vppd.model import TIERS
from vppd.snapshot import Bools, Floats, Plant, Readings

RECHARGE_RATE_PER_H = 0.25
"""Fastest recharge at rest, as part of the capacity per hour. [1/h]"""
RECHARGE_BAND_FRAC = 0.06
"""Below the resting charge by this much, recharge runs at full rate; it tapers to nothing at the rest. [0-1]"""
LEAST_COST_PER_WH = 1e-12
"""Moving for nothing must cost something, or storage would stray from rest. [1/Wh]"""
ORDERED_COST_PER_WH = 1e3
"""To draw less than an order that names the asset asks for costs more than anything but a limit is worth. [1/Wh]"""
HASTE_COST_PER_WH = 1.0
"""Power of storage that will be missing before the order ends costs more than any wear, and less than what is ordered. [1/Wh]"""
RECHARGE_LEAST_FRAC = 0.01
"""A recharge weaker than this part of the rating is not worth a setpoint. [0-1]"""


def resting(image: Image, plant: Plant, bound: Bools) -> Floats:
    """Return the power each asset prefers: storage recharges slowly when nobody needs it, else rests. [W]"""
    missing_frac = np.where(
        is_storage(plant) & image.usable & ~image.soc_stale, plant.soc_target_frac - image.soc_frac, 0.0
    )
    rate = np.clip(missing_frac / RECHARGE_BAND_FRAC, 0.0, 1.0) * RECHARGE_RATE_PER_H
    power_w = np.minimum(rate * np.nan_to_num(plant.capacity_wh), plant.rated_upper_w)
    worth = power_w >= RECHARGE_LEAST_FRAC * np.maximum(plant.rated_upper_w, 1.0)
    return np.where(worth & ~bound[plant.node], power_w, 0.0)


def merit_order(
    readings: Readings, image: Image, plant: Plant, bounds: Envelope, rest_w: Floats, held_w: Floats | None = None,
    own_lower_w: Floats | None = None, sustained: Envelope | None = None,
) -> Curves:  # fmt: skip
    """Return one convex curve per asset over its range; its least is at the power the asset prefers.

    Storage pays wear both ways from rest; compute pays by flex tier, the most tolerant shed first; a generator pays
    for what it is held back. ``held_w``: clusters and generators that had better be held there, NaN for none [W].
    ``own_lower_w``: what orders that name an asset have it draw at least, -inf for none. [W]
    ``sustained``: what storage can hold until the orders end; beyond it power comes last of all.
    """
    storage, generates = is_storage(plant), image.available_w < 0
    span_w = bounds.upper_w - bounds.lower_w
    width_w = np.zeros((len(span_w), TIERS))
    cost = np.zeros((len(span_w), TIERS))
    rest_w = np.clip(rest_w, bounds.lower_w, bounds.upper_w)
    tier3_w = np.minimum(readings.tier_shed_w[:, 3], span_w)
    tier2_w = np.minimum(readings.tier_shed_w[:, 2], span_w - tier3_w)
    width_w[:, 0] = np.where(storage, rest_w - bounds.lower_w, span_w - tier3_w - tier2_w)
    width_w[:, 1] = np.where(storage | generates, 0.0, tier2_w)
    width_w[:, 2] = np.where(storage | generates, 0.0, tier3_w)
    width_w[:, 3] = np.where(storage, bounds.upper_w - rest_w, 0.0)
    width_w[:, 0] = np.where(generates, span_w, width_w[:, 0])
    pay = np.maximum(plant.wear_cost_per_wh, LEAST_COST_PER_WH)
    cost[:, 0] = np.where(storage, -pay, np.where(generates, pay, -plant.tier_cost_per_wh[:, 1]))
    cost[:, 1] = np.where(storage | generates, pay, -plant.tier_cost_per_wh[:, 2])
    cost[:, 2] = np.where(storage | generates, pay, -plant.tier_cost_per_wh[:, 3])
    cost[:, 3] = np.where(storage | generates, pay, 0.0)
    if sustained is not None:
        _spare(width_w, cost, rest_w, bounds, sustained, storage)
    if held_w is not None:
        _hold(width_w, cost, held_w, generates, bounds)
    if own_lower_w is not None:
        _raise(width_w, cost, own_lower_w, bounds)
    return Curves(node=plant.node, lower_w=bounds.lower_w, width_w=width_w, cost_per_wh=cost)


def _spare(
    width_w: Floats, cost: Floats, rest_w: Floats, bounds: Envelope, sustained: Envelope, storage: Bools
) -> None:
    """Make storage dear beyond what it can hold.

    Else a small unit is empty, or full, long before the order ends, and its power is missing where the others' feeds are at their
    limits by then.
    """
    least_w = np.clip(sustained.lower_w, bounds.lower_w, rest_w)
    most_w = np.clip(sustained.upper_w, rest_w, bounds.upper_w)
    short = np.flatnonzero(storage & ((least_w > bounds.lower_w) | (most_w < bounds.upper_w)))
    edges_w = (bounds.lower_w[short], least_w[short], rest_w[short], most_w[short], bounds.upper_w[short])
    width_w[short] = np.diff(np.stack(edges_w, axis=1), axis=1)
    pay = cost[short, 3]
    cost[short] = np.stack((-pay - HASTE_COST_PER_WH, -pay, pay, pay + HASTE_COST_PER_WH), axis=1)


def _hold(width_w: Floats, cost: Floats, held_w: Floats, generates: Bools, bounds: Envelope) -> None:
    """Put the least of clusters' and generators' curves where they had better be held: beyond, power costs next to nothing."""
    held = np.isfinite(held_w)
    at_w = np.clip(np.where(held, held_w, bounds.upper_w), bounds.lower_w, bounds.upper_w)
    cluster, above_w = held & ~generates, bounds.upper_w - at_w
    for column in (2, 1, 0):  # the top of a cluster's range is what its most tolerant jobs draw
        taken_w = np.where(cluster, np.minimum(width_w[:, column], above_w), 0.0)
        width_w[:, column] -= taken_w
        above_w = above_w - taken_w
    width_w[cluster, 3] = (bounds.upper_w - at_w)[cluster]
    cost[cluster, 3] = LEAST_COST_PER_WH
    source = held & generates
    width_w[source, 1] = (bounds.upper_w - at_w)[source]
    width_w[source, 0] = (at_w - bounds.lower_w)[source]
    cost[source, 0] = -LEAST_COST_PER_WH


def _raise(width_w: Floats, cost: Floats, own_lower_w: Floats, bounds: Envelope) -> None:
    """Put the least of the curves of assets that orders have raised there: below it power is worth more than all else."""
    raised = np.isfinite(own_lower_w)
    at_w = np.clip(np.where(raised, own_lower_w, 0.0), bounds.lower_w, bounds.upper_w)
    width_w[raised] = 0.0
    width_w[raised, 0] = (at_w - bounds.lower_w)[raised]
    width_w[raised, 3] = (bounds.upper_w - at_w)[raised]
    cost[raised] = (-ORDERED_COST_PER_WH, 0.0, 0.0, LEAST_COST_PER_WH)
