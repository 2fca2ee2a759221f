"""An issuer's line to the broker, for the demo and the local market: paho's thread hands messages over to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from vppd.errors import ConfigError, Unreachable

KEEPALIVE_S = 15
UP_S = 10.0

Hear = Callable[[str, bytes], None]
"""Takes topic and payload, on the event loop."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and how it speaks."""

    host: str
    port: int
    protocol: str = "5"


def broker_of(address: str, protocol: str) -> Broker:
    """Return the broker that ``--broker`` and ``--mqtt`` name. Raises ConfigError."""
    host, port = address_of(address, "--broker")
    check_protocol(protocol)
    return Broker(host, port, protocol)


def check_protocol(protocol: str) -> None:
    """Raise ConfigError for what is no protocol of a broker."""
    if protocol not in ("5", "3.1.1"):
        raise ConfigError(f"--mqtt: {protocol!r} is no protocol (allowed: 5, 3.1.1)")


def address_of(text: str, option: str) -> tuple[str, int]:
    """Return host and port of an option. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"{option}: {text!r} is not HOST:PORT")
    return host, int(port)


class Line:
    """A connection that mends itself; with ``kept_s`` the broker keeps what is said while nobody is on it. [s]"""

    def __init__(self, broker: Broker, name: str, topics: Sequence[str], kept_s: int = 0) -> None:
        self._broker, self._topics, self._kept_s = broker, [(topic, 1) for topic in topics], kept_s
        self._is_5 = broker.protocol == "5"
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=mqtt.MQTTv5 if self._is_5 else mqtt.MQTTv311,
            clean_session=None if self._is_5 else not kept_s,
        )

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Send; what cannot go out now goes when the line is back."""
        self._client.publish(topic, payload, qos=qos)

    async def open(self, hear: Hear) -> None:
        """Connect and subscribe. Raises Unreachable."""
        loop, subscribed = asyncio.get_running_loop(), asyncio.Event()

        def on_loop(call: Callable[..., None], *args: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(call, *args)

        self._client.on_connect = lambda client, _data, _flags, _reason, _properties: _subscribe(client, self._topics)
        self._client.on_subscribe = lambda _client, _data, _mid, _reasons, _properties: on_loop(subscribed.set)
        self._client.on_message = lambda _client, _data, message: on_loop(hear, message.topic, bytes(message.payload))
        try:
            status = await asyncio.to_thread(self._connect)
            if status != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise Unreachable(f"the broker at {self._broker.host}:{self._broker.port} says {status}")
            self._client.loop_start()
            async with asyncio.timeout(UP_S):
                await subscribed.wait()
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"the broker at {self._broker.host}:{self._broker.port} does not answer") from error

    async def close(self) -> None:
        """Hang up."""
        await asyncio.to_thread(self._hang_up)

    def _connect(self) -> MQTTErrorCode:
        host, port = self._broker.host, self._broker.port
        if not self._is_5:
            return self._client.connect(host, port, KEEPALIVE_S)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._kept_s
        return self._client.connect(host, port, KEEPALIVE_S, clean_start=not self._kept_s, properties=properties)

    def _hang_up(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        # The callbacks hold the listener, which holds the client: without the cycle its sockets close at once.
        self._client.on_connect = self._client.on_subscribe = self._client.on_message = None


@asynccontextmanager
async def opened(line: Line, hear: Hear) -> AsyncIterator[None]:
    """Hold an open line. Raises Unreachable."""
    try:
        await line.open(hear)
        yield
    finally:
        await line.close()


def _subscribe(client: mqtt.Client, topics: list[tuple[str, int]]) -> None:
    client.subscribe(topics)
