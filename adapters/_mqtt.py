"""The device bus over MQTT, shared by the adapters that speak it; the only module of ours that imports aiomqtt.

One connection per broker and account, whoever uses it. Nothing is queued: a message goes straight to those who listen
to its topic, and they keep the newest. When the link is lost every listener is told, and a new ``mqtt()`` waits for
the next attempt.
"""

from __future__ import annotations

import asyncio
import math
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import ConnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from adapters._mqtt_config import MqttConfig, password, tls_context
from adapters._mqtt_news import Heard, Listener
from vppd.errors import DeviceError, Refused, Unreachable

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
MOST_UNDER_WAY = 200
"""So many publications may wait for the broker at once, where it does not want fewer."""
MOST_TOPICS = 10_000
"""So many topics are remembered to match a pattern or not."""
FAILURES = range(0x80, 0x100)
"""MQTT reason codes that say no."""
NOT_ALLOWED = frozenset({132, 133, 134, 135, 138, 140})
"""CONNACK codes that the next attempt will get too: protocol, client id, password, authorisation, ban, method."""


class MqttLink:
    """A user's view of the connection."""

    def __init__(self, broker: _Broker) -> None:
        self._broker = broker

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, expiry_s: float | None = None) -> None:
        """Publish, never retained, and wait for the broker when qos > 0; it forgets the message after ``expiry_s``.

        Raises Unreachable, or Refused when the broker says so (only MQTT 5 brokers do).
        """
        client = self._broker.client()
        properties = _expiring(expiry_s) if self._broker.config.protocol == "5" else None
        async with self._broker.limited():
            refusal = await client.send(topic, payload, qos, properties)
        if refusal:
            raise Refused(f"{self._broker.name}: publishing on {topic}: {refusal}")

    @asynccontextmanager
    async def listening(self, listener: Listener, *filters: str, qos: int = 1) -> AsyncIterator[None]:
        """Deliver messages of these topic filters to ``listener``; stored ones come first, marked as retained.

        qos: the most the broker may use; 0 where many speak at once and each says it again.
        Raises Unreachable, or Refused when the broker does not let us listen.
        """
        client = self._broker.client()
        ear = _Ear(listener, filters)
        self._broker.ears.append(ear)
        try:
            async with self._broker.limited():
                codes = await client.subscribe([(name, qos) for name in filters], timeout=math.inf)
            for name, code in zip(filters, codes, strict=True):
                if _is_failure(code):
                    raise Refused(f"{self._broker.name}: listening to {name}: not authorised")
            yield
        finally:
            await self._broker.forget(ear)


@asynccontextmanager
async def mqtt(config: MqttConfig) -> AsyncIterator[MqttLink]:
    """Use the connection to a broker, opening it for the first user and closing it after the last.

    Raises Unreachable, Refused when the broker turns us away, ConfigError for files that cannot be read.
    """
    config = MqttConfig(**{name: getattr(config, name) for name in MqttConfig.model_fields})
    brokers = _BROKERS.setdefault(asyncio.get_running_loop(), {})
    broker = brokers[config] = brokers.get(config) or _Broker(config)
    broker.users += 1
    try:
        await broker.ready()
        yield MqttLink(broker)
    finally:
        broker.users -= 1
        if not broker.users:
            del brokers[config]
            await broker.close()


class _Ear:
    """A listener and what it listens to."""

    def __init__(self, listener: Listener, filters: tuple[str, ...]) -> None:
        self.listener, self.filters = listener, filters
        self._exact = frozenset(name for name in filters if "+" not in name and "#" not in name)
        self._patterns = [aiomqtt.Wildcard(name) for name in filters if name not in self._exact]
        self._known: dict[str, bool] = {}

    def wants(self, topic: str) -> bool:
        """Say whether any of the filters matches."""
        if topic in self._exact:
            return True
        if not self._patterns:
            return False
        if topic not in self._known:
            if len(self._known) >= MOST_TOPICS:
                self._known.clear()
            self._known[topic] = any(aiomqtt.Topic(topic).matches(pattern) for pattern in self._patterns)
        return self._known[topic]


class _Broker:
    """A connection that comes back, and those who use it."""

    def __init__(self, config: MqttConfig) -> None:
        self.config = config
        self.name = f"{config.host}:{config.port}"
        self.users = 0
        self.ears: list[_Ear] = []
        self._client: _Client | None = None
        self._context, self._password = tls_context(config), password(config)
        self._attempted = asyncio.Event()
        self._error: DeviceError | None = None
        self._is_delivering = False
        self._pause_s = FIRST_PAUSE_S
        self._task = asyncio.create_task(self._run(), name=f"mqtt {self.name}")

    async def ready(self) -> None:
        """Return when there is a connection. Raises Unreachable or Refused when the newest attempt has failed."""
        await self._attempted.wait()
        if self._error is not None:
            raise type(self._error)(*self._error.args)

    def client(self) -> _Client:
        """Return the connection. Raises Unreachable when there is none."""
        if self._client is None:
            raise Unreachable(f"{self.name}: no connection")
        return self._client

    @asynccontextmanager
    async def limited(self) -> AsyncIterator[None]:
        """Keep to the time limit and turn the library's errors into ours.

        The library's own limit stays off: it is ``asyncio.wait_for``, which before Python 3.12 can lose a cancellation.
        """
        try:
            async with asyncio.timeout(self.config.timeout_s):
                yield
        except TimeoutError as error:
            raise Unreachable(f"{self.name}: no answer within {self.config.timeout_s:g} s") from error
        except aiomqtt.MqttError as error:
            raise Unreachable(f"{self.name}: {error}") from error

    async def forget(self, ear: _Ear) -> None:
        """Deliver nothing more to ``ear``, and have the broker send nothing that nobody else wants."""
        if ear in self.ears:
            self.ears.remove(ear)
        wanted = {name for other in self.ears for name in other.filters}
        unwanted = [name for name in ear.filters if name not in wanted]
        if self._client is not None and unwanted and self.users > 1:
            with suppress(Unreachable):
                async with self.limited():
                    await self._client.unsubscribe(unwanted, timeout=math.inf)

    async def close(self) -> None:
        """Disconnect. Raises what the connection's task raised: only a bug does that."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()

    def deliver(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Hand a message to all who want its topic."""
        heard = Heard(topic, payload, retained, asyncio.get_running_loop().time())
        self._is_delivering = True
        for ear in [ear for ear in self.ears if ear.wants(topic)]:
            ear.listener.hear(heard)
        self._is_delivering = False

    async def _run(self) -> None:
        try:
            while True:
                try:
                    await self._session()
                except aiomqtt.MqttError as error:
                    if self._is_delivering and error.__cause__ is not None:
                        raise error.__cause__ from error
                    self._lose(self._meaning(error))
                await asyncio.sleep(self._pause_s * random.uniform(0.8, 1.0))  # noqa: S311
                self._pause_s = min(2.0 * self._pause_s, LONGEST_PAUSE_S)
                self._attempted.clear()
        finally:
            self._lose(Unreachable(f"{self.name}: the connection has ended"))

    async def _session(self) -> None:
        """Connect and stay until the connection is lost: that raises MqttError."""
        client = _Client(self, self._context, self._password)
        async with _connecting(client):
            self._client, self._error, self._pause_s = client, None, FIRST_PAUSE_S
            self._attempted.set()
            async for _ in client.messages:  # none comes this way: they are delivered as they arrive
                pass

    def _lose(self, error: DeviceError) -> None:
        self._client, self._error = None, error
        self._attempted.set()
        ears, self.ears = self.ears, []
        for ear in ears:
            ear.listener.lose(type(error)(*error.args))

    def _meaning(self, error: aiomqtt.MqttError) -> DeviceError:
        code = getattr(error, "rc", None)
        text = f"{self.name}: {error}" + (f" ({error.__cause__})" if error.__cause__ else "")
        return Refused(text) if isinstance(code, ReasonCode) and code.value in NOT_ALLOWED else Unreachable(text)


_BROKERS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[MqttConfig, _Broker]] = WeakKeyDictionary()


class _Client(aiomqtt.Client):
    """aiomqtt's client, but telling what each PUBACK said, with many under way, and delivering without a queue."""

    def __init__(self, broker: _Broker, context: ssl.SSLContext | None, password: str | None) -> None:
        self._slots = asyncio.Semaphore(MOST_UNDER_WAY)
        self._under_way: dict[int, asyncio.Future[str]] = {}
        """What the PUBACK of a message complained of, by its number; empty for nothing."""
        config, is_5 = broker.config, broker.config.protocol == "5"
        super().__init__(
            config.host,
            config.port,
            username=config.username or None,
            password=password,
            identifier=config.client_id or None,
            protocol=aiomqtt.ProtocolVersion.V5 if is_5 else aiomqtt.ProtocolVersion.V311,
            clean_session=None if is_5 else True,
            timeout=config.timeout_s,
            keepalive=config.keepalive_s,
            max_inflight_messages=MOST_UNDER_WAY,
            tls_context=context,
        )
        self._broker = broker
        self._client.connect_timeout = config.timeout_s

    async def send(self, topic: str, payload: bytes, qos: int, properties: Properties | None) -> str:
        """Publish and return what the broker complained of. Raises MqttError."""
        if not qos:
            self._published(topic, payload, 0, properties)
            return ""
        await self._slots.acquire()
        try:
            number = self._published(topic, payload, qos, properties)
        except aiomqtt.MqttError:
            self._slots.release()
            raise
        # Whoever gives up waiting leaves the slot taken until the broker has answered.
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._under_way[number] = answer
        return await answer

    def _published(self, topic: str, payload: bytes, qos: int, properties: Properties | None) -> int:
        info = self._client.publish(topic, payload, qos, False, properties)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise aiomqtt.MqttCodeError(info.rc, "could not publish")
        return info.mid

    def abandon(self) -> None:
        """Close the socket of a connection that never came about."""
        self._client.disconnect()

    def _on_connect(
        self,
        client: PahoClient,
        userdata: Any,
        flags: ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self._slots = asyncio.Semaphore(min(getattr(properties, "ReceiveMaximum", MOST_UNDER_WAY), MOST_UNDER_WAY))
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_message(self, client: PahoClient, userdata: Any, message: MQTTMessage) -> None:
        # Not by aiomqtt's queue of Message objects: nothing is to wait here, and a thousand a second are to cost little.
        self._broker.deliver(message.topic, bytes(message.payload), retained=message.retain)

    def _on_publish(
        self, client: PahoClient, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        answer = self._under_way.pop(mid, None)
        if answer is None:
            return
        self._slots.release()
        if not answer.done():
            answer.set_result(str(reason_code) if reason_code.is_failure else "")


@asynccontextmanager
async def _connecting(client: _Client) -> AsyncIterator[None]:
    """Connect; also when cancelled in the middle, no socket is left behind."""
    entering = asyncio.ensure_future(client.__aenter__())
    try:
        await asyncio.shield(entering)
    except asyncio.CancelledError:
        with suppress(aiomqtt.MqttError):
            await entering
        client.abandon()
        raise
    except aiomqtt.MqttError:
        client.abandon()
        raise
    try:
        yield
    finally:
        with suppress(aiomqtt.MqttError):
            await client.__aexit__(None, None, None)


def _is_failure(code: object) -> bool:
    return (code.value if isinstance(code, ReasonCode) else code) in FAILURES


@lru_cache
def _expiring(expiry_s: float | None) -> Properties | None:
    if expiry_s is None:
        return None
    make: Callable[[int], Properties] = Properties
    properties = make(PacketTypes.PUBLISH)
    properties.MessageExpiryInterval = max(1, math.ceil(expiry_s))
    return properties
