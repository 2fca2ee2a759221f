"""What a site can draw more than it would: storage that charges, generation that is held back, work that the plan puts off. Pure."""

from __future__ import annotations

from math import ceil

import numpy as np

from vppd.config.plant import AssetConfig
from vppd.core.bidding.stock import Stock
from vppd.core.failsafe import SOC_MARGIN_FRAC
from vppd.planning.trade.sight import Sight
from vppd.snapshot import Floats

DOWN = "/down"
"""What can be given both ways is two stocks: this follows the asset's name in that of the increase."""


def charging(asset: AssetConfig, response_s: float, sight: Sight) -> Stock:
    """Return what storage can draw beyond its plan, and the room that its plan leaves for it.

    An increase is counted from rest: discharging that stops is none, and what is charged anyway is not sold.
    """
    stored_wh = sight.most_stored_wh(asset.id)
    full_wh = (1.0 - SOC_MARGIN_FRAC) * asset.capacity_wh
    room_wh = np.maximum(full_wh - stored_wh, 0.0) / asset.efficiency_frac
    planned_w = np.nan_to_num(sight.planned_w(asset.id))
    power_w = np.clip(asset.rated_charge_w - np.maximum(planned_w, 0.0), 0.0, None)
    power_w = np.where(np.isnan(room_wh), np.nan, power_w)
    usable_wh = max(full_wh - asset.reserve_frac * asset.capacity_wh, 0.0)
    empty_s = 3600.0 * usable_wh * asset.efficiency_frac / max(asset.rated_discharge_w, 1e-9)
    recovery = min(ceil(empty_s / sight.steps.step_s), sight.steps.count)
    # What is bought now need not be bought later, but for what is lost on the way in and out.
    cost = asset.wear_cost_per_wh + (1.0 - asset.efficiency_frac**2) * sight.dearest_per_wh()
    energy_wh = np.asarray(np.nan_to_num(room_wh[0]))
    return Stock(asset.id + DOWN, "down", response_s, cost, np.asarray(power_w), energy_wh, recovery)


def held_back(asset: AssetConfig, response_s: float, sight: Sight) -> Stock | str:
    """Return what PV or wind could give and may be held back, less what the plan holds back anyway; or why there is none."""
    given_w = given(asset, sight)
    if given_w is None:
        return "there is no forecast of its output"
    # Each Wh held back is bought instead; where its owner says that it costs more, it costs that.
    cost = max(asset.curtail_cost_per_wh, sight.dearest_per_wh())
    return Stock(asset.id + DOWN, "down", response_s, cost, given_w)


def put_off(asset: AssetConfig, response_s: float, waits_w: Floats, sight: Sight) -> Stock:
    """Return the work (i, h) of a cluster that the plan holds back and that may run after all. [W]

    It would be paid for later, at best when energy is cheapest. An increase is counted from what is drawn without it, a signal from
    what would be drawn with it: so it is sold one way only.
    """
    return Stock(asset.id + DOWN, "down", response_s, sight.spread_per_wh(), np.asarray(waits_w), one_way=True)


def given(asset: AssetConfig, sight: Sight) -> Floats | None:
    """Return what PV or wind gives by forecast and plan, (i, h), None when it is not foreseen. [W, >= 0]"""
    could_w, expected_w = sight.low(f"generation/{asset.id}"), sight.median(f"generation/{asset.id}")
    if could_w is None or expected_w is None:
        return None
    curtailed_w = np.nan_to_num(np.maximum(expected_w + sight.planned_w(asset.id), 0.0))
    return np.asarray(np.maximum(could_w - curtailed_w, 0.0))
