"""A configuration as the columns the core computes with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vppd.config.load import Config
from vppd.config.plant import STORAGE, AssetConfig
from vppd.model import Kind
from vppd.snapshot import KINDS, Bools, Floats, Ints, Plant

_GENERATORS = (Kind.PV, Kind.WIND, Kind.GENSET)
_FAST = (*STORAGE, Kind.PV, Kind.WIND)
_WATCHED = (Kind.METER, Kind.LOAD)


def plant_of(config: Config) -> Plant:
    """Return the plant: assets in the order of the file, node 0 the site, then its feeds."""
    site, assets = config.site, config.assets
    return Plant(
        **_what_it_is(assets),
        **_what_it_can(assets),
        **_what_it_costs(assets),
        **_gaps_of(assets),
        **_tree(config),
        cycle_s=site.cycle_s,
        lease_s=site.lease_s,
        margin_frac=site.margin_frac,
        ramp_down_w_per_s=site.ramp_down_w_per_s,
        ramp_up_w_per_s=site.ramp_up_w_per_s,
    )


def _what_it_is(assets: Sequence[AssetConfig]) -> dict[str, Any]:
    """Return the columns that say what each asset is, and how it is watched."""
    return {
        "asset_ids": tuple(asset.id for asset in assets),
        "kind": _numbers(KINDS.index(asset.kind) for asset in assets),
        "controllable": _flags(asset.control and asset.kind not in _WATCHED for asset in assets),
        "fast": _flags(asset.kind in _FAST for asset in assets),
        "stale_after_s": _column(asset.stale_after_s for asset in assets),
    }


def _what_it_can(assets: Sequence[AssetConfig]) -> dict[str, Any]:
    """Return the columns of power and energy."""
    ranges = [_range(asset) for asset in assets]
    return {
        "rated_lower_w": _column(lower_w for lower_w, _ in ranges),
        "rated_upper_w": _column(upper_w for _, upper_w in ranges),
        "ramp_w_per_s": _column(asset.ramp_w_per_s or np.inf for asset in assets),
        "capacity_wh": _column(asset.capacity_wh if asset.kind in STORAGE else np.nan for asset in assets),
        "reserve_frac": _column(asset.reserve_frac for asset in assets),
        "soc_target_frac": _column(asset.soc_target_frac for asset in assets),
        "efficiency_frac": _column(asset.efficiency_frac for asset in assets),
    }


def _what_it_costs(assets: Sequence[AssetConfig]) -> dict[str, Any]:
    """Return the columns of what a Wh of flexibility costs."""
    return {
        "wear_cost_per_wh": _column(
            asset.curtail_cost_per_wh if asset.kind in _GENERATORS else asset.wear_cost_per_wh for asset in assets
        ),
        "tier_cost_per_wh": np.array([asset.tier_cost_per_wh for asset in assets], dtype=np.float64),
    }


def _gaps_of(assets: Sequence[AssetConfig]) -> dict[str, Any]:
    """Return the ranges in which assets cannot run, one row each."""
    found = [(i, *gap) for i, asset in enumerate(assets) for gap in _gaps(asset, _range(asset))]
    return {
        "gap_asset": _numbers(row[0] for row in found),
        "gap_lower_w": _column(row[1] for row in found),
        "gap_upper_w": _column(row[2] for row in found),
    }


def _tree(config: Config) -> dict[str, Any]:
    """Return the nodes with their limits and meters, and the node of each asset."""
    site, feeds, ids = config.site, config.feeds, [asset.id for asset in config.assets]
    tags = [feed.tag for feed in feeds]
    return {
        "nodes": (site.id, *tags),
        "parent": _numbers([-1, *(0 for _ in tags)]),
        "node_lower_w": _column([-site.export_max_w, *(-feed.export_max_w for feed in feeds)]),
        "node_upper_w": _column([site.import_max_w, *(feed.import_max_w for feed in feeds)]),
        "meter": _numbers([-1, *(ids.index(feed.meter) for feed in feeds)]),
        "node": _numbers(1 + tags.index(asset.feed) for asset in config.assets),
    }


def _column(values: Iterable[float]) -> Floats:
    return np.array(list(values), dtype=np.float64)


def _numbers(values: Iterable[int]) -> Ints:
    return np.array(list(values), dtype=np.int64)


def _flags(values: Iterable[bool]) -> Bools:
    return np.array(list(values), dtype=np.bool_)


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
