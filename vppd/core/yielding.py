"""Lower bounds that orders have set give way to the upper bounds of the nodes above. Pure.

The split serves a child before its ancestors, which is right for limits; an increase that a feed is ordered to make must not
break the limit of the site for all that.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vppd.core.allocate import Allocation, Curves, levels, rounding, settled
from vppd.snapshot import Floats, Plant

SLACK_W = 1e-3
"""A bound that is broken by less has been kept. [W]"""


def yielding(
    forced: Allocation,
    split: Callable[[Floats], Allocation],
    least_w: Floats,
    lower_w: Floats,
    upper_w: Floats,
    curves: Curves,
    plant: Plant,
) -> Allocation:
    """Return a split in which no upper bound is broken that could be kept with ``least_w`` in place of ``lower_w``. [W]

    ``forced`` is the split with the lower bounds as ordered. On the line between the two splits each lower bound goes as high
    as the nodes above it allow. Shortfalls are told against the bounds as ordered.
    """
    free = split(least_w)
    noise_w = rounding(plant.parent, levels(plant.parent), curves)
    if not (_broken_w(forced) > _broken_w(free) + noise_w).any():
        return forced
    part = _parts(forced, free, noise_w, plant)
    eased_w = np.where(lower_w > free.node_power_w, free.node_power_w + part * (lower_w - free.node_power_w), lower_w)
    found = split(np.maximum(np.minimum(eased_w, lower_w), least_w))
    # Exclusion bands may have no split between the two.
    if (_broken_w(found) > _broken_w(free) + noise_w + SLACK_W).any():
        found = free
    return settled(plant.parent, lower_w, upper_w, curves, found.power_w)


def _broken_w(split: Allocation) -> Floats:
    return np.maximum(split.shortfall_w, 0.0)


def _parts(forced: Allocation, free: Allocation, noise_w: Floats, plant: Plant) -> Floats:
    """Return how far of the way to its lower bound each node may go for the sake of those above it, (m,). [0-1]"""
    excess_w = _broken_w(forced) - _broken_w(free)
    way_w = forced.node_power_w - free.node_power_w
    own = np.where(excess_w > noise_w, 1.0 - excess_w / np.maximum(np.maximum(way_w, excess_w + noise_w), SLACK_W), 1.0)
    part = np.ones(len(own))
    for i in range(1, len(own)):
        up = plant.parent[i]
        part[i] = min(part[up], own[up])
    return np.clip(part, 0.0, 1.0)
