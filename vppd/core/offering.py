"""What is offered where: from joint samples of what the site can give to bids, so that nothing is sold twice. Pure.

A stock is one thing that can give power one way (a cluster's tier, a battery); a sale is a product in one delivery slot.
"""

from __future__ import annotations

from dataclasses import dataclass

from vppd.core.bidding import EPSILON_FRAC
from vppd.model import Interval
from vppd.snapshot import Floats

INF = float("inf")


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


@dataclass(frozen=True, slots=True)
class Sale:
    """A product in one delivery slot, as it may be offered."""

    product: str
    resource: str
    """Site name or feed tag: who is the seller."""
    direction: str
    """up: less consumption or more generation; down: more consumption."""
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
