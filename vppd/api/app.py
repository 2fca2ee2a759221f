"""The HTTP API: state, orders, events, metrics and health to read; release and resume on the local socket alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Protocol

import numpy as np
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from vppd.errors import DeviceError

log = structlog.get_logger()

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KEEPALIVE_S = 15.0
"""A stream with no news for so long gets a comment, so that a dead client is noticed. [s]"""


@dataclass(frozen=True, slots=True)
class Pulse:
    """Whether the daemon is well, in what a health check wants to know."""

    ready: bool
    """Ledger replayed and every device tried once."""
    cycle_age_s: float
    """Time since the last completed cycle, inf before the first. [s]"""
    cycle_s: float
    """The beat. [s]"""

    @property
    def is_fresh(self) -> bool:
        """Say whether the control loop keeps its beat."""
        return self.cycle_age_s <= 3 * self.cycle_s + 1.0


class StateView(Protocol):
    """What the API shows; plain JSON values, missing numbers None or NaN."""

    def pulse(self) -> Pulse:
        """Return how the daemon is now."""
        ...

    def state(self) -> Mapping[str, object] | None:
        """Return the site after the last cycle, the same object until the next; None before the first."""
        ...

    def orders(self) -> Sequence[Mapping[str, object]]:
        """Return the open orders."""
        ...

    def assets(self) -> Sequence[str]:
        """Return the names of all assets."""
        ...

    def why(self, asset_id: str) -> Mapping[str, object] | None:
        """Return why an asset does what it does, None before the first cycle. Raises KeyError."""
        ...

    def metrics(self) -> bytes:
        """Return the metrics as Prometheus text."""
        ...

    async def wait_cycle(self) -> None:
        """Return after the next completed cycle."""
        ...


class Operator(Protocol):
    """What a person at the machine may do."""

    async def release(self, by: str) -> None:
        """Give everything back and take no orders until ``resume``. Raises DeviceError when it cannot be recorded."""
        ...

    async def resume(self, by: str) -> None:
        """Take orders again. Raises DeviceError when it cannot be recorded."""
        ...


Views = Mapping[str, Callable[[], object]]
"""What else is shown under ``/api/v1/NAME``: plain JSON values."""
PARTS: Mapping[str, str] = MappingProxyType(
    {"forecasts": "forecast", "plan": "planning", "market": "market", "bids": "market", "openadr": "openadr"}
)
"""Views that not every site has, and the table of the configuration that each needs."""


def build_app(view: StateView, operator: Operator | None = None, views: Views | None = None) -> Starlette:
    """Return the API; with an operator also release and resume, so never with one on a TCP port."""
    pages = _Pages(view)
    routes = [
        Route("/healthz", pages.healthz),
        Route("/readyz", pages.readyz),
        Route("/metrics", pages.metrics),
        Route("/api/v1/state", pages.state),
        Route("/api/v1/orders", pages.orders),
        Route("/api/v1/events", pages.events),
        Route("/api/v1/assets/{asset_id}/why", pages.why),
    ]
    shown = views or {}
    routes += [Route(f"/api/v1/{name}", _page(name, shown.get(name))) for name in {**PARTS, **shown}]
    if operator is not None:
        routes += [
            Route("/api/v1/release", _command("release", operator.release), methods=["POST"]),
            Route("/api/v1/resume", _command("resume", operator.resume), methods=["POST"]),
        ]
    app = Starlette(routes=routes)
    app.state.closing = pages.closing
    return app


class _Pages:
    """The read-only routes."""

    def __init__(self, view: StateView) -> None:
        self._view = view
        self.closing = asyncio.Event()
        self._encoded: tuple[object, bytes] = (None, b"")

    async def healthz(self, _: Request) -> Response:
        """Answer 200 while the daemon is ready and its control loop keeps the beat, else 503."""
        pulse = self._view.pulse()
        return _health(pulse, pulse.ready and pulse.is_fresh)

    async def readyz(self, _: Request) -> Response:
        """Answer 200 once the daemon is ready, else 503."""
        pulse = self._view.pulse()
        return _health(pulse, pulse.ready)

    async def metrics(self, _: Request) -> Response:
        """Answer with the metrics."""
        return Response(self._view.metrics(), media_type=METRICS_TYPE)

    async def state(self, _: Request) -> Response:
        """Answer with the site after the last cycle."""
        body = self._state()
        if body is None:
            return _json({"error": "no cycle has been completed yet"}, 503)
        return Response(body, media_type="application/json")

    async def orders(self, _: Request) -> Response:
        """Answer with the open orders."""
        return _json(self._view.orders())

    async def why(self, request: Request) -> Response:
        """Answer with the chain from the order to what an asset does."""
        asset_id, known = request.path_params["asset_id"], self._view.assets()
        if asset_id not in known:
            return _json({"error": f"there is no asset {asset_id!r}; there are: {', '.join(known)}"}, 404)
        found = self._view.why(asset_id)
        if found is None:
            return _json({"error": "no cycle has been completed yet"}, 503)
        return _json(found)

    async def events(self, _: Request) -> Response:
        """Answer with the site after every cycle, as server-sent events."""
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _stream(self) -> AsyncIterator[bytes]:
        """Yield the newest state; a slow client misses cycles, it does not queue them."""
        shown: bytes | None = None
        while not self.closing.is_set():
            body = self._state()
            if body is not None and body is not shown:
                yield b"event: state\ndata: " + body + b"\n\n"
                shown = body
            else:
                yield b": no news\n\n"
            await _first(self._view.wait_cycle(), self.closing.wait(), limit_s=KEEPALIVE_S)

    def _state(self) -> bytes | None:
        """Return the state as JSON, encoded once per cycle for all clients."""
        state = self._view.state()
        if state is None:
            return None
        if self._encoded[0] is not state:
            self._encoded = (state, encode(state))
        return self._encoded[1]


def encode(value: object) -> bytes:
    """Return a value as JSON; NaN and infinity, which JSON does not know, become null."""
    try:
        text = json.dumps(value, default=_plain, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(value), default=_plain, allow_nan=False, separators=(",", ":"))
    return text.encode()


def _page(name: str, show: Callable[[], object] | None) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        if show is None:
            return _json({"error": f"this site has no {name}: its configuration has no table [{PARTS[name]}]"}, 404)
        return _json(show())

    return answer


def _command(name: str, act: Callable[[str], Awaitable[None]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        by = request.client.host if request.client is not None else "local socket"
        try:
            await act(by)
        except DeviceError as error:
            log.error("operator_command_failed", command=name, by=by, reason=str(error))
            return _json({"error": str(error)}, 503)
        log.warning("operator_command", command=name, by=by)
        return _json({"done": name, "by": by})

    return answer


def _health(pulse: Pulse, is_well: bool) -> Response:
    body = {"ready": pulse.ready, "fresh": pulse.is_fresh, "cycle_age_s": pulse.cycle_age_s}
    return _json(body, 200 if is_well else 503)


def _json(value: object, status: int = 200) -> Response:
    return Response(encode(value), status, media_type="application/json")


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return _finite(value.item())
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} is not JSON")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


async def _first(*works: Awaitable[object], limit_s: float) -> None:
    """Return when the first is done, or at the limit; the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
