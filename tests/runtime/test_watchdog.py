"""What systemd hears from us."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vppd.runtime.clock import FakeClock
from vppd.runtime.watchdog import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens as systemd does, and what NOTIFY_SOCKET says about it."""
    name = str(tmp_path / "notify") if request.param == "path" else "@vppd-test-" + secrets.token_hex(8)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if name.startswith("@") else name)
        listener.settimeout(5.0)
        yield listener, name


def test_the_whole_life_is_told(systemd: tuple[socket.socket, str]) -> None:
    """Ready, alive, reloading with its time, status, stopping: on a path and on an abstract socket."""
    listener, name = systemd
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "42"}
    notifier = Notifier.from_environment(environment, 42, FakeClock(mono_s=12.5))
    assert notifier.watchdog_s == 10.0
    notifier.ready("dc1: 3 orders\nREADY=0")
    notifier.alive()
    notifier.reloading()
    notifier.status("two\nlines")
    notifier.stopping()
    heard = [listener.recv(4096).decode() for _ in range(5)]
    notifier.close()
    assert heard == [
        "READY=1\nSTATUS=dc1: 3 orders READY=0",
        "WATCHDOG=1",
        "RELOADING=1\nMONOTONIC_USEC=12500000",
        "STATUS=two lines",
        "STOPPING=1",
    ]


def test_without_systemd_nothing_happens() -> None:
    """No address, no socket, no error."""
    notifier = Notifier.from_environment({}, 42, FakeClock())
    for say in (notifier.ready, notifier.alive, notifier.reloading, notifier.stopping):
        say()
    notifier.close()
    assert notifier.watchdog_s is None


def test_a_watchdog_meant_for_another_process_is_not_fed(systemd: tuple[socket.socket, str]) -> None:
    """WATCHDOG_PID names somebody else."""
    listener, name = systemd
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "43"}
    notifier = Notifier.from_environment(environment, 42, FakeClock())
    notifier.alive()
    notifier.stopping()
    assert listener.recv(4096) == b"STOPPING=1"
    notifier.close()


@pytest.mark.parametrize("limit", ["", "0", "-5", "soon"])
def test_an_odd_limit_is_no_watchdog(limit: str) -> None:
    """Only a positive number of microseconds is one."""
    assert Notifier.from_environment({"WATCHDOG_USEC": limit}, 42, FakeClock()).watchdog_s is None


def test_a_vanished_socket_does_not_stop_the_plant(tmp_path: Path) -> None:
    """Nobody listens there any more."""
    notifier = Notifier(str(tmp_path / "gone"), FakeClock())
    notifier.ready()
    notifier.close()
    notifier.ready()


def test_a_full_socket_does_not_block(systemd: tuple[socket.socket, str]) -> None:
    """Systemd that does not read costs nothing but the message."""
    _, name = systemd
    notifier = Notifier(name, FakeClock(), watchdog_s=1.0)
    for _ in range(10_000):
        notifier.alive()
    notifier.close()
