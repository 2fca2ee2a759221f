"""What forecasts and the plan say of a place's time to come, in the words of OpenADR reports. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from vppd.core.aggregate import is_storage
from vppd.core.failsafe import SOC_MARGIN_FRAC
from vppd.core.forecast.outlook import MEDIAN_FRAC, Outlook, resampled
from vppd.core.timetable import Timetable
from vppd.grid.openadr3.places import Place, Places
from vppd.grid.openadr3.survey import GENERATION, usable_energy
from vppd.model import TIERS, Kind
from vppd.snapshot import KINDS, Floats, Ints, Plant

SUSTAIN_S = 900.0
"""What could be shed or moved is told as what could be held for so long. [s]"""
SURE_FRAC = 0.1
"""What is available is forecast at this level: it will be more in nine of ten cases. [0-1]"""
_FIRST_SHED_TIER = 1

Outlooks = Callable[[], Mapping[str, Outlook]]
Plans = Callable[[], Timetable | None]


@dataclass(frozen=True, slots=True, eq=False)
class _Store:
    """Storage over a time to come, (k,) each."""

    planned_w: Floats
    lower_w: Floats
    upper_w: Floats
    last_wh: Floats
    """Above the reserve at the end. [Wh]"""
    usable_wh: float


class _Plan:
    """A plan, and where it has which asset."""

    def __init__(self, table: Timetable) -> None:
        self.table = table
        self.rows = {name: row for row, name in enumerate(table.asset_ids)}
        self._means: tuple[datetime, float, Floats] | None = None

    def mean_w(self, start: datetime, span_s: float) -> Floats:
        """Return the planned mean power of each asset over a time, (n,), NaN where there is none. [W]"""
        known, table = self._means, self.table
        if known is None or known[:2] != (start, span_s):
            found_w = resampled(table.power_w, table.start, table.step_s, start, span_s, 1)[:, 0]
            known = self._means = (start, span_s, found_w)
        return known[2]

    def held_wh(self, start: datetime, span_s: float) -> Floats:
        """Return what each asset holds at the start and after each step of a time, (n, steps), no steps beyond the plan. [Wh]"""
        end = start + timedelta(seconds=span_s)
        first, last = self.table.step_at(start), self.table.step_at(end - timedelta(seconds=1))
        if first is None or last is None:
            return self.table.energy_wh[:, :0]
        return self.table.energy_wh[:, max(first - 1, 0) : last + 1]


class Foresight:
    """Looks at the newest forecasts and the newest plan; what neither says is None."""

    def __init__(self, plant: Plant, places: Places, outlooks: Outlooks, plans: Plans) -> None:
        self._plant, self._places, self._outlooks, self._plans = plant, places, outlooks, plans
        self._storage = is_storage(plant) & plant.controllable
        self._known: _Plan | None = None

    def expected(
        self, payload_type: str, place: Place, start: datetime, span_s: float, spare: Callable[[], float | None]
    ) -> float | None:
        """Return what is foreseen of a place; None when nothing is. [W, Wh, 0-1]

        ``spare`` returns what its storage could give now [W]: what it is taken to give later where there is no plan for it.
        """
        match payload_type:
            case "BASELINE" | "DEMAND":
                return self._drawn_w(place, start, span_s, planned=payload_type == "DEMAND")
            case "USAGE" | "USAGE_FORECAST":
                drawn_w = self._drawn_w(place, start, span_s, planned=True)
                return None if drawn_w is None else drawn_w * span_s / 3_600.0
            case "GENERATION_DELTA_AVAILABLE":
                return self._generation_w(place, start, span_s)
            case "LOAD_SHED_DELTA_AVAILABLE":
                return self._shed_w(place, start, span_s, spare)
            case _:
                return self._stored(payload_type, place, start, span_s)

    def _drawn_w(self, place: Place, start: datetime, span_s: float, *, planned: bool) -> float | None:
        """Return what a place will draw, left alone or by the plan as far as there is one. [W]"""
        return _sum([*self._loads_w(place, start, span_s), *self._assets_w(place, start, span_s, planned=planned)])

    def _loads_w(self, place: Place, start: datetime, span_s: float) -> Iterator[float | None]:
        if place.asset < 0:
            for tag in self._plant.nodes[1:]:
                if place.name in self._places.of(tag).path:
                    yield self._foreseen(f"load/{tag}", start, span_s)

    def _assets_w(self, place: Place, start: datetime, span_s: float, *, planned: bool) -> Iterator[float | None]:
        for i in np.flatnonzero(place.assets & self._plant.controllable).tolist():
            wished_w = self._planned_w(i, start, span_s) if planned else None
            if wished_w is not None:
                yield wished_w
            elif self._storage[i]:
                yield None if planned and place.asset >= 0 else 0.0
            else:
                yield self._free_w(i, start, span_s)
        if place.asset >= 0 and not self._plant.controllable[place.asset]:
            yield None

    def _free_w(self, asset: int, start: datetime, span_s: float) -> float | None:
        """Return what an asset will draw if it is left alone. [W]"""
        name, kind = self._plant.asset_ids[asset], KINDS[self._plant.kind[asset]]
        if kind is Kind.CLUSTER:
            return self._foreseen(f"compute/{name}", start, span_s)
        if kind in (Kind.PV, Kind.WIND):
            power_w = self._foreseen(f"generation/{name}", start, span_s)
            return None if power_w is None else -power_w
        return 0.0

    def _generation_w(self, place: Place, start: datetime, span_s: float) -> float | None:
        generating = np.flatnonzero(place.assets & np.isin(self._plant.kind, GENERATION)).tolist()
        names = [f"generation/{self._plant.asset_ids[i]}" for i in generating]
        return _sum([self._foreseen(name, start, span_s, SURE_FRAC) for name in names]) if names else None

    def _shed_w(self, place: Place, start: datetime, span_s: float, spare: Callable[[], float | None]) -> float | None:
        """Return what clusters are sure to have to shed beyond what the plan holds back, and what storage could give by the plan. [W]"""
        clusters = np.flatnonzero(place.assets & (self._plant.kind == KINDS.index(Kind.CLUSTER))).tolist()
        found = [self._cluster_shed_w(i, start, span_s) for i in clusters]
        if (place.assets & self._storage).any():
            store = self._store(place, start, span_s)
            if store is not None:
                found.append(float((store.planned_w - store.lower_w).sum()))
            else:
                found.append(spare() if clusters else None)
        return _sum(found) if found else None

    def _cluster_shed_w(self, asset: int, start: datetime, span_s: float) -> float | None:
        name = self._plant.asset_ids[asset]
        tiers = [f"compute/{name}/tier{k}" for k in range(_FIRST_SHED_TIER, TIERS)]
        shed_w = _sum([self._foreseen(tier, start, span_s, SURE_FRAC) for tier in tiers])
        if shed_w is None:
            return None
        wanted_w, planned_w = self._foreseen(f"compute/{name}", start, span_s), self._planned_w(asset, start, span_s)
        held_w = max(wanted_w - planned_w, 0.0) if wanted_w is not None and planned_w is not None else 0.0
        return max(shed_w - held_w, 0.0)

    def _stored(self, payload_type: str, place: Place, start: datetime, span_s: float) -> float | None:
        """Return what storage will have or could do by the plan. [W, Wh, 0-1]"""
        store = self._store(place, start, span_s)
        if store is None:
            return None
        return {
            "STORAGE_MAX_CHARGE_POWER": float(store.upper_w.sum()),
            "STORAGE_MAX_DISCHARGE_POWER": float(-store.lower_w.sum()),
            "STORAGE_CHARGE_LEVEL": _finite(float(store.last_wh.sum()) / (store.usable_wh or math.nan)),
            "UP_REGULATION_AVAILABLE": float((store.planned_w - store.lower_w).sum()),
            "DOWN_REGULATION_AVAILABLE": float((store.upper_w - store.planned_w).sum()),
        }.get(payload_type)

    def _store(self, place: Place, start: datetime, span_s: float) -> _Store | None:
        """Return what storage of a place could do by the plan; None where there is no plan for all of it."""
        which, plan = np.flatnonzero(place.assets & self._storage), self._plan()
        if plan is None or not len(which):
            return None
        rows = [plan.rows.get(self._plant.asset_ids[i], -1) for i in which.tolist()]
        if min(rows) < 0:
            return None
        planned_w, held_wh = plan.mean_w(start, span_s)[rows], plan.held_wh(start, span_s)[rows]
        if not held_wh.size or not np.isfinite(planned_w).all() or not np.isfinite(held_wh).all():
            return None
        return self._range(which, planned_w, held_wh, max(span_s, SUSTAIN_S))

    def _range(self, which: Ints, planned_w: Floats, held_wh: Floats, sustain_s: float) -> _Store:
        """Return the range of storage, never more than the least energy and the least room on the way allow."""
        plant, hours = self._plant, sustain_s / 3_600.0
        capacity_wh, eta_frac = np.nan_to_num(plant.capacity_wh[which]), plant.efficiency_frac[which]
        spare_wh = held_wh.min(axis=1) - (plant.reserve_frac[which] + SOC_MARGIN_FRAC) * capacity_wh
        room_wh = capacity_wh - held_wh.max(axis=1)
        lower_w = np.maximum(plant.rated_lower_w[which], -np.maximum(spare_wh, 0.0) * eta_frac / hours)
        upper_w = np.minimum(plant.rated_upper_w[which], np.maximum(room_wh, 0.0) / eta_frac / hours)
        above_wh = np.maximum(held_wh[:, -1] - plant.reserve_frac[which] * capacity_wh, 0.0)
        usable_wh = float(usable_energy(plant)[which].sum())
        return _Store(planned_w, np.minimum(lower_w, planned_w), np.maximum(upper_w, planned_w), above_wh, usable_wh)

    def _planned_w(self, asset: int, start: datetime, span_s: float) -> float | None:
        plan = self._plan()
        row = plan.rows.get(self._plant.asset_ids[asset]) if plan is not None else None
        if plan is None or row is None:
            return None
        return _finite(float(plan.mean_w(start, span_s)[row]))

    def _plan(self) -> _Plan | None:
        """Return the newest plan, made ready to be asked."""
        table, known = self._plans(), self._known
        if table is None:
            return None
        if known is None or known.table is not table:
            known = self._known = _Plan(table)
        return known

    def _foreseen(self, name: str, start: datetime, span_s: float, level_frac: float = MEDIAN_FRAC) -> float | None:
        outlook = self._outlooks().get(name)
        if outlook is None or level_frac not in outlook.forecast.levels:
            return None
        return _finite(float(outlook.over(start, span_s, 1, level_frac)[0]))


def _sum(parts: list[float | None]) -> float | None:
    """Return the sum, None when there is nothing to add up or any part is not known."""
    known = [part for part in parts if part is not None]
    return sum(known) if parts and len(known) == len(parts) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
