"""Other participants: the same seed and slot give the same offers. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from decimal import Decimal

from vppd.market.book import Slot
from vppd.market.clearing import Offer, Rung

RIVAL = "rival-"
"""Names of other participants begin so."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many there are, and what they are like."""

    count: int = 0
    seed: int = 1
    power_w: float = 200e3
    """Size of a usual offer. [W]"""
    price_per_mwh: float = 100.0
    """Usual price; offers lie around it. [per MWh]"""
    spread_frac: float = 0.4
    """How far prices lie apart: standard deviation of their logarithm. [0-1]"""
    whole_frac: float = 0.25
    """Part of the offers that are indivisible. [0-1]"""


def rivals(crowd: Crowd, slot: Slot) -> list[Offer]:
    """Return what the others offer in a slot."""
    chance = random.Random(f"{crowd.seed} {slot}")  # noqa: S311 - a made-up market, no secret
    return [_offer(f"{RIVAL}{i + 1}", crowd, chance) for i in range(crowd.count)]


def _offer(name: str, crowd: Crowd, chance: random.Random) -> Offer:
    upto_w, price, rungs = 0, chance.lognormvariate(0.0, crowd.spread_frac) * crowd.price_per_mwh, []
    for _ in range(chance.randint(1, 3)):
        upto_w += max(1000, round(chance.uniform(0.2, 0.8) * crowd.power_w / 1000.0) * 1000)
        rungs.append(Rung(upto_w, Decimal(round(price * 100.0)) / 100))
        price *= 1.0 + chance.random() * crowd.spread_frac
    return Offer(name, tuple(rungs), divisible=chance.random() >= crowd.whole_frac, arrived=-1)
