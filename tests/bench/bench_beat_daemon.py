"""How evenly the daemon's one-second beat runs while it polls a thousand Modbus points once a second, and what that costs.

Everything is on: signing and publishing to a real Mosquitto, ledger, recording. The beat is judged by the recorded frames.
Run: ``python -m tests.bench.bench_beat_daemon [SECONDS]``; it prints one JSON line.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tests.bench.rig import CYCLE_S, Rig, rig
from vppd.ledger.telemetry import frames

POINTS, PORTS = 1_000, 20
LASTS_S = 65.0
SETTLES_S = 5.0
STRETCH_CPU_S = 0.01
ALLOWED_MS = 100.0
"""p99 of how far a beat lies off the grid. [ms]"""


def measure(lasts_s: float) -> dict[str, float]:
    """Return the figures of a run."""
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder), POINTS, PORTS) as given:
        time.sleep(SETTLES_S)
        began_s, used_s = time.monotonic(), _used_s(given)
        stretches = [stretch() for _ in _seconds(lasts_s)]
        ended_s, memory = time.monotonic(), given.daemon.memory_info()
        core_frac = (_used_s(given) - used_s) / (ended_s - began_s)
        time.sleep(1.0)  # what is recorded is written twice a second
        beats_s = [f.mono_s for f in frames(given.telemetry) if f.kind == "cycle" and began_s <= f.mono_s <= ended_s]
    off_s = off_grid_s(beats_s)
    return {
        "points": POINTS,
        "beats": len(beats_s),
        "missed": round((beats_s[-1] - beats_s[0]) / CYCLE_S) + 1 - len(beats_s),
        "off_p50_ms": 1e3 * float(np.percentile(off_s, 50)),
        "off_p99_ms": 1e3 * float(np.percentile(off_s, 99)),
        "off_max_ms": 1e3 * max(off_s),
        "limit_off_p99_ms": ALLOWED_MS,
        "core_frac": core_frac,
        "rss_mb": memory.rss / 2**20,
        "machine_stretch": float(np.median(stretches)),
    }


def _seconds(lasts_s: float) -> Iterator[int]:
    """Yield once a second for so long."""
    for second in range(round(lasts_s)):
        time.sleep(1.0)
        yield second


def stretch() -> float:
    """Return by how much longer than its processor time a computation takes here now: 1 on a quiet machine."""
    began_s, cpu_s = time.perf_counter(), time.process_time()
    while time.process_time() - cpu_s < STRETCH_CPU_S:
        pass
    return (time.perf_counter() - began_s) / (time.process_time() - cpu_s)


def off_grid_s(beats_s: Sequence[float]) -> list[float]:
    """Return how late each beat is on the grid of the earliest. [s]"""
    phase_s = np.asarray(beats_s) % CYCLE_S
    late_s = (phase_s - phase_s[0] + CYCLE_S / 2) % CYCLE_S
    return [float(x) for x in late_s - late_s.min()]


def _used_s(given: Rig) -> float:
    used = given.daemon.cpu_times()
    return float(used.user + used.system)


def say(found: dict[str, float]) -> None:
    """Print the figures."""
    figures = {k: round(v, 3) for k, v in found.items()}
    print(json.dumps({"bench": "beat_daemon", **figures}))


if __name__ == "__main__":
    say(measure(float(sys.argv[1]) if len(sys.argv) > 1 else LASTS_S))
