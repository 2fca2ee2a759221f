"""``decide`` for 1,000 and 100,000 assets of a realistic mix, with orders on feeds and on the site, in a closed loop.

Run: ``python -m tests.bench.bench_decide [RUNS]``; it prints one JSON line per size.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from time import perf_counter, process_time
from typing import Any

import numpy as np

from vppd.config.load import Config
from vppd.core.cycle import decide
from vppd.core.state import Command, Decision, State
from vppd.model import Interval, Kind, Order, OrderKind
from vppd.plant import plant_of
from vppd.snapshot import KINDS, Floats, Health, Plant, Readings, Snapshot

RUNS = 25
ALLOWED_MS = {1_000: 5.0, 100_000: 250.0}
"""Median of one decision. [ms]"""
FEEDS = {1_000: 20, 100_000: 200}
AT = datetime(2026, 7, 1, tzinfo=UTC)
MIX = ("battery", "cluster", "pv", "ups", "load", "cluster", "battery", "load", "cluster", "wind")
LEAST_FRAC = 0.05
"""Inverters cannot run between 0 and this part of their rating. [0-1]"""
OFFICES_W = 1e5
"""What each feed draws beside its assets. [W]"""
_RATED_W = {"pv": 6e3, "wind": 6e3, "cluster": 1e4, "load": 4e3}
_DRAWN_W = {Kind.CLUSTER: 8e3, Kind.LOAD: 3e3, Kind.PV: -3e3, Kind.WIND: -2e3}


def site(n: int, feeds: int) -> Plant:
    """Return a plant of n assets, ``feeds`` meters among them."""
    tags = [f"f{i}" for i in range(feeds)]
    meters = [{"id": f"m{i}", "kind": "meter", "feed": tag, "adapter": "-"} for i, tag in enumerate(tags)]
    assets = [_asset(i, MIX[i % len(MIX)], tags[i % feeds]) for i in range(n - feeds)]
    config = {
        "site": {"id": "dc1", "agent_id": "dc1-agent", "import_max_w": 1e12, "ramp_down_w_per_s": 1e6},
        "feeds": [{"tag": t, "meter": f"m{i}", "import_max_w": 1e9, "export_max_w": 1e9} for i, t in enumerate(tags)],
        "assets": meters + assets,
    }
    return plant_of(Config.model_validate(config))


def _asset(i: int, kind: str, feed: str) -> dict[str, Any]:
    asset = {"id": f"a{i}", "kind": kind, "feed": feed, "adapter": "-", "control": kind != "load"}
    if kind not in ("cluster", "load"):
        asset["min_running_frac"] = LEAST_FRAC
    if kind in ("battery", "ups"):
        asset |= {"rated_charge_w": 1e4, "rated_discharge_w": 1e4, "capacity_wh": 2e4, "soc_target_frac": 0.8}
        return asset | {"reserve_frac": 0.3 if kind == "ups" else 0.1, "wear_cost_per_wh": 1e-5 * (2 + i % 7)}
    return asset | {"rated_w": _RATED_W[kind]}


class World:
    """Assets that do what they are told, seen one cycle later."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        n, kind = len(plant.asset_ids), plant.kind
        spread = np.random.default_rng(1).uniform(0.8, 1.2, n)
        self.free_w = spread * np.array([_DRAWN_W.get(KINDS[k], 0.0) for k in kind])
        self.readings = Readings.blank(n)
        self.readings.soc_frac[:] = np.where(np.isfinite(plant.capacity_wh), 0.7, np.nan)
        cluster = kind == KINDS.index(Kind.CLUSTER)
        self.readings.tier_shed_w[cluster] = (0.0, 500.0, 1500.0, 2000.0)
        self.readings.available_w[:] = np.where(self.free_w != 0.0, self.free_w, np.nan)
        self.readings.online[:] = True
        self._show(self.free_w.copy(), 0.0)

    def step(self, decision: Decision, mono_s: float) -> None:
        """Follow a decision."""
        told_w = np.where(decision.command == Command.SETPOINT, decision.target_w, self.free_w)
        consumes = self.free_w > 0.0
        self._show(np.where(consumes, np.minimum(told_w, self.free_w), told_w), mono_s)

    def _show(self, power_w: Floats, mono_s: float) -> None:
        plant, feeds = self.plant, len(self.plant.nodes) - 1
        power_w[plant.meter[1:]] = 0.0
        total_w = np.bincount(plant.node, weights=power_w, minlength=feeds + 1)
        power_w[plant.meter[1:]] = total_w[1:] + OFFICES_W
        self.readings.power_w[:] = power_w
        self.readings.mono_s[:] = mono_s


def orders_of(plant: Plant, free_w: Floats) -> tuple[Order, ...]:
    """Return limits that bind on every tenth feed and on the whole site."""
    drawn_w = np.bincount(plant.node, weights=free_w, minlength=len(plant.nodes)) + OFFICES_W
    limits = {plant.nodes[i]: 0.8 * drawn_w[i] for i in range(1, len(drawn_w), 10)}
    limits[plant.nodes[0]] = 0.9 * drawn_w[1:].sum()
    return tuple(
        Order(f"o-{name}", "tso", OrderKind.LIMIT, name, Interval(AT), float(limit_w))
        for name, limit_w in limits.items()
    )


def cycles(plant: Plant, count: int) -> Iterator[tuple[float, float, Decision]]:
    """Yield (time taken [s], processor time taken [s], decision) of one cycle after the other."""
    world, state = World(plant), State.first(plant)
    orders = orders_of(plant, world.free_w)
    for k in range(count):
        mono_s = 100.0 + k
        snapshot = Snapshot(AT + timedelta(seconds=k), mono_s, world.readings.copy(), orders, (), Health(ready=True))
        world.readings.mono_s[:] = mono_s
        began_s, cpu_s = perf_counter(), process_time()
        decision = decide(snapshot, state, plant)
        yield perf_counter() - began_s, process_time() - cpu_s, decision
        state = decision.state
        world.step(decision, mono_s)


def measure(n: int, runs: int) -> dict[str, float]:
    """Return the figures for n assets; the first two cycles, which warm up, do not count."""
    took = list(cycles(site(n, FEEDS[n]), runs + 2))[2:]
    took_s, cpu_s, last = [t for t, _, _ in took], [c for _, c, _ in took], took[-1][2]
    return {
        "assets": n,
        "runs": runs,
        "median_ms": 1e3 * statistics.median(took_s),
        "max_ms": 1e3 * max(took_s),
        "median_cpu_ms": 1e3 * statistics.median(cpu_s),
        "limit_median_ms": ALLOWED_MS[n],
        "setpoints": int((last.command == Command.SETPOINT).sum()),
        "orders": len(last.demands),
    }


def say(found: dict[str, float]) -> None:
    """Print the figures."""
    print(json.dumps({"bench": "decide", **{k: round(v, 3) for k, v in found.items()}}))


if __name__ == "__main__":
    for size in ALLOWED_MS:
        say(measure(size, int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))
