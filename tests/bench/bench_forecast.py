"""Time history and forecasts: a cycle's recording, writing a step, and rounds over 30 days of history in a real process.

Run: ``python -m tests.bench.bench_forecast``, or with the other benches by ``make bench``. One JSON line per case.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import numpy as np

from tests.planning import past
from vppd.config.forecast import ForecastConfig
from vppd.core.cycle import decide
from vppd.core.state import State
from vppd.ledger.history import open_history
from vppd.model import Kind
from vppd.planning.forecasts.forecaster import Forecaster
from vppd.planning.forecasts.recorder import Recorder
from vppd.plant import plant_of
from vppd.runtime.clock import FakeClock
from vppd.snapshot import Health, Plant, Readings, Snapshot
from vppd.testing.cycles import two_feeds

START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 30
CYCLES = 1_000


def _print(case: str, **figures: float | int) -> None:
    print(json.dumps({"bench": "forecast", "case": case} | {k: round(v, 4) for k, v in figures.items()}), flush=True)


def _plant(clusters: int, generators: int) -> Plant:
    """Return a plant with the series of ``past.site``."""
    config = two_feeds()
    feeds = tuple(config.feeds[0].model_copy(update={"tag": f"feed-{k}", "meter": f"poi-{k}"}) for k in range(clusters))
    meter, cluster, sun = (
        next(a for a in config.assets if a.kind is kind) for kind in (Kind.METER, Kind.CLUSTER, Kind.PV)
    )
    assets = [meter.model_copy(update={"id": f"poi-{k}", "feed": f"feed-{k}"}) for k in range(clusters)]
    assets += [cluster.model_copy(update={"id": f"hall-{k}", "feed": f"feed-{k}"}) for k in range(clusters)]
    assets += [sun.model_copy(update={"id": f"pv-{k}", "feed": "feed-0"}) for k in range(generators)]
    return plant_of(config.model_copy(update={"feeds": feeds, "assets": tuple(assets)}))


async def _recording(folder: Path, clusters: int) -> None:
    plant = _plant(clusters, 0)
    readings = Readings.blank(len(plant.asset_ids))
    readings.power_w[:], readings.available_w[:], readings.mono_s[:] = 100e3, 120e3, 0.0
    first = Snapshot(START, 0.0, readings, health=Health(ready=True))
    decision = decide(first, State.first(plant), plant)
    took_s = []
    async with open_history(folder / "recorded.db") as history:
        recorder = Recorder(plant, history)
        for k in range(CYCLES):
            readings.mono_s[:] = k
            snapshot = replace(first, at=START + timedelta(seconds=k), mono_s=float(k))
            began_s = perf_counter()
            recorder.take(snapshot, decision)
            took_s.append(perf_counter() - began_s)
        await history.flush()
        names = recorder.names
        began_s = perf_counter()
        history.record(START + timedelta(hours=1), names, np.ones(len(names)))
        handed_s = perf_counter() - began_s
        await history.flush()
        written_s = perf_counter() - began_s
    _print(
        f"recording {clusters} clusters", series=len(names), take_us=1e6 * statistics.median(took_s),
        hand_over_us=1e6 * handed_s, write_ms=1e3 * written_s,
    )  # fmt: skip


async def _rounds(folder: Path, clusters: int) -> None:
    steps = DAYS * past.STEPS_A_DAY + 150
    path = folder / f"history-{clusters}.db"
    past.write(path, START, past.site(START, steps, clusters, clusters))
    plant, clock = _plant(clusters, clusters), FakeClock(START + timedelta(seconds=300 * steps + 7))
    async with open_history(path) as history:
        forecaster = Forecaster(ForecastConfig(), plant, history, Recorder(plant, history), None, clock)
        for case in ("all methods", "chosen before"):
            before_s = _children_s()
            stall_s, wall_s = await _watched(forecaster)
            _print(
                f"round, {case}", series=len(forecaster.outlook), wall_s=wall_s, worker_cpu_s=_children_s() - before_s,
                longest_stall_ms=1e3 * stall_s, file_mb=path.stat().st_size / 1e6,
            )  # fmt: skip
        assert not forecaster.fault
        began_s = perf_counter()
        size = len(json.dumps(forecaster.view(), allow_nan=False))
        _print("view", series=len(forecaster.outlook), encode_ms=1e3 * (perf_counter() - began_s), kilobytes=size / 1e3)


async def _watched(forecaster: Forecaster) -> tuple[float, float]:
    """Return the longest time that the loop was held up during a round, and how long the round took. [s]"""
    gaps_s = [0.0]

    async def watch() -> None:
        while True:
            began_s = perf_counter()
            await asyncio.sleep(0.001)
            gaps_s.append(perf_counter() - began_s - 0.001)

    watching = asyncio.create_task(watch())
    began_s = perf_counter()
    await forecaster.round()
    wall_s = perf_counter() - began_s
    watching.cancel()
    await asyncio.wait({watching})
    return max(gaps_s), wall_s


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _main() -> None:
    with tempfile.TemporaryDirectory() as name:
        for clusters in (2, 1_000):
            await _recording(Path(name, f"{clusters}"), clusters)
        for clusters in (2, 10):
            await _rounds(Path(name), clusters)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _print("memory", processors=os.cpu_count() or 0, this_process_mb=own / 1024)


if __name__ == "__main__":
    asyncio.run(_main())
