"""How far the power of every place can go and stay, both ways, beside what is spoken for already. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from vppd.core.aggregate import Image
from vppd.core.economics import PutOff
from vppd.core.envelope import barred, envelope
from vppd.core.failsafe import Severity
from vppd.core.state import Decision
from vppd.model import OrderKind
from vppd.planning.trade.moved import path_of
from vppd.snapshot import Floats, Plant, Snapshot

Side = Literal["up", "down"]
"""up: less consumption; down: more."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """Power that is spoken for, for so long."""

    power_w: float
    sustain_s: float
    path: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Leeway:
    """What can still be asked of the places of a plant (nodes, then assets); ``claim`` speaks for a part of it."""

    snapshot: Snapshot
    decision: Decision
    image: Image
    plant: Plant
    reference_w: Floats
    """(m + n,) what every place would draw if no order of a product had moved it: a meter sees both ways from there. [W]"""
    times_s: tuple[float, ...]
    """For so long something is to last: every one that ``free_w`` and ``claim`` are called with. [s]"""
    _claims: dict[Side, list[_Claim]] = field(default_factory=lambda: {"up": [], "down": []})
    _able: dict[float, dict[Side, Floats]] = field(default_factory=dict)

    @property
    def put_off_w(self) -> Floats:
        """Return what the plan has put off at every place, (m + n,): no part of what an increase counts from. [W, >= 0]"""
        put_off = PutOff.of(self.decision.state, self.image, self.plant)
        return np.concatenate((put_off.node_w, put_off.asset_w))

    def knows(self, place: int) -> bool:
        """Say whether the place has been measured, now."""
        if place >= len(self.plant.nodes):
            return bool(np.isfinite(self.reference_w[place]))
        return not self.image.meter_stale and bool(self.image.node_known[place])

    def claim(self, side: Side, place: int, power_w: float, sustain_s: float) -> None:
        """Speak for power at a place, and so at every node above it. [W], [s]"""
        if power_w > 0.0:
            self._claims[side].append(_Claim(power_w, sustain_s, path_of(place, self.plant)))

    def free_w(self, side: Side, place: int, sustain_s: float) -> float:
        """Return the power that can be had for ``sustain_s`` beside all that is spoken for. [W, >= 0]

        Of what can be had for a time T, power that is to last for s uses the energy of min(s, T), at its place and at every node
        above it. For storage of all sizes behind one place that is exactly what can be served together: the greatest energy that
        it can give within T is T times what it can hold for T, and claims fit if theirs is no greater for any T.
        """
        path = [p for p in path_of(place, self.plant) if p == place or self.knows(p)]
        left_w = np.inf
        for lasts_s in self.times_s:
            able_w = self._able_w(lasts_s)[side]
            for where in path:
                left_ws = lasts_s * float(able_w[where]) - self._claimed_ws(side, where, lasts_s)
                left_w = min(left_w, left_ws / min(sustain_s, lasts_s))
        return max(float(left_w), 0.0)

    def _claimed_ws(self, side: Side, place: int, lasts_s: float) -> float:
        return sum(c.power_w * min(c.sustain_s, lasts_s) for c in self._claims[side] if place in c.path)

    def _able_w(self, lasts_s: float) -> dict[Side, Floats]:
        """Return how far every place could go from its reference and stay for so long, alone, (m + n,). [W]"""
        if lasts_s not in self._able:
            plant, image = self.plant, self.image
            guarded = np.asarray(self.decision.severity >= Severity.PROTECT)
            bounds = barred(envelope(self.snapshot.readings, image, plant, lasts_s), guarded, ~image.usable)
            most_w = self._most_w()
            upper_w = np.maximum(np.minimum(bounds.upper_w, most_w[len(plant.nodes) :]), bounds.lower_w)
            lowest_w = _summed(plant, image.base_w, bounds.lower_w, plant.node_lower_w, np.maximum)
            highest_w = _summed(plant, image.base_w, upper_w, most_w[: len(plant.nodes)], np.minimum)
            still_w = np.where(image.usable, np.nan, self.reference_w[len(plant.nodes) :])
            lower_w = np.where(image.usable, bounds.lower_w, still_w)
            upper_w = np.where(image.usable, upper_w, still_w)
            # An order counts from the baseline, where storage rests: neither what is charged anyway nor what is given anyway is moved.
            rest_w = np.concatenate((image.baseline_w, np.where(image.usable, image.available_w, still_w)))
            self._able[lasts_s] = {
                "up": np.minimum(self.reference_w, rest_w) - np.concatenate((lowest_w, lower_w)),
                "down": np.concatenate((highest_w, upper_w)) - np.maximum(self.reference_w, rest_w - self.put_off_w),
            }
        return self._able[lasts_s]

    def _most_w(self) -> Floats:
        """Return the most that every place may draw: its physical limit, and what orders of now limit it to. [W]"""
        found_w = np.concatenate((self.plant.node_upper_w, np.full(len(self.plant.asset_ids), np.inf)))
        for demand in self.decision.demands:
            if demand.order.kind is OrderKind.LIMIT:
                place = demand.node if demand.asset < 0 else len(self.plant.nodes) + demand.asset
                found_w[place] = min(found_w[place], demand.upper_w)
        return found_w


def _summed(plant: Plant, base_w: Floats, own_w: Floats, limit_w: Floats, within: np.ufunc) -> Floats:
    """Return each node's total of what hangs on it and beneath it, every node within its limit. [W]"""
    total_w = base_w + np.bincount(plant.node, weights=own_w, minlength=len(base_w))
    for i in range(len(total_w) - 1, -1, -1):
        total_w[i] = within(total_w[i], limit_w[i])
        if plant.parent[i] >= 0:
            total_w[plant.parent[i]] += total_w[i]
    return np.asarray(total_w)


def distinct(times_s: Sequence[float]) -> tuple[float, ...]:
    """Return the times without repetition, the shortest first. [s]"""
    return tuple(sorted(set(times_s)))
