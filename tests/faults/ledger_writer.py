"""A process that appends to a ledger and says what was acknowledged: ``ok 7``, or ``no 7 Unreachable``.

Usage: python -m tests.faults.ledger_writer PATH COUNT [CALLERS]. Each event's key is its number.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from vppd.errors import DeviceError
from vppd.ledger.sqlite import SqliteLedger, open_ledger
from vppd.model import Event

AT = datetime(2026, 7, 1, tzinfo=UTC)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _call(ledger: SqliteLedger, numbers: Iterator[int]) -> None:
    for n in numbers:
        try:
            await ledger.append(Event("orders", "noted", AT, {"n": n, "padding": "x" * 300}, str(n)))
        except DeviceError as error:
            _say(f"no {n} {type(error).__name__}")
        else:
            _say(f"ok {n}")


async def _write(path: Path, count: int, callers: int) -> None:
    async with open_ledger(path) as ledger:
        first = ledger.head().id
        numbers = iter(range(first, first + count))
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(_call(ledger, numbers))


if __name__ == "__main__":
    asyncio.run(_write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1))
