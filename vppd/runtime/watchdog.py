"""Tells systemd how we are (sd_notify); says nothing where no systemd listens."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress

from vppd.runtime.clock import Clock


class Notifier:
    """Datagrams to ``NOTIFY_SOCKET``; without an address every call does nothing."""

    def __init__(self, address: str, clock: Clock, watchdog_s: float | None = None) -> None:
        self._clock, self.watchdog_s = clock, watchdog_s
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], pid: int, clock: Clock) -> Notifier:
        """Return the notifier that systemd asks for; the watchdog counts only when it is meant for this ``pid``."""
        limit = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        watchdog_s = int(limit) / 1e6 if is_ours and limit.isdigit() and int(limit) > 0 else None
        return cls(environment.get("NOTIFY_SOCKET", ""), clock, watchdog_s)

    def ready(self, status: str = "") -> None:
        """Start-up, or a reload, is done."""
        self._send("READY=1", *([f"STATUS={_line(status)}"] if status else []))

    def alive(self) -> None:
        """Feed the watchdog: only after a completed cycle, never from a timer."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload has begun; ``ready`` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(self._clock.mono_s() * 1e6)}")

    def stopping(self) -> None:
        """Shutdown has begun."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Say in one line how things are, for ``systemctl status``."""
        self._send(f"STATUS={_line(text)}")

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is None:
            return
        # A full or vanished socket must not stop the plant: systemd judges by what arrives.
        with suppress(OSError):
            self._socket.sendto("\n".join(lines).encode(), self._address)


def _line(text: str) -> str:
    return " ".join(text.split())
