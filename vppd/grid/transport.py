"""Links to brokers over MQTT: the dispatcher's, with acknowledgement by us after the ledger has the message, and ``listen``.

aiomqtt acknowledges a message as soon as it has queued it, so an order would be lost with the process. The paho client
inside can leave that to us, and it alone tells the broker's reason when a publish is refused; hence the access to it here.
"""

from __future__ import annotations

import asyncio
import math
import random
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from vppd.errors import DeviceError, Refused, Unreachable, VppdError
from vppd.grid.broker import BrokerSettings
from vppd.grid.inbox import Inbox
from vppd.grid.mqtt_session import answered, enter, leave, paho_of
from vppd.grid.routes import Subscription
from vppd.grid.vpp_agent import availability
from vppd.model import Inbound, Outbound

log = structlog.get_logger()

_CLEAR_NO = (
    "Not authorized",
    "Topic name invalid",
    "Payload format invalid",
    "Retain not supported",
    "QoS not supported",
)


class MqttChannel:
    """A DispatchChannel; ``run`` holds the link for as long as it runs."""

    _UP, _LOST, _REFUSED = "dispatch_link_up", "dispatch_link_lost", "dispatch_subscription_refused"
    _KEPT = True
    """The broker keeps our session, and what we have not acknowledged in it."""

    def __init__(
        self,
        settings: BrokerSettings,
        vpp_id: str,
        subscriptions: tuple[Subscription, ...],
        mono_s: Callable[[], float],
        chance: Callable[[], float] = random.random,  # noqa: S311 - spreads reconnects, guards nothing
    ) -> None:
        self._settings, self._vpp_id, self._subscriptions = settings, vpp_id, subscriptions
        self._mono_s, self._chance = mono_s, chance
        self._client: aiomqtt.Client | None = None
        self._up = asyncio.Event()
        self._link = 0
        self._lost_s = mono_s()
        self._told_lost = False
        self._waiting: dict[int, asyncio.Future[ReasonCode]] = {}
        self.inbox = Inbox()

    @property
    def connected(self) -> bool:
        """Say whether the link is up and all required topics are subscribed."""
        return self._client is not None

    @property
    def link_age_s(self) -> float:
        """Return for how long there has been no link; 0 while there is one. [s]"""
        return 0.0 if self._client is not None else self._mono_s() - self._lost_s

    async def wait_connected(self) -> None:
        """Return once the link is up."""
        await self._up.wait()

    async def run(self) -> None:
        """Hold the link until cancelled: connect, subscribe, say online, and begin again 1 to 30 s after a loss."""
        delay_s = self._settings.backoff_first_s
        while True:
            began_s = self._mono_s()
            try:
                await self._session()
            except (aiomqtt.MqttError, VppdError) as error:
                self._tell_lost(str(error))
            if self._mono_s() - began_s > self._settings.backoff_most_s:
                delay_s = self._settings.backoff_first_s
            await asyncio.sleep(delay_s * (0.8 + 0.2 * self._chance()))
            delay_s = min(2.0 * delay_s, self._settings.backoff_most_s)

    async def messages(self) -> AsyncIterator[Inbound]:
        """Yield messages as they arrive, over any number of reconnects."""
        while True:
            yield await self.inbox.get()

    async def ack(self, message: Inbound) -> None:
        """Acknowledge to the broker: only after the ledger commit. A message of an earlier link will come again."""
        link, mid = divmod(message.token, 1 << 16)
        if message.qos and self._client is not None and link == self._link:
            paho_of(self._client).ack(mid, message.qos)

    async def publish(self, message: Outbound) -> None:
        """Publish and, above QoS 0, wait for the broker. Raises Unreachable (try again) or Refused (it never will)."""
        if self._client is None:
            raise Unreachable("there is no link to the dispatch broker")
        await self._send(self._client, message)

    async def _session(self) -> None:
        client = self._new_client()
        await enter(client)
        try:
            await self._subscribe(client)
            await self._say_online(client)
            self._client, self._told_lost = client, False
            self._up.set()
            log.info(self._UP, host=self._settings.host, port=self._settings.port)
            async for message in client.messages:
                self._take(message)
        except asyncio.CancelledError:
            await self._say_offline(client)
            raise
        finally:
            self._drop_link()
            await leave(client, self._settings.leave_timeout_s)

    def _take(self, message: aiomqtt.Message) -> None:
        payload = message.payload[: self._settings.longest_payload + 1]
        token = self._link << 16 | message.mid
        if not self.inbox.put(Inbound(message.topic.value, payload, message.qos, bool(message.retain), token)):
            raise Unreachable("more commands came than are allowed unacknowledged; they will come again")

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        v5 = self._settings.protocol == "5"
        for wanted in self._subscriptions:
            # retained-as-published: the only way to see the retain flag of a command that arrives while we listen
            options = SubscribeOptions(wanted.qos, retainAsPublished=True, retainHandling=1) if v5 else None
            granted = await self._granted(client, wanted, options)
            code = granted[0]
            if not isinstance(code, ReasonCode) or not code.is_failure:
                continue
            if wanted.required:
                raise Refused(f"the broker refuses the subscription to {wanted.filter}: {code}")
            log.warning(self._REFUSED, topic=wanted.filter, reason=str(code))

    async def _granted(self, client: aiomqtt.Client, wanted: Subscription, options: SubscribeOptions | None) -> Any:
        asking = client.subscribe(wanted.filter, 0 if options else wanted.qos, options, timeout=math.inf)
        return await answered(asking, self._settings.ack_timeout_s, f"to the subscription to {wanted.filter}")

    async def _send(self, client: aiomqtt.Client, message: Outbound) -> None:
        try:
            info = paho_of(client).publish(message.topic, message.payload, message.qos, message.retain)
        except ValueError as error:
            raise Refused(f"{message.topic} cannot be published: {error}") from error
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise Unreachable(f"the dispatch broker cannot be reached: {paho.error_string(info.rc)}")
        if message.qos:
            await self._confirmed(info.mid, message.topic)

    async def _confirmed(self, mid: int, topic: str) -> None:
        waiter: asyncio.Future[ReasonCode] = asyncio.get_running_loop().create_future()
        self._waiting[mid] = waiter
        try:
            async with asyncio.timeout(self._settings.ack_timeout_s):
                code = await waiter
        except TimeoutError as error:
            raise Unreachable(f"the dispatch broker does not acknowledge {topic}") from error
        finally:
            self._waiting.pop(mid, None)
        if code.is_failure:
            kind = Refused if str(code) in _CLEAR_NO else Unreachable
            raise kind(f"the dispatch broker refuses {topic}: {code}")

    def _published(
        self, client: paho.Client, userdata: Any, mid: int, code: ReasonCode, properties: Properties | None
    ) -> None:
        waiter = self._waiting.get(mid)
        if waiter is not None and not waiter.done():
            waiter.set_result(code)

    def _drop_link(self) -> None:
        if self._client is not None:
            self._lost_s = self._mono_s()
        self._client = None
        self._up.clear()
        self.inbox.forget_commands()
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(Unreachable("the dispatch link was lost before the broker acknowledged"))

    def _tell_lost(self, why: str) -> None:
        if not self._told_lost:
            log.warning(self._LOST, host=self._settings.host, port=self._settings.port, error=why)
        self._told_lost = True

    async def _say_online(self, client: aiomqtt.Client) -> None:
        await self._send(client, availability(self._vpp_id, online=True))

    async def _say_offline(self, client: aiomqtt.Client) -> None:
        """A link closed in good order has no last will, so say it ourselves."""
        with suppress(DeviceError, TimeoutError):
            async with asyncio.timeout(self._settings.leave_timeout_s):
                await self._send(client, availability(self._vpp_id, online=False))

    def _will(self) -> aiomqtt.Will | None:
        will = availability(self._vpp_id, online=False)
        return aiomqtt.Will(will.topic, will.payload, will.qos, will.retain)

    def _new_client(self) -> aiomqtt.Client:
        settings, v5 = self._settings, self._settings.protocol == "5"
        version: dict[str, Any] = (
            {
                "protocol": aiomqtt.ProtocolVersion.V5,
                "clean_start": not self._KEPT,
                "properties": _connect_properties(settings, kept=self._KEPT),
            }
            if v5
            else {"protocol": aiomqtt.ProtocolVersion.V311, "clean_session": not self._KEPT}
        )
        client = aiomqtt.Client(
            settings.host,
            settings.port,
            identifier=settings.client_id,
            username=settings.username or None,
            password=settings.password(),
            will=self._will(),
            keepalive=settings.quiet_s,
            timeout=settings.ack_timeout_s,
            tls_context=settings.tls,
            # A receipt must not wait for the acknowledgement of the one before it.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            **version,
        )
        inner = paho_of(client)
        inner.manual_ack_set(self._KEPT)
        inner.on_publish = self._published
        self._link += 1
        return client


class _Listener(MqttChannel):
    """A link that says nothing, not even that it is there, and keeps nothing at the broker."""

    _UP, _LOST, _REFUSED = "listening", "listening_interrupted", "listening_refused"
    _KEPT = False

    def __init__(
        self, settings: BrokerSettings, topics: Iterable[str], mono_s: Callable[[], float], up: Callable[[], None]
    ) -> None:
        super().__init__(settings, "", tuple(Subscription(topic, 1, required=False) for topic in topics), mono_s)
        self._tell_up = up

    async def _say_online(self, client: aiomqtt.Client) -> None:
        self._tell_up()

    async def _say_offline(self, client: aiomqtt.Client) -> None:
        return

    def _will(self) -> None:
        return None

    def _take(self, message: aiomqtt.Message) -> None:
        """Take every message as a sample: the newest count, and none will come again."""
        payload = message.payload[: self._settings.longest_payload + 1]
        self.inbox.put(Inbound(message.topic.value, payload, 0, bool(message.retain)))


async def listen(
    settings: BrokerSettings,
    topics: Iterable[str],
    mono_s: Callable[[], float],
    up: Callable[[], None] = lambda: None,
) -> AsyncGenerator[Inbound, None]:
    """Yield what comes on some topics, over any number of reconnects; ``up`` is called whenever they are subscribed.

    For news that are read again elsewhere or come again by themselves: what a slow reader leaves lying is dropped, the oldest
    first. To be closed (``contextlib.aclosing``) by whoever leaves it before its end.
    """
    link = _Listener(settings, topics, mono_s, up)
    holding = asyncio.ensure_future(link.run())
    try:
        while True:
            arrival = asyncio.ensure_future(link.inbox.get())
            try:
                await asyncio.wait((arrival, holding), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not arrival.done():
                    arrival.cancel()
            if holding.done():
                holding.result()  # only a bug ends it
            yield arrival.result()
    finally:
        holding.cancel()
        await asyncio.wait((holding,))


def _connect_properties(settings: BrokerSettings, *, kept: bool) -> Properties:
    make: Any = Properties  # paho gives it no types
    properties: Properties = make(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = settings.session_s if kept else 0
    properties.ReceiveMaximum = settings.unacknowledged
    properties.MaximumPacketSize = 16 * settings.longest_payload
    return properties
