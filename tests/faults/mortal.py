"""The daemon as a process to be killed at will: started anew at once, and asked by sd_notify when it is ready."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil


class MortalDaemon:
    """One life after the other of the same daemon; a context manager."""

    def __init__(self, command: Sequence[str], log: Path, cwd: Path) -> None:
        self._command, self._log, self._cwd = command, log, cwd
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._began_s = 0.0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._address = f"vppd-mortal-{uuid.uuid4().hex}"
        self.ready = asyncio.Event()
        """The present life has completed its first cycle."""
        self.start_ups_s: list[float] = []
        """From the start of the process to READY, of each life that got so far. [s]"""
        self.start_up_cpu_s: list[float] = []
        """The processor time that took, which does not depend on who else runs. [s]"""

    async def __aenter__(self) -> Self:
        self._listener.bind("\0" + self._address)
        self._loop.add_reader(self._listener.fileno(), self._hear)
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.kill()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    @property
    def code(self) -> int | None:
        """Exit code of the present life, None while it lives."""
        assert self._process is not None
        return self._process.poll()

    def start(self) -> None:
        """Begin another life."""
        self.ready.clear()
        self._began_s = self._loop.time()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._cwd,
                env={**os.environ, "NOTIFY_SOCKET": "@" + self._address},
            )

    def kill(self) -> None:
        """End the present life as a power cut would: kill -9."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(10.0)
        self._hear()  # what it said before it died is not said by its successor
        self.ready.clear()

    def reload(self) -> None:
        """Have the present life read its configuration again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    async def stop(self, limit_s: float) -> int:
        """End the present life in an orderly way, and return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self._process.wait, limit_s)

    def _hear(self) -> None:
        while True:
            try:
                said = self._listener.recv(4096)
            except BlockingIOError:
                return
            if said.startswith(b"READY=1") and not self.ready.is_set():
                self.ready.set()
                self.start_ups_s.append(self._loop.time() - self._began_s)
                self._note_cpu()

    def _note_cpu(self) -> None:
        assert self._process is not None
        with suppress(psutil.Error):  # it may just have been killed
            used = psutil.Process(self._process.pid).cpu_times()
            self.start_up_cpu_s.append(used.user + used.system)
