"""``[planning]``: how the site's storage, generation and deferrable compute are planned ahead."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vppd.config.table import NonNegative, Table


class PlanningConfig(Table):
    """``[planning]``: a plan every few minutes, and what it may do with it."""

    horizon_h: Annotated[float, Field(ge=1.0, le=72.0)] = 24.0
    replan_s: Annotated[float, Field(ge=30.0)] = 300.0
    """At least so often; also when an award, an order or an outage comes or goes. [s]"""
    time_limit_s: Annotated[float, Field(ge=0.1, le=120.0)] = 10.0
    """The solver's. [s]"""
    economics: bool = True
    """Steer by the plan; false: plan and show only."""
    price_import_per_mwh: float = 80.0
    """Where no feed says otherwise, in the currency of all prices."""
    price_export_per_mwh: float = 0.0
    carbon_cost_per_t: NonNegative = 0.0
