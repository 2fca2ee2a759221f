"""Feeds from real files, servers and brokers: news are noticed, faults are told, and what was said before stays."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiomqtt
import numpy as np
import pytest
from aiohttp import web

from tests.grid.certificates import Authority
from tests.servers.mosquitto import Mosquitto
from vppd.config.forecast import ForecastFeedConfig
from vppd.config.grid import BrokerConfig
from vppd.ledger.history import open_history
from vppd.ledger.history_reader import reading
from vppd.planning.forecasts.feeds import Feeds
from vppd.plant import plant_of
from vppd.runtime.clock import FakeClock
from vppd.testing.cycles import two_feeds

PATIENCE_S = 20.0
QUICK_S = 0.02
NOW = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)
QUARTER = timedelta(minutes=15)


def body(first: float, issued_at: datetime | None = NOW, **more: Any) -> bytes:
    """Return a document of four quarters, the first of which is now. [kW or per MWh]"""
    said = {"start": NOW.isoformat(), "step_s": 900, "values": [first, 2, 3, 4]} | more
    if issued_at is not None:
        said["issued_at"] = issued_at.isoformat()
    return json.dumps(said).encode()


def config(**more: Any) -> ForecastFeedConfig:
    """Return a feed of prices that is looked at all the time."""
    said = {"name": "spot", "series": "price/import", "kind": "file", "unit": "per_mwh", "stale_after_s": 3600.0} | more
    return ForecastFeedConfig.model_validate(said).model_copy(update={"poll_s": more.get("poll_s", QUICK_S)})


@asynccontextmanager
async def running(
    path: Path, *configs: ForecastFeedConfig, clock: FakeClock | None = None, broker: BrokerConfig | None = None
) -> AsyncIterator[Feeds]:
    """Run feeds on a plant for the time of the block."""
    async with open_history(path) as history:
        plant = plant_of(two_feeds())
        feeds = Feeds(configs, plant, history, clock or FakeClock(NOW), site="dc1", broker=broker)
        work = asyncio.create_task(feeds.run())
        try:
            yield feeds
            assert not work.done() or not work.exception()
        finally:
            work.cancel()
            await asyncio.wait({work})
            await history.flush()


async def until(what: Callable[[], bool]) -> None:
    """Wait until it is so. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while not what():
            await asyncio.sleep(0.005)


def price(feeds: Feeds, after: timedelta = timedelta(0)) -> float | None:
    """Return the price per MWh that feeds say of a moment."""
    found = feeds.quotes(NOW + after).get("price/import")
    return None if found is None else round(found * 1e6, 6)


def fault(feeds: Feeds) -> str:
    """Return what is wrong with the first feed."""
    return str(feeds.view()[0]["fault"])


def put(path: Path, data: bytes) -> None:
    """Replace a file in one go, as a good writer does."""
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    beside.replace(path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A history file that does not exist yet."""
    return tmp_path / "history.db"


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """A file that somebody else writes."""
    path = tmp_path / "spot.json"
    put(path, body(50))
    return path


async def test_a_file_is_read_and_read_again_when_it_changes(store: Path, document: Path) -> None:
    """What it says is a quote for the moments it covers, and is in the history with the time it was issued at."""
    async with running(store, config(path=document)) as feeds:
        await until(lambda: price(feeds) == 50.0)
        assert feeds.changed.is_set()
        assert [price(feeds, k * QUARTER) for k in (-1, 1, 3, 4)] == [None, 2.0, 4.0, None]
        put(document, body(60, NOW + timedelta(minutes=1)))
        await until(lambda: price(feeds) == 60.0)
        shown = json.loads(json.dumps(feeds.view(), allow_nan=False))[0]
        assert (shown["name"], shown["stale"], shown["fault"]) == ("spot", False, "")
        assert (shown["start"], shown["end"]) == ("2026-03-28T12:00:00+00:00", "2026-03-28T13:00:00+00:00")
    with reading(store) as reader:
        found = reader.newest_issue("spot", "price/import", NOW + timedelta(hours=1))
    assert found is not None
    np.testing.assert_allclose(found.values, [[60e-6, 2e-6, 3e-6, 4e-6]])


async def test_what_cannot_be_read_leaves_what_was_said(store: Path, document: Path) -> None:
    """A mistake in a file, an older one, or none at all are told; the last good values stay until something better comes."""
    async with running(store, config(path=document)) as feeds:
        await until(lambda: price(feeds) == 50.0)
        put(document, body(60)[:-1])
        await until(lambda: "feed 'spot': no JSON" in fault(feeds))
        put(document, body(70, NOW - timedelta(minutes=1)))
        await until(lambda: "older than what is known" in fault(feeds))
        await asyncio.to_thread(document.unlink)
        await until(lambda: "cannot be read" in fault(feeds))
        assert price(feeds) == 50.0
        put(document, body(80, NOW + timedelta(minutes=1)))
        await until(lambda: fault(feeds) == "")
        assert price(feeds) == 80.0


async def test_a_bad_file_stays_bad_until_it_changes(store: Path, document: Path) -> None:
    """Looking again at the same mistake does not make it good."""
    put(document, b"rubbish")
    async with running(store, config(path=document)) as feeds:
        await until(lambda: fault(feeds) != "")
        for _ in range(20):
            await asyncio.sleep(QUICK_S)
            assert "no JSON" in fault(feeds)


async def test_a_pipe_is_no_file(store: Path, tmp_path: Path) -> None:
    """Reading from something that never ends would hang a thread for ever."""
    os.mkfifo(tmp_path / "pipe")
    async with running(store, config(path=tmp_path / "pipe")) as feeds:
        await until(lambda: "is no file" in fault(feeds))


async def test_stale_values_are_not_quoted(store: Path, document: Path) -> None:
    """An hour after it was issued the feed of this test counts for nothing, although it covers the moment."""
    clock = FakeClock(NOW)
    put(document, body(50, NOW - timedelta(minutes=50)))
    async with running(store, config(path=document), clock=clock) as feeds:
        await until(lambda: price(feeds) == 50.0)
        assert price(feeds, timedelta(minutes=9)) == 50.0
        assert price(feeds, timedelta(minutes=11)) is None
        clock.advance(660.0)
        assert feeds.view()[0]["stale"] is True


async def test_after_a_restart_the_last_word_counts(store: Path, document: Path, tmp_path: Path) -> None:
    """What a feed had said is still known when its source cannot be reached any more."""
    async with running(store, config(path=document)) as feeds:
        await until(lambda: price(feeds) == 50.0)
    async with running(store, config(path=tmp_path / "gone")) as feeds:
        await until(lambda: price(feeds) == 50.0)
        await until(lambda: "cannot be read" in fault(feeds))


async def test_only_what_is_not_measured_is_quoted(store: Path, document: Path) -> None:
    """The truth of a PV plant is measured; a feed's word on it is a forecast and no more."""
    sun = config(path=document, name="sun", series="generation/pv-b", unit="kw")
    async with running(store, sun) as feeds:
        await until(lambda: feeds.view()[0]["issued_at"] is not None)
        assert feeds.quotes(NOW) == {}
        put(document, body(60, NOW + timedelta(minutes=1), values=[1e6]))
        await until(lambda: "is it in kw?" in fault(feeds))


async def test_of_two_feeds_the_first_that_knows_is_the_truth(store: Path, document: Path, tmp_path: Path) -> None:
    """Prices have one truth: that of the feed the operator prefers, and of the next one while the first is silent."""
    first = tmp_path / "first.json"
    async with running(store, config(path=first, name="a"), config(path=document, name="b")) as feeds:
        await until(lambda: price(feeds) == 50.0)
        put(first, body(70, NOW))
        await until(lambda: price(feeds) == 70.0)
        assert [feed["fault"] for feed in feeds.view()] == ["", ""]


@dataclass
class Server:
    """An HTTP server whose answers are set by the test."""

    answer: Callable[[web.Request], Any]
    requests: list[web.Request] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer as the test wants."""
        self.requests.append(request)
        found = self.answer(request)
        if asyncio.iscoroutine(found):
            found = await found
        assert isinstance(found, web.StreamResponse)
        return found


@asynccontextmanager
async def serving(answer: Callable[[web.Request], Any], tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve on a free port of loopback."""
    server, app = Server(answer), web.Application()
    app.router.add_get("/x", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        server.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/x"
        yield server
    finally:
        await runner.cleanup()


def lab(server: Server, **more: Any) -> ForecastFeedConfig:
    """Return a feed that asks a server without TLS."""
    return config(kind="http", url=server.url, insecure_lab=True, **more)


@pytest.mark.integration
async def test_a_server_is_asked_only_for_what_has_changed(store: Path) -> None:
    """With an entity tag the same document is not sent twice, and a new one is noticed."""
    now = {"tag": '"1"', "body": body(50)}

    def answer(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == now["tag"]:
            return web.Response(status=304)
        return web.Response(body=now["body"], headers={"ETag": str(now["tag"])})

    async with serving(answer) as server, running(store, lab(server)) as feeds:
        await until(lambda: len(server.requests) > 5)
        assert price(feeds) == 50.0
        asked = [request.headers.get("If-None-Match") for request in server.requests]
        assert asked[0] is None
        assert set(asked[1:]) == {'"1"'}
        now.update(tag='"2"', body=body(60, NOW + timedelta(minutes=1)))
        await until(lambda: price(feeds) == 60.0)


@pytest.mark.integration
async def test_a_bad_document_with_a_tag_is_fetched_again(store: Path) -> None:
    """A server that says *not modified* about a document that we could not read would hide the mistake for ever."""

    def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"rubbish", headers={"ETag": '"1"'})

    async with serving(answer) as server, running(store, lab(server)) as feeds:
        await until(lambda: len(server.requests) > 3)
        assert "no JSON" in fault(feeds)
        assert {request.headers.get("If-None-Match") for request in server.requests} == {None}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("status", "headers", "complaint"),
    [
        (404, {}, "answered 404: what I say"),
        (401, {}, "answered 401"),
        (302, {"Location": "https://b.example/"}, "has moved to https://b.example/: name that"),
        (503, {"Retry-After": "0"}, "answered 503"),
        (429, {}, "answered 429"),
        (200, {"Content-Encoding": "gzip"}, "answers compressed"),
    ],
)
async def test_what_a_server_refuses_is_told(store: Path, status: int, headers: dict[str, str], complaint: str) -> None:
    """Status and words of the server stand in the fault, and a moved one is not followed blindly."""

    def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, body=b"what I say")

    async with serving(answer) as server, running(store, lab(server)) as feeds:
        await until(lambda: complaint in fault(feeds))
        assert price(feeds) is None


@pytest.mark.integration
async def test_a_server_that_asks_for_patience_gets_it(store: Path) -> None:
    """Retry-After is kept to; without it a server in trouble is asked less and less often."""

    def answer(request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": "3600"})

    async with serving(answer) as server, running(store, lab(server)) as feeds:
        await until(lambda: "answered 503" in fault(feeds))
        await asyncio.sleep(20 * QUICK_S)
        assert len(server.requests) == 1


@pytest.mark.integration
async def test_too_much_and_too_late_are_told(store: Path, tmp_path: Path) -> None:
    """An endless document is cut off, and a server that says nothing is given up."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b" " * 65_536)
        return response

    over = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        await over.wait()
        return web.Response()

    async with serving(endless) as much, serving(silent) as late:
        feeds = (lab(much, name="much"), lab(late, name="late", series="price/export", timeout_s=0.3))
        async with running(store, *feeds) as found:
            await until(lambda: "more than 1048576 bytes" in fault(found))
            await until(lambda: "gave no answer within 0.3 s" in found.view()[1]["fault"])
        over.set()


@pytest.mark.integration
async def test_a_server_that_is_gone_comes_back(store: Path, free_port: int) -> None:
    """Nobody listening is told, and once somebody does the feed speaks."""
    feed = config(kind="http", url=f"http://127.0.0.1:{free_port}/x", insecure_lab=True)
    async with running(store, feed) as feeds:
        await until(lambda: f"127.0.0.1:{free_port}" in fault(feeds))
        app = web.Application()
        app.router.add_get("/x", _served)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", free_port).start()
            await until(lambda: price(feeds) == 50.0)
            assert fault(feeds) == ""
        finally:
            await runner.cleanup()


async def _served(_: web.Request) -> web.Response:
    return web.Response(body=body(50))


@pytest.mark.integration
async def test_the_token_is_read_each_time(store: Path, tmp_path: Path) -> None:
    """A token that is renewed in its file is sent from then on; one that cannot be read is told and not sent."""
    token = tmp_path / "token"
    token.write_text("first\n", encoding="utf-8")

    def answer(request: web.Request) -> web.Response:
        return web.Response(body=body(50 if request.headers.get("Authorization") == "Bearer second" else 1))

    async with serving(answer) as server, running(store, lab(server, token_file=token)) as feeds:
        await until(lambda: price(feeds) == 1.0)
        put(token, b"second\n")
        await until(lambda: price(feeds) == 50.0)
        for spoilt in (b"\xff\xfe", b"a\x00b", b""):
            put(token, spoilt)
            await until(lambda: "token" in fault(feeds))
            put(token, b"second")
            await until(lambda: fault(feeds) == "")


@pytest.mark.integration
async def test_servers_are_who_their_certificate_says(store: Path, tmp_path: Path) -> None:
    """With the right authority a server is believed, with another one it is not."""
    good, other = Authority(tmp_path, "good"), Authority(tmp_path, "other")
    pair = good.issue("server")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pair.cert, pair.key)
    async with serving(lambda _: web.Response(body=body(50)), tls) as server:
        trusted = config(kind="http", url=server.url, ca_file=good.file)
        doubted = config(kind="http", url=server.url, ca_file=other.file, name="b", series="price/export")
        async with running(store, trusted, doubted) as feeds:
            await until(lambda: price(feeds) == 50.0)
            await until(lambda: "certificate" in feeds.view()[1]["fault"].lower())


@pytest.fixture
def broker(mosquitto: Mosquitto) -> BrokerConfig:
    """A broker without TLS, as in a lab."""
    return BrokerConfig(host=mosquitto.host, port=mosquitto.port, insecure_lab=True)


async def published(mosquitto: Mosquitto, payload: bytes, *, retain: bool = False) -> None:
    """Say something on the feed's topic."""
    async with aiomqtt.Client(mosquitto.host, mosquitto.port) as client:
        await client.publish("prices/spot", payload, qos=1, retain=retain)


@pytest.mark.integration
async def test_a_topic_is_listened_to(store: Path, mosquitto: Mosquitto, broker: BrokerConfig) -> None:
    """What is published is taken at once; a stored message must say how old it is; a broker that restarts is found again."""
    topic = config(kind="mqtt", topic="prices/spot")
    await published(mosquitto, body(40, None), retain=True)
    async with running(store, topic, broker=broker) as feeds:
        await until(lambda: "nobody knows how old it is" in fault(feeds))
        await published(mosquitto, body(50), retain=True)
        await until(lambda: price(feeds) == 50.0)
        await published(mosquitto, b"rubbish")
        await until(lambda: "no JSON" in fault(feeds))
        assert price(feeds) == 50.0
        await asyncio.to_thread(mosquitto.restart)

        async def again() -> None:
            while price(feeds) != 60.0:
                await published(mosquitto, body(60, NOW + timedelta(minutes=1)))
                await asyncio.sleep(0.1)

        async with asyncio.timeout(PATIENCE_S):
            await again()


async def test_a_topic_without_a_broker_is_told(store: Path) -> None:
    """The configuration is refused before; if it comes so far all the same, the daemon goes on without the feed."""
    async with running(store, config(kind="mqtt", topic="prices/spot")) as feeds:
        await until(lambda: "has no broker" in fault(feeds))
