"""What is sure of many stocks: each with an end to its energy for itself, all others together, and what fits the connection. Pure.

Not all clusters are low in the same minute, so what is sure of their sum is more than the sum of what is sure of each. What a sale
promises fails where anything it needs does: of all that, in the same samples, no more may be missed than was accepted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vppd.core.bidding.lots import INF, SYMMETRIC, Lot, Resource, Together
from vppd.core.bidding.quote import Reading, sure_w
from vppd.core.bidding.stock import Room, Stock
from vppd.core.bidding.sureness import careful_epsilon, is_enough, known_rows, sure_in_slot
from vppd.snapshot import Bools, Floats, Ints


def sure(
    stocks: Sequence[Stock],
    lots: Sequence[Lot],
    epsilons_frac: Sequence[float],
    reading: Reading,
    rooms: Sequence[Room] = (),
) -> tuple[list[Resource], list[Together]]:
    """Return what is sure of each stock with an end to its energy, and of the others together, in the slots of the lots."""
    together: list[Together] = []
    tight = [room for room in rooms if not _never_binds(room, stocks)]
    is_common = not any(stock.one_way for stock in stocks) or all(lot.direction != SYMMETRIC for lot in lots)
    for direction in sorted({lot.direction for lot in lots}):
        groups: dict[tuple[int, ...], _Group] = {}
        for lot, frac in zip(lots, epsilons_frac, strict=True):
            if lot.direction == direction:
                pools = {side: _pool(stocks, side, lot) for side in lot.sides}
                # Pools grow with the time there is: those of one size are the same.
                size = tuple(len(pool) for pool in pools.values())
                groups.setdefault(size, _Group(direction, pools, is_common)).slots.append(_Slot(lot, frac))
        for group in groups.values():
            together += _joint(group, tight, reading)
    return [_resource(stock, lots) for stock in stocks], together


@dataclass(frozen=True, slots=True)
class _Slot:
    """A lot and the accepted probability that what is sold in it is not there."""

    lot: Lot
    epsilon_frac: float


@dataclass(frozen=True, slots=True)
class _Group:
    """Lots of a direction that may draw from the same pools, one for each of their sides."""

    direction: str
    pools: Mapping[str, list[Stock]]
    is_common: bool
    """Lots of the other directions draw from the same pools."""
    slots: list[_Slot] = field(default_factory=list)


def _pool(stocks: Sequence[Stock], side: str, lot: Lot) -> list[Stock]:
    able = (s for s in stocks if s.direction == side and not (s.one_way and lot.direction == SYMMETRIC))
    return [s for s in able if s.energy_wh is None and s.response_s <= lot.activation_s]


def _never_binds(room: Room, stocks: Sequence[Stock]) -> bool:
    """Say whether there is room for all that its stocks could give, in every sample."""
    own = [np.nan_to_num(s.paths_w).max(axis=0) for s in stocks if s.name in room.names and len(s.paths_w)]
    return bool((room.room_w >= sum(own, np.zeros(room.room_w.shape[1]))).all())


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
        _missing_until(stock, lots, len(sure_w)), stock.one_way,
    )  # fmt: skip


def _missing_until(stock: Stock, lots: Sequence[Lot], steps: int) -> Ints:
    """Return by the last step of a slot how long the energy given in it is missing, (t,).

    Charging would undo a reduction that is being delivered, and discharging an increase: only steps in which none is, or may be,
    bring energy, or room for it, back.
    """
    is_idle = np.ones(steps, dtype=np.bool_)
    for lot in lots:
        if lot.is_delivered and lot.direction == stock.direction:
            is_idle[lot.steps] = False
    idle = np.concatenate([[0], np.cumsum(is_idle)])
    found = np.searchsorted(idle, idle[1:] + stock.recovery_steps, side="left") - 1
    return np.asarray(np.maximum(found, np.arange(steps)), dtype=np.int64)


def _joint(group: _Group, rooms: Sequence[Room], reading: Reading) -> list[Together]:
    """Return what is sure in each slot of the cheapest stocks of a pool together, of the next cheaper ones too, and so on."""
    slots, samples_w = group.slots, {side: _samples_w(pool) for side, pool in group.pools.items() if pool}
    fracs = {slot.epsilon_frac for slot in slots}
    new = sorted({_ends(slot) for slot in slots if not slot.lot.is_held})
    taught = {frac: frac for frac in fracs}
    for whole_w in samples_w.values():
        new_w = [whole_w[:, first : last + 1] for first, last in new]
        taught = {frac: min(careful_epsilon(new_w, reading, frac), taught[frac]) for frac in fracs}
    # What is sold already is bounded by its promise, what is sold now by a careful one.
    windows: dict[tuple[int, int, bool], float] = {}
    for slot in slots:
        frac = slot.epsilon_frac if slot.lot.is_held else taught[slot.epsilon_frac]
        key = *_ends(slot), slot.lot.is_held
        windows[key] = min(frac, windows.get(key, 1.0))
    subsets = [subset for side, pool in group.pools.items() if pool for subset in _subsets(side, pool)]
    hurries_s = [slot.lot.activation_s for slot in slots]
    found: list[Together] = []
    for (first, last, is_held), frac in windows.items():
        window = _Window(
            group.direction, first, last, is_held, min(hurries_s), max(hurries_s), reading, group.is_common
        )
        found += window.bounds(samples_w, subsets, frac)
        found += window.fitting([room for room in rooms if room.direction in group.pools], frac)
    return found


def _ends(slot: _Slot) -> tuple[int, int]:
    return slot.lot.first_step, slot.lot.last_step


@dataclass(frozen=True, slots=True)
class _Subset:
    """The cheapest stocks of a pool."""

    side: str
    names: frozenset[str]
    paths_w: Floats


def _subsets(side: str, pool: Sequence[Stock]) -> Iterator[_Subset]:
    """Yield the cheapest stocks of a pool, then the next cheaper ones with them, and so on; the whole pool comes last."""
    rows = max((len(stock.paths_w) for stock in pool), default=0)
    for cost_per_wh in sorted({stock.cost_per_wh for stock in pool}):
        cheap = [stock for stock in pool if stock.cost_per_wh <= cost_per_wh]
        yield _Subset(side, frozenset(stock.name for stock in cheap), _samples_w(cheap, rows))


def _samples_w(pool: Sequence[Stock], rows: int | None = None) -> Floats:
    """Return the sum of the stocks' samples, (rows, h); what is known for sure is the same in all rows. [W]"""
    if rows is None:
        rows = max((len(stock.paths_w) for stock in pool), default=0)
    some = [np.broadcast_to(stock.paths_w, (rows, stock.paths_w.shape[1])) for stock in pool if len(stock.paths_w)]
    return np.asarray(sum(some, np.zeros((rows, pool[0].paths_w.shape[1]))))


@dataclass(slots=True)
class _Window:
    """A slot in which something is or may be sold: what is sure there, and in which samples it is not."""

    direction: str
    first: int
    last: int
    is_held: bool
    least_s: float
    most_s: float
    """The lots of this slot that draw from the same pools ask for between so much and so much time. [s]"""
    reading: Reading
    is_common: bool
    missed: Bools | None = None
    """Samples in which something that is needed is not there; None: nothing that is needed was uncertain yet."""

    @property
    def steps(self) -> slice:
        """Return its steps."""
        return slice(self.first, self.last + 1)

    def bounds(
        self, samples_w: Mapping[str, Floats], subsets: Sequence[_Subset], epsilon_frac: float
    ) -> Iterator[Together]:
        """Yield what is sure of the pools; two sides that both may be missed share what may be missed."""
        doubtful = sum(_varies(whole_w[:, self.steps]) for whole_w in samples_w.values())
        share_frac = epsilon_frac / doubtful if doubtful and epsilon_frac > 0.0 else epsilon_frac
        for subset in subsets:
            there_w = self._share_w(subset.paths_w, share_frac, doubtful)
            yield self._bound(subset.side, subset.names, there_w, self.most_s, self.is_common)
        for whole_w in samples_w.values():
            self._miss(whole_w, self._share_w(whole_w, share_frac, doubtful))

    def _share_w(self, whole_w: Floats, share_frac: float, doubtful: int) -> float:
        """Return what is sure of a side that may miss a share of what is accepted; by the bare count of samples too. [W]"""
        found_w = sure_in_slot(whole_w[:, self.steps], self.reading, share_frac)
        known_w = known_rows(whole_w[:, self.steps])
        bare = doubtful > 1 and is_enough(known_w)
        return min(found_w, sure_w(known_w, self.reading, max(share_frac, 0.0))) if bare else found_w

    def fitting(self, rooms: Sequence[Room], epsilon_frac: float) -> Iterator[Together]:
        """Yield what fits each room: with what the stocks miss already, no more may be missed than was accepted."""
        for room in rooms:
            if self.least_s > room.within_s or room.of not in ("", self.direction):
                continue
            room_w, frac = room.room_w[:, self.steps], epsilon_frac
            if self.missed is not None:
                # What may be missed is, already: no more of the rest is, and what is missed anyway needs no room.
                room_w, frac = np.where(self.missed, np.nan_to_num(room_w).max(initial=0.0), room_w), min(frac, 0.0)
            fits_w = sure_in_slot(room_w, self.reading, frac)
            self._miss(room.room_w, fits_w)
            is_common = room.of == "" and room.within_s == INF
            yield self._bound(room.direction, room.names, fits_w, room.within_s, is_common)

    def _miss(self, whole_w: Floats, sure_w: float) -> None:
        if not _varies(whole_w[:, self.steps]):
            return
        missed = np.asarray(whole_w[:, self.steps] < sure_w * (1.0 - 1e-9))
        if self.reading is Reading.HOURS:
            missed = np.asarray(np.broadcast_to(missed.any(axis=1, keepdims=True), missed.shape))
        self.missed = missed if self.missed is None else np.asarray(self.missed | missed)

    def _bound(self, side: str, names: frozenset[str], sure_w: float, within_s: float, is_common: bool) -> Together:
        return Together(
            side, within_s, names, self.first, self.last, sure_w, is_held=self.is_held, least_s=self.least_s,
            of=self.direction, is_common=is_common,
        )  # fmt: skip


def _varies(samples_w: Floats) -> bool:
    """Say whether what is known of a slot is not the same throughout."""
    known_w = samples_w[np.isfinite(samples_w)]
    return bool(known_w.size and known_w.min() < known_w.max())
