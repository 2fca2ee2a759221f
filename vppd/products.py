"""Market products as data: ``config/products/*.toml``, and what a configured site can sell of them."""

from __future__ import annotations

import math
import sysconfig
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, ValidationError, model_validator

from vppd.config.load import Config
from vppd.config.market import MarketConfig
from vppd.config.plant import STORAGE, AssetConfig
from vppd.config.table import InvalidConfig, Name, NonNegative, Problem, Table, problems_of
from vppd.config.toml_file import content_of
from vppd.core.bidding.qualify import Ability, Direction, Site, Terms
from vppd.model import Kind

Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
STORAGE_RESPONSE_S = 1.0
"""UPS and batteries on Modbus. [s]"""
COMPUTE_RESPONSE_S = 60.0
"""Caps, locked clocks and stops of a cluster; the slow end of what is realistic. [s]"""
GENSET_RESPONSE_S = 600.0


class GateConfig(Table):
    """``[gate]``: until when one may bid: so long before delivery, or at a time of a day before the day of delivery."""

    before_delivery_s: NonNegative | None = None
    """So long before delivery begins. [s]"""
    days_before: Annotated[int, Field(ge=0, le=366)] | None = None
    local_time: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] | None = None
    time_zone: str | None = None
    """Days and times are those of this zone, e.g. Europe/Helsinki."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        daily = (self.days_before, self.local_time, self.time_zone)
        if self.before_delivery_s is None and None in daily:
            raise ValueError("a gate is before_delivery_s, or days_before, local_time and time_zone together")
        if self.before_delivery_s is not None and daily != (None, None, None):
            raise ValueError("a gate is before_delivery_s or a time of day, not both")
        if self.time_zone is not None:
            try:
                ZoneInfo(self.time_zone)
            except (ZoneInfoNotFoundError, ValueError) as error:
                raise ValueError(f"there is no time zone {self.time_zone!r}") from error
        return self


class ProductConfig(Table):
    """One product file. A key that is absent is not confirmed, and nothing is checked for it."""

    name: Name
    title: str
    market: str
    direction: Direction
    activation_s: Positive | None = None
    sustain_s: Positive | None = None
    resting_s: NonNegative | None = None
    """Between two activations. [s]"""
    gate: GateConfig | None = None
    delivery_interval_s: Positive | None = None
    dispatch: Literal["scheduled", "order"] = "order"
    """What an award means: scheduled, delivered over the whole interval by itself; order, kept ready until it is ordered."""
    min_bid_w: Positive | None = None
    max_bid_w: Positive | None = None
    bid_step_w: Positive | None = None
    divisible: bool | None = None
    price_form: Literal["pay-as-bid", "pay-as-cleared", "fixed", "capacity", "none"] | None = None
    price_limit_per_mwh: Positive | None = None
    availability_frac: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """How surely the sold capacity must be there. [0-1]"""
    signal_s: Positive | None = None
    """Time between two values of the dispatcher's signal. [s]"""
    telemetry_s: Positive | None = None
    penalty: str = ""
    local_response: bool = False
    """Follows the frequency it measures itself: carried out by a UPS or PLC; vppd arms, allocates and logs."""
    min_load_frac: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    min_site_w: Positive | None = None
    sources: tuple[str, ...] = Field(min_length=1)
    unconfirmed: tuple[str, ...] = ()
    """What the sources do not settle."""

    @property
    def terms(self) -> Terms:
        """Return what a site is checked against."""
        return Terms(
            direction=self.direction,
            activation_s=self.activation_s,
            sustain_s=self.sustain_s,
            telemetry_s=self.telemetry_s,
            min_bid_w=self.min_bid_w,
            bid_step_w=self.bid_step_w,
            max_bid_w=self.max_bid_w,
            min_load_frac=self.min_load_frac,
            min_site_w=self.min_site_w,
            local_response=self.local_response,
        )


def shipped() -> Path:
    """Return the folder of the products that come with vppd."""
    beside = Path(__file__).resolve().parent.parent / "config" / "products"
    return beside if beside.is_dir() else Path(sysconfig.get_path("data")) / "share" / "vppd" / "products"


def products_in(folder: Path) -> tuple[ProductConfig, ...]:
    """Return the products of a folder by name. Raises InvalidConfig with the mistakes of the first bad file."""
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise InvalidConfig(folder, (Problem("-", "holds no product (*.toml)"),))
    return tuple(_product(file) for file in files)


def sold(market: MarketConfig) -> tuple[ProductConfig, ...]:
    """Return the products that ``[market]`` names, in its order. Raises InvalidConfig for a bad file or one that is not there."""
    folder = market.products_dir or shipped()
    found = {product.name: product for product in products_in(folder)}
    if strange := [name for name in market.products if name not in found]:
        raise InvalidConfig(
            folder, (Problem("market.products", f"there is no {', '.join(strange)}", ", ".join(found)),)
        )
    return tuple(found[name] for name in market.products)


def _product(file: Path) -> ProductConfig:
    try:
        product = ProductConfig.model_validate(content_of(file))
    except ValidationError as error:
        raise InvalidConfig(file, problems_of(error)) from error
    if product.name != file.stem:
        raise InvalidConfig(file, (Problem("name", "must be the name of the file", file.stem),))
    return product


def site_of(config: Config) -> Site:
    """Return what a configured site could give by its nameplates: what is really free, the daemon says from hour to hour."""
    able = (_ability(asset) for asset in config.assets if asset.control)
    return Site(
        abilities=tuple(ability for ability in able if ability is not None),
        load_w=config.site.import_max_w,
        telemetry_s=config.site.telemetry_s,
    )


def _ability(asset: AssetConfig) -> Ability | None:
    if asset.kind in STORAGE:
        return Ability(
            asset.id,
            STORAGE_RESPONSE_S,
            reduce_w=asset.rated_discharge_w,
            increase_w=asset.rated_charge_w,
            reduce_wh=asset.capacity_wh * (asset.soc_target_frac - asset.reserve_frac) * asset.efficiency_frac,
            increase_wh=asset.capacity_wh * (1.0 - asset.soc_target_frac) / asset.efficiency_frac,
            local_response=asset.local_response,
        )
    if asset.kind is Kind.CLUSTER:
        return Ability(asset.id, _response_s(asset, COMPUTE_RESPONSE_S), reduce_w=max(asset.rated_w - asset.min_w, 0.0))
    if asset.kind in (Kind.PV, Kind.WIND):
        return Ability(asset.id, STORAGE_RESPONSE_S, increase_w=asset.rated_w)
    if asset.kind is Kind.GENSET:
        return Ability(asset.id, _response_s(asset, GENSET_RESPONSE_S), reduce_w=asset.rated_w)
    return None


def _response_s(asset: AssetConfig, least_s: float) -> float:
    """Return until when the whole range is used, by the configured ramp where it is slower. [s]"""
    return least_s if not asset.ramp_w_per_s else max(least_s, math.ceil(asset.rated_w / asset.ramp_w_per_s))
