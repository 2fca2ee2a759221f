"""The last word before anything is written: no argument upstream can get a setpoint past this."""

from __future__ import annotations

import numpy as np

from vppd.core.aggregate import Image, is_storage
from vppd.core.failsafe import SOC_MARGIN_FRAC, Severity
from vppd.core.state import State
from vppd.snapshot import Bools, Floats, Ints, Plant


def clamp(target_w: Floats, image: Image, plant: Plant, severity: Ints) -> Floats:
    """Return setpoints inside every rating, with no discharge at or below the reserve or under PROTECT. [W]"""
    inside_w = np.clip(target_w, plant.rated_lower_w, plant.rated_upper_w)
    barred = is_storage(plant) & (
        (image.soc_frac <= plant.reserve_frac + SOC_MARGIN_FRAC) | (severity >= Severity.PROTECT)
    )
    return np.where(barred, np.maximum(inside_w, 0.0), inside_w)


def ramp(target_w: Floats, state: State, image: Image, plant: Plant, dt_s: float) -> Floats:
    """Return setpoints no further from the last ones than each asset's own ramp allows. [W]"""
    last_w = np.where(np.isfinite(state.target_w), state.target_w, np.nan_to_num(image.power_w))
    reach_w = plant.ramp_w_per_s * dt_s
    return np.clip(target_w, last_w - reach_w, last_w + reach_w)


def frozen(on_battery: Bools, plant: Plant) -> Bools:
    """Say which assets share a node with a UPS that is on battery, shape (n,): dispatch there must not counter it."""
    hit = np.bincount(plant.node, weights=on_battery, minlength=len(plant.nodes)) > 0
    return np.asarray(hit[plant.node] & plant.controllable)
