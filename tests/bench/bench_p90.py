"""Sell a site's flexibility for eight weeks and see whether it was there: one JSON line per profile. Run: ``python -m tests.bench.bench_p90 [days]``.

Six weeks are known at first; on each of the 55 (or ``days``) days held back, every hour of the next day is offered at noon by
forecast, joint paths and offering, with a battery beside what is uncertain. The market takes all of it at a price of the
hour. What is sold is compared with what was there then, quarter hour by quarter hour. Revenue is net of a penalty of the
price for each Wh that is missing, as a part of what perfect foresight would have earned without missing any.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

import numpy as np

from tests.bench.p90_profiles import DAY, DAYS, RECORDED, STEP_S, SYNTHETIC, Series
from vppd.core.bidding import Reading
from vppd.core.forecast import forecast
from vppd.core.forecast_point import Grid
from vppd.core.offering import Sale, Stock, offering
from vppd.model import Interval
from vppd.snapshot import Floats

FIRST_DAY = 42
ALLOWED_FRAC = 0.1
AT_LEAST_FRAC = 0.05
SLOT = 4
AHEAD = DAY // 2
T0 = datetime(2026, 1, 5, tzinfo=UTC)
GRID = Grid(STEP_S)
BATTERY_W, BATTERY_WH = 2e5, 8e5


def measure(
    series: Series,
    *,
    days: int = DAYS - FIRST_DAY - 1,
    method: str = "",
    reading: Reading = Reading.MINUTES,
    seed: int = 7,
) -> dict[str, Any]:
    """Return how often what was sold was not there, and what it earned."""
    price_per_wh = np.random.default_rng(seed).lognormal(np.log(1e-4), 0.6, (DAYS, 24))
    missed, sold_wh, there_wh, earned, bound, slots, took_s = 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0.0
    for day in range(FIRST_DAY, FIRST_DAY + days):
        begin = perf_counter()
        volumes_w = _sold(series, day * DAY + AHEAD, reading, method)
        took_s = max(took_s, perf_counter() - begin)
        real_w = sum(series, np.zeros(len(series[0])))[(day + 1) * DAY :][:DAY].reshape(24, SLOT)
        for hour, offer_w in enumerate(volumes_w):
            there_w = real_w[hour] + BATTERY_W
            if np.isnan(there_w).any():
                continue
            short_w = np.maximum(offer_w - there_w, 0.0)
            price = price_per_wh[day, hour]
            bound += price * float(there_w.min())
            earned += price * (offer_w - 2.0 * float(short_w.mean()))
            if offer_w > BATTERY_W * 1.001:
                slots += 1
                over = short_w > 1e-9 * offer_w
                missed += float(over.any() if reading is Reading.HOURS else over.mean())
                sold_wh, there_wh = sold_wh + offer_w, there_wh + float(there_w.mean())
    return {
        "missed_frac": round(missed / max(slots, 1), 4),
        "limit_missed_frac": ALLOWED_FRAC,
        "sold_of_there_frac": round(sold_wh / max(there_wh, 1.0), 3),
        "revenue_of_bound_frac": round(earned / bound, 3),
        "slots": slots,
        "slowest_day_s": round(took_s, 2),
    }


def _sold(series: Series, origin: int, reading: Reading, method: str) -> list[float]:
    """Return what is offered in each hour of the next day. [W]"""
    paths = [forecast(own[:origin], AHEAD + DAY, GRID, method=method, bounds=(0.0, np.inf)).paths for own in series]
    start = T0 + timedelta(seconds=origin * STEP_S)
    steps = AHEAD + DAY
    stocks = [Stock(f"tier{i}", "up", 60.0, 1e-5, own) for i, own in enumerate(paths)]
    stocks.append(Stock("battery", "up", 1.0, 2e-5, _flat(BATTERY_W, steps), _flat(BATTERY_WH, steps)[0]))
    sales = [
        Sale("hourly", "site", "up", _hour(start, hour), "EUR", 750.0, 3600.0, step_w=1e3, expected_price_per_wh=1e-4)
        for hour in range(24)
    ]
    found = offering(sales, stocks, start=start, step_s=STEP_S, reading=reading)
    power_w = {bid.interval.start: bid.power_w for bid in found.bids}
    return [power_w.get(sale.interval.start, 0.0) for sale in sales]


def _flat(level: float, steps: int) -> Floats:
    return np.full((1, steps), level)


def _hour(start: datetime, hour: int) -> Interval:
    begin = start + timedelta(seconds=AHEAD * STEP_S + hour * 3600.0)
    return Interval(begin, begin + timedelta(hours=1))


def main(days: int = DAYS - FIRST_DAY - 1) -> None:
    """Print the profiles, and the first one by the stricter reading."""
    rng = np.random.default_rng(1)
    for name, made in SYNTHETIC.items():
        print(json.dumps({"bench": "p90", "case": name} | measure(made(rng), days=days)), flush=True)
    for name, read in RECORDED.items():
        series = read(np.random.default_rng(1))
        if series is None:
            print(f"{name}: no file in ../shared/data, left out", file=sys.stderr)
        else:
            print(json.dumps({"bench": "p90", "case": name} | measure(series, days=days)), flush=True)
    strict = measure(SYNTHETIC["office"](np.random.default_rng(1)), days=days, reading=Reading.HOURS)
    print(json.dumps({"bench": "p90", "case": "office, by hours"} | strict), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
