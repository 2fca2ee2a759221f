"""One cap for the node, shared out over its devices: each gets what it draws as far as the cap allows. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

_STEP_W = 0.1
"""Shares are rounded down to this, so that together they never exceed the cap. [W]"""
_ROOM_FRAC = 0.1
"""A device that does not fill its cap gets so much more than it draws, or it could never ask for more."""
_FULL_FRAC = 0.95
"""Drawing more of its cap than this, a device is held back by it: what it would draw is not known."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one device may and would like to have. ``min_w <= max_w``."""

    min_w: float
    max_w: float
    demand_w: float


def need(min_w: float, max_w: float, draw_w: float | None, cap_w: float | None) -> Need:
    """Return the need of a device that draws ``draw_w`` under ``cap_w``; unknown or held back counts as all it may. [W]"""
    if draw_w is None or (cap_w is not None and draw_w >= _FULL_FRAC * cap_w):
        return Need(min_w, max_w, max_w)
    return Need(min_w, max_w, min(max((1.0 + _ROOM_FRAC) * draw_w, min_w), max_w))


def share(cap_w: float, needs: Mapping[str, Need]) -> dict[str, float]:
    """Return each device's cap [W], within its limits and together at most ``cap_w`` (or the sum of the least, if more).

    First everybody's least, then up to the demands by one water level, then up to the limits by another: no device gets
    more of a stage than a needier one that is still short of it. The order of the devices does not matter.
    """
    least = {name: n.min_w for name, n in needs.items()}
    wanted = {name: min(max(n.demand_w, n.min_w), n.max_w) for name, n in needs.items()}
    most = {name: n.max_w for name, n in needs.items()}
    low, high = (least, wanted) if math.fsum(wanted.values()) >= cap_w else (wanted, most)
    filled = _fill(cap_w, low, high)
    return {name: max(_down(filled_w), least[name]) for name, filled_w in filled.items()}


def _fill(cap_w: float, low: Mapping[str, float], high: Mapping[str, float]) -> dict[str, float]:
    """Raise all from ``low`` towards ``high`` to one level, until together they are ``cap_w``. [W]"""
    level_w = _level(cap_w, low, high)
    return {name: min(max(level_w, low_w), high[name]) for name, low_w in low.items()}


def _level(cap_w: float, low: Mapping[str, float], high: Mapping[str, float]) -> float:
    """Return the level at which the clamped sum meets the cap: exact, by walking the corners of the sum."""
    corners = sorted({*low.values(), *high.values()})
    reached_w, before_w = math.fsum(low.values()), corners[0] if corners else 0.0
    for corner_w in corners:
        rising = sum(1 for name, low_w in low.items() if low_w <= before_w and high[name] > before_w)
        gain_w = rising * (corner_w - before_w)
        if reached_w + gain_w >= cap_w:
            return before_w + (max(cap_w - reached_w, 0.0) / rising if rising else 0.0)
        reached_w, before_w = reached_w + gain_w, corner_w
    return before_w


def _down(value_w: float) -> float:
    """Round down to whole steps; a hair below a step is that step, as 600 W are 600 W. [W]"""
    return round(math.floor(value_w / _STEP_W + 1e-6) * _STEP_W, 1)
