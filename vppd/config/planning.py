"""``[planning]``: how the site's storage, generation and deferrable compute are planned ahead."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from vppd.config.table import Fraction, Name, NonNegative, Table

Hours = Annotated[float, Field(ge=0.0, le=72.0)]
GreenPeriod = Literal["hour", "day", "month", "year"]


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
    """At least this part of the load is to come from renewables, the site's own or contracted ones. [0-1]"""
    green_self_use_frac: Fraction | None = None
    """At least this part of what they could give is to be used on site. [0-1]"""
    green_period: GreenPeriod = "day"
    """Both are judged over periods of the calendar, in the time zone of ``[forecast]``, with what they hold already."""
    green_of: Literal["load", "compute"] = "load"
    """What the part of the load is of: all that is consumed, or the clusters alone."""
    contracts: tuple[Name, ...] = ()
    """Renewables elsewhere that are bought as they produce; of each a feed tells ``contract/NAME``."""
    green_shortfall_cost_per_mwh: NonNegative | None = None
    """What a MWh short of either is worth avoiding; without it the rules come before all cost."""

    @field_validator("contracts")
    @classmethod
    def _once(cls, contracts: tuple[str, ...]) -> tuple[str, ...]:
        for name in contracts:
            if contracts.count(name) > 1:
                raise ValueError(f"{name!r} is named twice")
        return contracts

    @model_validator(mode="after")
    def _tiers(self) -> Self:
        if self.defer_h[0] > 0.0:
            raise ValueError("defer_h[0] must be 0: tier 0 is never deferred")
        return self
