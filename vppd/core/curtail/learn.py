"""Curves learned from what caps really did: a prior, corrected around every cap that was seen. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vppd.core.curtail.curves import Curves
from vppd.snapshot import Floats, Ints

REACH_FRAC = 0.25
"""An observation also tells of caps this part of the table's span away, less with the distance."""
KEEP_FRAC = 0.95
"""What is left of the weight of the past after a new observation in the same place: about the last twenty count."""

PRIOR_WEIGHT = 0.2
"""Of the prior, beside 1 for an observation."""
DRIFT_GAIN = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What is believed and what was seen, per class and cap of the prior's tables, (c, m) each."""

    prior: Curves
    power_weight: Floats
    power_error_w: Floats
    """Weighted sum of measured less prior power. [W]"""
    throughput_weight: Floats
    throughput_error_frac: Floats

    def curves(self) -> Curves:
        """Return the curves as they look now; a single observation outweighs the prior."""
        power_w = self.prior.power_w + self.power_error_w / (PRIOR_WEIGHT + self.power_weight)
        throughput = self.prior.throughput_frac + self.throughput_error_frac / (PRIOR_WEIGHT + self.throughput_weight)
        throughput = np.clip(throughput / np.maximum(throughput[:, -1:], 1e-6), 0.0, 1.0)
        return Curves(self.prior.cap_w, np.maximum(power_w, 0.0), throughput, self.prior.idle_w)


def believed(prior: Curves) -> Learned:
    """Return the prior before anything was seen."""
    nothing = np.zeros(prior.cap_w.shape)
    return Learned(prior, nothing, nothing, nothing, nothing)


def observed(
    learned: Learned, curve: Ints, cap_w: Floats, power_w: Floats, throughput_frac: Floats, weight: Floats
) -> Learned:
    """Return the curves after k jobs were seen under their caps: power per GPU and throughput, (k,); NaN for not measured.

    ``weight`` shares one observation of a class among its jobs, by their GPUs for example.
    """
    error_w = power_w - learned.prior.power_at_w(curve, cap_w)
    error_frac = throughput_frac - learned.prior.throughput_at_frac(curve, cap_w)
    near = _near(learned.prior, curve, cap_w) * _shares(curve, weight)[:, None]
    power_weight, power_error_w = _added(learned.power_weight, learned.power_error_w, curve, near, error_w)
    throughput_weight, throughput_error = _added(
        learned.throughput_weight, learned.throughput_error_frac, curve, near, error_frac
    )
    return replace(
        learned,
        power_weight=power_weight,
        power_error_w=power_error_w,
        throughput_weight=throughput_weight,
        throughput_error_frac=throughput_error,
    )


def drift_w(before_w: float, expected_w: float, measured_w: float) -> float:
    """Return by how much the meter shows more than plans expect, smoothed; it is taken off the next budget. [W]"""
    return before_w + DRIFT_GAIN * (measured_w - expected_w - before_w)


def _near(prior: Curves, curve: Ints, cap_w: Floats) -> Floats:
    """Return how much each observation tells of each cap of its table, (k, m); of uncapped only another uncapped one. [0-1]"""
    caps_w = prior.cap_w[curve]
    span_w = np.maximum(caps_w[:, -1:] - caps_w[:, :1], 1e-6)
    within_w = np.clip(cap_w[:, None], caps_w[:, :1], caps_w[:, -1:])
    near: Floats = np.maximum(1.0 - np.abs(caps_w - within_w) / (REACH_FRAC * span_w), 0.0)
    return np.where((caps_w == caps_w[:, -1:]) == (within_w == caps_w[:, -1:]), near, 0.0)


def _shares(curve: Ints, weight: Floats) -> Floats:
    """Return the weights, together 1 in each class, (k,)."""
    total = np.zeros(int(curve.max(initial=-1)) + 1)
    np.add.at(total, curve, weight)
    return weight / np.maximum(total[curve], 1e-12)


def _added(seen: Floats, error: Floats, curve: Ints, near: Floats, new: Floats) -> tuple[Floats, Floats]:
    """Return weights and errors after new observations; the past fades where they tell something."""
    known = np.isfinite(new)
    weight, total = np.zeros(seen.shape), np.zeros(seen.shape)
    np.add.at(weight, curve[known], near[known])
    np.add.at(total, curve[known], near[known] * new[known, None])
    keep = 1.0 - (1.0 - KEEP_FRAC) * np.minimum(weight, 1.0)
    return seen * keep + weight, error * keep + total
