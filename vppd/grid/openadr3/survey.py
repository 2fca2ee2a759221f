"""What one decision says of any place of the plant, in the words of OpenADR reports. Pure."""

from __future__ import annotations

import math

import numpy as np

from vppd.core.aggregate import aggregate, is_storage, perceive
from vppd.core.envelope import envelope, flexibility
from vppd.core.failsafe import Severity
from vppd.core.state import Decision, Demand
from vppd.grid.openadr3.places import Place, Places
from vppd.model import Kind
from vppd.snapshot import KINDS, Bools, Floats, Plant, Snapshot

GENERATION = tuple(KINDS.index(kind) for kind in (Kind.PV, Kind.WIND))


class Survey:
    """A decision and what could be held for some time from there; to be asked place by place."""

    def __init__(self, snapshot: Snapshot, decision: Decision, plant: Plant, places: Places, sustain_s: float) -> None:
        self._decision, self._plant = decision, plant
        self._ordered = [places.of(_subject(demand, plant)) for demand in decision.demands]
        senses = perceive(snapshot, decision.state, plant)
        self._image = image = aggregate(snapshot, decision.state, plant, senses, decision.severity >= Severity.ISOLATE)
        self._bounds = envelope(snapshot.readings, image, plant, sustain_s)
        self._could = flexibility(snapshot.readings, image, plant, sustain_s)

    def figures(self, place: Place) -> dict[str, float]:
        """Return powers, energies and levels of a place by payload type; what it has no such thing of is left out. [W, Wh, 0-1]"""
        found = self._of_node(place.node) if place.asset < 0 else self._of_asset(place.asset)
        generating = place.assets & np.isin(self._plant.kind, GENERATION)
        if generating.any():
            found["GENERATION_DELTA_AVAILABLE"] = max(-float(self._free_w(generating).sum()), 0.0)
        return found | self._regulation(place) | self._stored(place)

    def state(self, place: Place) -> str:
        """Return the state of a place in the specification's words."""
        decision = self._decision
        if "operator" in decision.site_causes:
            return "RUNNING_OPTED_OUT"
        severity = decision.severity[place.asset] if place.asset >= 0 else Severity.NONE
        if max(decision.site_severity, int(severity)) >= Severity.ISOLATE:
            return "ERROR"
        curtailed = any(place.concerns(ordered) for ordered in self._ordered)
        return "RUNNING_CURTAILED" if curtailed else "NORMAL"

    def _of_node(self, node: int) -> dict[str, float]:
        could, image = self._could, self._image
        return {
            "BASELINE": float(image.unheld_w[node]),
            "LOAD_SHED_DELTA_AVAILABLE": max(float(could.power_w[node] - could.lower_w[node]), 0.0),
        }

    def _of_asset(self, asset: int) -> dict[str, float]:
        only = np.arange(len(self._plant.asset_ids)) == asset
        found = {"BASELINE": float(self._free_w(only)[0])}
        if self._image.usable[asset]:
            shed_w = float(self._image.power_w[asset] - self._bounds.lower_w[asset])
            found["LOAD_SHED_DELTA_AVAILABLE"] = max(shed_w, 0.0)
        return found

    def _free_w(self, which: Bools) -> Floats:
        """Return what assets would draw without us, as measured where we do not steer them. [W]"""
        image = self._image
        return np.asarray(np.where(image.usable, image.available_w, image.power_w)[which])

    def _regulation(self, place: Place) -> dict[str, float]:
        """Return what assets that answer at once could move: up is less consumption. [W]"""
        fast, image = place.assets & self._plant.fast & self._image.usable, self._image
        if not fast.any():
            return {}
        up_w = float(np.maximum(image.power_w - self._bounds.lower_w, 0.0)[fast].sum())
        down_w = float(np.maximum(self._bounds.upper_w - image.power_w, 0.0)[fast].sum())
        if place.asset < 0:
            node, drawn_w = place.node, float(image.node_power_w[place.node])
            up_w = min(up_w, max(drawn_w - float(self._plant.node_lower_w[node]), 0.0))
            down_w = min(down_w, max(float(self._plant.node_upper_w[node]) - drawn_w, 0.0))
        return {"UP_REGULATION_AVAILABLE": up_w, "DOWN_REGULATION_AVAILABLE": down_w}

    def _stored(self, place: Place) -> dict[str, float]:
        plant, image = self._plant, self._image
        storage = place.assets & is_storage(plant) & plant.controllable & image.usable
        if not storage.any():
            return {}
        usable_wh = usable_energy(plant)[storage].sum()
        above_frac = np.maximum(image.soc_frac[storage] - plant.reserve_frac[storage], 0.0)
        stored_wh = float((np.nan_to_num(plant.capacity_wh[storage]) * np.nan_to_num(above_frac)).sum())
        return {
            "STORAGE_MAX_CHARGE_POWER": float(self._bounds.upper_w[storage].sum()),
            "STORAGE_MAX_DISCHARGE_POWER": float(-self._bounds.lower_w[storage].sum()),
            "STORAGE_USABLE_CAPACITY": float(usable_wh),
            "STORAGE_CHARGE_LEVEL": stored_wh / float(usable_wh) if usable_wh > 0.0 else math.nan,
        }


def _subject(demand: Demand, plant: Plant) -> str:
    return plant.nodes[demand.node] if demand.asset < 0 else plant.asset_ids[demand.asset]


def usable_energy(plant: Plant) -> Floats:
    """Return what each asset can store above its reserve, (n,), 0 for what is no storage. [Wh]"""
    return np.asarray(np.nan_to_num(plant.capacity_wh) * (1.0 - plant.reserve_frac))
