"""``[forecast]``: what is foreseen, how far, and who else says so."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vppd.config.table import Table


class ForecastConfig(Table):
    """``[forecast]``: series are means over a step; what nobody says is forecast from our own history."""

    step_s: Annotated[float, Field(ge=300.0, le=3600.0)] = 900.0
    """Must divide a day."""
    horizon_h: Annotated[float, Field(ge=1.0, le=168.0)] = 48.0
    every_s: Annotated[float, Field(ge=60.0)] = 900.0
    """Made anew so often. [s]"""
    time_zone: str = "UTC"
    """Days and weekends are those of this zone."""
    history_days: Annotated[float, Field(ge=2.0, le=800.0)] = 100.0
    """What was measured is kept so long."""
