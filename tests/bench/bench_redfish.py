"""Time until every healthy one of many BMCs is capped, with a tenth of them dead and a tenth slow.

The BMCs are real HTTP servers on ports of their own, in another process. Run: ``python -m tests.bench.bench_redfish [BMCS]``; it
prints one JSON line. Two figures are taken: in operation (the pool knows where limits live, and who is dead or slow), and cold
(the first cap is ordered as the pool opens: log in, search, read, cap).
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from adapters._redfish_config import BmcPoolConfig
from adapters._redfish_pool import BmcPool, open_pool
from tests.adapters.redfish_bmcs import PASSWORD, USER
from tests.adapters.redfish_process import served
from tests.bench.bench_beat_daemon import stretch

BMCS = 500
ALLOWED_S = 5.0
CAP_W = 4000.0
SETTLE_S = 15.0
"""So long the pool gets to know its BMCs before it is measured in operation; most of it is waiting. [s]"""


def behaviours(bmcs: int) -> dict[str, dict[str, Any]]:
    """Return a tenth dead (half silent, half hanging up), a tenth slow, the others as BMCs are on a good day."""
    found: dict[str, dict[str, Any]] = {}
    for i in range(bmcs):
        how: dict[str, Any] = {"demand_w": 6000.0, "least_s": 0.05, "most_s": 0.2}
        if i % 10 == 3:
            how["dead"] = "silent" if i % 20 == 3 else "gone"
        elif i % 10 == 7:
            how |= {"least_s": 2.0, "most_s": 5.0}
        found[f"node{i:03d}"] = how
    return found


async def capped(pool: BmcPool, healthy: set[str], valid_for_s: float) -> tuple[float, float, int]:
    """Cap all nodes; return when the last healthy one had confirmed, processor time, and requests under way at most. [s]"""
    began_s, cpu_s = time.monotonic(), time.process_time()
    left = set(healthy)
    await pool.put_all(dict.fromkeys(pool.names, CAP_W), valid_for_s, wait_s=0.0)
    while left and time.monotonic() - began_s < 150.0:
        await asyncio.sleep(0.05)
        left -= {name for name in left if (cap := pool.cap(name)) and cap.cap_w is not None and cap.cap_w <= CAP_W}
    assert not left, f"{len(left)} healthy nodes are not capped"
    return time.monotonic() - began_s, time.process_time() - cpu_s, pool.lanes.most_under_way


async def _runs(config: BmcPoolConfig, healthy: set[str], slow_too: bool) -> dict[str, float]:
    async with open_pool(config) as pool:
        cold_s, cold_cpu_s, _ = await capped(pool, healthy, 600.0)
        await pool.put_all(dict.fromkeys(pool.names), None, wait_s=SETTLE_S)
        pool.lanes.most_under_way = 0
        stretches = [stretch()]
        warm_s, warm_cpu_s, most = await capped(pool, healthy, 600.0)
        stretches += [stretch(), stretch()]
        slow = {"slow_too_s": await _slow_too(pool, time.monotonic() - warm_s)} if slow_too else {}
    return {
        "capped_s": warm_s,
        "limit_capped_s": ALLOWED_S,
        "cpu_s": warm_cpu_s,
        "cold_s": cold_s,
        "cold_cpu_s": cold_cpu_s,
        **slow,
        "most_under_way": most,
        "machine_stretch": max(stretches),
    }


async def _slow_too(pool: BmcPool, began_s: float) -> float:
    """Wait for the slow ones; return how long these took. [s]"""
    slow = {name for i, name in enumerate(sorted(pool.names)) if i % 10 == 7}
    while time.monotonic() - began_s < 60.0:
        await asyncio.sleep(0.1)
        if all((cap := pool.cap(name)) and cap.cap_w is not None and cap.cap_w <= CAP_W for name in slow):
            break
    return time.monotonic() - began_s


def measure(bmcs: int = BMCS, slow_too: bool = True) -> dict[str, float]:
    """Return the figures; ``slow_too``: also how long the slow ones take."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD, encoding="utf-8")
        with served(folder, behaviours(bmcs)) as farm:
            config = BmcPoolConfig(
                bmcs=farm.addresses,
                user_name=USER,
                password_file=folder / "password",
                insecure=True,
                journal=folder / "journal.json",
            )
            how = farm.ask()
            healthy = {n for n, b in how.items() if not b["dead"] and b["most_s"] < 1.0}
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found = runner.run(_runs(config, healthy, slow_too))
    return {"devices": bmcs, "healthy": len(healthy), **found}


def say(found: dict[str, float]) -> None:
    """Print the figures."""
    print(json.dumps({"bench": "redfish", **{key: round(value, 3) for key, value in found.items()}}))


if __name__ == "__main__":
    say(measure(int(sys.argv[1]) if len(sys.argv) > 1 else BMCS))
