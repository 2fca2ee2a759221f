"""A battery behind a converter: losses, state of charge, ramp, reserve, tapering limits. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from vppd.model import Bounds

_S_PER_H = 3600.0


@dataclass(frozen=True, slots=True)
class StorageSpec:
    """What a storage unit is built for; sign + = charging."""

    rated_w: float
    """Nameplate of the converter. [W]"""
    max_charge_w: float
    """What its settings allow. [W, >= 0]"""
    max_discharge_w: float
    capacity_wh: float
    ramp_w_per_s: float
    reserve_frac: float
    """Reserve register after power-on. [0-1]"""
    start_soc_frac: float
    efficiency_frac: float = 0.96
    """One way. [0-1]"""
    taper_frac: float = 0.02
    """Distance to empty or full over which the limits close. [0-1]"""


@dataclass(frozen=True, slots=True)
class StorageState:
    """Power at the terminals and energy inside."""

    power_w: float
    soc_frac: float
    charged_wh: float = 0.0
    """Counter of energy taken from the feed. [Wh]"""
    discharged_wh: float = 0.0
    """Counter of energy given to the feed. [Wh]"""


def limits(spec: StorageSpec, state: StorageState, reserve_frac: float) -> Bounds:
    """Return what the unit allows itself now. [W, + = charging]"""
    above_frac = (state.soc_frac - reserve_frac) / spec.taper_frac
    below_frac = (1.0 - state.soc_frac) / spec.taper_frac
    return Bounds(
        lower_w=-spec.max_discharge_w * min(1.0, max(0.0, above_frac)),
        upper_w=spec.max_charge_w * min(1.0, max(0.0, below_frac)),
    )


def step(
    spec: StorageSpec, state: StorageState, target_w: float, reserve_frac: float, dt_s: float, plant_dt_s: float
) -> StorageState:
    """Return the unit ``dt_s`` later: power ramps in ``dt_s``, energy moves for ``plant_dt_s``. [W, + = charging]"""
    wanted_w = max(-spec.max_discharge_w, min(spec.max_charge_w, target_w))
    reach_w = spec.ramp_w_per_s * dt_s
    ramped_w = max(state.power_w - reach_w, min(state.power_w + reach_w, wanted_w))
    bounds = limits(spec, state, reserve_frac)
    power_w = _within_energy(spec, state, bounds.clamp(ramped_w), reserve_frac, plant_dt_s)
    energy_wh = power_w * plant_dt_s / _S_PER_H
    stored_wh = energy_wh * spec.efficiency_frac if energy_wh > 0.0 else energy_wh / spec.efficiency_frac
    return StorageState(
        power_w=power_w,
        soc_frac=state.soc_frac + stored_wh / spec.capacity_wh,
        charged_wh=state.charged_wh + max(0.0, energy_wh),
        discharged_wh=state.discharged_wh - min(0.0, energy_wh),
    )


def _within_energy(
    spec: StorageSpec, state: StorageState, power_w: float, reserve_frac: float, plant_dt_s: float
) -> float:
    """Return the power that neither overfills the unit nor takes it below its reserve within the step. [W]"""
    hours = plant_dt_s / _S_PER_H
    if hours <= 0.0:
        return power_w
    room_w = max(0.0, 1.0 - state.soc_frac) * spec.capacity_wh / spec.efficiency_frac / hours
    spare_w = max(0.0, state.soc_frac - reserve_frac) * spec.capacity_wh * spec.efficiency_frac / hours
    return max(-spare_w, min(room_w, power_w))
