"""The split without a solver: one lot after another, what is held first, then those worth most per watt and step. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vppd.core.bidding.lots import INF, Lot, Resource, Spans, Split, Together, suits, worth_of
from vppd.snapshot import Floats

Drawn = tuple[tuple[str, float], ...]


def greedy(resources: Sequence[Resource], lots: Sequence[Lot], together: Sequence[Together] = ()) -> Split:
    """Return offers that can be delivered together, each from the cheapest and then the slowest resources that will do."""
    store = _Store(resources, together)
    offers_w: list[float] = [0.0] * len(lots)
    short_w: list[float] = [0.0] * len(lots)
    drawn: list[Drawn] = [()] * len(lots)
    taken_groups: set[str] = set()
    for i in sorted(range(len(lots)), key=lambda i: (not lots[i].is_held, -_worth_of_a_step(resources, lots[i]))):
        lot = lots[i]
        if not lot.is_held and (lot.group in taken_groups or _best_per_w(resources, lot) <= 0.0):
            continue
        offers_w[i], drawn[i], short_w[i] = store.hold(lot) if lot.is_held else (*store.take(lot), 0.0)
        taken_groups |= {lot.group} if lot.group and offers_w[i] > 0.0 and not lot.is_held else set()
    worth = worth_of(resources, lots, drawn)
    status = "heuristic" if lots else "optimal"
    return Split(tuple(offers_w), tuple(drawn), worth, INF if lots else 0.0, status, tuple(short_w) if lots else ())


def _worth_of_a_step(resources: Sequence[Resource], lot: Lot) -> float:
    """Return what a watt earns in each step that it is taken for: a long slot keeps it from many short ones."""
    return _best_per_w(resources, lot) / (lot.last_step - lot.first_step + 1)


def _best_per_w(resources: Sequence[Resource], lot: Lot) -> float:
    """Return the most that a watt of a lot may earn; 0 where nothing stands on one of its sides."""
    able = [resource for resource in resources if suits(resource, lot)]
    best = [max((lot.net_per_w(r) for r in able if r.direction == side), default=0.0) for side in lot.sides]
    return sum(best) if min(best) > 0.0 else 0.0


class _Store:
    """What is left of everything."""

    def __init__(self, resources: Sequence[Resource], together: Sequence[Together]) -> None:
        self.resources, self.together = resources, together
        self._left_w = [resource.sure_w.astype(np.float64).copy() for resource in resources]
        steps = max((len(resource.sure_w) for resource in resources), default=0)
        self._joint_w = [np.zeros(steps) for _ in together]
        """What is drawn of them in each of their steps; elsewhere nobody asks."""
        self._spans = Spans(together)
        self._near_of: dict[tuple[int, int, float, str], list[int]] = {}
        self._in_force = [bound.is_held for bound in together]
        self._used: list[list[tuple[Lot, float]]] = [[] for _ in resources]
        """By resource: lot, energy [Wh]."""

    def take(self, lot: Lot) -> tuple[float, Drawn]:
        """Take what a lot can be given and return its offer [W] and what is drawn; nothing when it is too little."""
        kept = self._copy(lot)
        drawn = [self._draw(self._order(lot, side), lot, lot.max_w) for side in lot.sides]
        totals_w = [sum(w for _, w in own) for own in drawn]
        offer_w = float(np.floor(min(totals_w) / lot.step_w * (1.0 + 1e-12) + 1e-9)) * lot.step_w
        offer_w = offer_w if offer_w >= lot.min_w else 0.0
        if any(offer_w < total_w for total_w in totals_w):
            self._undo(lot, kept)
            drawn = [self._draw(self._order(lot, side), lot, offer_w) for side in lot.sides] if offer_w > 0.0 else []
        found = tuple(pair for own in drawn for pair in own)
        if not found:
            return 0.0, ()
        for place in self._near(lot):
            self._in_force[place] |= self.together[place].is_of(lot)
        return offer_w, found

    def hold(self, lot: Lot) -> tuple[float, Drawn, float]:
        """Take all of a lot, more than is left where it must be; return it, what is drawn, and how much is not there. [W]"""
        found: dict[str, float] = {}
        most_short_w = 0.0
        for side in lot.sides:
            order = self._order(lot, side)
            drawn = dict(self._draw(order, lot, lot.max_w))
            short_w = lot.max_w - sum(drawn.values())
            if order and short_w > 0.0:
                self._subtract(order[-1], lot, short_w)
                name = self.resources[order[-1]].name
                drawn[name] = drawn.get(name, 0.0) + short_w
            found |= drawn
            most_short_w = max(most_short_w, short_w)
        return lot.max_w, tuple(found.items()), most_short_w

    def _order(self, lot: Lot, side: str) -> list[int]:
        able = [
            r
            for r, resource in enumerate(self.resources)
            if resource.direction == side and suits(resource, lot) and (lot.is_held or lot.net_per_w(resource) > 0.0)
        ]
        return sorted(able, key=lambda r: (self.resources[r].cost_per_wh, -self.resources[r].response_s))

    def _copy(self, lot: Lot) -> tuple[list[Floats], list[Floats], list[int]]:
        """Return what a lot may change."""
        joint_w = [self._joint_w[place][lot.steps].copy() for place in self._near(lot)]
        return [w[lot.steps].copy() for w in self._left_w], joint_w, [len(own) for own in self._used]

    def _undo(self, lot: Lot, kept: tuple[list[Floats], list[Floats], list[int]]) -> None:
        for left_w, before_w in zip(self._left_w, kept[0], strict=True):
            left_w[lot.steps] = before_w
        for place, before_w in zip(self._near(lot), kept[1], strict=True):
            self._joint_w[place][lot.steps] = before_w
        for own, count in zip(self._used, kept[2], strict=True):
            del own[count:]

    def _draw(self, order: Sequence[int], lot: Lot, most_w: float) -> list[tuple[str, float]]:
        drawn = []
        for r in order:
            w = min(self._room_w(r, lot), most_w)
            if w > 0.0:
                self._subtract(r, lot, w)
                drawn.append((self.resources[r].name, w))
                most_w -= w
            if most_w <= 0.0:
                break
        return drawn

    def _subtract(self, r: int, lot: Lot, w: float) -> None:
        self._left_w[r][lot.steps] -= w
        for place in self._near(lot):
            if self.resources[r].name in self.together[place].names:
                self._joint_w[place][lot.steps] += w
        self._used[r].append((lot, w * lot.sustain_h))

    def _room_w(self, r: int, lot: Lot) -> float:
        """Return what a resource could still give to a lot in all its steps. [W]"""
        rooms_w = [float(self._left_w[r][lot.steps].min()), self._energy_room_w(r, lot)]
        for place in self._near(lot):
            bound = self.together[place]
            if self.resources[r].name in bound.names and (self._in_force[place] or bound.is_of(lot)):
                steps = slice(max(bound.first_step, lot.first_step), min(bound.last_step, lot.last_step) + 1)
                rooms_w.append(bound.sure_w - float(self._joint_w[place][steps].max()))
        return min(rooms_w)

    def _near(self, lot: Lot) -> list[int]:
        """Return the bounds that share a step with a lot and count what it draws."""
        key = (lot.first_step, lot.last_step, lot.activation_s, lot.direction)
        if key not in self._near_of:
            self._near_of[key] = [place for place in self._spans.meeting(lot) if self.together[place].counts(lot)]
        return self._near_of[key]

    def _energy_room_w(self, r: int, lot: Lot) -> float:
        """Return the power [W] that the energy left still sustains for the lot, and for those after it."""
        resource = self.resources[r]
        if resource.is_endless or lot.sustain_h <= 0.0:
            return INF
        least_wh = INF
        own = self._used[r]
        for t in range(lot.first_step, min(resource.back_after(lot) + 1, len(resource.sure_w))):
            busy = [other for other, _ in own if other.first_step <= t <= other.last_step]
            if t > lot.last_step and not busy:
                continue
            used_wh = sum(wh for other, wh in own if resource.is_missing(other, t))
            least_wh = min(least_wh, float(resource.left_wh[t]) - used_wh)
        return max(least_wh, 0.0) / lot.sustain_h
