"""What is sure of many stocks: each with an end to its energy for itself, all others together. Pure.

Not all clusters are low in the same minute, so what is sure of their sum is more than the sum of what is sure of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vppd.core.bidding import Reading
from vppd.core.bidding_lots import INF, Lot, Resource, Together
from vppd.core.stock import Stock
from vppd.core.sureness import Window, careful_epsilon, sure_in_steps
from vppd.snapshot import Floats


def sure(
    stocks: Sequence[Stock], lots: Sequence[Lot], epsilons_frac: Sequence[float], reading: Reading
) -> tuple[list[Resource], list[Together]]:
    """Return what is sure of each stock with an end to its energy, and of the others together, in the steps of the lots."""
    together: list[Together] = []
    for direction in sorted({lot.direction for lot in lots}):
        own = [place for place, lot in enumerate(lots) if lot.direction == direction]
        seen: set[int] = set()
        for within_s in sorted({lots[place].activation_s for place in own}, reverse=True):
            pool = [s for s in stocks if s.direction == direction and s.response_s <= within_s and s.energy_wh is None]
            # Lots in less of a hurry draw on the same stocks: one bound for all of them.
            if pool and len(pool) not in seen:
                some = [place for place in own if lots[place].activation_s <= within_s]
                windows = _windows([lots[place] for place in some], [epsilons_frac[place] for place in some])
                together += _joint(pool, within_s, windows, reading)
            seen.add(len(pool))
    return [_resource(stock) for stock in stocks], together


def _windows(lots: Sequence[Lot], epsilons_frac: Sequence[float]) -> list[Window]:
    """Return the steps of the lots once each, with the least epsilon of those that have them."""
    found: dict[tuple[int, int, bool], float] = {}
    for lot, frac in zip(lots, epsilons_frac, strict=True):
        key = lot.first_step, lot.last_step + 1, lot.is_held
        found[key] = min(frac, found.get(key, 1.0))
    return [Window(first, end, frac, is_held) for (first, end, is_held), frac in sorted(found.items())]


def _resource(stock: Stock) -> Resource:
    """Return a stock that stands for itself, by its worst sample; without an end to its energy it counts with others."""
    if stock.energy_wh is None:
        sure_w = np.full(stock.paths_w.shape[1], INF)
    else:
        sure_w = np.where(np.isfinite(stock.paths_w), stock.paths_w, INF).min(axis=0, initial=INF)
        sure_w = np.where(np.isfinite(sure_w), np.maximum(sure_w, 0.0), 0.0)
    energy_wh = INF if stock.energy_wh is None else np.nan_to_num(np.maximum(stock.energy_wh, 0.0), nan=0.0)
    return Resource(
        stock.name, stock.direction, stock.response_s, sure_w, energy_wh, stock.recovery_steps, stock.cost_per_wh
    )


def _joint(pool: Sequence[Stock], within_s: float, windows: Sequence[Window], reading: Reading) -> list[Together]:
    """Return what is sure of the cheapest stocks of a pool together, of the next cheaper ones too, and so on."""
    direction, steps = pool[0].direction, pool[0].paths_w.shape[1]
    some = [stock for stock in pool if len(stock.paths_w)]
    rows = max((len(stock.paths_w) for stock in some), default=0)
    taught = _taught(_total_w(some, rows, steps), windows, reading)
    found = []
    for cost_per_wh in sorted({stock.cost_per_wh for stock in pool}):
        names = frozenset(stock.name for stock in pool if stock.cost_per_wh <= cost_per_wh)
        paths_w = _total_w([stock for stock in some if stock.name in names], rows, steps)
        found.append(Together(direction, within_s, names, sure_in_steps(paths_w, taught, reading)))
    return found


def _taught(paths_w: Floats, windows: Sequence[Window], reading: Reading) -> list[Window]:
    """Return the windows with the epsilons that the samples teach."""
    slots_w = [paths_w[:, window.first : window.end] for window in windows if not window.is_held]
    fracs = {frac: careful_epsilon(slots_w, reading, frac) for frac in {window.epsilon_frac for window in windows}}
    return [w if w.is_held else replace(w, epsilon_frac=fracs[w.epsilon_frac]) for w in windows]


def _total_w(stocks: Sequence[Stock], rows: int, steps: int) -> Floats:
    """Return the sum of the stocks' samples, (rows, h); what is known for sure is the same in all rows. [W]"""
    return sum((np.broadcast_to(stock.paths_w, (rows, steps)) for stock in stocks), np.zeros((rows, steps)))
