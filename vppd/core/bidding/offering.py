"""What is offered where: from joint samples of what the site can give to bids, so that nothing is sold twice. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from vppd.core.bidding.bid import Bid
from vppd.core.bidding.greedy import greedy
from vppd.core.bidding.lots import Lot, Resource, Together, suits
from vppd.core.bidding.pooling import sure
from vppd.core.bidding.quote import EPSILON_FRAC, Block, Charges, Reading, Step, price_curve
from vppd.core.bidding.split import split
from vppd.core.bidding.stock import INF, Claim, Horizon, Sale, Stock, bid_id, energy_h
from vppd.model import Interval

__all__ = ["Claim", "Offering", "Sale", "Stock", "Unsold", "bid_id", "energy_h", "offering", "offers"]

_LEAST_FRAC = 1e-3
"""What is not expected to be taken is worth this part of its price, so that it is still offered where nothing else uses it."""


@dataclass(frozen=True, slots=True)
class Unsold:
    """A sale that is not offered, and why."""

    product: str
    interval: Interval
    reason: str


@dataclass(frozen=True, slots=True)
class Offering:
    """What is offered, what is not, and what is sold already but not sure to be there."""

    bids: tuple[Bid, ...]
    unsold: tuple[Unsold, ...]
    short_w: tuple[float, ...]
    """Of each claim, what is not sure to be there. [W]"""
    behind: Mapping[str, tuple[tuple[str, float], ...]]
    """Per bid, by its id, the stocks that stand behind it: (name, power [W])."""
    held_behind: tuple[tuple[tuple[str, float], ...], ...]
    """Per claim the same; without stocks that still can, none."""
    status: str
    """Of the split: optimal, incumbent or heuristic."""


def offers(
    sales: Sequence[Sale],
    stocks: Sequence[Stock],
    held: Sequence[Claim] = (),
    *,
    start: datetime,
    step_s: float,
    reading: Reading = Reading.MINUTES,
    limit_s: float = 2.0,
) -> tuple[Bid, ...]:
    """Return the bids of ``offering``."""
    return offering(sales, stocks, held, start=start, step_s=step_s, reading=reading, limit_s=limit_s).bids


def offering(
    sales: Sequence[Sale],
    stocks: Sequence[Stock],
    held: Sequence[Claim] = (),
    *,
    start: datetime,
    step_s: float,
    reading: Reading = Reading.MINUTES,
    limit_s: float = 2.0,
) -> Offering:
    """Return the bids worth most together, after all that is held, with what the stocks are sure to give.

    ``start`` is the beginning of the stocks' step 0. ``held`` must hold everything that can be called: obligations of all products,
    bids whose gate is closed and that may be awarded yet, and bids on the wire that are not among ``sales``.
    Raises ValueError when the stocks' samples do not belong together.
    """
    horizon = Horizon(start, step_s, _steps_of(stocks))
    lots = [_lot(sale, stocks, horizon) for sale in sales]
    claims = [_held_lot(claim, horizon) for claim in held]
    wanted = [lot for lot in (*claims, *lots) if _is_inside(lot, horizon)]
    epsilons = [*(EPSILON_FRAC for _ in held), *(sale.epsilon_frac for sale in sales)]
    epsilons = [frac for frac, lot in zip(epsilons, (*claims, *lots), strict=True) if _is_inside(lot, horizon)]
    resources, together = sure(stocks, wanted, epsilons, reading)
    found = split(resources, wanted, together, limit_s=limit_s)
    drawn, short = iter(found.drawn_w), iter(found.short_w)
    held_behind = tuple(next(drawn) if _is_inside(lot, horizon) else () for lot in claims)
    short_w = tuple(next(short) if _is_inside(lot, horizon) else 0.0 for lot in claims)
    bids, unsold, behind = [], [], {}
    for sale, lot in zip(sales, lots, strict=True):
        own = next(drawn) if _is_inside(lot, horizon) else ()
        bid = _bid(sale, resources, own)
        if bid is not None:
            bids.append(bid)
            behind[bid.bid_id] = own
        else:
            reason = _reason(lot, resources, together) if _is_inside(lot, horizon) else _outside(lot)
            unsold.append(Unsold(sale.product, sale.interval, reason))
    return Offering(tuple(bids), tuple(unsold), short_w, behind, held_behind, found.status)


def _steps_of(stocks: Sequence[Stock]) -> int:
    if len({stock.paths_w.shape[1] for stock in stocks}) > 1:
        raise ValueError("the samples of all stocks need the same steps")
    if len({len(stock.paths_w) for stock in stocks if len(stock.paths_w) > 1}) > 1:
        raise ValueError("row i of all stocks must be the same moment: they have different numbers of rows")
    return stocks[0].paths_w.shape[1] if stocks else 0


def _is_inside(lot: Lot, horizon: Horizon) -> bool:
    return 0 <= lot.first_step <= lot.last_step < horizon.steps


def _outside(lot: Lot) -> str:
    return "it has begun" if lot.first_step < 0 else "it is beyond what is foreseen"


def _held_lot(claim: Claim, horizon: Horizon) -> Lot:
    """Return what is left of a claim within the horizon."""
    first, end = horizon.span(claim.interval)
    first, end = max(first, 0), min(end, horizon.steps)
    left_h = max(end - first, 0) * horizon.step_s / 3600.0
    return Lot(
        name="held", direction=claim.direction, first_step=first, last_step=end - 1,
        activation_s=_within_s(claim.activation_s), sustain_h=min(energy_h(claim), left_h), worth_per_w=0.0,
        max_w=claim.power_w, is_held=True, is_delivered=claim.dispatch == "scheduled",
        # Sold first at the price of the cheapest stocks, so they stand behind it: what is sold now is priced at the next dearer ones.
        use_h=2.0 * left_h,
    )  # fmt: skip


def _within_s(activation_s: float | None) -> float:
    return INF if activation_s is None else activation_s


def _lot(sale: Sale, stocks: Sequence[Stock], horizon: Horizon) -> Lot:
    first, end = horizon.span(sale.interval)
    slot_h = (end - first) * horizon.step_s / 3600.0
    paid_h = slot_h if sale.is_capacity else slot_h * sale.use_frac
    dearest = max((stock.cost_per_wh for stock in stocks), default=0.0)
    price_per_wh = _price_per_wh(sale, dearest) if sale.expected_price_per_wh is None else sale.expected_price_per_wh
    return Lot(
        name=sale.product, direction=sale.direction, first_step=first, last_step=end - 1,
        activation_s=sale.activation_s,
        sustain_h=energy_h(sale, max_duration_s=sale.max_duration_s, resting_s=sale.resting_s),
        worth_per_w=(price_per_wh - _extra_per_wh(sale)) * paid_h,
        min_w=sale.min_w, step_w=sale.step_w, max_w=sale.max_w, group=sale.exclusive_group,
        use_h=slot_h * sale.use_frac,
        least_per_w=_LEAST_FRAC * max(abs(price_per_wh), dearest, 1e-9) * slot_h,
        limit_per_wh=_cost_limit_per_wh(sale), is_delivered=sale.dispatch == "scheduled",
    )  # fmt: skip


def _extra_per_wh(sale: Sale) -> float:
    return sale.margin_per_wh + sale.epsilon_frac * sale.penalty_per_wh


def _price_per_wh(sale: Sale, cost_per_wh: float) -> float:
    """Return what is asked for power of a stock: capacity pays for its use as often as it is expected."""
    return cost_per_wh * (sale.use_frac if sale.is_capacity else 1.0) + _extra_per_wh(sale)


def _cost_limit_per_wh(sale: Sale) -> float:
    """Return the dearest stock that the price limit still pays for."""
    part = sale.use_frac if sale.is_capacity else 1.0
    room_per_wh = sale.price_limit_per_wh - _extra_per_wh(sale)
    return room_per_wh / part if part > 0.0 else math.copysign(INF, room_per_wh)


def _bid(sale: Sale, resources: Sequence[Resource], drawn_w: Sequence[tuple[str, float]]) -> Bid | None:
    costs = {resource.name: resource.cost_per_wh for resource in resources}
    blocks = [Block(w, _price_per_wh(sale, costs[name])) for name, w in drawn_w]
    volume_w = math.fsum(block.power_w for block in blocks)
    steps = price_curve(blocks, volume_w, Charges(), step_w=sale.step_w, min_w=sale.min_w)
    if not steps:
        return None
    if not sale.divisible:
        mean_per_wh = math.fsum(block.power_w * block.cost_per_wh for block in blocks) / volume_w
        steps = (Step(steps[-1].upto_w, mean_per_wh),)
    return Bid(
        bid_id=bid_id(sale.product, sale.resource, sale.direction, sale.interval),
        product=sale.product, resource=sale.resource, direction=sale.direction, interval=sale.interval, steps=steps,
        currency=sale.currency, min_w=sale.min_w if sale.divisible else steps[-1].upto_w, divisible=sale.divisible,
        revision=sale.revision, activation_s=None if math.isinf(sale.activation_s) else sale.activation_s,
        max_duration_s=sale.max_duration_s, resting_s=sale.resting_s, exclusive_group=sale.exclusive_group,
        dispatch=sale.dispatch, sustain_s=sale.sustain_s,
    )  # fmt: skip


def _reason(lot: Lot, resources: Sequence[Resource], together: Sequence[Together]) -> str:
    """Return why a lot within the horizon is not offered."""
    able = [resource for resource in resources if suits(resource, lot)]
    if not able:
        return "nothing can give that in time for its price limit"
    alone = Lot(
        lot.name, lot.direction, lot.first_step, lot.last_step, lot.activation_s, lot.sustain_h, 1.0,
        max_w=lot.max_w, limit_per_wh=lot.limit_per_wh,
    )  # fmt: skip
    sure_w = greedy(able, [alone], together).offer_w[0]
    least_w = max(lot.min_w, lot.step_w)
    if sure_w < least_w:
        return f"{sure_w:.0f} W are sure in this slot, {least_w:.0f} W are the least"
    return "its power or energy is sold already or worth more elsewhere"
