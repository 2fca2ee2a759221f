"""A configuration as the columns the core computes with."""

from __future__ import annotations

import numpy as np

from vppd.config.load import Config
from vppd.config.plant import STORAGE, AssetConfig
from vppd.model import Kind
from vppd.snapshot import KINDS, Floats, Plant

_GENERATORS = (Kind.PV, Kind.WIND, Kind.GENSET)
_FAST = (*STORAGE, Kind.PV, Kind.WIND)
_WATCHED = (Kind.METER, Kind.LOAD)


def plant_of(config: Config) -> Plant:
    """Return the plant: assets in the order of the file, node 0 the site, then its feeds."""
    assets, site = config.assets, config.site
    tags = [feed.tag for feed in config.feeds]
    ids = [asset.id for asset in assets]
    ranges = [_range(asset) for asset in assets]
    gaps = [(i, *g) for i, (asset, r) in enumerate(zip(assets, ranges, strict=True)) for g in _gaps(asset, r)]
    return Plant(
        asset_ids=tuple(ids),
        kind=np.array([KINDS.index(a.kind) for a in assets], dtype=np.int64),
        node=np.array([1 + tags.index(a.feed) for a in assets], dtype=np.int64),
        controllable=np.array([a.control and a.kind not in _WATCHED for a in assets], dtype=np.bool_),
        fast=np.array([a.kind in _FAST for a in assets], dtype=np.bool_),
        rated_lower_w=_column([r[0] for r in ranges]),
        rated_upper_w=_column([r[1] for r in ranges]),
        ramp_w_per_s=_column([a.ramp_w_per_s or np.inf for a in assets]),
        capacity_wh=_column([a.capacity_wh if a.kind in STORAGE else np.nan for a in assets]),
        reserve_frac=_column([a.reserve_frac for a in assets]),
        soc_target_frac=_column([a.soc_target_frac for a in assets]),
        efficiency_frac=_column([a.efficiency_frac for a in assets]),
        wear_cost_per_wh=_column(
            [a.curtail_cost_per_wh if a.kind in _GENERATORS else a.wear_cost_per_wh for a in assets]
        ),
        tier_cost_per_wh=np.array([a.tier_cost_per_wh for a in assets], dtype=np.float64),
        gap_asset=np.array([g[0] for g in gaps], dtype=np.int64),
        gap_lower_w=_column([g[1] for g in gaps]),
        gap_upper_w=_column([g[2] for g in gaps]),
        stale_after_s=_column([a.stale_after_s for a in assets]),
        nodes=(site.id, *tags),
        parent=np.array([-1] + [0] * len(tags), dtype=np.int64),
        node_lower_w=_column([-site.export_max_w, *(-f.export_max_w for f in config.feeds)]),
        node_upper_w=_column([site.import_max_w, *(f.import_max_w for f in config.feeds)]),
        meter=np.array([-1, *(ids.index(f.meter) for f in config.feeds)], dtype=np.int64),
        cycle_s=site.cycle_s,
        lease_s=site.lease_s,
        margin_frac=site.margin_frac,
        ramp_down_w_per_s=site.ramp_down_w_per_s,
        ramp_up_w_per_s=site.ramp_up_w_per_s,
    )


def _column(values: list[float]) -> Floats:
    return np.array(values, dtype=np.float64)


def _range(asset: AssetConfig) -> tuple[float, float]:
    """Return the rated range. [W, + = consumption]"""
    if asset.kind in STORAGE:
        return -asset.rated_discharge_w, asset.rated_charge_w
    if asset.kind in _GENERATORS:
        return -asset.rated_w, 0.0
    return asset.min_w, asset.rated_w


def _gaps(asset: AssetConfig, rated: tuple[float, float]) -> list[tuple[float, float]]:
    """Return the open ranges around 0 in which the asset cannot run. [W]"""
    edges = [
        (min(limit_w, 0.0) * asset.min_running_frac, max(limit_w, 0.0) * asset.min_running_frac) for limit_w in rated
    ]
    return [(lower_w, upper_w) for lower_w, upper_w in edges if lower_w < upper_w]
