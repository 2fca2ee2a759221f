"""What was ordered and what was delivered, order by order."""

from __future__ import annotations

from dataclasses import dataclass, replace

WINDOW_S = 10.0
"""Compliance is judged on averages over this long. [s]"""
TOLERANCE_FRAC = 0.02
"""An average this far beyond the order still counts as kept. [0-1]"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Running account of one active order, measured at its meter."""

    active_s: float = 0.0
    energy_wh: float = 0.0
    """Energy that flowed. [Wh, + = consumption]"""
    baseline_wh: float = 0.0
    """Energy that would have flowed without us. [Wh]"""
    ordered_wh: float = 0.0
    """Energy at the bound (or target) in force. [Wh]"""
    worst_over_w: float = 0.0
    """Worst window average beyond the bound in force. [W]"""
    windows: int = 0
    kept: int = 0
    window_s: float = 0.0
    window_wh: float = 0.0
    window_over_wh: float = 0.0

    @property
    def reduced_wh(self) -> float:
        """Energy not consumed against the baseline. [Wh]"""
        return self.baseline_wh - self.energy_wh

    @property
    def added_wh(self) -> float:
        """Energy consumed beyond the baseline. [Wh]"""
        return self.energy_wh - self.baseline_wh

    @property
    def kept_frac(self) -> float:
        """Part of the windows in which the order was kept; 1 before the first is full. [0-1]"""
        return self.kept / self.windows if self.windows else 1.0


def accrue(
    delivery: Delivery, power_w: float, bound_w: float, baseline_w: float, over_w: float, dt_s: float
) -> Delivery:
    """Return the account after ``dt_s`` more at ``power_w`` against a bound of ``bound_w``.

    ``over_w`` is how far the power is on the wrong side of what was ordered (negative: inside). [W]
    """
    hours = dt_s / 3600.0
    grown = replace(
        delivery,
        active_s=delivery.active_s + dt_s,
        energy_wh=delivery.energy_wh + power_w * hours,
        baseline_wh=delivery.baseline_wh + baseline_w * hours,
        ordered_wh=delivery.ordered_wh + bound_w * hours,
        window_s=delivery.window_s + dt_s,
        window_wh=delivery.window_wh + power_w * hours,
        window_over_wh=delivery.window_over_wh + over_w * hours,
    )
    return _close_window(grown, bound_w) if grown.window_s >= WINDOW_S else grown


def _close_window(delivery: Delivery, bound_w: float) -> Delivery:
    over_w = delivery.window_over_wh / delivery.window_s * 3600.0
    kept = over_w <= TOLERANCE_FRAC * abs(bound_w)
    return replace(
        delivery,
        windows=delivery.windows + 1,
        kept=delivery.kept + int(kept),
        worst_over_w=max(delivery.worst_over_w, over_w),
        window_s=0.0,
        window_wh=0.0,
        window_over_wh=0.0,
    )
