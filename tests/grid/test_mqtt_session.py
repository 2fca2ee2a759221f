"""Sessions that are given up while they begin leave no socket behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiomqtt
import pytest

from vppd.errors import Unreachable
from vppd.grid.mqtt_session import answered, enter

pytestmark = pytest.mark.integration
CONNACK = bytes((0x20, 2, 0, 0))
PATIENCE_S = 20.0


class Broker:
    """Takes connections and answers as much as the test wants."""

    def __init__(self, says: bytes) -> None:
        self.says = says
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        self.port = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read the CONNECT, answer it, and wait for the client to hang up."""
        await reader.read(1)
        self.asked.set()
        writer.write(self.says)
        while await reader.read(1000):
            pass
        self.left.set()
        writer.close()


@asynccontextmanager
async def broker(says: bytes) -> AsyncIterator[Broker]:
    """Serve a broker for the length of the block."""
    found = Broker(says)
    server = await asyncio.start_server(found.take, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found


@pytest.mark.parametrize("says", [CONNACK, b""], ids=["it answers", "it does not"])
async def test_a_session_that_is_cancelled_while_it_begins_hangs_up(says: bytes) -> None:
    """The library's thread finishes connecting, or fails to; either way the socket is closed and the cancellation gets through."""
    async with broker(says) as found, asyncio.timeout(PATIENCE_S):
        entering = asyncio.create_task(enter(aiomqtt.Client("127.0.0.1", found.port, timeout=0.5)))
        await asyncio.sleep(0)  # it has begun, and its thread is on its way
        await asyncio.sleep(0)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        await found.left.wait()


async def test_a_broker_that_says_nothing_is_left() -> None:
    """The library gives up in time; the socket goes with it."""
    async with broker(b"") as found, asyncio.timeout(PATIENCE_S):
        with pytest.raises(aiomqtt.MqttError):
            await enter(aiomqtt.Client("127.0.0.1", found.port, timeout=0.5))
        await found.left.wait()


async def test_an_answer_that_does_not_come_is_a_broker_out_of_reach() -> None:
    """The words say what was waited for."""
    with pytest.raises(Unreachable, match=r"no answer to being online within 0\.01 s"):
        await answered(asyncio.Event().wait(), 0.01, "to being online")
    assert await answered(asyncio.sleep(0, "yes"), 1.0, "to this") == "yes"
