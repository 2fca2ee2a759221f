"""``[market]``: what is sold, and to whom."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vppd.config.table import Name, NonNegative, Table


class MarketConfig(Table):
    """``[market]``: products are offered before their gate closes, at a price that covers their cost."""

    issuer: Name
    """Who awards; one of ``[[grid.issuers]]``."""
    products: tuple[Name, ...] = Field(min_length=1)
    """Names of product files."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "EUR"
    margin_per_mwh: NonNegative = 0.0
