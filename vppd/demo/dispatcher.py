"""A dispatcher of the kind the daemon serves: signs commands, sends them again until it holds a receipt, hears the answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from vppd.errors import Refused, Unreachable
from vppd.grid.fields import stamp
from vppd.grid.ids import Ids, RandomIds
from vppd.grid.reasons import Defect
from vppd.grid.signing import KeyRing, Signer
from vppd.grid.strict_json import Json, dump

RESEND_S = 3.0
"""Without a receipt a command is sent again after this long. [s]"""
GIVE_UP_S = 30.0


@dataclass(frozen=True, slots=True)
class Line:
    """Where the broker is and how it speaks."""

    host: str
    port: int
    protocol: str = "5"


@dataclass(frozen=True, slots=True)
class Parties:
    """Who orders, and of whom."""

    issuer: str
    vpp_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of the daemon whose signature holds."""

    type: str
    correlation_id: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """A command on the wire; sending it again means sending these bytes again."""

    id: str
    topic: str
    payload: bytes


@dataclass(slots=True)
class Dispatcher:
    """A connected dispatcher. Its methods belong to the event loop; paho's thread only hands messages over."""

    parties: Parties
    signer: Signer
    their_keys: KeyRing
    client: mqtt.Client
    now: Callable[[], datetime]
    ids: Ids = field(default_factory=RandomIds)
    on_heard: Callable[[Heard], None] = lambda heard: None
    _seq: int = 0
    _receipts: dict[str, asyncio.Future[Heard]] = field(default_factory=dict)

    async def load_target(self, limits_w: Mapping[str, float | None], until: datetime) -> str:
        """Set the most import of each feed (None: no limit any more) and return the correlation id. [W] Raises Refused."""
        targets: list[Json] = [
            {
                "interval": {"end_time": stamp(until)},
                "feed_tags": [tag],
                "load_constraint": None if limit_w is None else {"value": round(limit_w, 1), "unit": "watt"},
                "strategy": {"best_effort": False},
            }
            for tag, limit_w in limits_w.items()
        ]
        topic = f"grid/v1/isv/{self.parties.issuer}/loadtarget/set"
        command, correlation = self._command("grid.loadtarget.set.v1", topic, "loadtarget", {"targets": targets})
        await self._until_receipt(command)
        return correlation

    async def order(
        self, kind: str, resource: str, power_w: float | None, until: datetime, ramp_s: float | None = None
    ) -> str:
        """Give one vpp/v1 order and return its id. [W] Raises Refused with the daemon's reason."""
        order_id = self.ids.uuid()
        data: dict[str, Json] = {
            "order_id": order_id,
            "seq": self._next_seq(),
            "expires_at": stamp(self.now() + timedelta(minutes=5)),
            "audience": self.parties.vpp_id,
            "resource": resource,
            "kind": kind,
            "interval": {"start_time": stamp(self.now()), "end_time": stamp(until)},
        }
        if power_w is not None:
            data["power"] = {"value": round(power_w, 1), "unit": "watt"}
        if ramp_s is not None:
            data["ramp_s"] = ramp_s
        command, _ = self._command("vpp.order.set.v1", self._mine("order/set"), "order", data)
        await self._until_receipt(command)
        return order_id

    def signal(self, level_frac: float) -> None:
        """Send one regulation signal and forget it: the next one follows. [-1, 1]"""
        data: dict[str, Json] = {
            "seq": self._next_seq(),
            "sent_at": stamp(self.now()),
            "audience": self.parties.vpp_id,
            "signal": round(level_frac, 4),
        }
        command, _ = self._command("vpp.regulation.v1", self._mine("regulation"), "regulation", data)
        self.client.publish(command.topic, command.payload, qos=0)

    def hear(self, topic: str, payload: bytes) -> None:
        """Take a message from the broker; what is not the daemon's own word is not believed."""
        try:
            event = json.loads(payload)
            verified = self.their_keys.verify(event["data"], self.parties.agent_id)
            heard = Heard(event["type"], event.get("correlationid", ""), json.loads(verified.payload))
        except (ValueError, KeyError, TypeError, Defect):
            return
        if heard.type == "vpp.receipt.v1" and topic == self._mine("receipt"):
            self._take_receipt(heard)
        self.on_heard(heard)

    def _take_receipt(self, heard: Heard) -> None:
        waiting = self._receipts.get(str(heard.data.get("command_id")))
        if waiting and not waiting.done() and heard.data["status"] in ("accepted", "rejected"):
            waiting.set_result(heard)

    async def _until_receipt(self, command: Command) -> None:
        loop = asyncio.get_running_loop()
        self._receipts[command.id] = receipt = loop.create_future()
        try:
            for _ in range(int(GIVE_UP_S / RESEND_S)):
                self.client.publish(command.topic, command.payload, qos=1)
                await asyncio.wait([receipt], timeout=RESEND_S)
                if receipt.done():
                    break
            else:
                raise Unreachable(f"no receipt for {command.topic} within {GIVE_UP_S:g} s")
        finally:
            del self._receipts[command.id]
        said = receipt.result().data
        if said["status"] == "rejected":
            raise Refused(f"{said.get('reason')}: {said.get('detail')}")

    def _command(self, kind: str, topic: str, subject: str, data: dict[str, Json]) -> tuple[Command, str]:
        """Return the signed command and its correlation id."""
        command_id, correlation = self.ids.uuid(), self.ids.uuid()
        event: dict[str, Json] = {
            "specversion": "1.0.2",
            "id": command_id,
            "source": f"//grid/v1/isv/{self.parties.issuer}",
            "type": kind,
            "time": stamp(self.now()),
            "datacontenttype": "application/json",
            "subject": subject,
            "traceparent": f"00-{self.ids.hexes(32)}-{self.ids.hexes(16)}-01",
            "correlationid": correlation,
            "data": self.signer.sign(dump(data)),
        }
        return Command(command_id, topic, dump(event)), correlation

    def _mine(self, rest: str) -> str:
        return f"vpp/v1/{self.parties.vpp_id}/issuer/{self.parties.issuer}/{rest}"

    def _next_seq(self) -> int:
        """Sequences go on from run to run: they start at the time of day in milliseconds since 1970."""
        self._seq = max(self._seq + 1, int(self.now().timestamp() * 1000))
        return self._seq


@asynccontextmanager
async def connected(
    line: Line, parties: Parties, signer: Signer, their_keys: KeyRing, now: Callable[[], datetime]
) -> AsyncIterator[Dispatcher]:
    """Hold a connected dispatcher that hears everything the daemon says. Raises Unreachable."""
    loop = asyncio.get_running_loop()
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=f"dispatcher-{parties.issuer}-{RandomIds().hexes(8)}",
        protocol=mqtt.MQTTv5 if line.protocol == "5" else mqtt.MQTTv311,
    )
    dispatcher = Dispatcher(parties, signer, their_keys, client, now)
    subscribed = asyncio.Event()
    topics = [
        (f"vpp/v1/{parties.vpp_id}/issuer/{parties.issuer}/receipt", 1),
        (f"vpp/v1/{parties.vpp_id}/order/status", 1),
        (f"grid/v1/dsx-flex-agent/{parties.agent_id}/powerstate/status", 1),
        (f"grid/v1/dsx-flex-agent/{parties.agent_id}/powerbreach", 1),
    ]
    client.on_connect = lambda client, _data, _flags, _reason, _properties: _subscribe(client, topics)
    client.on_subscribe = lambda _client, _data, _mid, _reasons, _properties: _tell(loop, subscribed)
    client.on_message = lambda _client, _data, message: _pass_on(loop, dispatcher, message)
    try:
        status = await asyncio.to_thread(client.connect, line.host, line.port, 30)
        if status != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise Unreachable(f"the broker at {line.host}:{line.port} says {status}")
        client.loop_start()
        async with asyncio.timeout(10.0):
            await subscribed.wait()
    except (OSError, TimeoutError) as error:
        await asyncio.to_thread(_hang_up, client)
        raise Unreachable(f"the broker at {line.host}:{line.port} does not answer") from error
    try:
        yield dispatcher
    finally:
        await asyncio.to_thread(_hang_up, client)


def _hang_up(client: mqtt.Client) -> None:
    client.disconnect()
    client.loop_stop()
    # The callbacks hold the dispatcher, which holds the client: without the cycle its sockets close at once.
    client.on_connect = client.on_subscribe = client.on_message = None


def _subscribe(client: mqtt.Client, topics: list[tuple[str, int]]) -> None:
    client.subscribe(topics)


def _tell(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(event.set)


def _pass_on(loop: asyncio.AbstractEventLoop, dispatcher: Dispatcher, message: mqtt.MQTTMessage) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(dispatcher.hear, message.topic, bytes(message.payload))
