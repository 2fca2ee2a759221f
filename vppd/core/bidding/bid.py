"""The one internal bid: what every writer starts from, and what has become of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any, Literal, Self

from vppd.core.bidding.quote import Step
from vppd.model import Interval

CENT = Decimal("0.01")
"""Offered prices are whole hundredths per MWh, rounded up: no Wh is offered below what it costs."""
NOISE_PLACES = 6
"""Digits of a price per MWh beyond this are the noise of adding floats."""
DIRECTIONS = ("up", "down", "symmetric")
"""up: less consumption or more generation; down: more consumption; symmetric: as much of either."""
State = Literal["offered", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Bid:
    """An offer of power for an interval, in steps whose prices never fall: whoever takes a step takes those before it."""

    bid_id: str
    """A UUID; it stays the same through all revisions."""
    product: str
    resource: str
    """Site name, feed tag or asset id."""
    direction: str
    """One of ``DIRECTIONS``."""
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
    """At most one bid of a group may be accepted; a group's name is used for one set of bids, ever."""
    dispatch: str = "order"
    """scheduled: an award is carried out over its whole interval by itself; order: it is kept ready until it is ordered."""
    sustain_s: float | None = None
    """For how long full power can be asked for. [s]"""

    def __post_init__(self) -> None:
        """Refuse what no market could read. Raises ValueError."""
        if self.direction not in DIRECTIONS:
            raise ValueError(f"a bid goes up, down, or both ways alike (symmetric), not {self.direction!r}")
        if self.dispatch not in {"scheduled", "order"}:
            raise ValueError(f"a bid is dispatched as scheduled or by order, not {self.dispatch!r}")
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

    @property
    def end(self) -> datetime:
        """Return when its interval ends."""
        assert self.interval.end is not None
        return self.interval.end

    def to_body(self) -> dict[str, Any]:
        """Return plain JSON values that ``from_body`` turns back into an equal Bid."""
        body = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("interval", "steps")}
        body["steps"] = [[step.upto_w, step.price_per_wh] for step in self.steps]
        body["start"], body["end"] = self.interval.start.isoformat(), self.end.isoformat()
        return body

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """Return the Bid that ``to_body`` described. Raises KeyError, TypeError or ValueError for anything else."""
        rest = {k: v for k, v in body.items() if k not in ("start", "end", "steps")}
        interval = Interval(datetime.fromisoformat(body["start"]), datetime.fromisoformat(body["end"]))
        return cls(interval=interval, steps=tuple(Step(w, price) for w, price in body["steps"]), **rest)


@dataclass(frozen=True, slots=True)
class Offered:
    """A bid as it was told to the market last, and what has been taken of it."""

    bid: Bid
    state: State
    gate_closes_at: datetime
    """Until when it could be revised."""
    awarded_w: float = 0.0
    """Sum of all awards, of earlier revisions too. [W]"""

    @property
    def left_w(self) -> float:
        """Return what can still be awarded. [W, >= 0]"""
        return max(self.bid.power_w - self.awarded_w, 0.0) if self.state == "offered" else 0.0


def price_per_mwh(step: Step) -> Decimal:
    """Return the price of a step as it is offered, per MWh, exactly."""
    return Decimal(repr(round(step.price_per_wh * 1e6, NOISE_PLACES))).quantize(CENT, ROUND_CEILING)


def unfit_revision(known: Offered | None, bid: Bid, state: State) -> str:
    """Return why ``bid`` may not follow ``known`` on the market, empty when it may: awards must stay inside what is offered."""
    if known is None:
        return "" if state == "offered" else "it was never offered"
    before = known.bid
    if (before.product, before.resource, before.direction, before.interval) != (
        bid.product, bid.resource, bid.direction, bid.interval,
    ):  # fmt: skip
        return "a revision keeps product, resource, direction and interval"
    if bid.power_w < known.awarded_w:
        return f"{known.awarded_w:g} W of it have been awarded, more than {bid.power_w:g} W"
    if state == "withdrawn" and known.state == "withdrawn":
        return "it is withdrawn already"
    if bid.revision < before.revision or (bid.revision == before.revision and state == "offered"):
        return f"revision {bid.revision} does not follow {before.revision}"
    return ""
