"""The demo's processes: started one by one, ended all together."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from vppd.errors import VppdError

LONGEST_LINE = 240
"""Of a longer line of a log only this much is shown."""


class Failed(VppdError):
    """A process of the demo did not come up, or fell."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process with its log."""

    name: str
    process: Process
    log: Path

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self.process.pid

    def tail(self, lines: int = 12) -> str:
        """Return the end of its log."""
        said = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        return "\n".join(line[:LONGEST_LINE] for line in said)


class Children:
    """All processes started so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._all: list[Child] = []

    async def start(self, name: str, argv: Sequence[str], *, env: dict[str, str] | None = None) -> Child:
        """Start a process; its output goes to ``NAME.log``. A session of its own keeps the terminal's ^C from it."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env={**os.environ, **(env or {})},
            )
        child = Child(name, process, log)
        self._all.append(child)
        return child

    async def fallen(self, *spared: Child | None) -> Child:
        """Return the first process that ends by itself, those ``spared`` left out."""
        waits = {asyncio.ensure_future(child.process.wait()): child for child in self._all if child not in spared}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return waits[done.pop()]
        finally:
            await _drop(list(waits))

    async def end(self, child: Child, within_s: float = 20.0) -> None:
        """End one of them before the others."""
        await _end(child, within_s)
        self._all.remove(child)

    async def stop(self, within_s: float = 20.0) -> None:
        """End all, the last started first, each by SIGTERM and, when it does not go, by SIGKILL."""
        while self._all:
            await _end(self._all.pop(), within_s)


@asynccontextmanager
async def children(folder: Path) -> AsyncIterator[Children]:
    """Hold the demo's processes; on leaving, all of them are ended."""
    held = Children(folder)
    try:
        yield held
    finally:
        await held.stop()


async def until(what: str, ready: Callable[[], Awaitable[bool]], child: Child, within_s: float) -> None:
    """Wait until ``ready`` says yes. Raises Failed, with the end of the log, when the process falls or time runs out."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + within_s
    while not await ready():
        if child.process.returncode is not None:
            raise Failed(f"{child.name} ended with status {child.process.returncode}:\n{child.tail()}")
        if loop.time() > deadline_s:
            raise Failed(f"{what} did not come within {within_s:g} s:\n{child.tail()}")
        await asyncio.sleep(0.1)


async def _end(child: Child, within_s: float) -> None:
    if child.process.returncode is not None:
        return
    child.process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(within_s):
            await child.process.wait()
    except TimeoutError:
        child.process.kill()
        await child.process.wait()


async def _drop(tasks: Sequence[asyncio.Future[int]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
