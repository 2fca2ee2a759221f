"""How long a round of offers takes: 96 slots of four products over 50 stocks. Run: ``python -m tests.bench.bench_offers [limit_s]``.

One JSON line per case: reductions alone (what a site without storage sells), and both directions with a symmetric product
and the limits of the connection and of two feeds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import perf_counter, process_time
from typing import Any

import numpy as np

from vppd.core.bidding.offering import Room, Sale, Stock, offering
from vppd.model import Interval

STEPS, STEP_S, ROWS = 96, 900.0, 40
T0 = datetime(2026, 1, 5, tzinfo=UTC)


def clusters(count: int, direction: str = "up") -> list[Stock]:
    """Return uncertain stocks of two speeds and four costs, with their samples."""
    rng = np.random.default_rng(3)
    day = 1.0 + 0.3 * np.sin(np.linspace(0.0, 2.0 * np.pi, STEPS))
    found = []
    for i in range(count):
        noise = rng.normal(0.0, 0.1, (ROWS, 1)) + rng.normal(0.0, 0.1, (ROWS, STEPS))
        paths_w = np.maximum(2e5 * day * (1.0 + noise), 0.0)
        found.append(Stock(f"{direction}{i}", direction, (60.0, 300.0)[i % 2], 1e-4 * (1 + i % 4), paths_w))
    return found


def batteries(count: int, direction: str = "up") -> list[Stock]:
    """Return storage that needs an hour to recover."""
    power_w, energy_wh = np.full((1, STEPS), 5e5), np.full(STEPS, 1e6)
    name = f"battery-{direction}"
    return [Stock(f"{name}{i}", direction, 1.0, 2e-5 * (1 + i), power_w, energy_wh, 4) for i in range(count)]


def sales(directions: Sequence[str], products: int = 4) -> list[Sale]:
    """Return every quarter of an hour of a day in some products, each with a speed, a length and a price of its own."""
    found = []
    for k in range(STEPS):
        start = T0 + timedelta(seconds=k * STEP_S)
        slot = Interval(start, start + timedelta(seconds=STEP_S))
        for p in range(products):
            plain = Sale(
                f"p{p}", "site", "up", slot, "EUR", (10.0, 60.0, 300.0, 750.0)[p], 900.0, 1e5, 1e5,
                expected_price_per_wh=1e-4 * (1 + p),
            )  # fmt: skip
            found += [replace(plain, direction=direction) for direction in directions]
    return found


def measure(stocks: Sequence[Stock], asked: Sequence[Sale], limit_s: float, **rest: Any) -> dict[str, Any]:
    """Return the time a round takes and how far the split got."""
    begin, begin_cpu = perf_counter(), process_time()
    found = offering(asked, stocks, start=T0, step_s=STEP_S, limit_s=limit_s, **rest)
    took_s, cpu_s = perf_counter() - begin, process_time() - begin_cpu
    offered_w: dict[str, float] = {}
    for bid in found.bids:
        offered_w[bid.direction] = offered_w.get(bid.direction, 0.0) + bid.power_w
    return {
        "sales": len(asked), "stocks": len(stocks), "bids": len(found.bids), "status": found.status,
        "took_s": round(took_s, 2), "cpu_s": round(cpu_s, 2), "offered_mw": {key: round(w / 1e6, 1) for key, w in offered_w.items()},
    }  # fmt: skip


def rooms(stocks: Sequence[Stock]) -> list[Room]:
    """Return the room of a connection and of its two feeds, by the samples of a load that leaves half of what is asked for."""
    load_w = sum((stock.paths_w for stock in clusters(5)), np.zeros((ROWS, STEPS)))
    found = []
    for direction in ("up", "down"):
        own = [stock.name for stock in stocks if stock.direction == direction]
        most_w = 4e6 if direction == "up" else 2.5e6
        for name, names, part in (("site", own, 1.0), ("a", own[::2], 0.6), ("b", own[1::2], 0.6)):
            found.append(Room(name, direction, frozenset(names), np.asarray(part * (most_w - load_w))))
    return found


def main(limit_s: float = 5.0) -> None:
    """Print the cases."""
    one_way = measure([*clusters(45), *batteries(5)], sales(["up"]), limit_s)
    print(json.dumps({"bench": "offers", "case": "reductions"} | one_way), flush=True)
    stocks = [*clusters(35), *batteries(5), *clusters(5, "down"), *batteries(5, "down")]
    either = measure(stocks, sales(["up", "down"], 3) + sales(["symmetric"], 1), limit_s, rooms=rooms(stocks))
    print(json.dumps({"bench": "offers", "case": "both directions"} | either), flush=True)
    plain = measure(stocks, sales(["up", "down"]), limit_s)
    print(json.dumps({"bench": "offers", "case": "both directions, no limits"} | plain), flush=True)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
