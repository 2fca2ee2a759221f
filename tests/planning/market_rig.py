"""A site that sells: its forecasts, its plan and its market table, small enough to reckon with by hand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from vppd.config.load import Config
from vppd.core.forecast.outlook import Outlook
from vppd.core.forecast.quantiles import Forecast, Score
from vppd.core.timetable import Timetable
from vppd.products import ProductConfig
from vppd.snapshot import Floats, Plant
from vppd.testing.cycles import START, two_feeds

STEP_S = 900.0
STEPS = 96
LEVELS = (0.1, 0.5, 0.9)


def config(**market: Any) -> Config:
    """Return the plant of two feeds with a market that sells the product ``quick``."""
    plain = two_feeds().model_dump(exclude_none=True)
    grid = {
        "broker": {"host": "127.0.0.1", "port": 1883, "insecure_lab": True},
        "signing": {"kid": "k", "key_file": "/nowhere"},
        "issuers": [],
    }
    tables = {
        "grid": grid,
        "forecast": {},
        "planning": {},
        "market": {"issuer": "tso", "products": ["quick"], "lead_s": 600.0, **market},
    }
    return Config.model_validate(plain | tables)


def product(**changes: Any) -> ProductConfig:
    """Return a product of a quarter of an hour that is kept ready, its gate ten minutes before."""
    values = {
        "name": "quick", "title": "Quick", "market": "m", "direction": "reduce", "activation_s": 300.0,
        "sustain_s": 900.0, "delivery_interval_s": 900.0, "gate": {"before_delivery_s": 600.0}, "min_bid_w": 10e3,
        "bid_step_w": 1e3, "sources": ("s",), **changes,
    }  # fmt: skip
    return ProductConfig.model_validate(values)


def outlook(name: str, level: float, paths: Floats | None = None, start: datetime = START) -> Outlook:
    """Return a forecast that says one level for a day; with ``paths`` (i, h) or none, and then untried."""
    values = np.full((len(LEVELS), STEPS), level)
    known = paths is not None
    score = Score(0.0 if known else np.inf, np.full(len(LEVELS), np.nan), 100 if known else 0)
    found = Forecast("seasonal", STEP_S, LEVELS, values, score, np.zeros((0, STEPS)) if paths is None else paths)
    return Outlook(name, "seasonal", start, start, found)


def paths(level: float, spread: float, rows: int = 40) -> Floats:
    """Return samples evenly spread around a level."""
    offsets = np.linspace(-spread, spread, rows)[:, None]
    return np.asarray(np.broadcast_to(level + offsets, (rows, STEPS)).copy())


def outlooks(shed_w: float = 200e3, spread_w: float = 20e3, start: datetime = START) -> Mapping[str, Outlook]:
    """Return forecasts of two halls of 300 kW each, of which tier 3 could shed about ``shed_w``; of loads, PV and the price too."""
    found = [outlook("price/import", 8e-5, start=start), outlook("generation/pv-b", 60e3, paths(60e3, 20e3), start)]
    found += [outlook(f"load/{feed}", 150e3, paths(150e3, 10e3), start) for feed in ("main-a", "main-b")]
    for hall in ("hall-a", "hall-b"):
        found += [
            outlook(f"compute/{hall}", 300e3, paths(300e3, spread_w), start),
            outlook(f"compute/{hall}/tier2", 0.0, paths(0.0, 0.0), start),
            outlook(f"compute/{hall}/tier3", shed_w, paths(shed_w, spread_w), start),
        ]
    return {one.name: one for one in found}


def timetable(
    plant: Plant, power_w: Mapping[str, float], energy_wh: Mapping[str, float], start: datetime = START
) -> Timetable:
    """Return a plan in which each asset does the same all day; what is not named is not planned."""
    powers, energies = np.full((len(plant.asset_ids), STEPS), np.nan), np.full((len(plant.asset_ids), STEPS), np.nan)
    for i, name in enumerate(plant.asset_ids):
        powers[i], energies[i] = power_w.get(name, np.nan), energy_wh.get(name, np.nan)
    return Timetable(
        start, start, STEP_S, "optimal", plant.asset_ids, powers, energies, np.zeros(STEPS), np.zeros(STEPS), 0.0
    )
