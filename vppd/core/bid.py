"""The one internal bid: what every writer starts from. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from vppd.core.bidding import Step
from vppd.model import Interval


@dataclass(frozen=True, slots=True)
class Bid:
    """An offer of power for an interval, in steps whose prices never fall: whoever takes a step takes those before it."""

    bid_id: str
    product: str
    resource: str
    """Site name, feed tag or asset id."""
    direction: str
    """up: less consumption or more generation; down: more consumption."""
    interval: Interval
    steps: tuple[Step, ...]
    currency: str
    min_w: float = 0.0
    """Least power that may be accepted. [W]"""
    divisible: bool = True
    revision: int = 1
    activation_s: float | None = None
    max_duration_s: float | None = None
    """Longest activation. [s]"""
    resting_s: float | None = None
    """Rest after an activation. [s]"""
    exclusive_group: str = ""
    """At most one bid of a group may be accepted."""

    def __post_init__(self) -> None:
        """Refuse what no market could read. Raises ValueError."""
        if self.direction not in {"up", "down"}:
            raise ValueError(f"a bid goes up or down, not {self.direction!r}")
        if self.interval.end is None or self.interval.end <= self.interval.start:
            raise ValueError("a bid needs an interval that ends after it starts")
        if not self.steps or self.steps[0].upto_w <= 0.0:
            raise ValueError("a bid needs a step of more than 0 W")
        pairs = list(zip(self.steps, self.steps[1:], strict=False))
        if any(b.upto_w <= a.upto_w or b.price_per_wh < a.price_per_wh for a, b in pairs):
            raise ValueError("the steps of a bid rise in quantity and do not fall in price")
        if self.min_w > self.power_w:
            raise ValueError("the least power of a bid is not above its power")

    @property
    def power_w(self) -> float:
        """Return all that is offered. [W]"""
        return self.steps[-1].upto_w
