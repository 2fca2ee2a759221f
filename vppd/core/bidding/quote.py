"""What can be promised and for how much: volume at a stated surety, and price over quantity from opportunity cost. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from vppd.snapshot import Floats

EPSILON_FRAC = 0.1
"""Accepted probability that what was sold is not there (Energinet: 90 % that at least the sold capacity is)."""


class Reading(StrEnum):
    """How "in 90 % of cases" is read; the two give different bids."""

    MINUTES = "minutes"
    """Of all minutes in all samples, at most the accepted part is overbid. What vppd uses."""
    HOURS = "hours"
    """Of all samples, at most the accepted part has any overbid minute."""


def sure_w(samples_w: Floats, reading: Reading = Reading.MINUTES, epsilon_frac: float = EPSILON_FRAC) -> float:
    """Return the most power that may be sold when (i, m) samples of i days by m minutes say what will be there. [W, >= 0]

    MINUTES: overbid in at most floor(epsilon |I| |M|) minute-samples (Gade et al., arXiv 2404.12807, without the Wasserstein term);
    HOURS: in at most floor(epsilon |I|) samples. Raises ValueError without a sample, or with one that is missing.
    """
    if not samples_w.size or not np.isfinite(samples_w).all():
        raise ValueError("the power that can be sold needs samples, all of them known")
    worst_w = samples_w.min(axis=1) if reading is Reading.HOURS else samples_w.ravel()
    allowed = math.floor(epsilon_frac * len(worst_w) + 1e-9)
    return max(0.0, float(np.sort(worst_w)[min(allowed, len(worst_w) - 1)]))


def overbid_frac(offer_w: float, there_w: Floats, reading: Reading = Reading.MINUTES) -> float:
    """Return how often an offer would not have been there, (i, m) samples as they came true. [0-1]"""
    over = there_w < offer_w - 1e-9 * max(offer_w, 1.0)
    return float(over.any(axis=1).mean() if reading is Reading.HOURS else over.mean())


@dataclass(frozen=True, slots=True)
class Block:
    """Power that costs the same per Wh: a tier of a cluster, a battery."""

    power_w: float
    cost_per_wh: float


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an offer: from the quantity of the step before up to ``upto_w``, for no less than the price."""

    upto_w: float
    price_per_wh: float


@dataclass(frozen=True, slots=True)
class Charges:
    """What is asked beyond the cost of the blocks."""

    margin_per_wh: float = 0.0
    penalty_per_wh: float = 0.0
    """Owed for each sold Wh that is not there."""
    epsilon_frac: float = EPSILON_FRAC


def price_curve(
    blocks: Sequence[Block], volume_w: float, charges: Charges = Charges(), *, step_w: float = 1.0, min_w: float = 0.0
) -> tuple[Step, ...]:
    """Return an offer of at most ``volume_w`` in whole steps, prices never falling; nothing below ``min_w``.

    Every Wh is priced at the dearest block it may need, its expected penalty (epsilon x penalty) and the margin: however much
    of it is accepted, no Wh is sold below what it costs. Raises ValueError for a step that is not positive.
    """
    if step_w <= 0.0:
        raise ValueError("the bid step must be greater than 0")
    held_w = min(volume_w, math.fsum(block.power_w for block in blocks))
    most_w = math.floor(held_w / step_w * (1.0 + 1e-12) + 1e-9) * step_w
    if most_w <= 0.0 or most_w < min_w * (1.0 - 1e-9):
        return ()
    extra = charges.margin_per_wh + charges.epsilon_frac * charges.penalty_per_wh
    steps: list[Step] = []
    upto_w = 0.0
    for block in sorted((b for b in blocks if b.power_w > 0.0), key=lambda b: b.cost_per_wh):
        upto_w += block.power_w
        # A step that ends inside this block ends where the block's last whole step does; what is left costs as the next.
        end_w = min(most_w, math.floor(upto_w / step_w * (1.0 + 1e-12) + 1e-9) * step_w)
        begun_w = steps[-1].upto_w if steps else 0.0
        end_w = end_w if end_w >= min_w * (1.0 - 1e-9) else 0.0  # the first step is what must be taken at least
        if end_w > begun_w:
            steps.append(Step(end_w, block.cost_per_wh + extra))
    return _merged(steps)


def _merged(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps with those of one price put together."""
    merged: list[Step] = []
    for step in steps:
        if merged and merged[-1].price_per_wh == step.price_per_wh:
            merged.pop()
        merged.append(step)
    return tuple(merged)
