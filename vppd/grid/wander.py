"""A regulation signal made up from a seed: it wanders, and gives back over its whole course what it takes. Pure."""

from __future__ import annotations

import math
import random

SIGNAL_S = 2.0
"""Time between two signals. [s]"""
_PERIOD_S = 60.0
_SCALE = 10_000
"""Signals are whole parts of this, as on the wire, so that their sum is 0 to the last digit."""


def signals(seed: int | str, count: int, every_s: float = SIGNAL_S) -> list[float]:
    """Return so many signals whose sum is 0, the same for the same seed. [-1, 1]"""
    chance = random.Random(seed)  # noqa: S311 - a made-up signal, no secret
    phase, noise, raw = chance.uniform(0.0, math.tau), 0.0, []
    for i in range(count):
        noise = 0.8 * noise + chance.gauss(0.0, 0.12)
        raw.append(0.6 * math.sin(math.tau * i * every_s / _PERIOD_S + phase) + noise)
    middle = math.fsum(raw) / max(count, 1)
    most = max((abs(value - middle) for value in raw), default=0.0)
    parts = [round((value - middle) / max(most, 1.0) * _SCALE) for value in raw]
    return [part / _SCALE for part in _balanced(parts)]


def _balanced(parts: list[int]) -> list[int]:
    """Return whole numbers with the rounding taken off one by one, so that their sum is 0; none grows beyond the scale."""
    over = sum(parts)
    step = 1 if over > 0 else -1
    found = []
    for part in parts:
        spare = over != 0 and abs(part - step) <= _SCALE
        found.append(part - step if spare else part)
        over -= step if spare else 0
    return found
