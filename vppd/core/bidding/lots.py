"""The words between those who offer and those who split: resources, what is sure of them together, lots, and the split. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vppd.snapshot import Floats, Ints

INF = np.inf
SYMMETRIC = "symmetric"
"""As much of either direction: such a lot draws its power twice, from those that give it up and from those that give it down."""
SIDES = ("up", "down")


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """Something that can give power one way; what can give it both ways is two of them, with names of their own."""

    name: str
    direction: str
    """up: less consumption or more generation; down: more consumption."""
    response_s: float
    sure_w: Floats
    """(t,) what may be sold of it; INF where only what is sure together counts. [W]"""
    energy_wh: float | Floats = INF
    """What it can give in all, or from each step on, (t,). [Wh]"""
    recovery_steps: int = 0
    """After a slot the energy needs so many steps to come back."""
    cost_per_wh: float = 0.0
    missing_until: Ints | None = None
    """(t,) by the last step of a slot: the last step in which the energy given in it is missing; None: by ``recovery_steps``."""
    one_way: bool = False
    """It stands behind no symmetric lot."""

    def back_after(self, lot: Lot) -> int:
        """Return the last step in which what a lot takes of the energy is not there: until then it has not come back."""
        return (
            lot.last_step + self.recovery_steps
            if self.missing_until is None
            else int(self.missing_until[lot.last_step])
        )

    def is_missing(self, lot: Lot, step: int) -> bool:
        """Say whether what a lot takes of the energy is not there in a step: in its slot, and until it has come back."""
        return lot.first_step <= step <= self.back_after(lot)

    @property
    def is_endless(self) -> bool:
        """Say whether its energy has no end."""
        return bool(np.isinf(self.energy_wh).all())

    @property
    def left_wh(self) -> Floats:
        """Return the energy it can give from each step on, (t,). [Wh]"""
        return np.broadcast_to(np.asarray(self.energy_wh, dtype=np.float64), self.sure_w.shape)


@dataclass(frozen=True, slots=True)
class Lot:
    """A product in one slot: what may be offered, and what it is expected to earn."""

    name: str
    direction: str
    """up, down or symmetric."""
    first_step: int
    last_step: int
    """Both included."""
    activation_s: float
    sustain_h: float
    """Energy that must be there for each watt sold. [h]"""
    worth_per_w: float
    """Expected revenue less what it costs anyway, of a watt in this slot."""
    min_w: float = 0.0
    step_w: float = 1.0
    max_w: float = INF
    group: str = ""
    """At most one lot of a group is offered; empty: no group."""
    use_h: float = 0.0
    """So long a watt is expected to be used: at its resource's cost. [h]"""
    least_per_w: float = -INF
    """A watt is worth at least this, whatever its resource costs: it is offered for what it costs, and perhaps not taken."""
    limit_per_wh: float = INF
    """Resources that cost more are not used."""
    is_delivered: bool = False
    """Power is given through the whole slot, so that meanwhile nothing is charged."""
    is_held: bool = False
    """Sold already, all of ``max_w``: served before all others, and where it cannot be, nothing is added to it."""

    @property
    def steps(self) -> slice:
        """Return its steps."""
        return slice(self.first_step, self.last_step + 1)

    def is_in(self, step: int, after: int = 0) -> bool:
        """Say whether a step is one of its, or of the ``after`` next ones."""
        return self.first_step <= step <= self.last_step + after

    @property
    def sides(self) -> tuple[str, ...]:
        """Return the directions in which it draws its power, all of it in each."""
        return SIDES if self.direction == SYMMETRIC else (self.direction,)

    def net_per_w(self, resource: Resource) -> float:
        """Return what a watt of a resource is expected to earn: of a symmetric lot half, the other side earns the rest."""
        whole = max(self.worth_per_w - self.use_h * resource.cost_per_wh, self.least_per_w)
        return whole / len(self.sides)


@dataclass(frozen=True, slots=True)
class Together:
    """What is sure of several resources at once in a slot: more than is sure of each, as not all fail in the same minute.

    Or less, where what they give has to fit through the same connection. No step of the slot may have more drawn of them, once any lot of this slot is sold.
    """

    direction: str
    within_s: float
    """All lots count that ask for no more time than this. [s]"""
    names: frozenset[str]
    first_step: int
    last_step: int
    sure_w: float
    is_held: bool = False
    """A lot of this slot is sold already."""
    least_s: float = 0.0
    """Only lots of the slot that ask for no less time than this need it: those in more of a hurry cannot have all resources. [s]"""
    of: str = ""
    """Direction of the lots that need it; empty: its own. Symmetric ones trust each side with a part of what may be missed."""

    is_common: bool = True
    """Every lot that draws on these, and is counted, needs a bound about just these."""

    def counts(self, lot: Lot) -> bool:
        """Say whether what the lot draws of one of its resources counts."""
        return self.direction in lot.sides and lot.activation_s <= self.within_s

    def bounds(self, lot: Lot, name: str) -> bool:
        """Say whether what the lot draws of a resource counts."""
        return name in self.names and self.counts(lot)

    def is_of(self, lot: Lot) -> bool:
        """Say whether the lot, once sold, needs this bound."""
        return (
            (self.first_step, self.last_step) == (lot.first_step, lot.last_step)
            and (self.of or self.direction) == lot.direction
            and self.least_s <= lot.activation_s <= self.within_s
        )

    def rules(self, lot: Lot) -> bool:
        """Say whether the lot cannot draw more than this."""
        meets = self.first_step <= lot.last_step and lot.first_step <= self.last_step
        return self.is_of(lot) or (self.is_held and meets)


@dataclass(frozen=True, slots=True)
class Split:
    """What is offered."""

    offer_w: tuple[float, ...]
    """Of each lot. [W]"""
    drawn_w: tuple[tuple[tuple[str, float], ...], ...]
    """Per lot the resources behind it: (name, power [W])."""
    worth: float
    bound: float
    """No split is worth more."""
    status: str
    """optimal, incumbent, or heuristic when the solver found nothing in time."""
    short_w: tuple[float, ...] = ()
    """Of each lot that is held, what is not sure to be there. [W]"""


class Spans:
    """Tells which of many lots or bounds have a step in common with one: there are thousands, and few of them have."""

    def __init__(self, many: Sequence[Lot] | Sequence[Together]) -> None:
        self._firsts = np.array([one.first_step for one in many], dtype=np.int64)
        self._lasts = np.array([one.last_step for one in many], dtype=np.int64)

    def meeting(self, one: Lot | Together) -> list[int]:
        """Return the places of those that meet it, in their order."""
        meets = (self._firsts <= one.last_step) & (self._lasts >= one.first_step)
        return [int(place) for place in np.flatnonzero(meets)]


def suits(resource: Resource, lot: Lot) -> bool:
    """Say whether a resource may stand behind a lot."""
    return (
        resource.direction in lot.sides
        and not (resource.one_way and lot.direction == SYMMETRIC)
        and resource.response_s <= lot.activation_s
        and resource.cost_per_wh <= lot.limit_per_wh
    )


def worth_of(
    resources: Sequence[Resource], lots: Sequence[Lot], drawn_w: Sequence[Sequence[tuple[str, float]]]
) -> float:
    """Return what a split is expected to earn."""
    by_name = {resource.name: resource for resource in resources}
    return sum(lot.net_per_w(by_name[name]) * w for lot, own in zip(lots, drawn_w, strict=True) for name, w in own)
