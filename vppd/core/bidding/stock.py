"""What can be sold, and where: a stock is one thing that can give power one way, a sale is a product in one delivery slot. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Protocol

from vppd.core.bidding.quote import EPSILON_FRAC
from vppd.model import Interval
from vppd.snapshot import Floats

INF = float("inf")
Span = tuple[int, int]
"""First step, and the one after the last."""


@dataclass(frozen=True, slots=True, eq=False)
class Stock:
    """One thing that can give power one way, beyond what is planned for it anyway."""

    name: str
    direction: str
    """up: less consumption or more generation; down: more consumption."""
    response_s: float
    """From the order to all of its power. [s]"""
    cost_per_wh: float
    """What each Wh given costs: delay of jobs, wear, energy; in the currency of the sales."""
    paths_w: Floats
    """(i, h) joint samples of the power it can give in each step; row i is the same past moment in all stocks. [W, >= 0]

    One row alone is what is known for sure (a battery by its timetable). A row with NaN in the steps of a slot is left out
    for that slot. No rows: nothing can be sold of it.
    """
    energy_wh: Floats | None = None
    """(h,) energy it can give from each step on at its terminals, by its timetable, above its reserve; None: no end to it. [Wh]"""
    recovery_steps: int = 0
    """So many steps after a slot the energy given in it is back."""
    one_way: bool = False
    """It stands behind no symmetric sale: it is none of what is counted there."""


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """What several stocks together can give no more than, however much each has: all of it has to pass the same connection."""

    name: str
    """Site name or feed tag."""
    direction: str
    """up or down: that of the stocks."""
    names: frozenset[str]
    """Of the stocks."""
    room_w: Floats
    """(i, h) joint samples of the same moments as the stocks', or one row that is known for sure; NaN is not known. [W]"""
    within_s: float = INF
    """Only what is sold to be there within this time needs it. [s]"""
    of: str = ""
    """Only sales of this direction need it; empty: all that draw on the stocks."""


@dataclass(frozen=True, slots=True)
class Sale:
    """A product in one delivery slot, as it may be offered."""

    product: str
    resource: str
    """Site name or feed tag: who is the seller."""
    direction: str
    """up: less consumption or more generation; down: more consumption; symmetric: as much of either, from up and down stocks."""
    interval: Interval
    """The slot: its steps are those of the forecast that it touches."""
    currency: str
    activation_s: float = INF
    """Stocks that are slower are not counted. [s]"""
    sustain_s: float | None = None
    """So long full power is held in one activation; None: the whole slot. [s]"""
    min_w: float = 0.0
    step_w: float = 1.0
    max_w: float = INF
    divisible: bool = True
    epsilon_frac: float = EPSILON_FRAC
    """Accepted probability that what was sold is not there: 1 - availability of the product. [0-1]"""
    price_limit_per_wh: float = INF
    """No step may be dearer. Capacity: per W and hour, here and below."""
    expected_price_per_wh: float | None = None
    """What the market is expected to pay; None: not known, then all sales are worth the same."""
    is_capacity: bool = False
    """Paid per W and hour for being ready; else per Wh delivered."""
    use_frac: float = 1.0
    """Expected part of the slot in which it is activated: so much of the cost is expected. [0-1]"""
    margin_per_wh: float = 0.0
    penalty_per_wh: float = 0.0
    """Owed for each sold Wh that is not there."""
    dispatch: str = "order"
    """scheduled: delivered over the whole slot without a further order; order: kept ready."""
    max_duration_s: float | None = None
    """Longest activation, told in the bid. [s]"""
    resting_s: float | None = None
    """Rest between two activations, told in the bid. [s]"""
    exclusive_group: str = ""
    """At most one sale of a group is offered."""
    revision: int = 1


class Slot(Protocol):
    """A part of the time in which power may be called for."""

    @property
    def interval(self) -> Interval: ...  # noqa: D102

    @property
    def sustain_s(self) -> float | None: ...  # noqa: D102

    @property
    def dispatch(self) -> str: ...  # noqa: D102


class Claim(Slot, Protocol):
    """What is sold already: an Obligation, or a Bid whose gate is closed and whose award is not known yet."""

    @property
    def direction(self) -> str: ...  # noqa: D102

    @property
    def power_w(self) -> float: ...  # noqa: D102

    @property
    def activation_s(self) -> float | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Horizon:
    """The steps that samples are given for."""

    start: datetime
    step_s: float
    steps: int

    def span(self, interval: Interval) -> Span:
        """Return the steps an interval touches, perhaps before the first or behind the last; an open one never ends."""
        first = math.floor((interval.start - self.start).total_seconds() / self.step_s + 1e-6)
        if interval.end is None:
            return first, self.steps
        return first, math.ceil((interval.end - self.start).total_seconds() / self.step_s - 1e-6)


def bid_id(product: str, resource: str, direction: str, interval: Interval) -> str:
    """Return the id (a UUID) of the bid for a product in a slot: the same whenever it is offered or revised."""
    end = "" if interval.end is None else interval.end.timestamp()
    name = f"vppd/bid/{product}/{resource}/{direction}/{interval.start.timestamp()}/{end}"
    digest = bytearray(sha256(name.encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80  # version 8: one's own digest
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def energy_h(slot: Slot, *, max_duration_s: float | None = None, resting_s: float | None = None) -> float:
    """Return the energy that must stand behind each watt sold. [Wh/W]

    Scheduled: the whole slot. On order: as long as an activation lasts, as often as the rest between two lets it begin in the slot.
    """
    end = slot.interval.end
    slot_s = (end - slot.interval.start).total_seconds() if end else math.inf
    once_s = max(slot.sustain_s or 0.0, max_duration_s or 0.0) or slot_s
    if slot.dispatch == "scheduled" or once_s >= slot_s:
        return slot_s / 3600.0
    often = 1 if resting_s is None else 1 + max(0, math.floor((slot_s - once_s) / max(once_s + resting_s, 1e-3)))
    return min(often * once_s, slot_s) / 3600.0
