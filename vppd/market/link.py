"""The market's line to the broker: hears offers, receipts and statements, publishes awards and orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from vppd.errors import Unreachable
from vppd.grid.envelope import read_envelope
from vppd.grid.fields import stamp
from vppd.grid.ids import Ids
from vppd.grid.reasons import Defect, Reason
from vppd.grid.signing import KeyRing, Signer
from vppd.grid.strict_json import Json, dump, parse_object

SESSION_S = 3600
"""So long the broker keeps offers for a market that is away. [s]"""
KEEPALIVE_S = 15
UP_S = 10.0


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and how it speaks."""

    host: str
    port: int
    protocol: str = "5"


@dataclass(frozen=True, slots=True)
class Word:
    """A message of a power plant whose signature holds."""

    vpp: str
    type: str
    data: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Command:
    """A command on the wire; sending it again means sending these bytes again."""

    id: str
    topic: str
    payload: bytes


class Wire(Protocol):
    """Where commands go out."""

    def publish(self, topic: str, payload: bytes) -> None:
        """Send at QoS 1; what cannot go out now goes when the line is back."""
        ...


@dataclass(slots=True)
class Clerk:
    """Signs what the market says and believes only what the power plants signed."""

    issuer: str
    signer: Signer
    sellers: Mapping[str, tuple[str, KeyRing]]
    """Agent id and keys of each power plant, by its name in topics."""
    now: Callable[[], datetime]
    ids: Ids
    seq: int = 0

    def command(self, vpp: str, kind: str, subject: str, data: dict[str, Json]) -> Command:
        """Return a signed command to a power plant; ``kind`` is award or order."""
        event_type, rest = {
            "award": ("vpp.bid.award.v1", "bid/award"),
            "order": ("vpp.order.set.v1", "order/set"),
        }[kind]
        self.seq = max(self.seq + 1, int(self.now().timestamp() * 1000))  # goes on from run to run
        command_id = self.ids.uuid()
        event: dict[str, Json] = {
            "specversion": "1.0.2",
            "id": command_id,
            "source": f"//grid/v1/isv/{self.issuer}",
            "type": event_type,
            "time": stamp(self.now()),
            "datacontenttype": "application/json",
            "subject": subject,
            "traceparent": f"00-{self.ids.hexes(32)}-{self.ids.hexes(16)}-01",
            "correlationid": self.ids.uuid(),
            "data": self.signer.sign(dump({**data, "seq": self.seq, "audience": vpp})),
        }
        return Command(command_id, f"vpp/v1/{vpp}/issuer/{self.issuer}/{rest}", dump(event))

    def read(self, topic: str, payload: bytes) -> Word:
        """Return what a power plant said. Raises Defect for what is not its own signed word."""
        vpp = topic.split("/")[2] if topic.startswith("vpp/v1/") and topic.count("/") >= 3 else ""
        if vpp not in self.sellers:
            raise Defect(Reason.UNKNOWN_ISSUER, f"no power plant {vpp[:64]!r} takes part")
        agent, keys = self.sellers[vpp]
        envelope = read_envelope(parse_object(payload))
        if envelope.identifier != agent:
            raise Defect(Reason.ISSUER_MISMATCH, f"{envelope.identifier[:64]!r} does not speak for {vpp!r}")
        return Word(vpp, envelope.type, parse_object(keys.verify(envelope.data, agent).payload))

    def topics(self) -> list[tuple[str, int]]:
        """Return what the market listens to."""
        return [
            ("vpp/v1/+/bid/offer", 1),
            (f"vpp/v1/+/issuer/{self.issuer}/receipt", 1),
            ("vpp/v1/+/statement", 1),
        ]


class Line:
    """A connection that mends itself; messages come to ``hear`` on the event loop."""

    def __init__(self, broker: Broker, name: str, topics: list[tuple[str, int]]) -> None:
        self._broker, self._topics, self._is_5 = broker, topics, broker.protocol == "5"
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=mqtt.MQTTv5 if self._is_5 else mqtt.MQTTv311,
            # The broker keeps what is said while we are away: an offer made then is in the book after a restart.
            clean_session=None if self._is_5 else False,
        )

    def publish(self, topic: str, payload: bytes) -> None:
        """Send at QoS 1; what cannot go out now goes when the line is back."""
        self._client.publish(topic, payload, qos=1)

    async def open(self, hear: Callable[[str, bytes], None]) -> None:
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
        properties.SessionExpiryInterval = SESSION_S
        return self._client.connect(host, port, KEEPALIVE_S, clean_start=False, properties=properties)

    def _hang_up(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        # The callbacks hold the market, which holds the client: without the cycle its sockets close at once.
        self._client.on_connect = self._client.on_subscribe = self._client.on_message = None


@asynccontextmanager
async def opened(line: Line, hear: Callable[[str, bytes], None]) -> AsyncIterator[None]:
    """Hold an open line. Raises Unreachable."""
    try:
        await line.open(hear)
        yield
    finally:
        await line.close()


def _subscribe(client: mqtt.Client, topics: list[tuple[str, int]]) -> None:
    client.subscribe(topics)
