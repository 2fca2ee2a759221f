"""Power that was held comes back by a rising limit, so that restarts are spread and nothing steps. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vppd.core.curtail.prospect import Budget

MOST_STEPS = 48
"""Of the time ahead that is looked at."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The limit in force, and how fast it may rise."""

    at_s: float
    most_w: float
    rate_w_per_s: float

    def most_at_w(self, at_s: float) -> float:
        """Return the limit at a later time. [W]"""
        return self.most_w + self.rate_w_per_s * max(at_s - self.at_s, 0.0)


def followed(ceiling: Ceiling | None, aim_w: float, full_w: float, now_s: float, restore_s: float) -> Ceiling | None:
    """Return the limit after ``aim_w`` is asked: it falls at once and rises over ``restore_s``; None when all is back."""
    if ceiling is None:
        return Ceiling(now_s, aim_w, (full_w - aim_w) / restore_s) if aim_w < full_w else None
    most_w = ceiling.most_at_w(now_s)
    if min(aim_w, most_w) >= full_w:
        return None
    if aim_w <= most_w:  # the deepest cut says how fast power comes back
        return Ceiling(now_s, aim_w, max(ceiling.rate_w_per_s, (full_w - aim_w) / restore_s))
    return Ceiling(now_s, most_w, ceiling.rate_w_per_s)


def ahead(
    ceiling: Ceiling | None, aim_w: float, rest_w: float, now_s: float, horizon_s: float, step_s: float
) -> Budget:
    """Return what the jobs may draw step by step until the order ends; ``rest_w`` is drawn beside them. [W]"""
    steps = int(np.clip(np.ceil(horizon_s / step_s), 1, MOST_STEPS))
    rest_s = np.linspace(step_s, max(horizon_s, step_s), steps)
    back_w = np.full(steps, np.inf)
    if ceiling is not None:
        back_w = ceiling.most_w + ceiling.rate_w_per_s * (rest_s - step_s)
    soft = back_w < aim_w
    return Budget(now_s + rest_s, np.minimum(aim_w, back_w) - rest_w, soft)
