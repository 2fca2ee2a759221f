"""Both ends of a real broker: a plain paho client as dispatcher, and our channel held by a task."""

from __future__ import annotations

import asyncio
import queue
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.grid.plant import SITE
from tests.servers.mosquitto import Mosquitto
from vppd.grid.broker import BrokerSettings
from vppd.grid.routes import subscriptions
from vppd.grid.transport import MqttChannel
from vppd.model import Inbound

PATIENCE_S = 15.0


class Dispatcher:
    """A plain paho client with a thread of its own; what it subscribes to lands in a queue."""

    def __init__(self, broker: Mosquitto, *topics: str, protocol: str = "5", **login: str) -> None:
        self._broker, self._topics = broker, topics
        self.heard: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self._ready: queue.Queue[None] = queue.Queue()
        version = MQTTProtocolVersion.MQTTv5 if protocol == "5" else MQTTProtocolVersion.MQTTv311
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=version)
        if login:
            self.client.username_pw_set(login["username"], login["password"])
        self.client.on_connect = self._connected
        self.client.on_subscribe = lambda *_: self._ready.put(None)
        self.client.on_message = lambda _client, _userdata, message: self.heard.put(message)

    def secure(self, context: ssl.SSLContext) -> Self:
        """Use TLS."""
        self.client.tls_set_context(context)
        return self

    def _connected(self, client: paho.Client, *_: Any) -> None:
        if self._topics:
            client.subscribe([(topic, 1) for topic in self._topics])
        else:
            self._ready.put(None)

    def __enter__(self) -> Self:
        self.client.connect(self._broker.host, self._broker.port)
        self.client.loop_start()
        self._ready.get(timeout=PATIENCE_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    async def send(self, message: Inbound) -> None:
        """Publish and wait for the broker."""
        info = self.client.publish(message.topic, message.payload, message.qos, message.retained)
        await asyncio.to_thread(info.wait_for_publish, PATIENCE_S)

    async def hear(self, patience_s: float = PATIENCE_S) -> paho.MQTTMessage:
        """Return the next message of the subscribed topics. [s]"""
        return await asyncio.to_thread(self.heard.get, timeout=patience_s)


def settings(broker: Mosquitto, **changes: Any) -> BrokerSettings:
    """Return settings for that broker that lose no time."""
    return BrokerSettings(
        **{
            "host": broker.host,
            "port": broker.port,
            "client_id": "vppd-dc1",
            "backoff_first_s": 0.05,
            "backoff_most_s": 0.2,
            **changes,
        }
    )


def channel(how: BrokerSettings) -> MqttChannel:
    """Return a channel that is not yet running."""
    return MqttChannel(how, "dc1", subscriptions(SITE), asyncio.get_running_loop().time, lambda: 1.0)


@asynccontextmanager
async def running(how: BrokerSettings, *, connected: bool = True) -> AsyncIterator[MqttChannel]:
    """Hold the link for the time of the block."""
    link = channel(how)
    task = asyncio.create_task(link.run())
    try:
        if connected:
            async with asyncio.timeout(PATIENCE_S):
                await link.wait_connected()
        yield link
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def take(link: MqttChannel, count: int = 1) -> list[Inbound]:
    """Return the next messages of the channel."""
    messages = link.messages()
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(messages) for _ in range(count)]
