"""Time the ledger on this disk: one caller, many callers (group commit), reading with every link checked, folding.

Run: ``python -m tests.bench.bench_ledger``, or with the other benches by ``make bench``. One JSON line per case.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from vppd.ledger.projections import project
from vppd.ledger.sqlite import SqliteLedger, open_ledger
from vppd.model import Event

AT = datetime(2026, 7, 1, tzinfo=UTC)
ALONE, TOGETHER, CALLERS = 500, 20_000, 64


def _event(n: int) -> Event:
    body = {"intent_id": f"i{n}", "asset_id": f"ups-{n % 50}", "power_w": 1000.0 * n, "cause": "x" * 300}
    return Event("setpoints", "intent", AT, body, f"k{n}")


def _print(case: str, **figures: float | int) -> None:
    print(json.dumps({"bench": "ledger", "case": case} | {k: round(v, 4) for k, v in figures.items()}))


async def _timed(append: Callable[[int], Awaitable[None]], numbers: range, callers: int) -> tuple[float, list[float]]:
    left, latencies_s = iter(numbers), list[float]()

    async def caller() -> None:
        for n in left:
            start_s = perf_counter()
            await append(n)
            latencies_s.append(perf_counter() - start_s)

    start_s = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return perf_counter() - start_s, latencies_s


async def _measure(ledger: SqliteLedger) -> None:
    async def append(n: int) -> None:
        await ledger.append(_event(n))

    first = 0
    for case, count, callers in (("one caller", ALONE, 1), ("group commit", TOGETHER, CALLERS)):
        took_s, latencies_s = await _timed(append, range(first, first + count), callers)
        first += count
        cuts_s = statistics.quantiles(latencies_s, n=100)
        _print(
            case,
            callers=callers,
            events_per_s=count / took_s,
            p50_ms=1e3 * statistics.median(latencies_s),
            p99_ms=1e3 * cuts_s[98],
        )
    start_s = perf_counter()
    recorded = list(ledger.events())
    read_s = perf_counter() - start_s
    project(recorded)
    _print("replay", read_per_s=first / read_s, fold_per_s=first / (perf_counter() - start_s - read_s))


def bench_ledger() -> None:
    """Many callers commit several times as much as one, at the same durability."""
    with tempfile.TemporaryDirectory() as folder:

        async def run() -> None:
            async with open_ledger(Path(folder) / "ledger.db") as ledger:
                await _measure(ledger)

        asyncio.run(run())


if __name__ == "__main__":
    bench_ledger()
