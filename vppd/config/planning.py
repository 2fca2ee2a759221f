"""``[planning]``: how the site's storage, generation and deferrable compute are planned ahead."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from vppd.config.table import Fraction, NonNegative, Table

Hours = Annotated[float, Field(ge=0.0, le=72.0)]


class PlanningConfig(Table):
    """``[planning]``: a plan every few minutes, and what it may do with it."""

    horizon_h: Annotated[float, Field(ge=1.0, le=72.0)] = 24.0
    replan_s: Annotated[float, Field(ge=30.0)] = 300.0
    """At least so often; also when an award, an order or an outage comes or goes. [s]"""
    time_limit_s: Annotated[float, Field(ge=0.1, le=120.0)] = 10.0
    """The solver's. [s]"""
    gap_frac: Annotated[float, Field(ge=0.0, le=0.1)] = 0.002
    """A plan that is proven to be no dearer than this is good enough. [0-1]"""
    economics: bool = True
    """Steer by the plan; false: plan and show only."""
    price_import_per_mwh: float = 80.0
    """Where no feed says otherwise, in the currency of all prices."""
    price_export_per_mwh: float = 0.0
    carbon_cost_per_t: NonNegative = 0.0
    defer_h: tuple[Hours, Hours, Hours, Hours] = (0.0, 0.0, 4.0, 12.0)
    """By flex tier: work of an hour may run so many hours later; 0: it is not deferred. [h]"""
    reserve_margin_frac: Fraction = 0.07
    """Planned storage stays this far above its reserve, where no failsafe notices. [0-1]"""
    demand_charge_per_w: NonNegative = 0.0
    """Of the highest import of the billing period, above ``billed_peak_w``. [1/W]"""
    billed_peak_w: NonNegative = 0.0
    """The peak that is billed already; what was measured since the start counts as well. [W]"""
    green_load_frac: Fraction | None = None
    """At least this part of the load is to come from the site's own renewables. [0-1]"""
    green_self_use_frac: Fraction | None = None
    """At least this part of what they could give is to be used on site. [0-1]"""
    green_window_h: Annotated[float, Field(ge=1.0, le=72.0)] = 24.0
    """Both are judged over windows of this length. [h]"""
    green_shortfall_cost_per_mwh: NonNegative | None = None
    """What a MWh short of either is worth avoiding; without it the rules come before all cost."""

    @model_validator(mode="after")
    def _tiers(self) -> Self:
        if self.defer_h[0] > 0.0:
            raise ValueError("defer_h[0] must be 0: tier 0 is never deferred")
        return self
