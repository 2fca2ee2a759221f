"""How far, how fast and how long the power of every asset can move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vppd.core.aggregate import Image, is_storage, sum_up
from vppd.core.failsafe import SOC_MARGIN_FRAC
from vppd.snapshot import Bools, Floats, Plant, Readings


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """Range of power of every asset, shapes (n,)."""

    lower_w: Floats
    upper_w: Floats


def envelope(
    readings: Readings, image: Image, plant: Plant, sustain_s: float, kept_wh: Floats | None = None
) -> Envelope:
    """Return the range each usable asset can hold for ``sustain_s``; others have the range [0, 0]. [W]

    Storage: its rating, what the device allows, and the energy above reserve plus margin (below full) spread over the
    time, less what it keeps (``kept_wh``, (n,)). Others: from what they would draw down to what may be shed.
    """
    storage = is_storage(plant)
    declared_lower_w = np.where(np.isfinite(readings.lower_w), readings.lower_w, -np.inf)
    declared_upper_w = np.where(np.isfinite(readings.upper_w), readings.upper_w, np.inf)
    lower_w, upper_w = _storage(image, plant, sustain_s, kept_wh)
    shed_w = readings.tier_shed_w[:, 1:].sum(axis=1)
    free_w = image.available_w
    # A generating asset is free at its available power (negative) and can be held back towards 0.
    other_lower_w = np.where(free_w < 0, free_w, np.minimum(np.maximum(free_w - shed_w, plant.rated_lower_w), free_w))
    other_upper_w = np.where(free_w < 0, 0.0, free_w)
    lower_w = np.where(storage, lower_w, other_lower_w)
    upper_w = np.where(storage, upper_w, other_upper_w)
    lower_w = np.where(storage, np.minimum(np.maximum(lower_w, declared_lower_w), 0.0), lower_w)
    upper_w = np.where(storage, np.maximum(np.minimum(upper_w, declared_upper_w), 0.0), upper_w)
    return Envelope(np.where(image.usable, lower_w, 0.0), np.where(image.usable, upper_w, 0.0))


def _storage(image: Image, plant: Plant, sustain_s: float, kept_wh: Floats | None) -> tuple[Floats, Floats]:
    """Return the range storage can hold for ``sustain_s`` by rating and energy. [W]"""
    hours = sustain_s / 3600.0
    spare_frac = np.maximum(image.soc_frac - plant.reserve_frac - SOC_MARGIN_FRAC, 0.0)
    room_frac = np.where(image.soc_stale, 0.0, 1.0 - image.soc_frac)
    capacity_wh = np.nan_to_num(plant.capacity_wh)
    down_w = spare_frac * capacity_wh * plant.efficiency_frac / hours
    if kept_wh is not None:
        down_w = np.maximum(down_w - kept_wh / hours, 0.0)
    up_w = room_frac * capacity_wh / plant.efficiency_frac / hours
    return np.maximum(plant.rated_lower_w, -down_w), np.minimum(plant.rated_upper_w, up_w)


def barred(bounds: Envelope, no_discharge: Bools, excluded: Bools) -> Envelope:
    """Return the envelope with discharge barred for some assets and others taken out altogether. [W]"""
    lower_w = np.where(no_discharge, np.maximum(bounds.lower_w, 0.0), bounds.lower_w)
    return Envelope(np.where(excluded, 0.0, lower_w), np.where(excluded, 0.0, np.maximum(bounds.upper_w, lower_w)))


@dataclass(frozen=True, slots=True, eq=False)
class Flexibility:
    """What each node could do, shapes (m,). [W]"""

    sustain_s: float
    power_w: Floats
    lower_w: Floats
    upper_w: Floats


def flexibility(readings: Readings, image: Image, plant: Plant, sustain_s: float) -> Flexibility:
    """Return how low and how high each node's power could go and stay for ``sustain_s``. [W]"""
    bounds = envelope(readings, image, plant, sustain_s)
    nodes = len(plant.nodes)
    lower_w = sum_up(plant, image.base_w + np.bincount(plant.node, weights=bounds.lower_w, minlength=nodes))
    upper_w = sum_up(plant, image.base_w + np.bincount(plant.node, weights=bounds.upper_w, minlength=nodes))
    return Flexibility(
        sustain_s, image.node_power_w, np.maximum(lower_w, plant.node_lower_w), np.minimum(upper_w, plant.node_upper_w)
    )
