"""The agent's link to the broker: connects again for ever; what is said while there is none is not said later.

Commands come on a clean session: one that waited in the broker would be a command of the past.
"""

from __future__ import annotations

import asyncio
import math
import random
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Never

import aiomqtt
import paho.mqtt.client as paho
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from vppd.agent.config import BrokerTable
from vppd.agent.wire import LONGEST_PAYLOAD, Topics
from vppd.errors import ConfigError, Refused, Unreachable, VppdError
from vppd.grid.mqtt_session import answered, enter, leave, paho_of

log = structlog.get_logger()

_WAITING = 64
"""More messages than this are not kept for a broker that does not take them: the oldest go."""
_LEAVE_S = 2.0


@dataclass(frozen=True, slots=True)
class Said:
    """A message to the broker."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


class Link:
    """One connection at a time; ``run`` holds it for as long as it runs."""

    def __init__(
        self,
        broker: BrokerTable,
        topics: Topics,
        on_command: Callable[[bytes, bool], None],
        on_up: Callable[[], None],
        mono_s: Callable[[], float],
        chance: Callable[[], float] = random.random,  # noqa: S311 - spreads reconnects, guards nothing
    ) -> None:
        """``on_command`` gets payload and retain flag of each ``cap/set``; ``on_up`` is called once we are online.

        Raises ConfigError when the certificates cannot be used.
        """
        self._broker, self._topics = broker, topics
        self._on_command, self._on_up, self._mono_s, self._chance = on_command, on_up, mono_s, chance
        _tls(broker)
        self._client: _Client | None = None
        self._waiting: asyncio.Queue[Said] = asyncio.Queue()
        self._told_lost = False

    @property
    def up(self) -> bool:
        """Say whether the broker has us and the commands are subscribed."""
        return self._client is not None

    def say(self, message: Said) -> None:
        """Send as soon as the broker takes it; without a link, or behind too many others, it is dropped."""
        if self._client is None:
            return
        while self._waiting.qsize() >= _WAITING:
            self._waiting.get_nowait()
        self._waiting.put_nowait(message)

    async def run(self) -> Never:
        """Hold the link until cancelled: connect, subscribe, say online, and begin again 1 to 30 s after a loss."""
        delay_s = self._broker.backoff_first_s
        while True:
            began_s = self._mono_s()
            try:
                await self._session()
            except (aiomqtt.MqttError, VppdError) as error:
                if not self._told_lost:
                    log.warning("agent_link_lost", host=self._broker.host, port=self._broker.port, reason=str(error))
                self._told_lost = True
            if self._mono_s() - began_s > self._broker.backoff_most_s:
                delay_s = self._broker.backoff_first_s
            await asyncio.sleep(delay_s * (0.5 + 0.5 * self._chance()))
            delay_s = min(2.0 * delay_s, self._broker.backoff_most_s)

    async def leave(self, last: tuple[Said, ...]) -> None:
        """Say the last words in order, as far as the broker takes them within two seconds."""
        client = self._client
        if client is None:
            return
        with suppress(aiomqtt.MqttError, VppdError, TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                for message in last:
                    await _publish(client, message)

    async def _session(self) -> None:
        client = self._new_client()
        await enter(client)
        speaking: asyncio.Task[None] | None = None
        try:
            await self._subscribe(client)
            online = _publish(client, Said(self._topics.availability, b"online", 1, True))
            await answered(online, self._broker.ack_timeout_s, "to being online")
            self._waiting = asyncio.Queue()
            self._client, self._told_lost = client, False
            log.info("agent_link_up", host=self._broker.host, port=self._broker.port)
            self._on_up()
            speaking = asyncio.create_task(self._speak(client))
            await self._listen(client, speaking)
        finally:
            self._client = None
            if speaking is not None:
                await _cancelled(speaking)
            await leave(client, _LEAVE_S)

    async def _listen(self, client: _Client, speaking: asyncio.Task[None]) -> None:
        """Hand on the commands until the link, or speaking, fails."""
        hearing = asyncio.create_task(self._hear(client))
        try:
            done, _ = await asyncio.wait({hearing, speaking}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _cancelled(hearing)

    async def _hear(self, client: _Client) -> None:
        async for message in client.messages:
            payload = message.payload
            if isinstance(payload, bytes | bytearray):
                self._on_command(bytes(payload[: LONGEST_PAYLOAD + 1]), bool(message.retain))
        raise Unreachable("the broker has ended the link")

    async def _speak(self, client: _Client) -> None:
        while True:
            message = await self._waiting.get()
            await answered(_publish(client, message), self._broker.ack_timeout_s, f"to {message.topic}")

    async def _subscribe(self, client: _Client) -> None:
        v5 = self._broker.protocol == "5"
        # retained-as-published: the only way to see the retain flag of a command that arrives while we listen
        options = SubscribeOptions(1, retainAsPublished=True) if v5 else None
        asking = client.subscribe(self._topics.cap_set, 0 if options else 1, options, timeout=math.inf)
        granted = await answered(asking, self._broker.ack_timeout_s, "to the subscription")
        code = granted[0]
        refused = code.is_failure if isinstance(code, ReasonCode) else code >= 0x80
        if refused:
            raise Refused(f"the broker refuses the subscription to {self._topics.cap_set}: {code}")

    def _new_client(self) -> _Client:
        broker, topics = self._broker, self._topics
        v5 = broker.protocol == "5"
        version: dict[str, Any] = (
            {"protocol": aiomqtt.ProtocolVersion.V5, "clean_start": True, "properties": _connect_properties()}
            if v5
            else {"protocol": aiomqtt.ProtocolVersion.V311, "clean_session": True}
        )
        client = _Client(
            broker.host,
            broker.port,
            identifier=broker.client_id or f"vppd-agent-{topics.site}-{topics.node}",
            username=broker.username or None,
            password=_password(broker),
            will=aiomqtt.Will(topics.availability, b"offline", 1, True),
            keepalive=broker.keepalive_s,
            timeout=broker.ack_timeout_s,
            tls_context=_tls(broker),  # read again for each connection: certificates are renewed
            # An acknowledgement must not wait for the broker's TCP to acknowledge the packet before it.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            **version,
        )
        paho_of(client).connect_timeout = broker.ack_timeout_s
        return client


class _Client(aiomqtt.Client):
    """aiomqtt's client, but telling what a PUBACK said: a node whose name is not its certificate's must notice."""

    refusal = ""

    def _on_publish(self, client: paho.Client, userdata: Any, mid: int, code: ReasonCode, properties: Any) -> None:
        if code.is_failure:
            self.refusal = str(code)
        super()._on_publish(client, userdata, mid, code, properties)


async def _publish(client: _Client, message: Said) -> None:
    await client.publish(message.topic, message.payload, message.qos, message.retain, timeout=math.inf)
    if client.refusal:
        raise Refused(f"the broker refuses {message.topic}: {client.refusal}")


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # it is known already, or comes from the same loss of the link


def _connect_properties() -> Properties:
    make: Any = Properties  # paho gives it no types
    properties: Properties = make(PacketTypes.CONNECT)
    properties.ReceiveMaximum = 16
    properties.MaximumPacketSize = 2 * LONGEST_PAYLOAD
    return properties


def _password(broker: BrokerTable) -> str | None:
    try:
        return broker.password_file.read_text(encoding="utf-8").strip() if broker.password_file else None
    except OSError as error:
        raise ConfigError(f"{broker.password_file} cannot be read: {error.strerror}") from error


def _tls(broker: BrokerTable) -> ssl.SSLContext | None:
    if broker.ca_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(broker.ca_file))
        if broker.cert_file is not None:
            context.load_cert_chain(str(broker.cert_file), str(broker.key_file))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the certificates of the broker cannot be used: {error}") from error
    return context
