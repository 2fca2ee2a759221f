"""What is sold in a season, when, how it is called, and what the seller expects of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vppd.config.market import MarketConfig
from vppd.core.bidding.qualify import Direction
from vppd.planning.trade.gates import Slot, slots
from vppd.products import GateConfig, ProductConfig

ISSUER = "market"
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Line:
    """A product, and in which hours it is bought."""

    product: ProductConfig
    hours: frozenset[int]
    call_minute: int = 0
    """What is kept ready is called so long after its slot has begun. [min]"""

    def due(self, at: datetime, until: datetime) -> tuple[Slot, ...]:
        """Return the slots whose gate closes now and that are bought; nothing ends after ``until``."""
        gate = self.product.gate
        assert gate is not None
        horizon_s = DAY_S if gate.before_delivery_s is None else gate.before_delivery_s
        found = slots(self.product, at - timedelta(seconds=1), 1.5 * horizon_s + 3600.0, 0.0)
        bought = (slot for slot in found if slot.start.hour in self.hours and slot.end <= until)
        return tuple(slot for slot in bought if slot.gate_closes_at == at)


def due(lines: Sequence[Line], at: datetime, until: datetime) -> list[tuple[ProductConfig, Slot]]:
    """Return all slots of all products whose gate closes now; gates close at full quarters of an hour."""
    if at.minute % 15:
        return []
    return [(line.product, slot) for line in lines for slot in line.due(at, until)]


def _product(name: str, title: str, direction: Direction, **more: Any) -> ProductConfig:
    given = {"market": "season", "delivery_interval_s": 3600.0, "min_bid_w": 10e3, "bid_step_w": 1e3, "divisible": True}
    terms = {"price_limit_per_mwh": 1000.0, "availability_frac": 0.9, "sources": ("made up",)}
    return ProductConfig.model_validate(
        {"name": name, "title": title, "direction": direction, **given, **terms, **more}
    )


DAY_AHEAD = {
    "activation_s": 900.0,
    "sustain_s": 3600.0,
    "price_form": "pay-as-cleared",
    "dispatch": "scheduled",
    "gate": GateConfig(days_before=1, local_time="12:00", time_zone="UTC"),
}
HOUR_AHEAD = {
    "activation_s": 300.0,
    "sustain_s": 900.0,
    "price_form": "capacity",
    "dispatch": "order",
    "gate": GateConfig(before_delivery_s=2700.0),
}
LINES = (
    Line(
        _product("peak", "Evening peak, day ahead", Direction.REDUCE, **DAY_AHEAD),
        frozenset({17, 18, 19, 20}),
    ),
    Line(
        _product("noon", "Sun at noon, day ahead", Direction.INCREASE, **DAY_AHEAD),
        frozenset({11, 12, 13}),
    ),
    Line(
        _product("ready", "Kept ready, hour ahead", Direction.REDUCE, **HOUR_AHEAD),
        frozenset(range(24)),
    ),
    Line(
        _product("swing", "Both ways by a signal, hour ahead", Direction.SYMMETRIC, signal_s=60.0, **HOUR_AHEAD),
        frozenset({0, 1, 2, 3, 4, 5, 22, 23}),
        call_minute=5,
    ),
)
MARKET = MarketConfig.model_validate(
    {
        "issuer": ISSUER,
        "products": tuple(line.product.name for line in LINES),
        "margin_per_mwh": 5.0,
        "expect": (
            {"product": "peak", "price_per_mwh": 180.0, "penalty_per_mwh": 180.0},
            {"product": "noon", "price_per_mwh": 170.0, "penalty_per_mwh": 170.0},
            {"product": "ready", "price_per_mwh": 140.0, "penalty_per_mwh": 140.0, "use_frac": 0.04},
            {"product": "swing", "price_per_mwh": 160.0, "penalty_per_mwh": 160.0, "use_frac": 0.04},
        ),
    }
)
