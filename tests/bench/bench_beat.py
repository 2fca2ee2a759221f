"""How evenly a one-second beat runs while a thousand points are polled once a second in the same loop.

Run: ``python -m tests.bench.bench_beat``; it prints one JSON line. The whole daemon is in ``bench_beat_daemon``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
from random import Random

import numpy as np
import uvloop

from vppd.runtime.clock import SystemClock, tick_after
from vppd.runtime.link import Device, attend
from vppd.runtime.poller import Pace
from vppd.runtime.table import LatestValues
from vppd.testing.fakes import FakeDevice

POINTS = 1_000
BEATS = 15
ALLOWED_S = 0.1
"""p99 of the beat's lateness. [s]"""
ALLOWED_AGE_S = 2.5


async def run() -> dict[str, float]:
    """Return lateness of the beat, age of the readings and cost."""
    clock, rng = SystemClock(), Random(1)
    table = LatestValues([f"p{i}" for i in range(POINTS)])
    devices = [FakeDevice(clock.mono_s, default_w=float(i), answer_s=0.005) for i in range(POINTS)]
    tasks = [
        asyncio.ensure_future(
            attend(Device(f"p{i}", device.connect, Pace(1.0, 2.0, rng.random())), table, clock, Random(i))
        )
        for i, device in enumerate(devices)
    ]
    await table.all_tried()
    start_s, used_s = clock.mono_s(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
    late_s, oldest_s, due_s = [], [], start_s
    for _ in range(BEATS):
        due_s = tick_after(start_s, 1.0, max(clock.mono_s(), due_s))  # timers of uvloop ring up to 0.5 ms early
        await asyncio.sleep(due_s - clock.mono_s())
        late_s.append(abs(clock.mono_s() - due_s))
        oldest_s.append(clock.mono_s() - float(table.frame().mono_s.min()))
    lasted_s, used_s = clock.mono_s() - start_s, resource.getrusage(resource.RUSAGE_SELF).ru_utime - used_s
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return {
        "points": POINTS,
        "beats": BEATS,
        "late_p50_ms": 1e3 * float(np.percentile(late_s, 50)),
        "late_p99_ms": 1e3 * float(np.percentile(late_s, 99)),
        "limit_late_p99_ms": 1e3 * ALLOWED_S,
        "reads_per_s": sum(device.reads for device in devices) / lasted_s,
        "oldest_reading_s": max(oldest_s),
        "limit_oldest_reading_s": ALLOWED_AGE_S,
        "core_frac": used_s / lasted_s,
    }


def main() -> None:
    """Print the figures."""
    with contextlib.closing(uvloop.new_event_loop()) as loop:
        found = loop.run_until_complete(run())
    print(json.dumps({"bench": "beat", **{k: round(v, 3) for k, v in found.items()}}))


if __name__ == "__main__":
    main()
