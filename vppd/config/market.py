"""``[market]``: what is sold, and to whom."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vppd.config.table import Fraction, Name, NonNegative, Table, twice

Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,34}$")]
Scheme = Annotated[str, Field(pattern=r"^[A-Z0-9]{3}$")]


class ExpectConfig(Table):
    """``[[market.expect]]``: what a product is expected to bring; without it the feed ``price/import`` is taken."""

    product: Name
    direction: Literal["up", "down"] | None = None
    """Of a product that goes either way: up, less consumption; down, more. Without it both."""
    price_per_mwh: float
    """Of capacity: per MW and hour."""
    penalty_per_mwh: NonNegative = 0.0
    """Owed for what was sold and is not there."""
    use_frac: Fraction = 1.0
    """Expected part of the time in which what is sold is called. [0-1]"""


class ReserveBidConfig(Table):
    """``[market.reserve_bid]``: our codes in a market that takes IEC 62325 documents (``vppd bids --xml``)."""

    sender: Code
    sender_scheme: Scheme = "A01"
    """A01: EIC; A10: GS1; NNO, NSE and the like: national."""
    receiver: Code
    receiver_scheme: Scheme = "A01"
    domain: Code
    """EIC of the control area."""
    acquiring: Code
    """EIC of the area that buys."""
    resource: Code
    """The market's code for this site."""
    resource_scheme: Scheme = "A01"
    products: tuple[Name, ...] = ("nordic-mfrr",)
    """Whose bids are written."""


class MarketConfig(Table):
    """``[market]``: products are offered before their gate closes, at a price that covers their cost."""

    issuer: Name
    """Who awards; one of ``[[grid.issuers]]``."""
    products: tuple[Name, ...] = Field(min_length=1)
    """Names of product files."""
    products_dir: Path | None = None
    """Where they are; without it those that come with vppd."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "EUR"
    margin_per_mwh: NonNegative = 0.0
    lead_s: Annotated[float, Field(ge=1.0, le=86_400.0)] = 900.0
    """Offers are made so long before their gate closes, and revised until then. [s]"""
    horizon_h: Annotated[float, Field(ge=0.1, le=168.0)] = 36.0
    """Slots that begin within so many hours are offered. [h]"""
    ahead_s: Annotated[float, Field(ge=1.0, le=604_800.0)] = 3600.0
    """A product whose gate nobody states is offered until so long before delivery. [s]"""
    signal_sustain_s: Annotated[float, Field(ge=1.0, le=86_400.0)] = 900.0
    """Behind a symmetric product that follows a signal and states no ``sustain_s``, full power is kept for so long each way. [s]"""
    time_limit_s: Annotated[float, Field(ge=0.1, le=120.0)] = 5.0
    """For computing the offers of a gate. [s]"""
    expect: tuple[ExpectConfig, ...] = ()
    reserve_bid: ReserveBidConfig | None = None

    @model_validator(mode="after")
    def _once(self) -> Self:
        told = [f"{e.product} ({way})" for e in self.expect for way in _ways(e)]
        for key, names in (("products", list(self.products)), ("expect", told)):
            if doubled := twice(names):
                raise ValueError(f"{key} names {', '.join(doubled)} twice")
        if strange := sorted({e.product for e in self.expect} - set(self.products)):
            raise ValueError(f"expect speaks of {', '.join(strange)}, which is not among products")
        return self

    def expected(self, product: str, direction: str = "") -> ExpectConfig | None:
        """Return what is expected of a product in a direction, or in any; None when nothing is said."""
        own = [e for e in self.expect if e.product == product]
        return next((e for e in own if not direction or e.direction in (None, direction)), None)


def _ways(expect: ExpectConfig) -> tuple[str, ...]:
    return ("up", "down") if expect.direction is None else (expect.direction,)
