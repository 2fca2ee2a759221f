"""What a schedule leaves to groups of flexible loads, hour by hour: a cluster's virtual capacity curve."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from vppd.snapshot import Floats

HOUR_S = 3600.0


def hourly_budgets(
    loads_w: Mapping[str, Sequence[float]],
    groups: Mapping[str, Collection[str]],
    step_s: float,
    *,
    offset_s: float = 0.0,
    always_w: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Floats]:
    """Return the mean power of each group in every hour: what its loads are given, and what it draws in any case. [W]

    ``loads_w`` is an answer's ``flexible_loads``. The first step begins ``offset_s`` after a full hour; the first and
    the last hour are the mean over the part of them that is planned. ``always_w`` is by group. Raises KeyError for a
    load that the answer does not have.
    """
    found = {}
    for group, names in groups.items():
        parts = [np.asarray(loads_w[name], dtype=np.float64) for name in names]
        if always_w is not None and group in always_w:
            parts.append(np.asarray(always_w[group], dtype=np.float64))
        found[group] = _hourly(np.sum(parts, axis=0), step_s, offset_s) if parts else np.zeros(0)
    return found


def _hourly(power_w: Floats, step_s: float, offset_s: float) -> Floats:
    # Energy is piecewise linear in time: its differences at full hours are right whatever the length of a step.
    edge_s = offset_s + step_s * np.arange(len(power_w) + 1)
    energy_ws = np.concatenate(([0.0], np.cumsum(power_w) * step_s))
    hours = int(np.ceil(edge_s[-1] / HOUR_S - 1e-9))
    at_s = np.clip(HOUR_S * np.arange(hours + 1), edge_s[0], edge_s[-1])
    return np.asarray(np.diff(np.interp(at_s, edge_s, energy_ws)) / np.diff(at_s))
