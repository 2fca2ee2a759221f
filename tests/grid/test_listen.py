"""The listen-only link on a real Mosquitto: what it yields, that it comes back, and that it says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from tests.grid.wire import PATIENCE_S, Dispatcher, settings
from tests.servers.mosquitto import Mosquitto
from vppd.grid.broker import BrokerSettings
from vppd.grid.transport import listen
from vppd.model import Inbound

pytestmark = pytest.mark.integration
TOPICS = ("events/+", "forecasts/load")


class Ear:
    """What has been heard, and how often the link came up."""

    def __init__(self) -> None:
        self.heard: list[Inbound] = []
        self.ups = 0

    def up(self) -> None:
        """Count a connection."""
        self.ups += 1

    async def until(self, what: Callable[[], bool]) -> None:
        """Wait until it is so. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            while not what():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(how: BrokerSettings, *, connected: bool = True) -> AsyncIterator[Ear]:
    """Listen for the time of the block."""
    ear = Ear()

    async def run() -> None:
        async with aclosing(listen(how, TOPICS, asyncio.get_running_loop().time, ear.up)) as messages:
            async for message in messages:
                ear.heard.append(message)

    task = asyncio.create_task(run())
    try:
        if connected:
            await ear.until(lambda: ear.ups == 1)
        yield ear
    finally:
        task.cancel()
        await asyncio.wait((task,))


def said(topic: str, payload: bytes, *, qos: int = 1, retained: bool = False) -> Inbound:
    """Return a message to send."""
    return Inbound(topic, payload, qos, retained)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_what_comes_is_yielded_over_reconnects(mosquitto: Mosquitto, protocol: str) -> None:
    """Messages come in order at any quality of service; after the broker was killed the link is up again, and says so."""
    async with listening(settings(mosquitto, protocol=protocol)) as ear:
        with Dispatcher(mosquitto) as sender:
            for qos in (0, 1, 2):
                await sender.send(said("events/create", b"%d" % qos, qos=qos))
            await sender.send(said("forecasts/other", b"no"))
            await ear.until(lambda: len(ear.heard) == 3)
        mosquitto.kill()
        mosquitto.start()
        await ear.until(lambda: ear.ups == 2)
        with Dispatcher(mosquitto) as sender:
            await sender.send(said("events/delete", b"3"))
        await ear.until(lambda: len(ear.heard) == 4)
    assert [m.payload for m in ear.heard] == [b"0", b"1", b"2", b"3"]


async def test_a_retained_message_comes_at_every_connection_and_says_so(mosquitto: Mosquitto) -> None:
    """What lies at the broker is told first, marked as retained: a forecast is there at once, a doorbell may ignore it."""
    with Dispatcher(mosquitto) as sender:
        await sender.send(said("forecasts/load", b"old", retained=True))
        for _ in range(2):
            async with listening(settings(mosquitto)) as ear:
                await ear.until(lambda: bool(ear.heard))
                assert (ear.heard[0].payload, ear.heard[0].retained) == (b"old", True)
                await sender.send(said("forecasts/load", b"old", retained=True))


async def test_a_listener_is_silent(mosquitto: Mosquitto) -> None:
    """It publishes nothing, leaves no will, and keeps nothing at the broker while it is away."""
    with Dispatcher(mosquitto, "#") as witness:
        async with listening(settings(mosquitto)):
            pass
        await witness.send(said("events/create", b"missed"))
        async with listening(settings(mosquitto)) as ear:
            await witness.send(said("events/create", b"there"))
            await ear.until(lambda: bool(ear.heard))
        assert [m.payload for m in ear.heard] == [b"there"]
        heard = [(await witness.hear()).payload for _ in range(2)]
        assert heard == [b"missed", b"there"]
        assert witness.heard.empty()


async def test_a_broker_that_is_not_there_yet(mosquitto: Mosquitto) -> None:
    """The link is tried until it stands, and leaving in the middle of a try leaves nothing behind."""
    mosquitto.stop()
    async with listening(settings(mosquitto), connected=False):
        pass
    async with listening(settings(mosquitto), connected=False) as ear:
        mosquitto.start()
        await ear.until(lambda: ear.ups == 1)


async def test_a_password_may_be_asked_for_at_each_connection(mosquitto_factory: Callable[..., Mosquitto]) -> None:
    """Where the password is a token that changes, the one in force is asked for each time."""
    broker, asked = mosquitto_factory(users={"ven": "token-2"}), iter(("token-1", "token-2"))
    async with listening(settings(broker, username="ven", token=lambda: next(asked))) as ear:
        assert ear.ups == 1
    assert next(asked, "") == ""
