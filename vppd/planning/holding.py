"""Whether what was sold is there, minute by minute, and the account of it at the end. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

import numpy as np

from vppd.core.aggregate import Image, aggregate, perceive, sum_up
from vppd.core.envelope import barred, envelope
from vppd.core.failsafe import Severity
from vppd.core.settle import TOLERANCE_FRAC
from vppd.core.state import Decision, Demand, Phase
from vppd.grid.award_statement import AwardStatement
from vppd.model import Obligation, OrderKind
from vppd.snapshot import Bools, Floats, Plant, Snapshot

EVERY_S = 60.0
"""So often it is looked whether the sold power is there. [s]"""


@dataclass(frozen=True, slots=True)
class Held:
    """Running account of one award; times are sums of whole looks."""

    known_s: float = 0.0
    """For so long there were readings. [s]"""
    held_s: float = 0.0
    """For so long at least the sold power was there or delivered. [s]"""
    lowest_w: float | None = None
    ordered_wh: float = 0.0
    delivered_wh: float = 0.0

    def to_body(self, award_id: str) -> dict[str, Any]:
        """Return plain JSON values that ``from_body`` turns back."""
        return {
            "award_id": award_id, "known_s": self.known_s, "held_s": self.held_s, "lowest_w": self.lowest_w,
            "ordered_wh": self.ordered_wh, "delivered_wh": self.delivered_wh,
        }  # fmt: skip

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """Return the account that ``to_body`` described. Raises KeyError or TypeError for anything else."""
        return cls(*(body[key] for key in ("known_s", "held_s", "lowest_w", "ordered_wh", "delivered_wh")))


@dataclass(frozen=True, slots=True)
class Look:
    """What was there of one award at one moment."""

    there_w: float | None
    """Deliverable or delivered; None when nobody can say. [W, >= 0]"""
    ordered_w: float = 0.0
    delivered_w: float = 0.0


def account(held: Held, look: Look, sold_w: float, for_s: float) -> Held:
    """Return the account after ``for_s`` more in which it was as the look says."""
    hours = for_s / 3600.0
    grown = replace(
        held,
        ordered_wh=held.ordered_wh + look.ordered_w * hours,
        delivered_wh=held.delivered_wh + look.delivered_w * hours,
    )
    if look.there_w is None:
        return grown
    is_held = look.there_w >= sold_w * (1.0 - TOLERANCE_FRAC)
    lowest_w = look.there_w if held.lowest_w is None else min(held.lowest_w, look.there_w)
    return replace(
        grown,
        known_s=held.known_s + for_s,
        held_s=held.held_s + (for_s if is_held else 0.0),
        lowest_w=lowest_w,
    )


def looks(
    obligations: Sequence[Obligation], snapshot: Snapshot, decision: Decision, plant: Plant
) -> Mapping[str, Look]:
    """Return what is there of each award now, by award id.

    What an order of the award's product has taken off the baseline counts as there; the rest must be possible from the present
    power on and for as long as can be asked for. What one award needs of it is not there for the next: nothing counts twice.
    """
    senses = perceive(snapshot, decision.state, plant)
    image = aggregate(snapshot, decision.state, plant, senses, decision.severity >= Severity.ISOLATE)
    # What nobody could order now is not there: the site takes no orders, or has been released.
    barred_now = decision.site_severity >= Severity.HOLD or snapshot.health.operator_release
    lowest = _Lowest(snapshot, image, plant, np.asarray(decision.severity >= Severity.PROTECT))
    taken_w = np.zeros(len(plant.nodes))
    asset_w = np.zeros(len(plant.asset_ids))
    credited_w: dict[tuple[str, str, str], float] = {}
    found: dict[str, Look] = {}
    for sold in obligations:
        node, asset = _place(sold.resource, plant)
        if node < 0 and asset < 0:
            found[sold.award_id] = Look(0.0)
            continue
        ordered_w, delivered_w = _own(sold, _running(sold, decision, image, plant), credited_w)
        free_w = lowest.free_w(node, asset, _sustained_s(sold, snapshot.at))
        if free_w is None:
            found[sold.award_id] = Look(None, ordered_w, delivered_w)
            continue
        free_w = 0.0 if barred_now else free_w
        used_w = float(taken_w[node] if asset < 0 else asset_w[asset])
        got_w = min(max(free_w - used_w, 0.0), sold.power_w - delivered_w)
        _take(got_w, node, asset, taken_w, asset_w, plant)
        found[sold.award_id] = Look(delivered_w + got_w, ordered_w, delivered_w)
    return found


def statement_of(sold: Obligation, held: Held) -> AwardStatement:
    """Return what is told of an award when it is over."""
    assert sold.interval.end is not None
    length_s = max((sold.interval.end - sold.interval.start).total_seconds(), 1e-9)
    ordered = held.ordered_wh > 0.0
    return AwardStatement(
        sold,
        held_frac=round(held.held_s / held.known_s, 6) if held.known_s > 0.0 else 0.0,
        complete_frac=round(min(held.known_s / length_s, 1.0), 6),
        ordered_wh=round(held.ordered_wh, 3) if ordered else None,
        delivered_wh=round(held.delivered_wh, 3) if ordered else None,
        lowest_w=None if held.lowest_w is None else round(held.lowest_w, 3),
    )


def _running(sold: Obligation, decision: Decision, image: Image, plant: Plant) -> tuple[float, float]:
    """Return what running orders of the award's product ask of its resource, and what they have taken off the baseline. [W]"""
    ordered_w = delivered_w = 0.0
    for demand in decision.demands:
        order = demand.order
        if (order.product, order.resource, order.issuer) != (sold.product, sold.resource, sold.issuer):
            continue
        progress = decision.state.progress.get(order.order_id)
        if progress is None or progress.phase is not Phase.ACTIVE or order.kind is not OrderKind.REDUCE:
            continue
        power_w = _power_w(demand, image, plant)
        if np.isfinite(power_w):
            ordered_w += order.power_w or 0.0
            delivered_w += max(progress.baseline_w - power_w, 0.0)
    return ordered_w, min(delivered_w, ordered_w)


def _own(
    sold: Obligation, running: tuple[float, float], credited_w: dict[tuple[str, str, str], float]
) -> tuple[float, float]:
    """Return an award's part of what its product's orders ask for and deliver: they fill one award after another. [W]"""
    key = (sold.product, sold.resource, sold.issuer)
    before_w = credited_w.get(key, 0.0)
    credited_w[key] = before_w + sold.power_w
    ordered_w, delivered_w = (min(max(w - before_w, 0.0), sold.power_w) for w in running)
    return ordered_w, delivered_w


def _power_w(demand: Demand, image: Image, plant: Plant) -> float:
    return float(image.node_power_w[demand.node] if demand.asset < 0 else image.power_w[demand.asset])


def _sustained_s(sold: Obligation, at: datetime) -> float:
    """Return for how long full power may still be asked for. [s]"""
    assert sold.interval.end is not None
    left_s = (sold.interval.end - at).total_seconds()
    wanted_s = left_s if sold.sustain_s is None else min(sold.sustain_s, left_s)
    return max(wanted_s, EVERY_S)


@dataclass(slots=True, eq=False)
class _Lowest:
    """How low power can go and stay, computed once for each time it has to last."""

    snapshot: Snapshot
    image: Image
    plant: Plant
    guarded: Bools
    """(n,) storage that may not discharge."""
    _found: dict[float, tuple[Floats, Floats]] = field(default_factory=dict)

    def free_w(self, node: int, asset: int, sustain_s: float) -> float | None:
        """Return by how much power could fall from here and stay, None when the meter says nothing. [W, >= 0]"""
        if sustain_s not in self._found:
            self._found[sustain_s] = self._lowest_w(sustain_s)
        asset_w, node_w = self._found[sustain_s]
        if asset >= 0:
            power_w = float(self.image.power_w[asset])
            return max(power_w - float(asset_w[asset]), 0.0) if np.isfinite(power_w) else None
        if self.image.meter_stale or not self.image.node_known[node]:
            return None
        return max(float(self.image.node_power_w[node] - node_w[node]), 0.0)

    def _lowest_w(self, sustain_s: float) -> tuple[Floats, Floats]:
        plant, image = self.plant, self.image
        bounds = barred(envelope(self.snapshot.readings, image, plant, sustain_s), self.guarded, ~image.usable)
        own_w = np.bincount(plant.node, weights=bounds.lower_w, minlength=len(plant.nodes))
        return bounds.lower_w, np.maximum(sum_up(plant, image.base_w + own_w), plant.node_lower_w)


def _place(resource: str, plant: Plant) -> tuple[int, int]:
    """Return the node and the asset of a resource, -1 for what it is not."""
    node = plant.nodes.index(resource) if resource in plant.nodes else -1
    return node, plant.asset_ids.index(resource) if resource in plant.asset_ids else -1


def _take(
    got_w: float,
    node: int,
    asset: int,
    taken_w: Floats,
    asset_w: Floats,
    plant: Plant,
) -> None:
    """Note that power is spoken for: at the resource and at every node above it."""
    if asset >= 0:
        asset_w[asset] += got_w
        node = int(plant.node[asset])
    while node >= 0:
        taken_w[node] += got_w
        node = int(plant.parent[node])
