"""A made-up plant in virtual time: two clusters with tiers, two batteries, PV; what they are told is drawn, late and not quite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from tests.market.season_products import ISSUER
from vppd.config.load import Config
from vppd.config.plant import AssetConfig, FeedConfig, SiteConfig
from vppd.core.cycle import decide
from vppd.core.promised import kept_ready
from vppd.core.state import Command, Decision, State
from vppd.model import Kind, Obligation, Order, Signal
from vppd.plant import plant_of
from vppd.snapshot import Floats, Health, Readings, Snapshot

START = datetime(2026, 1, 5, tzinfo=UTC)
"""A Monday; the history before it begins on one, too."""
WARM_DAYS = 28
MINUTES = 1440
HALLS = ("hall-a", "hall-b")
FEEDS = ("main-a", "main-b")
GIVES = (0.0, 0.12, 0.35, 0.75)
"""Part of its power that a tier can shed. [0-1]"""
LAG_S = 15.0
"""A cluster follows so long after it is told. [s]"""
NOISE_FRAC = 0.005
"""What is drawn differs from what was told by about this. [0-1]"""
PAYBACK_S = 4 * 3600.0
"""Work that was held back is caught up with over about this long. [s]"""


def season_config() -> Config:
    """Return the configuration of the plant: a beat of a minute."""
    site = {
        "id": "dc1",
        "agent_id": "agent",
        "import_max_w": 1.8e6,
        "export_max_w": 2e5,
        "cycle_s": 60.0,
        "lease_s": 200.0,
    }
    common: dict[str, Any] = {"adapter": "x", "stale_after_s": 200.0}
    stores: dict[str, Any] = {"reserve_frac": 0.2, "soc_target_frac": 0.8, "efficiency_frac": 0.96}
    assets: list[dict[str, Any]] = [
        *({"id": f"poi-{x}", "kind": Kind.METER, "feed": f"main-{x}"} for x in "ab"),
        {"id": "bess-a", "kind": Kind.BATTERY, "feed": "main-a", "capacity_wh": 400e3, **stores,
         "rated_charge_w": 150e3, "rated_discharge_w": 200e3},
        {"id": "bess-b", "kind": Kind.BATTERY, "feed": "main-b", "capacity_wh": 250e3, **stores,
         "rated_charge_w": 100e3, "rated_discharge_w": 125e3},
        {"id": "pv-b", "kind": Kind.PV, "feed": "main-b", "rated_w": 250e3},
        {"id": "hall-a", "kind": Kind.CLUSTER, "feed": "main-a", "rated_w": 500e3},
        {"id": "hall-b", "kind": Kind.CLUSTER, "feed": "main-b", "rated_w": 400e3},
    ]  # fmt: skip
    return Config(
        site=SiteConfig.model_validate(site),
        feeds=tuple(FeedConfig(tag=f"main-{x}", meter=f"poi-{x}", import_max_w=900e3, export_max_w=1e5) for x in "ab"),
        assets=tuple(AssetConfig.model_validate({**common, **asset}) for asset in assets),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What would be drawn and could be shed, minute by minute from the beginning of the history on."""

    base_w: dict[str, Floats]
    """By feed, (t,)."""
    tier_w: dict[str, Floats]
    """By hall, (t, 4): what each tier draws."""
    pv_w: Floats
    """(t,) what the sun gives, >= 0."""

    def series(self) -> dict[str, Floats]:
        """Return every series by its name among the forecasts, (t,). [W]"""
        found = {f"load/{feed}": base_w for feed, base_w in self.base_w.items()} | {"generation/pv-b": self.pv_w}
        for hall, tier_w in self.tier_w.items():
            found[f"compute/{hall}"] = tier_w.sum(axis=1)
            found |= {f"compute/{hall}/tier{k}": GIVES[k] * tier_w[:, k] for k in (1, 2, 3)}
        return found


def truth_of(days: int, seed: int) -> Truth:
    """Return the weather and the work of a season and of the weeks before it."""
    rng, t = np.random.default_rng(seed), (WARM_DAYS + days + 2) * MINUTES
    minute = np.arange(t)
    hour, weekend = minute % MINUTES / 60.0, minute // MINUTES % 7 >= 5
    clear = np.clip(np.sin((hour - 7.0) / 10.0 * np.pi), 0.0, None) * ((hour > 7.0) & (hour < 17.0))
    cloud = np.clip(0.75 + _wander(rng, t, 240.0, 0.25), 0.15, 1.0)
    base_w = {feed: 130e3 + 15e3 * np.sin((hour - 9.0) / 12.0 * np.pi) + _wander(rng, t, 120.0, 2e3) for feed in FEEDS}
    tier_w = {}
    for hall, rated_w in zip(HALLS, (500e3, 400e3), strict=True):
        busy = 0.66 + 0.1 * np.sin((hour - 10.0) / 12.0 * np.pi) - 0.08 * weekend
        busy = np.clip(busy + _wander(rng, t, 600.0, 0.05), 0.2, 0.98)
        share = np.array([0.35, 0.2, 0.25, 0.2])[None, :] * np.exp(
            np.stack([_wander(rng, t, 720.0, 0.12) for _ in GIVES], axis=1)
        )
        tier_w[hall] = rated_w * busy[:, None] * share / share.sum(axis=1)[:, None]
    return Truth(base_w, tier_w, 250e3 * clear * cloud)


def _wander(rng: np.random.Generator, t: int, tau_min: float, spread: float) -> Floats:
    """Return (t,) values that wander about 0 with a memory of ``tau_min`` minutes and this standard deviation."""
    keep = np.exp(-1.0 / tau_min)
    shocks = rng.normal(0.0, spread * np.sqrt(1.0 - keep**2), t)
    found, value = np.empty(t), rng.normal(0.0, spread)
    for i, shock in enumerate(shocks):
        value = keep * value + shock
        found[i] = value
    return found


@dataclass
class World:
    """The plant as it runs; ``beat`` lets ``decide`` look, and what it says happens until the next one."""

    truth: Truth
    seed: int = 1
    config: Config = field(default_factory=season_config)
    orders: list[Order] = field(default_factory=list)
    obligations: Callable[[datetime], Sequence[Obligation]] = lambda at: ()

    def __post_init__(self) -> None:
        self.plant = plant_of(self.config)
        self.state = State.first(self.plant)
        self._rng = np.random.default_rng(self.seed + 1000)
        n = len(self.plant.asset_ids)
        self._readings = Readings.blank(n)
        self._halls = {hall: self.plant.asset_ids.index(hall) for hall in HALLS}
        self._meters = {feed: self.plant.asset_ids.index(f"poi-{feed[-1]}") for feed in FEEDS}
        self._pv = self.plant.asset_ids.index("pv-b")
        self.storage = np.isfinite(self.plant.capacity_wh)
        self.soc_frac = np.where(self.storage, self.plant.soc_target_frac, np.nan)
        self.power_w = np.zeros(n)
        self.cap_w = np.full(n, np.inf)
        self.backlog_wh = dict.fromkeys(HALLS, 0.0)
        self._told: list[tuple[float, int, float]] = []
        self._last_s = 0.0

    def beat(
        self, since_s: float, preferred_w: Floats | None = None, level_frac: float | None = None
    ) -> tuple[Snapshot, Decision]:
        """Let the plant run until ``since_s`` after the start, then look and decide; ``level_frac``: the market's signal. [-1, 1]"""
        self._flow(since_s)
        minute = WARM_DAYS * MINUTES + int(since_s // 60.0)
        self._measure(minute, since_s)
        at, mono_s = START + timedelta(seconds=since_s), 1000.0 + since_s
        signals = () if level_frac is None else (Signal(ISSUER, level_frac, mono_s),)
        snapshot = Snapshot(
            at, mono_s, self._readings.copy(), tuple(self.orders), signals, Health(ready=True), preferred_w,
            kept_ready(self.obligations(at), at),
        )  # fmt: skip
        decision = decide(snapshot, self.state, self.plant)
        self.state = decision.state
        closed = {t.order.order_id for t in decision.transitions if t.progress.phase in ("completed", "aborted")}
        self.orders = [o for o in self.orders if o.order_id not in closed]
        self._tell(decision, since_s)
        self._draw(minute)
        return snapshot, decision

    def available_w(self, hall: str, minute: int) -> float:
        """Return what a hall would draw if nobody held it, with the work it has to catch up on. [W]"""
        index = self._halls[hall]
        own_w = float(self.truth.tier_w[hall][minute].sum())
        return min(own_w + self.backlog_wh[hall] / PAYBACK_S * 3600.0, float(self.plant.rated_upper_w[index]))

    def _measure(self, minute: int, since_s: float) -> None:
        r = self._readings
        self._draw(minute)
        r.mono_s[:], r.online[:] = 1000.0 + since_s, True
        r.power_w[:] = self.power_w
        for feed, meter in self._meters.items():
            on = (self.plant.node == self.plant.nodes.index(feed)) & self.plant.controllable
            r.power_w[meter] = self.truth.base_w[feed][minute] + self.power_w[on].sum()
        r.soc_frac[:] = self.soc_frac
        for hall, i in self._halls.items():
            r.available_w[i] = self.available_w(hall, minute)
            r.tier_shed_w[i] = np.asarray(GIVES) * self.truth.tier_w[hall][minute]
        r.available_w[self._pv] = -self.truth.pv_w[minute]

    def _tell(self, decision: Decision, since_s: float) -> None:
        """Storage and PV do at once what they are told, clusters after a while."""
        for i in map(int, np.flatnonzero(decision.command != Command.NONE)):
            is_told = decision.command[i] == Command.SETPOINT
            target_w = float(decision.target_w[i]) if is_told else (0.0 if self.storage[i] else np.inf)
            if i in self._halls.values():
                self._told.append((since_s + LAG_S, i, target_w))
            elif self.storage[i]:
                self.power_w[i] = target_w * (1.0 + self._rng.normal(0.0, NOISE_FRAC))
            else:
                self.cap_w[i] = -target_w if is_told else np.inf

    def _draw(self, minute: int) -> None:
        for hall, i in self._halls.items():
            wanted_w = min(self.available_w(hall, minute), self.cap_w[i])
            self.power_w[i] = wanted_w * (1.0 + self._rng.normal(0.0, NOISE_FRAC))
        self.power_w[self._pv] = -min(self.truth.pv_w[minute], self.cap_w[self._pv])

    def _flow(self, since_s: float) -> None:
        """Let time pass with the powers as they are; what a cluster was told takes effect on the way."""
        minute = WARM_DAYS * MINUTES + int(self._last_s // 60.0)
        due = [entry for entry in self._told if entry[0] <= since_s]
        self._told = [entry for entry in self._told if entry[0] > since_s]
        for due_s, i, cap_w in due:
            self._pass(due_s, minute)
            self.cap_w[i] = cap_w
            self._draw(minute)
        self._pass(since_s, minute)

    def _pass(self, since_s: float, minute: int) -> None:
        hours = (since_s - self._last_s) / 3600.0
        if hours <= 0.0:
            return
        eff = self.plant.efficiency_frac
        flow_w = np.where(self.power_w > 0.0, self.power_w * eff, self.power_w / eff)
        soc_frac = self.soc_frac + flow_w * hours / self.plant.capacity_wh
        self.power_w = np.where(self.storage & (soc_frac >= 1.0) & (self.power_w > 0.0), 0.0, self.power_w)
        self.soc_frac = np.where(self.storage, np.clip(soc_frac, 0.0, 1.0), np.nan)
        for hall, i in self._halls.items():
            own_w = float(self.truth.tier_w[hall][minute].sum())
            self.backlog_wh[hall] = max(self.backlog_wh[hall] + (own_w - self.power_w[i]) * hours, 0.0)
        self._last_s = since_s
