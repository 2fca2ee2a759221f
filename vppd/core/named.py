"""Orders that name a single asset -> what it may draw, and what it is to draw at least, reached and given back by ramps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vppd.core.aggregate import Image
from vppd.core.arbitrate import Proposal, arbitrate
from vppd.core.economics import PutOff
from vppd.core.envelope import Envelope
from vppd.core.state import Demand, State
from vppd.model import Bounds, OrderKind
from vppd.snapshot import Bools, Floats, Plant


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """What orders want of the assets they name, shapes (n,)."""

    upper_w: Floats
    """Most each may draw, inf without such an order. [W]"""
    lower_w: Floats | None
    """Least each is to draw within the limits of its nodes, -inf when free; None when all are. [W]"""
    ordered: Bools
    """Named by an order that is in force."""

    @property
    def raised(self) -> Bools:
        """Say which are to draw more than they would by themselves."""
        return np.zeros_like(self.ordered) if self.lower_w is None else np.isfinite(self.lower_w)

    @property
    def held(self) -> Bools:
        """Say which are ordered, or still being given back."""
        return self.ordered | self.raised


def named(demands: Sequence[Demand], state: State, plant: Plant, image: Image, dt_s: float) -> Named:
    """Return what the orders that name an asset want after ``dt_s``: of setpoints at once, of increases by their ramp."""
    n = len(plant.asset_ids)
    upper_w, ordered = np.full(n, np.inf), np.zeros(n, dtype=np.bool_)
    for d in demands:
        if d.asset >= 0:
            upper_w[d.asset] = min(upper_w[d.asset], d.steady_upper_w)
            ordered[d.asset] = True
    if not ordered.any() and state.named_lower_w is None:
        return Named(upper_w, None, ordered)
    lower_w = _lowered(state, plant, image, dt_s)
    for asset in map(int, np.flatnonzero(ordered)):
        mine = [d for d in demands if d.asset == asset]
        left = _left(Bounds(-np.inf, np.inf), mine)
        raising = [d for d in mine if d.order.kind is OrderKind.INCREASE]
        ramped_w = _raised(raising, state, image, plant, dt_s) if raising else float(lower_w[asset])
        lower_w[asset] = max(left.lower_w, min(ramped_w, left.upper_w))
    return Named(upper_w, lower_w if np.isfinite(lower_w).any() else None, ordered)


def _raised(mine: Sequence[Demand], state: State, image: Image, plant: Plant, dt_s: float) -> float:
    """Return the lower bound of one asset, a step nearer to the highest of its increases. [W]"""
    asset, goal_w = mine[0].asset, max(d.lower_w for d in mine)
    before_w = -np.inf if state.named_lower_w is None else float(state.named_lower_w[asset])
    if not np.isfinite(before_w):
        before_w = min(float(np.nan_to_num(image.power_w[asset])), goal_w)
    up_w, down_w = max(d.rate_w_per_s for d in mine) * dt_s, plant.ramp_down_w_per_s * dt_s
    return min(max(goal_w, before_w - down_w), before_w + up_w)


def _lowered(state: State, plant: Plant, image: Image, dt_s: float) -> Floats:
    """Return the lower bounds of all assets, a step down together by the site's ramp; -inf where one would draw as much by itself. [W]"""
    if state.named_lower_w is None:
        return np.full(len(plant.node), -np.inf)
    from_w = np.minimum(state.named_lower_w, np.nan_to_num(image.power_w))
    natural_w = image.available_w - PutOff.of(state, image, plant).asset_w
    lower_w = from_w - plant.ramp_down_w_per_s * dt_s
    return np.where(image.usable & (lower_w > natural_w), lower_w, -np.inf)


def narrowed(bounds: Envelope, demands: Sequence[Demand]) -> Envelope:
    """Return the envelope narrowed from above by orders that name an asset. [W]

    What they want at least is no bound here but worth more than all else (``merit``): an asset that has to charge would break
    the limits of the nodes it hangs on.
    """
    if all(d.asset < 0 for d in demands):
        return bounds
    upper_w = bounds.upper_w.copy()
    for asset in {d.asset for d in demands if d.asset >= 0}:
        feasible = Bounds(float(bounds.lower_w[asset]), float(upper_w[asset]))
        upper_w[asset] = _left(feasible, [d for d in demands if d.asset == asset]).upper_w
    return Envelope(bounds.lower_w, upper_w)


def _left(feasible: Bounds, mine: Sequence[Demand]) -> Bounds:
    """Return what the orders that name one asset leave of its range, increases aside. [W]"""
    own = [d for d in mine if d.order.kind is not OrderKind.INCREASE]
    return arbitrate(
        feasible, [Proposal(d.order.order_id, d.order.priority, Bounds(d.lower_w, d.upper_w)) for d in own]
    )
