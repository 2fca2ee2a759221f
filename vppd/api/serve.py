"""Serves the API inside our own loop, on a TCP port or a local socket; signals stay the daemon's."""

from __future__ import annotations

import asyncio
import errno
import pwd
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import structlog
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from vppd.errors import ConfigError

log = structlog.get_logger()

SOCKET_MODE = 0o660
CONNECTIONS_MOST = 64
GOODBYE_S = 2
"""How long open requests may take to end at shutdown. [s]"""
_CREDENTIALS = struct.Struct("3i")


async def serve(app: Starlette, where: str | Path, bound: Callable[[str], None] | None = None) -> None:
    """Serve until cancelled: on ``"host:port"`` or on the local socket at a Path. Raises ConfigError.

    ``bound`` is told the address once it is open; with port 0 that is where the real one is.
    """
    listener = _local(where) if isinstance(where, Path) else _tcp(where)
    ours = _identity(where) if isinstance(where, Path) else None
    try:
        if bound is not None:
            bound(str(where) if isinstance(where, Path) else "{}:{}".format(*listener.getsockname()[:2]))
        await _serve(app, listener)
    finally:
        if isinstance(where, Path):
            _remove(where, ours)
        listener.close()


async def _serve(app: Starlette, listener: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_MOST,
        timeout_graceful_shutdown=GOODBYE_S,
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        app.state.closing.set()
        server.should_exit = True
        await serving
        raise


class _Server(uvicorn.Server):
    """uvicorn without signal handlers: SIGTERM has to release a plant first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Protocol(H11Protocol):
    """HTTP/1.1 that knows who is at the other end of a local socket."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, so they cannot be asked what they are
        super().connection_made(cast(asyncio.Transport, transport))
        peer = transport.get_extra_info("socket")
        if peer is not None and peer.family == socket.AF_UNIX:
            raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, uid, _ = _CREDENTIALS.unpack(raw)
            self.client = (_person(uid), pid)


def _person(uid: int) -> str:
    try:
        return f"uid {uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"uid {uid}"


def _tcp(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), int(port)), family=family)
    except (OSError, ValueError) as error:
        raise ConfigError(f"http.listen: {listen!r} cannot be opened: {error}") from error


def _local(path: Path) -> socket.socket:
    """Return a socket bound to ``path``, for its owner and group alone; one that nobody serves is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        listener.bind(str(path))
        path.chmod(SOCKET_MODE)  # nobody can connect before listen(), so nobody sees the mode before this
    except OSError as error:
        listener.close()
        raise ConfigError(f"site.socket: {path} cannot be opened: {error}") from error
    except ConfigError:
        listener.close()
        raise
    return listener


def _clear(path: Path) -> None:
    """Remove a socket that a dead process left behind. Raises ConfigError when it is alive or no socket."""
    if not path.exists():
        return
    if not path.is_socket():
        raise ConfigError(f"site.socket: {path} is there and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) != errno.ECONNREFUSED:
            raise ConfigError(f"site.socket: another process serves {path}")
    path.unlink()


def _remove(path: Path, ours: tuple[int, int] | None) -> None:
    """Remove our own socket's file, but not one that a successor has put in its place."""
    if _identity(path) == ours:
        path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
