"""HTTP servers inside the site's own loop, on free loopback ports, that can fall silent or hang up on demand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from vppd.sim.faults import Fault, Outage
from vppd.sim.modbus import HOST

_CLOSE_S = 1
_BACKLOG = 128


class _Server(uvicorn.Server):
    """A server that leaves signals to whoever runs the loop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signals."""
        yield


def _protocol(outage: Outage) -> type[asyncio.Protocol]:
    """Return a connection handler that suffers the outage."""

    class Faulty(H11Protocol):
        def data_received(self, data: bytes) -> None:
            fault = outage.now()
            if fault is Fault.RESET:
                self.transport.abort()
            elif fault is not Fault.SILENT:
                super().data_received(data)

    return Faulty


@dataclass(frozen=True, slots=True)
class Web:
    """A server that runs."""

    url: str
    stop: Callable[[], None]
    """Tells it to end; leaving its context waits until it has."""


@asynccontextmanager
async def serve_http(app: Starlette, outage: Outage) -> AsyncIterator[Web]:
    """Serve an application until the context ends."""
    config = uvicorn.Config(
        app,
        host=HOST,
        port=0,
        http=_protocol(outage),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=_CLOSE_S,
    )
    socket = config.bind_socket()
    socket.listen(_BACKLOG)
    server = _Server(config)

    def stop() -> None:
        server.should_exit = True

    serving = asyncio.create_task(server.serve(sockets=[socket]))
    try:
        yield Web(f"http://{HOST}:{socket.getsockname()[1]}", stop)
    finally:
        stop()
        await serving
        socket.close()
