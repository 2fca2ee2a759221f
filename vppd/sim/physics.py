"""The whole site in one pure step: halls, racks, cooling, PV, storage, and what each feed's meter sees.

Deterministic: the same seed, commands and step lengths give the same site, in wall time or in virtual time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from vppd.sim import hall, storage
from vppd.sim.hall import Hall, HallCommands, HallState
from vppd.sim.storage import StorageSpec, StorageState
from vppd.snapshot import Floats

_S_PER_H = 3600.0


@dataclass(frozen=True, slots=True)
class FeedSpec:
    """The inflexible part of a feed: racks that always run, and the cooling of everything on the feed."""

    racks_w: float
    cooling_fixed_w: float
    cooling_frac: float = 0.15
    """Cooling power per IT power. [0-1]"""
    cooling_lag_s: float = 300.0
    racks_noise_frac: float = 0.005
    racks_lag_s: float = 20.0
    import_max_w: float = 700_000.0


@dataclass(frozen=True, slots=True)
class PvSpec:
    """A PV plant under clouds."""

    rated_w: float
    clear_frac: float = 0.65
    """Output of a cloudless hour. [0-1]"""
    cloud_frac: float = 0.08
    cloud_lag_s: float = 60.0
    lag_s: float = 0.5


@dataclass(frozen=True, slots=True)
class SitePlan:
    """What stands where: assets by name, and the feed each hangs on."""

    feeds: Mapping[str, FeedSpec]
    halls: Mapping[str, str]
    """Hall -> feed."""
    storage: Mapping[str, tuple[str, StorageSpec]]
    """Unit -> feed and specification."""
    pv: Mapping[str, tuple[str, PvSpec]]


@dataclass(frozen=True, slots=True)
class FeedState:
    """The slow and noisy parts of a feed, and its meter's counters."""

    racks_noise_frac: float
    cooling_w: float
    racks_w: float
    power_w: float
    """What the meter at the point of interconnection sees. [W, + = import]"""
    imported_wh: float = 0.0
    exported_wh: float = 0.0


@dataclass(frozen=True, slots=True)
class PvState:
    """Sun and output."""

    cloud_frac: float
    available_w: float
    """What the sun would give. [W, >= 0]"""
    output_w: float
    """What the plant gives. [W, >= 0]"""
    generated_wh: float = 0.0


@dataclass(frozen=True, slots=True)
class StorageCommand:
    """What a storage unit follows now."""

    target_w: float
    """[W, + = charging]"""
    reserve_frac: float


@dataclass(frozen=True, slots=True, eq=False)
class Commands:
    """Everything the site has been told, as it stands now."""

    halls: Mapping[str, HallCommands]
    storage: Mapping[str, StorageCommand]
    pv_limit_w: Mapping[str, float] = field(default_factory=dict)
    """Most output of each PV plant, inf for none. [W, >= 0]"""


@dataclass(frozen=True, slots=True, eq=False)
class SiteState:
    """The site at one moment."""

    steps: int
    t_s: float
    """Wall time since the start. [s]"""
    plant_t_s: float
    """Plant time since the start: what energy, heat and work go by. [s]"""
    feeds: Mapping[str, FeedState]
    halls: Mapping[str, HallState]
    storage: Mapping[str, StorageState]
    pv: Mapping[str, PvState]


class Physics:
    """The laws of one site; holds constants only."""

    def __init__(self, plan: SitePlan, seed: int) -> None:
        self.plan = plan
        self.seed = seed
        self.halls = {
            name: Hall(hall.HallSpec(name, hall.default_slots()), seed, first_id=1000 * (place + 1))
            for place, name in enumerate(plan.halls)
        }

    def no_commands(self) -> Commands:
        """Return commands under which everything does as it likes: storage rests, nothing is limited."""
        return Commands(
            halls={name: h.no_commands() for name, h in self.halls.items()},
            storage={name: StorageCommand(0.0, spec.reserve_frac) for name, (_, spec) in self.plan.storage.items()},
        )

    def start(self) -> SiteState:
        """Return the site in balance, all halls busy, storage at rest."""
        halls = {name: h.start() for name, h in self.halls.items()}
        pv = {name: self._pv_start(spec) for name, (_, spec) in self.plan.pv.items()}
        units = {name: StorageState(0.0, spec.start_soc_frac) for name, (_, spec) in self.plan.storage.items()}
        state = SiteState(0, 0.0, 0.0, {}, halls, units, pv)
        feeds: dict[str, FeedState] = {}
        for tag, spec in self.plan.feeds.items():
            it_w = self._hall_w(state, tag) + spec.racks_w
            settled = FeedState(0.0, spec.cooling_fixed_w + spec.cooling_frac * it_w, spec.racks_w, 0.0)
            feeds[tag] = replace(settled, power_w=self._meter_w(state, tag, settled))
        return replace(state, feeds=feeds)

    def step(self, state: SiteState, commands: Commands, dt_s: float, plant_dt_s: float | None = None) -> SiteState:
        """Return the site ``dt_s`` later: ramps and noise move by ``dt_s``, energy, heat and work by ``plant_dt_s`` (default: the same)."""
        plant_dt_s = dt_s if plant_dt_s is None else plant_dt_s
        gauss = _Draws(self.seed, state.steps)
        halls = {
            name: h.step(state.halls[name], commands.halls[name], gauss.take(len(h.spec.slots)), dt_s, plant_dt_s)
            for name, h in self.halls.items()
        }
        units = {
            name: storage.step(
                spec,
                state.storage[name],
                commands.storage[name].target_w,
                commands.storage[name].reserve_frac,
                dt_s,
                plant_dt_s,
            )
            for name, (_, spec) in self.plan.storage.items()
        }
        pv = {
            name: _pv_step(spec, state.pv[name], commands.pv_limit_w.get(name, math.inf), gauss.one(), dt_s, plant_dt_s)
            for name, (_, spec) in self.plan.pv.items()
        }
        moved = replace(
            state,
            steps=state.steps + 1,
            t_s=state.t_s + dt_s,
            plant_t_s=state.plant_t_s + plant_dt_s,
            halls=halls,
            storage=units,
            pv=pv,
        )
        feeds = {tag: self._feed_step(moved, tag, gauss.one(), dt_s, plant_dt_s) for tag in self.plan.feeds}
        return replace(moved, feeds=feeds)

    def _feed_step(self, state: SiteState, tag: str, gauss: float, dt_s: float, plant_dt_s: float) -> FeedState:
        """Return racks, cooling and meter of a feed after everything else has moved."""
        spec, before = self.plan.feeds[tag], state.feeds[tag]
        noise_frac = _wander(before.racks_noise_frac, spec.racks_noise_frac, spec.racks_lag_s, gauss, dt_s)
        racks_w = spec.racks_w * (1.0 + noise_frac)
        settled_w = spec.cooling_fixed_w + spec.cooling_frac * (self._hall_w(state, tag) + racks_w)
        follow_frac = 1.0 - math.exp(-plant_dt_s / spec.cooling_lag_s)
        moved = replace(
            before,
            racks_noise_frac=noise_frac,
            racks_w=racks_w,
            cooling_w=before.cooling_w + (settled_w - before.cooling_w) * follow_frac,
        )
        power_w = self._meter_w(state, tag, moved)
        return replace(
            moved,
            power_w=power_w,
            imported_wh=moved.imported_wh + max(0.0, power_w) * plant_dt_s / _S_PER_H,
            exported_wh=moved.exported_wh - min(0.0, power_w) * plant_dt_s / _S_PER_H,
        )

    def _hall_w(self, state: SiteState, tag: str) -> float:
        """Return what the halls on a feed draw. [W]"""
        return sum(state.halls[name].total_w for name, feed in self.plan.halls.items() if feed == tag)

    def _meter_w(self, state: SiteState, tag: str, feed: FeedState) -> float:
        """Return the sum of everything on a feed. [W, + = import]"""
        stored_w = sum(state.storage[name].power_w for name, (at, _) in self.plan.storage.items() if at == tag)
        sun_w = sum(state.pv[name].output_w for name, (at, _) in self.plan.pv.items() if at == tag)
        return self._hall_w(state, tag) + feed.racks_w + feed.cooling_w + stored_w - sun_w

    @staticmethod
    def _pv_start(spec: PvSpec) -> PvState:
        """Return a plant under its usual sky."""
        return PvState(0.0, spec.rated_w * spec.clear_frac, spec.rated_w * spec.clear_frac)


class _Draws:
    """The normal deviates of one step, the same for the same seed and step."""

    def __init__(self, seed: int, steps: int) -> None:
        self._rng = np.random.Generator(np.random.Philox(key=seed, counter=steps << 64))

    def take(self, n: int) -> Floats:
        """Return the next n deviates."""
        return self._rng.standard_normal(n)

    def one(self) -> float:
        """Return the next deviate."""
        return float(self._rng.standard_normal())


def _wander(now_frac: float, spread_frac: float, lag_s: float, gauss: float, dt_s: float) -> float:
    """Return mean-reverting noise of the given spread, ``dt_s`` later."""
    keep_frac = math.exp(-dt_s / lag_s)
    return now_frac * keep_frac + spread_frac * math.sqrt(1.0 - keep_frac**2) * gauss


def _pv_step(spec: PvSpec, state: PvState, limit_w: float, gauss: float, dt_s: float, plant_dt_s: float) -> PvState:
    """Return a PV plant ``dt_s`` later, its output below sun and limit. [W, >= 0]"""
    cloud_frac = _wander(state.cloud_frac, spec.cloud_frac, spec.cloud_lag_s, gauss, dt_s)
    available_w = spec.rated_w * min(1.0, max(0.05, spec.clear_frac + cloud_frac))
    target_w = min(available_w, limit_w)
    output_w = state.output_w + (target_w - state.output_w) * (1.0 - math.exp(-dt_s / spec.lag_s))
    generated_wh = state.generated_wh + output_w * plant_dt_s / _S_PER_H
    return PvState(cloud_frac, available_w, output_w, generated_wh)


def default_plan() -> SitePlan:
    """Return a site of about 1 MW on two feeds whose storage alone cannot give a quarter of it."""
    ups = StorageSpec(
        rated_w=200_000.0,
        max_charge_w=50_000.0,
        max_discharge_w=100_000.0,
        capacity_wh=100_000.0,
        ramp_w_per_s=100_000.0,
        reserve_frac=0.3,
        start_soc_frac=0.9,
    )
    bess = StorageSpec(
        rated_w=250_000.0,
        max_charge_w=100_000.0,
        max_discharge_w=100_000.0,
        capacity_wh=500_000.0,
        ramp_w_per_s=50_000.0,
        reserve_frac=0.1,
        start_soc_frac=0.6,
    )
    feed = FeedSpec(racks_w=200_000.0, cooling_fixed_w=20_000.0)
    return SitePlan(
        feeds={"main-a": feed, "main-b": feed},
        halls={"hall-a": "main-a", "hall-b": "main-b"},
        storage={"ups-a": ("main-a", ups), "bess-b": ("main-b", bess)},
        pv={"pv-b": ("main-b", PvSpec(150_000.0))},
    )
