"""Whether a site can sell a market product, how much of it, and which requirement fails by how much. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

_SURE_FRAC = 1e-9


class Direction(StrEnum):
    """Which way power moves when the product is activated."""

    REDUCE = "reduce"
    """Less consumption or more generation."""
    INCREASE = "increase"
    EITHER = "either"
    """Offered one way or the other."""
    SYMMETRIC = "symmetric"
    """Both ways by the same power."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a product asks for; None: the source does not say, so nothing is checked."""

    direction: Direction
    activation_s: float | None = None
    """Until full power. [s]"""
    sustain_s: float | None = None
    """For how long full power is held. [s]"""
    telemetry_s: float | None = None
    """Longest time between two values. [s]"""
    min_bid_w: float | None = None
    bid_step_w: float | None = None
    max_bid_w: float | None = None
    min_load_frac: float | None = None
    """Least capability as a part of normal load. [0-1]"""
    min_site_w: float | None = None
    """Least size of the site. [W]"""
    local_response: bool = False
    """Answers to the frequency it measures itself, so a UPS or PLC carries it out."""


@dataclass(frozen=True, slots=True)
class Ability:
    """What one asset can give when it is asked to."""

    name: str
    response_s: float
    reduce_w: float = 0.0
    increase_w: float = 0.0
    reduce_wh: float = math.inf
    """Energy behind it; a load has no end. [Wh]"""
    increase_wh: float = math.inf
    local_response: bool = False

    def power_w(self, reduce: bool, sustain_s: float) -> float:
        """Return what it can hold for ``sustain_s``. [W, >= 0]"""
        rated_w, energy_wh = (self.reduce_w, self.reduce_wh) if reduce else (self.increase_w, self.increase_wh)
        return rated_w if sustain_s <= 0.0 else min(rated_w, energy_wh * 3600.0 / sustain_s)


@dataclass(frozen=True, slots=True)
class Site:
    """The seller."""

    abilities: tuple[Ability, ...]
    load_w: float
    """Its size: the most it may draw. [W]"""
    telemetry_s: float


@dataclass(frozen=True, slots=True)
class Shortcoming:
    """A requirement that fails."""

    requirement: str
    have: float
    need: float
    unit: str
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the site can sell of one product."""

    offer_w: float
    """In whole steps; 0 when it does not qualify. [W]"""
    shortcomings: tuple[Shortcoming, ...]

    @property
    def qualifies(self) -> bool:
        """Say whether nothing that is known stands against it."""
        return not self.shortcomings


def qualify(terms: Terms, site: Site) -> Verdict:
    """Return how much of a product the site can offer, or every requirement that fails and by how much."""
    capable_w = able_w(terms, site.abilities)
    failing = [*_size(terms, site), *_power(terms, site, capable_w), *_telemetry(terms, site)]
    if failing:
        return Verdict(0.0, tuple(failing))
    step_w = terms.bid_step_w or 1.0
    offer_w = math.floor(capable_w / step_w * (1.0 + _SURE_FRAC)) * step_w
    return Verdict(min(offer_w, terms.max_bid_w or math.inf), ())


def able_w(
    terms: Terms, abilities: Iterable[Ability], *, in_time: bool = True, lasting: bool = True, locally: bool = True
) -> float:
    """Return the power the assets have for a product; a requirement that is set to False is left aside. [W, >= 0]"""
    chosen = [
        ability
        for ability in abilities
        if not (in_time and terms.activation_s is not None and ability.response_s > terms.activation_s)
        and not (locally and terms.local_response and not ability.local_response)
    ]
    sustain_s = (terms.sustain_s or 0.0) if lasting else 0.0
    reduce_w = sum(ability.power_w(True, sustain_s) for ability in chosen)
    increase_w = sum(ability.power_w(False, sustain_s) for ability in chosen)
    return {
        Direction.REDUCE: reduce_w,
        Direction.INCREASE: increase_w,
        Direction.EITHER: max(reduce_w, increase_w),
        Direction.SYMMETRIC: min(reduce_w, increase_w),
    }[terms.direction]


def _size(terms: Terms, site: Site) -> list[Shortcoming]:
    if terms.min_site_w is None or site.load_w >= terms.min_site_w:
        return []
    return [Shortcoming("site size", site.load_w, terms.min_site_w, "W", "the site is too small")]


def _power(terms: Terms, site: Site, capable_w: float) -> list[Shortcoming]:
    """Return the first requirement that takes the power below what must be offered, or that there is too little anyway."""
    need_w = max(terms.min_bid_w or 0.0, (terms.min_load_frac or 0.0) * site.load_w, min(terms.bid_step_w or 1.0, 1.0))
    if capable_w >= need_w * (1.0 - _SURE_FRAC):
        return []
    steps: Sequence[tuple[str, float, str]] = (
        ("power", able_w(terms, site.abilities, in_time=False, lasting=False, locally=False), "all assets together"),
        (
            "activation",
            able_w(terms, site.abilities, lasting=False, locally=False),
            f"fast enough for {terms.activation_s} s",
        ),
        (
            "local response",
            able_w(terms, site.abilities, lasting=False),
            "answering to frequency by themselves (local_response)",
        ),
        ("sustain", capable_w, f"lasting {terms.sustain_s} s"),
    )
    name, have_w, what = next(step for step in steps if step[1] < need_w * (1.0 - _SURE_FRAC))
    return [Shortcoming(name, have_w, need_w, "W", what)]


def _telemetry(terms: Terms, site: Site) -> list[Shortcoming]:
    if terms.telemetry_s is None or site.telemetry_s <= terms.telemetry_s:
        return []
    return [Shortcoming("telemetry", site.telemetry_s, terms.telemetry_s, "s", "values come too seldom")]
