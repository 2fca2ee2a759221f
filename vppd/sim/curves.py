"""How much power a GPU draws under a cap, and how much work it still does.

The table restates class averages measured on A100 GPUs by the Emerald AI demonstration of May 2025 (ai-emerald/emerald-ai-demo-may-2025,
Apache-2.0), as fractions of the 400 W limit, so that it scales to GPUs with another limit.
"""

from __future__ import annotations

import numpy as np

from vppd.snapshot import Floats, Ints

CLASSES = ("fine-tune", "inference", "pre-train")
"""``gpu_power_w`` and ``throughput_frac`` take indices into this tuple."""

_CAP_FRAC = np.array([0.25, 0.5, 0.625, 0.75, 0.875, 1.0])
_POWER_FRAC = (
    np.array(
        [
            [100.0, 196.0, 242.0, 287.0, 319.0, 345.0],
            [98.0, 195.0, 242.0, 289.0, 333.0, 368.0],
            [102.0, 197.0, 245.0, 291.0, 337.0, 382.0],
        ]
    )
    / 400.0
)
_THROUGHPUT_FRAC = np.array(
    [
        [0.234, 0.796, 0.891, 0.944, 0.974, 1.0],
        [0.225, 0.781, 0.871, 0.931, 0.976, 1.0],
        [0.186, 0.629, 0.784, 0.867, 0.923, 1.0],
    ]
)


def gpu_power_w(job_class: Ints, cap_w: Floats, limit_w: float) -> Floats:
    """Return what a busy GPU draws, (n,), under a cap per GPU, (n,). [W]"""
    return _interpolate(_POWER_FRAC, job_class, cap_w / limit_w) * limit_w


def throughput_frac(job_class: Ints, cap_w: Floats, limit_w: float) -> Floats:
    """Return the speed of the work, (n,), as a fraction of the uncapped speed. [0-1]"""
    return _interpolate(_THROUGHPUT_FRAC, job_class, cap_w / limit_w)


def _interpolate(table_frac: Floats, job_class: Ints, cap_frac: Floats) -> Floats:
    """Return the value between the two measured caps around each cap, one class per element."""
    within_frac = np.clip(cap_frac, _CAP_FRAC[0], _CAP_FRAC[-1])
    right = np.clip(np.searchsorted(_CAP_FRAC, within_frac), 1, len(_CAP_FRAC) - 1)
    left = right - 1
    share_frac = (within_frac - _CAP_FRAC[left]) / (_CAP_FRAC[right] - _CAP_FRAC[left])
    result: Floats = table_frac[job_class, left] * (1.0 - share_frac) + table_frac[job_class, right] * share_frac
    return result
