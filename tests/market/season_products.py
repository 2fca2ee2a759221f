"""What is sold in a season, and what the seller expects of it."""

from __future__ import annotations

from vppd.config.market import MarketConfig
from vppd.core.bidding.qualify import Direction
from vppd.products import GateConfig, ProductConfig

ISSUER = "market"
PEAK_HOURS = (17, 18, 19, 20)
"""The product ``peak`` is bought in these hours."""

PEAK = ProductConfig(
    name="peak", title="Evening peak, day ahead", market="season", direction=Direction.REDUCE, activation_s=900.0,
    sustain_s=3600.0, gate=GateConfig(days_before=1, local_time="12:00", time_zone="UTC"), delivery_interval_s=3600.0,
    min_bid_w=10e3, bid_step_w=1e3, divisible=True, price_form="pay-as-cleared", price_limit_per_mwh=1000.0,
    availability_frac=0.9, dispatch="scheduled", sources=("made up",),
)  # fmt: skip
READY = ProductConfig(
    name="ready", title="Kept ready, hour ahead", market="season", direction=Direction.REDUCE, activation_s=300.0,
    sustain_s=900.0, gate=GateConfig(before_delivery_s=2700.0), delivery_interval_s=3600.0, min_bid_w=10e3,
    bid_step_w=1e3, divisible=True, price_form="capacity", price_limit_per_mwh=1000.0, availability_frac=0.9,
    dispatch="order", sources=("made up",),
)  # fmt: skip
MARKET = MarketConfig.model_validate(
    {
        "issuer": ISSUER,
        "products": ("peak", "ready"),
        "margin_per_mwh": 5.0,
        "expect": (
            {"product": "peak", "price_per_mwh": 180.0, "penalty_per_mwh": 180.0},
            {"product": "ready", "price_per_mwh": 140.0, "penalty_per_mwh": 140.0, "use_frac": 0.04},
        ),
    }
)
