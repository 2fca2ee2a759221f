"""``[site]``, ``[[feeds]]``, ``[[assets]]`` and ``[http]``: the plant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PositiveFloat, model_validator

from vppd.config.table import Fraction, Name, NonNegative, Table
from vppd.model import Kind

STORAGE = (Kind.BATTERY, Kind.UPS)


class SiteConfig(Table):
    """``[site]``: the plant as a whole and its timing."""

    id: Name
    agent_id: Name
    state_dir: Path = Path("/var/lib/vppd")
    socket: Path = Path("/run/vppd/vppd.sock")
    cycle_s: Annotated[float, Field(ge=0.1, le=60.0)] = 1.0
    io_timeout_s: PositiveFloat = 2.0
    lease_s: Annotated[float, Field(ge=1.0, le=3600.0)] = 30.0
    margin_frac: Annotated[float, Field(ge=0.0, le=0.2)] = 0.01
    ramp_down_w_per_s: PositiveFloat = 50_000.0
    ramp_up_w_per_s: PositiveFloat = 20_000.0
    import_max_w: PositiveFloat
    export_max_w: NonNegative = 0.0
    link_lost_after_s: PositiveFloat = 15.0
    telemetry_s: PositiveFloat = 2.0
    heartbeat_s: PositiveFloat = 30.0
    require_synchronised_clock: bool = True
    """Refuse orders while the kernel does not hold its clock for synchronised; false only in a lab."""
    record: bool = True
    """Record every decision for ``vppd replay``."""
    record_keep_days: PositiveFloat = 7.0


class FeedConfig(Table):
    """``[[feeds]]``: a supply path with a meter and a limit of its own."""

    tag: Name
    meter: Name
    import_max_w: PositiveFloat
    export_max_w: NonNegative = 0.0
    power_minimum_w: NonNegative = 0.0


class CurtailConfig(Table):
    """``[assets.curtail]``: how the planner treats a cluster's jobs."""

    window_s: PositiveFloat = 3600.0
    """In every window of this length a job is slowed no more than its tier accepts."""
    margin_frac: Annotated[float, Field(ge=0.0, le=0.2)] = 0.01
    ramp_s: PositiveFloat = 30.0
    """What jobs are told has to show in their power by then."""
    restore_s: PositiveFloat = 15.0
    """Power that was held comes back over no less than this."""


class AssetConfig(Table):
    """``[[assets]]``: one controllable or measurable thing."""

    id: Name
    kind: Kind
    feed: Name
    adapter: str
    connection: dict[str, Any] = Field(default_factory=dict)
    control: bool = True
    """False: watch only."""
    poll_s: PositiveFloat = 1.0
    stale_after_s: PositiveFloat = 10.0
    rated_charge_w: NonNegative = 0.0
    rated_discharge_w: NonNegative = 0.0
    capacity_wh: NonNegative = 0.0
    reserve_frac: Fraction = 0.0
    soc_target_frac: Fraction = 0.9
    efficiency_frac: Annotated[float, Field(gt=0.0, le=1.0)] = 0.96
    wear_cost_per_wh: NonNegative = 3e-5
    rated_w: NonNegative = 0.0
    """Nameplate of anything that is not storage: most consumption, or most generation of PV, wind and gensets. [W]"""
    min_w: NonNegative = 0.0
    """Consumption a cluster or load is never pushed below. [W]"""
    min_running_frac: Fraction = 0.0
    """Storage and inverters: cannot run between 0 and this part of the rating."""
    ramp_w_per_s: PositiveFloat | None = None
    local_response: bool = False
    """Storage: answers to the frequency it measures itself, once armed (products of FFR and FCR kind)."""
    tier_cost_per_wh: tuple[float, float, float, float] = (1.0, 3e-4, 1.5e-4, 8e-5)
    curtail_cost_per_wh: NonNegative = 1e-4
    """What a curtailed Wh of PV or wind costs. [1/Wh]"""
    curtail: CurtailConfig = CurtailConfig()
    tolerance_w: PositiveFloat | None = None
    """Read-back within this is a confirmation; default 2 % of the rating."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind in STORAGE and self.control and not (self.capacity_wh and self.rated_discharge_w):
            raise ValueError("storage that is controlled needs capacity_wh and rated_discharge_w greater than 0")
        if self.kind in (Kind.CLUSTER, Kind.PV, Kind.WIND, Kind.GENSET) and not self.rated_w:
            raise ValueError(f"a {self.kind} needs rated_w greater than 0")
        if self.kind in STORAGE and self.soc_target_frac < self.reserve_frac:
            raise ValueError("soc_target_frac must not be below reserve_frac")
        return self


class HttpConfig(Table):
    """``[http]``: the read-only API."""

    listen: Annotated[str, Field(pattern=r"^[^:]+:\d+$")] = "127.0.0.1:8080"
