"""What is offered where: from joint samples of what the site can give to bids, so that nothing is sold twice. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from vppd.core.bidding.bid import Bid
from vppd.core.bidding.greedy import greedy
from vppd.core.bidding.lots import SIDES, Lot, Resource, Spans, Together, suits
from vppd.core.bidding.pooling import sure
from vppd.core.bidding.quote import EPSILON_FRAC, Block, Charges, Reading, Step, price_curve
from vppd.core.bidding.split import split
from vppd.core.bidding.stock import INF, Claim, Horizon, Room, Sale, Stock, bid_id, energy_h
from vppd.model import Interval

__all__ = ["Claim", "Offering", "Room", "Sale", "Stock", "Unsold", "bid_id", "energy_h", "offering", "offers"]

_NOISE_W = 1e-6
"""Less than this is left over from adding floats."""
_SHORT_W = 1.0
"""Less than this is not missing."""
_LEAST_FRAC = 1e-3
"""What is not expected to be taken is worth this part of its price, so that it is still offered where nothing else uses it."""


@dataclass(frozen=True, slots=True)
class Unsold:
    """A sale that is not offered, and why."""

    product: str
    interval: Interval
    reason: str
    direction: str = "up"


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
    rooms: Sequence[Room] = (),
) -> tuple[Bid, ...]:
    """Return the bids of ``offering``."""
    return offering(sales, stocks, held, start=start, step_s=step_s, reading=reading, limit_s=limit_s, rooms=rooms).bids


def offering(
    sales: Sequence[Sale],
    stocks: Sequence[Stock],
    held: Sequence[Claim] = (),
    *,
    start: datetime,
    step_s: float,
    reading: Reading = Reading.MINUTES,
    limit_s: float = 2.0,
    rooms: Sequence[Room] = (),
) -> Offering:
    """Return the bids worth most together, after all that is held, with what the stocks are sure to give.

    ``start`` is the beginning of the stocks' step 0. ``held`` must hold everything that can be called: obligations of all products,
    bids whose gate is closed and that may be awarded yet, and bids on the wire that are not among ``sales``.
    ``rooms`` say what stocks together can give no more than. Raises ValueError when samples do not belong together.
    """
    horizon = Horizon(start, step_s, _steps_of(stocks, rooms))
    lots = [*(_held_lot(claim, horizon) for claim in held), *(_lot(sale, stocks, horizon) for sale in sales)]
    epsilons = [*(EPSILON_FRAC for _ in held), *(sale.epsilon_frac for sale in sales)]
    wanted = [
        (i, lot, frac) for i, (lot, frac) in enumerate(zip(lots, epsilons, strict=True)) if _is_inside(lot, horizon)
    ]
    found = _decided(stocks, wanted, rooms, reading, limit_s)
    bids, unsold, behind = [], [], {}
    for i, sale in enumerate(sales, start=len(held)):
        bid = _bid(sale, found.resources, found.drawn_w.get(i, ()))
        if bid is not None:
            bids.append(bid)
            behind[bid.bid_id] = found.drawn_w[i]
        else:
            unsold.append(Unsold(sale.product, sale.interval, _reason(lots[i], found, horizon, i), sale.direction))
    claims = range(len(held))
    short_w, held_behind = (found.short_w.get(i, 0.0) for i in claims), (found.drawn_w.get(i, ()) for i in claims)
    return Offering(tuple(bids), tuple(unsold), tuple(short_w), behind, tuple(held_behind), found.status)


Wanted = tuple[int, Lot, float]
"""The place of a lot among all, and its accepted probability that what is sold is not there."""


@dataclass(frozen=True, slots=True)
class _Decided:
    """What is drawn for which lot, by place among all."""

    resources: Sequence[Resource]
    together: Sequence[Together]
    spans: Spans
    """Of what is sure together."""
    drawn_w: Mapping[int, tuple[tuple[str, float], ...]]
    short_w: Mapping[int, float]
    status: str


def _decided(
    stocks: Sequence[Stock], wanted: Sequence[Wanted], rooms: Sequence[Room], reading: Reading, limit_s: float
) -> _Decided:
    """Return the split; without sales for a schedule where these would keep from recovering what is sold already."""
    found = _tried(stocks, wanted, rooms, reading, limit_s)
    patient = [(i, lot, frac) for i, lot, frac in wanted if lot.is_held or not lot.is_delivered]
    missing_w = sum(found.short_w.values())
    if missing_w > _SHORT_W and len(patient) < len(wanted):
        without = _tried(stocks, patient, rooms, reading, limit_s)
        if sum(without.short_w.values()) < missing_w - _SHORT_W:
            return without
    return found


def _tried(
    stocks: Sequence[Stock], wanted: Sequence[Wanted], rooms: Sequence[Room], reading: Reading, limit_s: float
) -> _Decided:
    lots = [lot for _, lot, _ in wanted]
    resources, together = sure(stocks, lots, [frac for _, _, frac in wanted], reading, rooms)
    found = split(resources, lots, together, limit_s=limit_s)
    places = [i for i, _, _ in wanted]
    drawn_w, short_w = dict(zip(places, found.drawn_w, strict=True)), dict(zip(places, found.short_w, strict=False))
    return _Decided(resources, together, Spans(together), drawn_w, short_w, found.status)


def _steps_of(stocks: Sequence[Stock], rooms: Sequence[Room]) -> int:
    samples = [*(stock.paths_w for stock in stocks), *(room.room_w for room in rooms)]
    if len({found_w.shape[1] for found_w in samples}) > 1:
        raise ValueError("the samples of all stocks need the same steps")
    if len({len(found_w) for found_w in samples if len(found_w) > 1}) > 1:
        raise ValueError("row i of all stocks must be the same moment: they have different numbers of rows")
    return stocks[0].paths_w.shape[1] if stocks else 0


def _is_inside(lot: Lot, horizon: Horizon) -> bool:
    return 0 <= lot.first_step <= lot.last_step < horizon.steps


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
    by_name = {resource.name: resource for resource in resources}
    sides = [
        [(by_name[name].cost_per_wh, w) for name, w in drawn_w if by_name[name].direction == side] for side in SIDES
    ]
    blocks = [Block(w, _price_per_wh(sale, cost)) for cost, w in _paired([side for side in sides if side])]
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


def _paired(sides: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Return (cost per Wh, power [W]) of what is drawn, the cheapest first; of two sides each watt costs the mean of both.

    What is called one way half of the time and the other way half of the time costs half of each.
    """
    queues = [sorted(side, reverse=True) for side in sides]
    found: list[tuple[float, float]] = []
    while queues and all(queues):
        power_w = min(queue[-1][1] for queue in queues)
        found.append((math.fsum(queue[-1][0] for queue in queues) / len(queues), power_w))
        for queue in queues:
            cost, left_w = queue.pop()
            if left_w - power_w > _NOISE_W:
                queue.append((cost, left_w - power_w))
    return found


def _reason(lot: Lot, found: _Decided, horizon: Horizon, place: int) -> str:
    """Return why a lot is not offered."""
    if not _is_inside(lot, horizon):
        return "it has begun" if lot.first_step < 0 else "it is beyond what is foreseen"
    able = [resource for resource in found.resources if suits(resource, lot)]
    if not all(any(resource.direction == side for resource in able) for side in lot.sides):
        return "nothing can give that in time for its price limit"
    if place not in found.drawn_w:
        return "storage would not recover in time for what is sold already"
    alone = Lot(
        lot.name, lot.direction, lot.first_step, lot.last_step, lot.activation_s, lot.sustain_h, 1.0,
        max_w=lot.max_w, limit_per_wh=lot.limit_per_wh,
    )  # fmt: skip
    near = [found.together[k] for k in found.spans.meeting(alone)]
    sure_w = greedy(able, [alone], near).offer_w[0]
    least_w = max(lot.min_w, lot.step_w)
    if sure_w < least_w:
        return f"{sure_w:.0f} W are sure in this slot, {least_w:.0f} W are the least"
    return "its power or energy is sold already or worth more elsewhere"
