"""What one cycle hands to the next, and what it decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vppd.core.failsafe import RULES
from vppd.core.settle import Delivery
from vppd.core.settled import Recent
from vppd.model import Order
from vppd.snapshot import Bools, Floats, Plant

Codes = NDArray[np.int8]


class Phase(StrEnum):
    """Life-cycle of an order."""

    SCHEDULED = "scheduled"
    ACTIVE = "active"
    COMPLETED = "completed"
    ABORTED = "aborted"


class Command(IntEnum):
    """What is done to an asset this cycle."""

    NONE = 0
    """No write: not ours, or isolated."""
    SETPOINT = 1
    RELEASE = 2
    """Give it back to its own default."""


class Reason(IntEnum):
    """Why an asset got what it got; ``REASONS`` has the sentences."""

    WATCHED = 0
    FREE = 1
    RECHARGE = 2
    ORDER = 3
    BRIDGE = 4
    HANDED_BACK = 5
    PROTECTED = 6
    ISOLATED = 7
    NOT_READY = 8
    HELD_STEADY = 9
    PLANNED = 10


REASONS: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.WATCHED: "watched only",
        Reason.FREE: "no obligation on its feed",
        Reason.RECHARGE: "recharging towards its resting charge",
        Reason.ORDER: "its share of the obligation at least cost",
        Reason.BRIDGE: "covers the gap until slower assets land",
        Reason.HANDED_BACK: "power is given back by the ramp",
        Reason.PROTECTED: "discharge is barred by a failsafe",
        Reason.ISOLATED: "not written to: a failsafe isolates it",
        Reason.NOT_READY: "nothing is written before the start-up checks are done",
        Reason.HELD_STEADY: "kept where it is: the change is within its dead band",
        Reason.PLANNED: "as the plan has it: nothing else binds",
    }
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an order has come."""

    phase: Phase
    since: datetime
    start_w: float = 0.0
    """Measured power of its resource when it became active. [W]"""
    baseline_w: float = 0.0
    """What would be drawn without us, frozen when it became active. [W]"""
    delivery: Delivery = field(default_factory=Delivery)


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Memory of the cycle; shapes as in Plant."""

    mono_s: float
    """Time of the cycle that made it, -inf before the first. [s]"""
    progress: Mapping[str, Progress]
    target_w: Floats
    """(n,) last setpoints, NaN where none. [W]"""
    power_w: Floats
    """(n,) last believed powers. [W]"""
    counted: Bools
    """(n,) assets that were told apart from the inflexible load."""
    soc_frac: Floats
    """(n,) last believed state of charge. [0-1]"""
    soc_mono_s: Floats
    """(n,) when it was believed. [s]"""
    base_w: Floats
    """(m,) inflexible power of each node itself. [W]"""
    lower_w: Floats
    """(m,) lower bound in force on each node, -inf when free. [W]"""
    upper_w: Floats
    """(m,) upper bound in force on each node, inf when free. [W]"""
    off_since_s: Floats
    """(n,) since when storage has been far from its setpoint, inf while it follows. [s]"""
    tripped_s: Floats
    """(r, n) last time each asset rule of the failsafe table held. [s]"""
    wished_w: Floats | None = None
    """(n,) how far the wishes of the plan have got by the site's ramps, NaN for none; None: there is no wish. [W]"""
    recent: Recent | None = None
    """What was read in the cycles before, once meters and clusters were not read at once."""
    named_lower_w: Floats | None = None
    """(n,) lower bound in force on assets that orders name, -inf when free; None: all are. [W]"""
    unheld_before_w: Floats | None = None
    """(n,) what generators that we hold back could give before, when they cannot say so, NaN for others; None: all can. [W]"""

    @classmethod
    def first(cls, plant: Plant, progress: Mapping[str, Progress] | None = None) -> State:
        """Return the state of a plant about which nothing is known but its orders' progress."""
        n, m = len(plant.asset_ids), len(plant.nodes)
        return cls(
            mono_s=-np.inf,
            progress=progress or {},
            target_w=np.full(n, np.nan),
            power_w=np.full(n, np.nan),
            counted=np.zeros(n, dtype=np.bool_),
            soc_frac=np.full(n, np.nan),
            soc_mono_s=np.full(n, -np.inf),
            base_w=np.full(m, np.nan),
            lower_w=np.full(m, -np.inf),
            upper_w=np.full(m, np.inf),
            off_since_s=np.full(n, np.inf),
            tripped_s=np.full((len(RULES), n), -np.inf),
        )


@dataclass(frozen=True, slots=True)
class Transition:
    """An order moved to another phase."""

    order: Order
    progress: Progress
    reason: str


@dataclass(frozen=True, slots=True)
class Demand:
    """What one active order asks of one node (or asset) now."""

    order: Order
    node: int
    """Node index, -1 when it is about an asset."""
    asset: int
    """Asset index, -1 when it is about a node."""
    lower_w: float
    upper_w: float
    steady_lower_w: float
    """The same for slow assets, without the fast signal. [W]"""
    steady_upper_w: float
    rate_w_per_s: float
    """How fast it may be reached. [W/s]"""


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What the cycle decided, and why."""

    state: State
    command: Codes
    """(n,) Command."""
    target_w: Floats
    """(n,) setpoints, NaN where there is none. [W]"""
    reason: Codes
    """(n,) Reason."""
    severity: Codes
    """(n,) Severity of each asset."""
    cause: Codes
    """(n,) row of the failsafe table behind it, -1 for none."""
    site_severity: int
    site_causes: tuple[str, ...]
    node_power_w: Floats
    """(m,) believed power. [W]"""
    node_wanted_upper_w: Floats
    """(m,) what the orders want in the end. [W]"""
    node_upper_w: Floats
    """(m,) what the ramp allows now. [W]"""
    node_planned_w: Floats
    """(m,) what the setpoints will give. [W]"""
    shortfall_w: Floats
    """(m,) > 0: cannot get down to the upper bound; < 0: cannot get up to the lower bound. [W]"""
    demands: tuple[Demand, ...] = ()
    transitions: tuple[Transition, ...] = field(default=())
