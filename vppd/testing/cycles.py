"""A plant in a table: given readings and orders, step ``decide`` in virtual time and look at what came of it.

The physics is deliberately plain (storage follows in one step unless told otherwise, compute follows after a delay) so
that a test can say exactly what must happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from vppd.config.load import Config
from vppd.config.plant import AssetConfig, FeedConfig, SiteConfig
from vppd.core.cycle import decide
from vppd.core.promised import kept_ready
from vppd.core.state import Command, Decision, State, Transition
from vppd.model import Interval, Kind, Obligation, Order, OrderKind, Signal
from vppd.plant import plant_of
from vppd.snapshot import Floats, Health, Plant, Readings, Snapshot

START = datetime(2026, 1, 1, tzinfo=UTC)


def two_feeds(**site: object) -> Config:
    """Return a site of two feeds with a UPS and a hall on main-a, a battery, PV and a hall on main-b."""
    return Config(
        site=SiteConfig.model_validate(
            {"id": "dc1", "agent_id": "agent", "import_max_w": 1.2e6, "export_max_w": 1e5, "ramp_up_w_per_s": 20e3} | site
        ),
        feeds=(
            FeedConfig(tag="main-a", meter="poi-a", import_max_w=600e3),
            FeedConfig(tag="main-b", meter="poi-b", import_max_w=600e3, export_max_w=1e5),
        ),
        assets=(
            AssetConfig(id="poi-a", kind=Kind.METER, feed="main-a", adapter="x"),
            AssetConfig(id="poi-b", kind=Kind.METER, feed="main-b", adapter="x"),
            AssetConfig(
                id="ups-a", kind=Kind.UPS, feed="main-a", adapter="x", capacity_wh=100e3, reserve_frac=0.3,
                rated_charge_w=100e3, rated_discharge_w=200e3,
            ),
            AssetConfig(
                id="bess-b", kind=Kind.BATTERY, feed="main-b", adapter="x", capacity_wh=500e3, reserve_frac=0.1,
                rated_charge_w=250e3, rated_discharge_w=250e3,
            ),
            AssetConfig(id="pv-b", kind=Kind.PV, feed="main-b", adapter="x", rated_w=150e3),
            AssetConfig(id="hall-a", kind=Kind.CLUSTER, feed="main-a", adapter="x", rated_w=400e3),
            AssetConfig(id="hall-b", kind=Kind.CLUSTER, feed="main-b", adapter="x", rated_w=400e3),
        ),
    )  # fmt: skip


@dataclass
class World:
    """A running plant: ``readings`` is what its devices say, ``step`` lets one cycle pass."""

    config: Config = field(default_factory=two_feeds)
    base_w: dict[str, float] = field(default_factory=lambda: {"main-a": 150e3, "main-b": 150e3})
    cluster_delay_s: float = 5.0
    skew_cycles: int = 0
    """Storage is read this many cycles later than the meter."""
    orders: list[Order] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    health: Health = field(default_factory=lambda: Health(ready=True))
    silent: set[str] = field(default_factory=set)
    """Assets whose devices do not answer."""
    stuck: set[str] = field(default_factory=set)
    """Assets that acknowledge setpoints and do nothing."""
    mum: set[str] = field(default_factory=set)
    """Generators that cannot say what they could give while they are held back."""
    preferred_w: Floats | None = None
    """What the plan wishes of each asset, NaN for nothing. [W]"""
    sold: list[Obligation] = field(default_factory=list)
    """What is owed."""
    transitions: list[Transition] = field(default_factory=list)
    history: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.plant: Plant = plant_of(self.config)
        self.state = State.first(self.plant)
        self.mono_s, self.at = 1000.0, START
        n = len(self.plant.asset_ids)
        self.readings = Readings.blank(n)
        self.power_w = np.zeros(n)
        self.available_w = np.zeros(n)
        self.soc_frac = np.where(np.isfinite(self.plant.capacity_wh), 0.9, np.nan)
        self.tier_shed_w = np.zeros((n, 4))
        self._pending: list[tuple[float, int, float]] = []
        for name in ("hall-a", "hall-b"):
            if name in self.plant.asset_ids:
                self.run_jobs(name, (60e3, 60e3, 80e3, 100e3))
        self._old_power_w = [self.power_w.copy()] * self.skew_cycles

    def run_jobs(self, hall: str, tier_w: tuple[float, float, float, float]) -> None:
        """Let a hall run jobs of each tier; half of a tier's power can be shed, nothing of tier 0. [W]"""
        i = self.index(hall)
        self.available_w[i] = self.power_w[i] = sum(tier_w)
        self.tier_shed_w[i] = [0.0, 0.1 * tier_w[1], 0.9 * tier_w[2], 0.9 * tier_w[3]]

    def index(self, asset: str) -> int:
        """Return an asset's slot."""
        return self.plant.asset_ids.index(asset)

    def order(
        self,
        kind: OrderKind,
        resource: str,
        power_w: float | None = None,
        *,
        for_s: float | None = 600.0,
        after_s: float = 0.0,
        **more: object,
    ) -> Order:
        """Have an order accepted now."""
        start = self.at + timedelta(seconds=after_s)
        end = None if for_s is None else start + timedelta(seconds=for_s)
        made = Order(f"order-{len(self.orders)}", "tso", kind, resource, Interval(start, end), power_w)
        self.orders.append(replace(made, **more))  # type: ignore[arg-type]
        return self.orders[-1]

    def meter_w(self, feed: str) -> float:
        """Return the true power of a feed. [W]"""
        on = self.plant.node == self.plant.nodes.index(feed)
        return self.base_w[feed] + float(self.power_w[on].sum())

    def step(self, cycles: int = 1) -> Decision:
        """Let cycles pass; return the last decision."""
        for _ in range(cycles):
            self._measure()
            snapshot = Snapshot(
                self.at, self.mono_s, self.readings.copy(), tuple(self.orders), tuple(self.signals), self.health,
                self.preferred_w, kept_ready(self.sold, self.at),
            )  # fmt: skip
            decision = decide(snapshot, self.state, self.plant)
            self.state = decision.state
            self.transitions.extend(decision.transitions)
            closed = {t.order.order_id for t in decision.transitions if t.progress.phase in ("completed", "aborted")}
            self.orders = [o for o in self.orders if o.order_id not in closed]
            self.history.append(decision)
            self._move(decision)
        return self.history[-1]

    def _measure(self) -> None:
        r, cycle_s = self.readings, self.plant.cycle_s
        self._old_power_w.append(self.power_w.copy())
        seen_w = self._old_power_w.pop(0)
        r.power_w[:] = np.where(self.plant.controllable, seen_w, r.power_w)
        for feed in ("main-a", "main-b"):
            meter = self.plant.meter[self.plant.nodes.index(feed)]
            r.power_w[meter] = self.meter_w(feed)
        r.soc_frac[:], r.available_w[:], r.tier_shed_w[:] = self.soc_frac, self.available_w, self.tier_shed_w
        for i in map(self.index, self.mum):
            r.available_w[i] = self.available_w[i] if self.power_w[i] <= 0.95 * self.available_w[i] else np.nan
        heard = np.array([name not in self.silent for name in self.plant.asset_ids])
        r.mono_s[heard] = self.mono_s
        r.online[:] = heard
        self.mono_s += cycle_s
        self.at += timedelta(seconds=cycle_s)

    def _move(self, decision: Decision) -> None:
        storage = np.isfinite(self.plant.capacity_wh)
        for i in map(int, np.flatnonzero(decision.command != Command.NONE)):
            wanted_w = (
                decision.target_w[i]
                if decision.command[i] == Command.SETPOINT
                else (0.0 if storage[i] else self.available_w[i])
            )
            if self.plant.asset_ids[i] in self.silent | self.stuck:
                continue
            if self.plant.fast[i]:
                self.power_w[i] = wanted_w if storage[i] else max(wanted_w, self.available_w[i])
            else:
                self._pending.append((self.mono_s + self.cluster_delay_s, i, min(wanted_w, self.available_w[i])))
        for due_s, i, power_w in self._pending:
            if due_s <= self.mono_s:
                self.power_w[i] = power_w
        self._pending = [p for p in self._pending if p[0] > self.mono_s]
        hours = self.plant.cycle_s / 3600.0
        flow_w = np.where(
            self.power_w > 0, self.power_w * self.plant.efficiency_frac, self.power_w / self.plant.efficiency_frac
        )
        self.soc_frac = np.where(storage, self.soc_frac + flow_w * hours / self.plant.capacity_wh, np.nan)
