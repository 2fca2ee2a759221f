"""What is sure of many stocks: each with an end to its energy for itself, all others together. Pure.

Not all clusters are low in the same minute, so what is sure of their sum is more than the sum of what is sure of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vppd.core.bidding.lots import INF, Lot, Resource, Together
from vppd.core.bidding.quote import Reading
from vppd.core.bidding.stock import Stock
from vppd.core.bidding.sureness import careful_epsilon, sure_in_slot
from vppd.snapshot import Floats, Ints


def sure(
    stocks: Sequence[Stock], lots: Sequence[Lot], epsilons_frac: Sequence[float], reading: Reading
) -> tuple[list[Resource], list[Together]]:
    """Return what is sure of each stock with an end to its energy, and of the others together, in the slots of the lots."""
    together: list[Together] = []
    for direction in sorted({lot.direction for lot in lots}):
        pools: dict[int, tuple[list[Stock], list[_Slot]]] = {}
        for lot, frac in zip(lots, epsilons_frac, strict=True):
            if lot.direction == direction:
                pool = [s for s in stocks if _is_pooled(s, direction) and s.response_s <= lot.activation_s]
                # Pools grow with the time there is: those of one size are the same.
                pools.setdefault(len(pool), (pool, []))[1].append(_Slot(lot, frac))
        for pool, slots in pools.values():
            together += _joint(pool, slots, reading) if pool else []
    return [_resource(stock, lots) for stock in stocks], together


@dataclass(frozen=True, slots=True)
class _Slot:
    """A lot and the accepted probability that what is sold in it is not there."""

    lot: Lot
    epsilon_frac: float


def _is_pooled(stock: Stock, direction: str) -> bool:
    return stock.direction == direction and stock.energy_wh is None


def _resource(stock: Stock, lots: Sequence[Lot]) -> Resource:
    """Return a stock that stands for itself, by its worst sample; without an end to its energy it counts with others."""
    if stock.energy_wh is None:
        sure_w = np.full(stock.paths_w.shape[1], INF)
    else:
        sure_w = np.where(np.isfinite(stock.paths_w), stock.paths_w, INF).min(axis=0, initial=INF)
        sure_w = np.where(np.isfinite(sure_w), np.maximum(sure_w, 0.0), 0.0)
    energy_wh = INF if stock.energy_wh is None else np.nan_to_num(np.maximum(stock.energy_wh, 0.0), nan=0.0)
    return Resource(
        stock.name, stock.direction, stock.response_s, sure_w, energy_wh, stock.recovery_steps, stock.cost_per_wh,
        _missing_until(stock.recovery_steps, lots, len(sure_w)),
    )  # fmt: skip


def _missing_until(recovery_steps: int, lots: Sequence[Lot], steps: int) -> Ints:
    """Return by the last step of a slot how long the energy given in it is missing, (t,).

    Charging would undo a reduction that is being delivered: only steps in which none is, or may be, bring energy back.
    """
    is_idle = np.ones(steps, dtype=np.bool_)
    for lot in lots:
        if lot.is_delivered and lot.direction == "up":
            is_idle[lot.steps] = False
    idle = np.concatenate([[0], np.cumsum(is_idle)])
    found = np.searchsorted(idle, idle[1:] + recovery_steps, side="left") - 1
    return np.asarray(np.maximum(found, np.arange(steps)), dtype=np.int64)


def _joint(pool: Sequence[Stock], slots: Sequence[_Slot], reading: Reading) -> list[Together]:
    """Return what is sure in each slot of the cheapest stocks of a pool together, of the next cheaper ones too, and so on."""
    some = [stock for stock in pool if len(stock.paths_w)]
    rows, steps = max((len(stock.paths_w) for stock in some), default=0), pool[0].paths_w.shape[1]
    whole_w = _total_w(some, rows, steps)
    new_w = [whole_w[:, first : last + 1] for first, last in sorted({_ends(s) for s in slots if not s.lot.is_held})]
    taught = {frac: careful_epsilon(new_w, reading, frac) for frac in {slot.epsilon_frac for slot in slots}}
    hurries_s = [slot.lot.activation_s for slot in slots]
    # What is sold already is bounded by its promise, what is sold now by a careful one.
    windows: dict[tuple[int, int, bool], float] = {}
    for slot in slots:
        frac = slot.epsilon_frac if slot.lot.is_held else taught[slot.epsilon_frac]
        key = *_ends(slot), slot.lot.is_held
        windows[key] = min(frac, windows.get(key, 1.0))
    found = []
    for cost_per_wh in sorted({stock.cost_per_wh for stock in pool}):
        names = frozenset(stock.name for stock in pool if stock.cost_per_wh <= cost_per_wh)
        paths_w = _total_w([stock for stock in some if stock.name in names], rows, steps)
        for (first, last, is_held), frac in windows.items():
            sure_w = sure_in_slot(paths_w[:, first : last + 1], reading, frac)
            found.append(
                Together(
                    pool[0].direction,
                    max(hurries_s),
                    names,
                    first,
                    last,
                    sure_w,
                    is_held=is_held,
                    least_s=min(hurries_s),
                )
            )
    return found


def _ends(slot: _Slot) -> tuple[int, int]:
    return slot.lot.first_step, slot.lot.last_step


def _total_w(stocks: Sequence[Stock], rows: int, steps: int) -> Floats:
    """Return the sum of the stocks' samples, (rows, h); what is known for sure is the same in all rows. [W]"""
    return sum((np.broadcast_to(stock.paths_w, (rows, steps)) for stock in stocks), np.zeros((rows, steps)))
