"""A farm of BMCs in a process of its own, and the hand that changes them.

``python -m tests.adapters.redfish_process FILE`` serves what the JSON file lists and prints the addresses; to each line
``{"NAME": {"FIELD": VALUE}}`` on standard input it makes these changes and prints how all BMCs are.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from tests.adapters.redfish_bmcs import Behaviour, farm


class FarmProcess:
    """The other process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin: IO[str] = process.stdin
        self._stdout: IO[str] = process.stdout
        self.addresses: dict[str, str] = json.loads(self._stdout.readline())

    def ask(self, **changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Change BMCs, and return how all are."""
        self._stdin.write(json.dumps(changes) + "\n")
        self._stdin.flush()
        told: dict[str, dict[str, Any]] = json.loads(self._stdout.readline())
        return told


@contextmanager
def served(folder: Path, behaviours: Mapping[str, Mapping[str, Any]]) -> Iterator[FarmProcess]:
    """Serve BMCs in a process of their own; its files are in ``folder``."""
    path = folder / "bmcs.json"
    path.write_text(json.dumps(behaviours), encoding="utf-8")
    command = [sys.executable, "-m", "tests.adapters.redfish_process", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield FarmProcess(process)
        finally:
            process.kill()


def _tell(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def _main(behaviours: dict[str, Behaviour]) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(2**22)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with farm(behaviours) as served:
        _tell(served.addresses)
        while line := await reader.readline():
            for name, fields in json.loads(line).items():
                for key, value in fields.items():
                    setattr(served[name].how, key, value)
            _tell(
                {
                    n: {**asdict(b.how), "cap_w": b.cap_w, "power_w": b.power_w, "patches": len(b.patches)}
                    for n, b in served.bmcs.items()
                }
            )


if __name__ == "__main__":
    listed = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    asyncio.run(_main({name: Behaviour(**how) for name, how in listed.items()}))
