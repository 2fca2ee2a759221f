"""A real Mosquitto on a free loopback port, in a folder of its own.

``Mosquitto(folder, ...)`` is a context manager; ``mosquitto`` is a fixture with the defaults, ``mosquitto_factory``
one for brokers with settings.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support import free_port, require

HOST = "127.0.0.1"


class Mosquitto:
    """One broker process. It keeps its port and its stored state over ``kill`` and ``start``."""

    def __init__(
        self,
        folder: Path,
        *,
        acl: str = "",
        users: Mapping[str, str] | None = None,
        persistence: bool = False,
        settings: str = "",
    ) -> None:
        """Prepare a broker.

        acl: text of the ACL file. users: names and passwords; with any, anonymous clients are refused.
        persistence: write every change to disk. settings: further lines of mosquitto.conf.
        """
        self.host, self.port = HOST, free_port()
        self._folder = folder
        self._program = require("mosquitto", "the broker of the tests")
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.log: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "mosquitto.conf"
        self._config.write_text(self._lines(acl, users or {}, persistence) + settings + "\n", encoding="utf-8")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id of the running broker."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the broker and return once it accepts connections."""
        running = threading.Event()
        self._process = subprocess.Popen(
            [self._program, "-c", str(self._config)], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        self._reader = threading.Thread(target=self._read_log, args=(self._process, running), daemon=True)
        self._reader.start()
        assert running.wait(10.0), f"mosquitto did not start: {self.log}"
        assert self._process.poll() is None, f"mosquitto ended at once: {self.log}"

    def stop(self) -> None:
        """End the broker in an orderly way; nothing happens when it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker as a power cut would: kill -9."""
        self._end(signal.SIGKILL)

    def restart(self, *, kill: bool = False) -> None:
        """End the broker and start it again on the same port."""
        self._end(signal.SIGKILL if kill else signal.SIGTERM)
        self.start()

    def pause(self) -> None:
        """Stop the process where it is (SIGSTOP): the connections stay open and silent."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        for _ in range(50):  # Mosquitto forgets a SIGTERM that comes before its main loop
            self._process.send_signal(how)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)
                break
        assert self._process.poll() is not None, "mosquitto does not end"
        assert self._reader is not None
        self._reader.join(5.0)
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._process = self._reader = None

    def _read_log(self, process: subprocess.Popen[str], running: threading.Event) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.log.append(line.rstrip())
            if line.rstrip().endswith("running"):
                running.set()
        running.set()

    def _lines(self, acl: str, users: Mapping[str, str], persistence: bool) -> str:
        lines = [
            f"listener {self.port} {self.host}",
            f"allow_anonymous {'false' if users else 'true'}",
            "log_dest stderr",
            "log_timestamp false",
            f"persistence {'true' if persistence else 'false'}",
        ]
        if persistence:
            lines += [f"persistence_location {self._folder}/", "autosave_on_changes true", "autosave_interval 1"]
        if acl:
            lines.append(f"acl_file {self._private('acl', acl)}")
        if users:
            lines.append(f"password_file {self._hashed(users)}")
        lines.append("user root")
        return "\n".join(lines) + "\n"

    def _private(self, name: str, text: str) -> Path:
        path = self._folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return path

    def _hashed(self, users: Mapping[str, str]) -> Path:
        path = self._private("passwords", "".join(f"{name}:{word}\n" for name, word in users.items()))
        subprocess.run(
            [require("mosquitto_passwd", "it hashes the passwords of the broker"), "-U", str(path)], check=True
        )
        return path


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker with everything allowed and nothing stored."""
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture
def mosquitto_factory(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Start brokers with settings of the test's own; they end with the test."""
    with ExitStack() as stack:
        count = iter(range(100))

        def start(
            *,
            acl: str = "",
            users: Mapping[str, str] | None = None,
            persistence: bool = False,
            settings: str = "",
        ) -> Mosquitto:
            folder = tmp_path / f"mosquitto-{next(count)}"
            broker = Mosquitto(folder, acl=acl, users=users, persistence=persistence, settings=settings)
            return stack.enter_context(broker)

        yield start
