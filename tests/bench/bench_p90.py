"""Sell a site's flexibility for eight weeks and see whether it was there: one JSON line per profile. Run: ``python -m tests.bench.bench_p90 [days]``.

Six weeks are known at first; on each of the 55 (or ``days``) days held back, every hour of the next day is offered at noon by
forecast, joint paths and offering, with a battery beside what is uncertain. The market takes all of it at a price of the
hour. What is sold is compared with what was there then, quarter hour by quarter hour. Revenue is net of a penalty of the
price for each Wh that is missing, as a part of what perfect foresight would have earned without missing any.

``--seeds 10`` draws every profile ten times from seeds that nothing was tuned on, and says how many runs are within the limits, and how
many of those who know the truth of the made-up profiles would be.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

import numpy as np

from tests.bench.p90_oracle import oracle_missed
from tests.bench.p90_profiles import DAY, DAYS, RECORDED, STEP_S, SYNTHETIC, UNFORESEEN, Series
from vppd.core.bidding.offering import Sale, Stock, offering
from vppd.core.bidding.quote import Reading, sure_w
from vppd.core.bidding.sureness import is_enough, known_rows
from vppd.core.forecast.point import Grid
from vppd.core.forecast.quantiles import forecast
from vppd.model import Interval
from vppd.snapshot import Bools, Floats

FIRST_DAY = 42
ALLOWED_FRAC = 0.1
AT_LEAST_FRAC = 0.05
UNTUNED = 201
"""Care was tuned on seeds below this one."""
SLOT = 4
AHEAD = DAY // 2
T0 = datetime(2026, 1, 5, tzinfo=UTC)
GRID = Grid(STEP_S)
BATTERY_W, BATTERY_WH = 2e5, 8e5


@dataclass
class Tally:
    """What was sold against what was there then, over the slots in which more than the battery was sold."""

    reading: Reading
    slots: int = 0
    missed: float = 0.0
    sold_wh: float = 0.0
    there_wh: float = 0.0
    earned: float = 0.0
    bound: float = 0.0

    def add(self, offer_w: float, there_w: Floats, price_per_wh: float) -> None:
        """Count a slot of an hour."""
        short_w = np.maximum(offer_w - there_w, 0.0)
        self.bound += price_per_wh * float(there_w.min())
        self.earned += price_per_wh * (offer_w - 2.0 * float(short_w.mean()))
        if offer_w > BATTERY_W * 1.001:
            over = short_w > 1e-9 * offer_w
            self.slots += 1
            self.missed += float(over.any() if self.reading is Reading.HOURS else over.mean())
            self.sold_wh += offer_w
            self.there_wh += float(there_w.mean())

    @property
    def missed_frac(self) -> float:
        """Return how often what was sold was not there."""
        return round(self.missed / max(self.slots, 1), 4)

    @property
    def sold_frac(self) -> float:
        """Return what was sold as a part of what was there."""
        return round(self.sold_wh / max(self.there_wh, 1.0), 3)


def measure(
    series: Series,
    *,
    days: int = DAYS - FIRST_DAY - 1,
    method: str = "",
    reading: Reading = Reading.MINUTES,
    seed: int = 7,
) -> dict[str, Any]:
    """Return how often what was sold was not there, and what it earned; and the same by the bare rule and by each tier alone."""
    price_per_wh = np.random.default_rng(seed).lognormal(np.log(1e-4), 0.6, (DAYS, 24))
    ours, bare, apart = Tally(reading), Tally(reading), Tally(reading)
    took_s = 0.0
    whole_w = sum(series, np.zeros(len(series[0])))
    for day in range(FIRST_DAY, FIRST_DAY + days):
        begin = perf_counter()
        paths = _paths(series, day * DAY + AHEAD, method)
        volumes_w = _offered(paths, day * DAY + AHEAD, reading)
        took_s = max(took_s, perf_counter() - begin)
        real_w = whole_w[(day + 1) * DAY :][:DAY].reshape(24, SLOT)
        for hour, offer_w in enumerate(volumes_w):
            if np.isnan(real_w[hour]).any():
                continue
            there_w, price = real_w[hour] + BATTERY_W, float(price_per_wh[day, hour])
            slots_w = [own[:, AHEAD + hour * SLOT :][:, :SLOT] for own in paths]
            ours.add(offer_w, there_w, price)
            bare.add(BATTERY_W + _bare_w(sum(slots_w, np.zeros(1)), reading), there_w, price)
            apart.add(BATTERY_W + sum(_bare_w(w, reading) for w in slots_w), there_w, price)
    return {
        "missed_frac": ours.missed_frac,
        "sold_of_there_frac": ours.sold_frac,
        "revenue_of_bound_frac": round(ours.earned / ours.bound, 3),
        "slots": ours.slots,
        "bare_rule_missed_frac": bare.missed_frac,
        "each_apart_missed_frac": apart.missed_frac,
        "each_apart_sold_of_there_frac": apart.sold_frac,
        "slowest_day_s": round(took_s, 2),
    }


def _paths(series: Series, origin: int, method: str) -> list[Floats]:
    """Return joint samples of what each tier could give until the end of the next day, (i, h) each. [W]"""
    ahead = AHEAD + DAY
    return [forecast(own[:origin], ahead, GRID, method=method, bounds=(0.0, np.inf)).paths for own in series]


def _bare_w(samples_w: Floats, reading: Reading) -> float:
    """Return what would be sold of a slot without care: a tenth of the samples may be short. [W]"""
    known_w = known_rows(samples_w)
    return sure_w(known_w, reading, ALLOWED_FRAC) if is_enough(known_w) else 0.0


def _offered(paths: Sequence[Floats], origin: int, reading: Reading) -> list[float]:
    """Return what is offered in each hour of the next day. [W]"""
    start, steps = T0 + timedelta(seconds=origin * STEP_S), AHEAD + DAY
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


def profiles(days: int) -> None:
    """Print the profiles, and the first one by the stricter reading."""
    rng = np.random.default_rng(1)
    for name, made in SYNTHETIC.items():
        _say(name, measure(made(rng), days=days))
    for name, read in RECORDED.items():
        series = read(np.random.default_rng(1))
        if series is None:
            print(f"{name}: no file in ../shared/data, left out", file=sys.stderr)
        else:
            _say(name, measure(series, days=days))
    _say("office, by hours", measure(SYNTHETIC["office"](np.random.default_rng(1)), days=days, reading=Reading.HOURS))


def over_seeds(seeds: range, days: int, reading: Reading) -> None:
    """Print how every profile did when drawn from each of the seeds, and how many runs were within the limits in all."""
    every: list[dict[str, Any]] = []
    made_up: dict[str, Callable[[np.random.Generator], Series | None]] = {**SYNTHETIC, **RECORDED}
    for name, made in made_up.items():
        drawn = [made(np.random.default_rng(seed)) for seed in seeds] if name not in UNFORESEEN else []
        own = [measure(series, days=days, reading=reading) for series in drawn if series is not None]
        if own:
            every += own
            oracle = oracle_missed(SYNTHETIC[name], FIRST_DAY + 1, days, reading) if name in SYNTHETIC else None
            _say(name, _summary(own) | ({} if oracle is None else _of_oracle(oracle)))
    _say("all", _summary(every))


def _summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    missed_frac = np.array([one["missed_frac"] for one in found])
    return {
        "runs": len(found),
        "missed_frac": round(float(missed_frac.mean()), 4),
        "within_runs": int(_is_within(missed_frac).sum()),
        "above_runs": int((missed_frac > ALLOWED_FRAC).sum()),
        "below_runs": int((missed_frac < AT_LEAST_FRAC).sum()),
        "least_frac": float(missed_frac.min()),
        "most_frac": float(missed_frac.max()),
        "spread_frac": round(float(missed_frac.std()), 4),
        "revenue_of_bound_frac": round(float(np.mean([one["revenue_of_bound_frac"] for one in found])), 3),
        "sold_of_there_frac": round(float(np.mean([one["sold_of_there_frac"] for one in found])), 3),
        "bare_rule_missed_frac": round(float(np.mean([one["bare_rule_missed_frac"] for one in found])), 4),
    }


def _of_oracle(missed_frac: Floats) -> dict[str, Any]:
    return {
        "oracle_spread_frac": round(float(missed_frac.std()), 4),
        "oracle_within_frac": round(float(_is_within(missed_frac).mean()), 2),
    }


def _is_within(missed_frac: Floats) -> Bools:
    return np.asarray((missed_frac >= AT_LEAST_FRAC) & (missed_frac <= ALLOWED_FRAC))


def _say(name: str, found: dict[str, Any]) -> None:
    limits = {} if name in UNFORESEEN else {"limit_missed_frac": ALLOWED_FRAC}
    print(json.dumps({"bench": "p90", "case": name} | found | limits), flush=True)


def main() -> None:
    """Print what the arguments ask for."""
    parser = argparse.ArgumentParser(description="Was what is sold there?")
    parser.add_argument("days", type=int, nargs="?", default=DAYS - FIRST_DAY - 1)
    parser.add_argument("--seeds", type=int, default=0, help="draw every profile so often")
    parser.add_argument("--first", type=int, default=UNTUNED, help="from this seed on")
    parser.add_argument("--reading", type=Reading, default=Reading.MINUTES, help="minutes or hours")
    given = parser.parse_args()
    if given.seeds:
        over_seeds(range(given.first, given.first + given.seeds), given.days, given.reading)
    else:
        profiles(given.days)


if __name__ == "__main__":
    main()
