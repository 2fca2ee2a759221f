"""The HTTP API on real sockets: what it says, to whom, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import math
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from vppd.api.app import Pulse, build_app, encode
from vppd.api.serve import serve
from vppd.errors import ConfigError, Unreachable


class View:
    """A daemon's state, changed by the test."""

    def __init__(self) -> None:
        self.now = Pulse(ready=True, cycle_age_s=0.4, cycle_s=1.0)
        self.shown: Mapping[str, object] | None = {"site": "dc1", "assets": []}
        self.next = asyncio.Event()

    def pulse(self) -> Pulse:
        """How it is."""
        return self.now

    def state(self) -> Mapping[str, object] | None:
        """The site."""
        return self.shown

    def orders(self) -> Sequence[Mapping[str, object]]:
        """The orders."""
        return [{"order_id": "o1"}]

    def assets(self) -> Sequence[str]:
        """The assets."""
        return ["hall-a", "ups-a"]

    def why(self, asset_id: str) -> Mapping[str, object] | None:
        """Why."""
        return None if self.shown is None else {"asset": asset_id}

    def metrics(self) -> bytes:
        """The metrics."""
        return b"vppd_up 1\n"

    async def wait_cycle(self) -> None:
        """The next cycle."""
        await self.next.wait()

    def cycle(self, **state: object) -> None:
        """Complete a cycle."""
        self.shown = state
        self.next.set()
        self.next = asyncio.Event()


class Person:
    """An operator who notes who asked."""

    def __init__(self) -> None:
        self.did: list[tuple[str, str]] = []
        self.fault: Unreachable | None = None

    async def release(self, by: str) -> None:
        """Release."""
        if self.fault:
            raise self.fault
        self.did.append(("release", by))

    async def resume(self, by: str) -> None:
        """Resume."""
        self.did.append(("resume", by))


@asynccontextmanager
async def served(app: Starlette, where: str | Path = "127.0.0.1:0") -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app, served on a real socket for the length of the block."""
    address = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(serve(app, where, address.set_result))
    await asyncio.wait([task, address], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    transport = httpx.AsyncHTTPTransport(uds=str(where)) if isinstance(where, Path) else httpx.AsyncHTTPTransport()
    base = "http://vppd" if isinstance(where, Path) else f"http://{address.result()}"
    try:
        async with httpx.AsyncClient(transport=transport, base_url=base, timeout=5.0) as client:
            yield client
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_everything_that_can_be_read_is_there() -> None:
    """State, orders, metrics and health, each with its type."""
    async with served(build_app(View())) as client:
        state = await client.get("/api/v1/state")
        assert (state.status_code, state.json()) == (200, {"site": "dc1", "assets": []})
        assert state.headers["content-type"] == "application/json"
        assert (await client.get("/api/v1/orders")).json() == [{"order_id": "o1"}]
        metrics = await client.get("/metrics")
        assert (metrics.text, metrics.headers["content-type"]) == (
            "vppd_up 1\n",
            "text/plain; version=0.0.4; charset=utf-8",
        )
        assert (await client.get("/healthz")).json() == {"ready": True, "fresh": True, "cycle_age_s": 0.4}
        assert (await client.get("/nowhere")).status_code == 404


async def test_parts_that_a_site_does_not_have_say_what_is_missing() -> None:
    """A view that is there is shown as it is; the others name the table that would bring them."""
    async with served(build_app(View(), views={"plan": lambda: {"cost": math.nan}})) as client:
        assert (await client.get("/api/v1/plan")).json() == {"cost": None}
        missing = await client.get("/api/v1/bids")
        assert missing.status_code == 404
        assert missing.json() == {"error": "this site has no bids: its configuration has no table [market]"}


async def test_why_is_told_of_assets_that_there_are() -> None:
    """The chain of a known asset, the list of names for an unknown one, 503 before the first cycle."""
    view = View()
    async with served(build_app(view)) as client:
        assert (await client.get("/api/v1/assets/hall-a/why")).json() == {"asset": "hall-a"}
        unknown = await client.get("/api/v1/assets/hall-z/why")
        assert unknown.status_code == 404
        assert unknown.json() == {"error": "there is no asset 'hall-z'; there are: hall-a, ups-a"}
        view.shown = None
        assert (await client.get("/api/v1/assets/hall-a/why")).status_code == 503


@pytest.mark.parametrize(
    ("pulse", "healthz", "readyz"),
    [
        pytest.param(Pulse(True, 0.9, 1.0), 200, 200, id="well"),
        pytest.param(Pulse(True, 4.1, 1.0), 503, 200, id="cycle-hangs"),
        pytest.param(Pulse(False, 0.1, 1.0), 503, 503, id="not-ready"),
        pytest.param(Pulse(False, math.inf, 1.0), 503, 503, id="just-started"),
        pytest.param(Pulse(True, 0.5, 0.1), 200, 200, id="fast-beat"),
    ],
)
async def test_health_is_ready_and_a_fresh_cycle(pulse: Pulse, healthz: int, readyz: int) -> None:
    """A loop that hangs is not healthy, however ready it once was."""
    view = View()
    view.now = pulse
    async with served(build_app(view)) as client:
        assert (await client.get("/healthz")).status_code == healthz
        assert (await client.get("/readyz")).status_code == readyz


async def test_before_the_first_cycle_there_is_no_state() -> None:
    """503 and a reason, not an empty site."""
    view = View()
    view.shown = None
    async with served(build_app(view)) as client:
        answer = await client.get("/api/v1/state")
        assert answer.status_code == 503
        assert "no cycle" in answer.json()["error"]


async def test_events_follow_the_cycles_and_end_with_the_server() -> None:
    """Server-sent events: the present, then each cycle; a shutdown ends the stream at once and cleanly."""
    view, app = View(), build_app(View())
    app = build_app(view)
    seen = []
    async with served(app) as client, client.stream("GET", "/api/v1/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        async for line in lines:
            if line.startswith("data: "):
                seen.append(json.loads(line[6:]))
                if len(seen) == 3:
                    break
                view.cycle(n=len(seen))
        app.state.closing.set()
        assert [line async for line in lines if line] == []
    assert seen == [{"site": "dc1", "assets": []}, {"n": 1}, {"n": 2}]


async def test_a_shutdown_does_not_wait_for_a_client_that_listens() -> None:
    """An open stream may not hold up the release of a plant."""
    view = View()
    app = build_app(view)
    address = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(serve(app, "127.0.0.1:0", address.set_result))
    host, port = str(await address).split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"data: ")
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert loop.time() - began_s < 2.0
    writer.close()


async def test_on_tcp_nobody_can_release() -> None:
    """The routes are not there, whatever method is tried."""
    async with served(build_app(View())) as client:
        for path in ("/api/v1/release", "/api/v1/resume"):
            assert (await client.post(path)).status_code == 404


async def test_reading_is_all_that_reading_routes_do() -> None:
    """No other method is taken."""
    async with served(build_app(View())) as client:
        for method in ("POST", "PUT", "DELETE"):
            assert (await client.request(method, "/api/v1/state")).status_code == 405


async def test_on_the_local_socket_a_person_releases_and_is_recorded(tmp_path: Path) -> None:
    """The kernel says who it was; the file is for owner and group alone, and gone afterwards."""
    person, where = Person(), tmp_path / "run" / "vppd.sock"
    async with served(build_app(View(), person), where) as client:
        assert stat.S_IMODE(where.stat().st_mode) == 0o660
        assert (await client.post("/api/v1/release")).status_code == 200
        assert (await client.post("/api/v1/resume")).status_code == 200
        assert (await client.get("/api/v1/release")).status_code == 405
        assert (await client.get("/api/v1/state")).json()["site"] == "dc1"
    by = f"uid {os.getuid()} ({getpass.getuser()})"
    assert person.did == [("release", by), ("resume", by)]
    assert not where.exists()


async def test_a_release_that_cannot_be_recorded_says_so(tmp_path: Path) -> None:
    """503 with the reason."""
    person, where = Person(), tmp_path / "vppd.sock"
    person.fault = Unreachable("no space left on device")
    async with served(build_app(View(), person), where) as client:
        answer = await client.post("/api/v1/release")
        assert (answer.status_code, answer.json()) == (503, {"error": "no space left on device"})


async def test_a_socket_left_by_a_dead_process_is_replaced(tmp_path: Path) -> None:
    """Kill -9 leaves the file."""
    where = tmp_path / "vppd.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(where))
    async with served(build_app(View()), where) as client:
        assert (await client.get("/readyz")).status_code == 200


async def test_a_socket_that_somebody_serves_is_not_taken(tmp_path: Path) -> None:
    """Two daemons on one plant must not happen."""
    where = tmp_path / "vppd.sock"
    async with served(build_app(View()), where) as client:
        with pytest.raises(ConfigError, match="another process serves"):
            await serve(build_app(View()), where)
        assert (await client.get("/readyz")).status_code == 200


async def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    """Only sockets are."""
    where = tmp_path / "vppd.sock"
    where.write_text("mine")
    with pytest.raises(ConfigError, match="is not a socket"):
        await serve(build_app(View()), where)
    assert where.read_text() == "mine"


async def test_a_path_too_long_for_a_socket_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    """It names the key."""
    with pytest.raises(ConfigError, match=r"site\.socket"):
        await serve(build_app(View()), tmp_path / ("x" * 120))


async def test_a_port_in_use_is_a_mistake_in_the_configuration() -> None:
    """It names the key and the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"http\.listen: '{listen}'"):
            await serve(build_app(View()), listen)


async def test_signals_stay_the_daemons() -> None:
    """SIGTERM has to release a plant before the API ends."""
    import signal

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with served(build_app(View())) as client:
        await client.get("/readyz")
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_json_has_no_nan() -> None:
    """Missing numbers are null, numpy's are numbers, times are ISO."""
    value = {
        "power_w": float("nan"),
        "most_w": [1.0, math.inf],
        "n": np.int64(3),
        "x": np.float64(0.5),
        "at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    assert json.loads(encode(value)) == {
        "power_w": None,
        "most_w": [1.0, None],
        "n": 3,
        "x": 0.5,
        "at": "2026-01-01T00:00:00+00:00",
    }


def test_what_is_not_json_is_a_bug() -> None:
    """Nobody guesses how to show it."""
    with pytest.raises(TypeError, match="a set is not JSON"):
        encode({"x": {1, 2}})


async def test_a_cycle_is_encoded_once_for_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten dashboards cost one encoding a cycle."""
    view, calls = View(), []

    def counted(value: object) -> bytes:
        calls.append(value)
        return encode(value)

    monkeypatch.setattr("vppd.api.app.encode", counted)
    async with served(build_app(view)) as client:
        for _ in range(10):
            await client.get("/api/v1/state")
        assert len(calls) == 1
        view.cycle(n=1)
        await client.get("/api/v1/state")
        assert len(calls) == 2
