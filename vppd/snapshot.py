"""The process image in columns: one array slot per asset or node, in the order of ``Plant``.

Shapes: n assets, m nodes of the limit tree (node 0 is the root: the portfolio or the site). NaN is missing, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from vppd.model import TIERS, Kind, Obligation, Order, Signal

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

KINDS = tuple(Kind)
"""``Plant.kind`` holds indices into this tuple."""


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """Latest values of all assets, copied at one moment: what the cycle sees."""

    power_w: Floats
    """(n,) measured power. [W, + = into the asset]"""
    soc_frac: Floats
    """(n,) state of charge. [0-1]"""
    available_w: Floats
    """(n,) power if nobody held it back. [W, + = consumption]"""
    lower_w: Floats
    """(n,) least power the device allows. [W]"""
    upper_w: Floats
    """(n,) most power the device allows. [W]"""
    tier_shed_w: Floats
    """(n, 4) sheddable power by flex tier. [W, >= 0]"""
    setpoint_w: Floats
    """(n,) setpoint the device says it follows, NaN for none. [W]"""
    mono_s: Floats
    """(n,) monotonic time of the device's last reply, -inf for never. [s]"""
    on_battery: Bools
    """(n,) UPS on battery."""
    faulty: Bools
    """(n,) device reports a fault of its own."""
    online: Bools
    """(n,) the device's link is up."""
    rejected: Bools
    """(n,) the last write was refused, or read back as something else, and not yet resolved."""

    @classmethod
    def blank(cls, n: int) -> Readings:
        """Return an image in which nothing has been heard yet."""
        nan, no = np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
        return cls(
            power_w=nan.copy(),
            soc_frac=nan.copy(),
            available_w=nan.copy(),
            lower_w=nan.copy(),
            upper_w=nan.copy(),
            tier_shed_w=np.zeros((n, TIERS)),
            setpoint_w=nan.copy(),
            mono_s=np.full(n, -np.inf),
            on_battery=no.copy(),
            faulty=no.copy(),
            online=no.copy(),
            rejected=no.copy(),
        )

    def copy(self) -> Readings:
        """Return an image that later writes to this one do not touch."""
        return Readings(**{f.name: getattr(self, f.name).copy() for f in fields(self)})


@dataclass(frozen=True, slots=True)
class Health:
    """What the runtime knows about itself, as facts for the failsafe table."""

    ready: bool = False
    """Ledger replayed and every device tried once."""
    link_lost: bool = False
    """No dispatch broker for longer than the configured limit."""
    ledger_ok: bool = True
    ledger_corrupt: bool = False
    ledger_fault_s: float = 0.0
    """How long commits have been failing; 0 while they succeed. [s]"""
    clock_ok: bool = True
    late_s: float = 0.0
    """How late this cycle is against its beat. [s]"""
    operator_release: bool = False
    """The operator has released the plant and not handed it back."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """All that one decision may look at."""

    at: datetime
    mono_s: float
    readings: Readings
    orders: tuple[Order, ...] = ()
    """Accepted orders that have not been closed, in order of acceptance."""
    signals: tuple[Signal, ...] = ()
    health: Health = Health()
    preferred_w: Floats | None = None
    """(n,) what the plan wishes now: power of storage, budget of clusters, most that PV and wind give (negative); NaN for none. [W]"""
    sold: tuple[Obligation, ...] | None = None
    """What is sold and kept ready, now or soon (``promised.kept_ready``); None for nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Plant:
    """What does not change from cycle to cycle: the assets, the tree of limits, the policy."""

    asset_ids: tuple[str, ...]
    kind: Ints
    """(n,) index into KINDS."""
    node: Ints
    """(n,) the node each asset hangs on."""
    controllable: Bools
    fast: Bools
    """(n,) answers within about a second (storage, inverters); others are slow (clusters)."""
    rated_lower_w: Floats
    rated_upper_w: Floats
    ramp_w_per_s: Floats
    """(n,) inf for none."""
    capacity_wh: Floats
    """(n,) storage size, NaN for others. [Wh]"""
    reserve_frac: Floats
    """(n,) ride-through reserve, 0 for others. [0-1]"""
    soc_target_frac: Floats
    """(n,) where storage rests when nobody needs it. [0-1]"""
    efficiency_frac: Floats
    """(n,) one-way efficiency of storage. [0-1]"""
    wear_cost_per_wh: Floats
    """(n,) cost of moving away from the preferred power. [1/Wh]"""
    tier_cost_per_wh: Floats
    """(n, 4) cost of shed compute by flex tier; tier 0 is never shed."""
    gap_asset: Ints
    """(g,) assets that cannot run in some open range; an asset may have several."""
    gap_lower_w: Floats
    """(g,) lower edge of that range. [W]"""
    gap_upper_w: Floats
    """(g,) upper edge of that range. [W]"""
    stale_after_s: Floats
    """(n,) age beyond which a reading is not used. [s]"""
    nodes: tuple[str, ...]
    """Names: portfolio, site id, feed tags."""
    parent: Ints
    """(m,) parent node, -1 for the root; parent[i] < i."""
    node_lower_w: Floats
    """(m,) physical export limit as a negative power. [W]"""
    node_upper_w: Floats
    """(m,) physical import limit. [W]"""
    meter: Ints
    """(m,) the asset that meters the node, -1 for none."""
    cycle_s: float
    lease_s: float
    margin_frac: float
    """Held below every limit. [0-1]"""
    ramp_down_w_per_s: float
    """Site ramp while an order tightens. [W/s]"""
    ramp_up_w_per_s: float
    """Site ramp while power is given back. [W/s]"""
    plausible_frac: float = 1.5
    """A power beyond this many times the rating is not believed."""
