"""All benches one after the other, each in a process of its own, as one table: ``python -m tests.bench [NAME ...]``.

Every bench prints JSON lines; a figure ``x`` with a limit beside it has a ``limit_x`` in the same line. The exit code is 1
when a limit is exceeded or a bench fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

LIMIT = "limit_"
_NAMES = ("bench", "case", "assets", "points", "orders", "callers", "devices", "beats", "runs", "segments")


def lines_of(name: str) -> Iterator[dict[str, Any]]:
    """Yield what one bench printed. Raises CalledProcessError when it fails."""
    done = subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], stdout=subprocess.PIPE, text=True, check=True)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            print(line, flush=True)
            yield json.loads(line)


def judged(line: Mapping[str, Any]) -> Iterator[tuple[str, float, float | None]]:
    """Yield (figure, value, limit) of a line, limit None where there is none."""
    for key, value in line.items():
        if key not in _NAMES and not key.startswith(LIMIT):
            yield key, value, line.get(LIMIT + key)


def main(wanted: list[str]) -> int:
    """Run the benches and print the table; return the exit code."""
    names = wanted or sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    table = Table("bench", "figure", "value", "limit", "", title=f"{len(names)} benches")
    failed = False
    for name in names:
        try:
            for line in lines_of(name):
                failed |= _add(table, line)
        except subprocess.CalledProcessError as error:
            table.add_row(name, "failed", str(error.returncode), "", "FAILED")
            failed = True
    Console(width=110).print(table)
    return int(failed)


def _add(table: Table, line: Mapping[str, Any]) -> bool:
    """Add a line's figures to the table; say whether one is over its limit."""
    title, failed = (
        " ".join(f"{line[k]}" if k in ("bench", "case") else f"{k}={line[k]}" for k in _NAMES if k in line),
        False,
    )
    for key, value, limit in judged(line):
        over = limit is not None and value > limit
        verdict = "" if limit is None else "OVER" if over else "ok"
        table.add_row(title, key, f"{value:,.4g}", "" if limit is None else f"{limit:,.4g}", verdict)
        title, failed = "", failed or over
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
