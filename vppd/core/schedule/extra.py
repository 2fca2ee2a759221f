"""What an instance may ask for beyond energy: reserves, feeds, a demand charge, carbon, green power, loads that suffer.

All of it is optional. An instance without any of it has no ``Extras`` and is planned as if they did not exist.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vppd.snapshot import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class DemandCharge:
    """What the highest import of the horizon costs beyond the peak that is billed already. [W, per W]"""

    cost_per_w: float
    billed_peak_w: float


@dataclass(frozen=True, slots=True)
class Carbon:
    """Grams of CO2 in each Wh bought, and what a gram costs. Nothing is credited for export. [g/Wh, per g]"""

    intensity_g_per_wh: Floats
    cost_per_g: float


@dataclass(frozen=True, slots=True)
class Reserve:
    """Power that must stay deliverable at every step, for ``sustain_h``, from those who may give it. [W, h]"""

    name: str
    up: bool
    """Towards less consumption; else towards more."""
    power_w: Floats
    sustain_h: float
    shortfall_cost_per_wh: float | None
    """What each W not held for an hour costs; None where all of it must be held."""
    batteries: Bools
    loads: Bools


@dataclass(frozen=True, slots=True)
class Feed:
    """A part of the site with a limit of its own; ``inflexible_w`` is its part of the site's inflexible load. [W]"""

    tag: str
    import_max_w: float
    export_max_w: float
    """Infinite where there is no limit."""
    inflexible_w: Floats
    batteries: Bools
    renewables: Bools
    loads: Bools


@dataclass(frozen=True, slots=True)
class GreenBefore:
    """What the first window holds already from before the first step: a year so far, say. [Wh]"""

    used_wh: float = 0.0
    available_wh: float = 0.0
    load_wh: float = 0.0
    contracted_wh: float = 0.0

    def missing_wh(self, key: str, frac: float) -> float:
        """Return by how much the rule of this name was missed, below 0 where there is something in hand. [Wh]"""
        if key == "share_of_load_frac":
            return frac * self.load_wh - self.used_wh - self.contracted_wh
        return frac * self.available_wh - self.used_wh


@dataclass(frozen=True, slots=True)
class Green:
    """Parts of load and of available generation that renewables must cover and the site must use. [0-1]

    Counted over windows; what the site exports is not used. None where a rule is not asked for. Only the load's rule counts what is
    bought under contract: it is matched step by step with what the site imports.
    """

    share_of_load_frac: float | None
    self_use_frac: float | None
    window_steps: int
    first_window_steps: int
    """Of the first window, which may have begun before the first step."""
    shortfall_cost_per_wh: float | None
    """What each Wh short of a rule costs; None where the rules must hold."""
    before: GreenBefore
    contracted_w: Floats
    """(h,) what is bought from renewables elsewhere as they produce it. [W]"""
    counted_load_w: Floats | None
    """(h,) what of the inflexible load the share is of, None for all of it. [W]"""

    def rules(self) -> list[tuple[str, float]]:
        """Return the rules that are asked for, by name, and their parts. [0-1]"""
        both = ("share_of_load_frac", self.share_of_load_frac), ("self_use_frac", self.self_use_frac)
        return [(key, frac) for key, frac in both if frac is not None]

    def windows(self, steps: int) -> list[slice]:
        """Return the steps of each window, the last one perhaps shorter."""
        starts = [0, *range(self.first_window_steps, steps, self.window_steps)]
        return [slice(at, end) for at, end in zip(starts, [*starts[1:], steps], strict=True)]

    def counted_w(self, inflexible_load_w: Floats) -> Floats:
        """Return what of the inflexible load the share is of, (h,). [W]"""
        return inflexible_load_w if self.counted_load_w is None else self.counted_load_w

    def matched_w(self, import_w: Floats) -> Floats:
        """Return what of the import is covered by what is bought under contract, (h,). [W]"""
        return np.minimum(np.maximum(import_w, 0.0), self.contracted_w)


@dataclass(frozen=True, slots=True)
class LoadTerms:
    """What holding a flexible load back costs and brings, one entry per load in every array."""

    delay_cost_per_wh_h: Floats
    """What a Wh costs for each hour that it is served after the load's first step begins."""
    soft: Bools
    """The energy need may stay open, at a cost."""
    curtail_cost_per_wh: Floats
    """What each Wh never served costs, where the need is soft."""
    rebound_frac: Floats
    """What part of the energy held back from the most power comes back."""
    rebound_steps: Ints
    """Steps over which it comes back, evenly."""


@dataclass(frozen=True, slots=True)
class Extras:
    """Everything beyond energy that the instance asks for."""

    demand: DemandCharge | None
    carbon: Carbon | None
    """Its cost is in the instance's import price already."""
    reserves: tuple[Reserve, ...]
    feeds: tuple[Feed, ...]
    green: Green | None
    terms: LoadTerms

    def of(self, batteries: Ints, loads: Ints) -> Extras:
        """Return the same for the batteries and loads with these numbers."""
        terms = self.terms
        return replace(
            self,
            reserves=tuple(replace(r, batteries=r.batteries[batteries], loads=r.loads[loads]) for r in self.reserves),
            feeds=tuple(replace(f, batteries=f.batteries[batteries], loads=f.loads[loads]) for f in self.feeds),
            terms=LoadTerms(
                delay_cost_per_wh_h=terms.delay_cost_per_wh_h[loads],
                soft=terms.soft[loads],
                curtail_cost_per_wh=terms.curtail_cost_per_wh[loads],
                rebound_frac=terms.rebound_frac[loads],
                rebound_steps=terms.rebound_steps[loads],
            ),
        )

    def battery_keys(self) -> list[Floats]:
        """Return what batteries must have in common to be taken together, besides their shape."""
        members = [reserve.batteries for reserve in self.reserves] + [feed.batteries for feed in self.feeds]
        return [of.astype(np.float64) for of in members]

    def load_keys(self) -> list[Floats]:
        """Return what loads must have in common to be taken together, besides their shape."""
        terms = self.terms
        own = (
            terms.delay_cost_per_wh_h,
            terms.soft,
            terms.curtail_cost_per_wh,
            terms.rebound_frac,
            terms.rebound_steps,
        )
        members = [reserve.loads for reserve in self.reserves] + [feed.loads for feed in self.feeds]
        return [np.asarray(key, dtype=np.float64) for key in (*own, *members)]

    def rewards_waste(self) -> bool:
        """Say whether losing energy in a battery may pay at any step, whatever the prices.

        A reserve wants room in a battery or power that could be dropped, the green rules want less export.
        """
        return bool(self.reserves) or self.green is not None

    def reserved_w(self, *, up: bool, steps: int) -> Floats:
        """Return what all reserves of one direction ask for together at each step. [W]"""
        return sum((r.power_w for r in self.reserves if r.up is up), np.zeros(steps))
