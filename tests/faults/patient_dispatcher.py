"""A dispatcher that sends the same bytes until it has the receipt, and keeps an account of all it was told."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.grid.dispatcher import ORDER_TOPIC, Key, event

RESEND_S = 1.0
RECEIPT_TOPIC = "vpp/v1/dc1/issuer/tso/receipt"
AVAILABILITY_TOPIC = "vpp/v1/dc1/availability"


def _stamp(ahead_s: float = 0.0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=ahead_s)).isoformat()


@dataclass(eq=False)
class Sent:
    """One command and its answers."""

    command_id: str
    order_id: str
    payload: bytes
    sent_s: float = 0.0
    answers: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """Status -> the different receipts of that status; a second one would be a different answer."""
    count: int = 0
    """Receipts that came, copies too."""
    accepted: asyncio.Event = field(default_factory=asyncio.Event)


class PatientDispatcher:
    """Issuer ``tso`` at the broker; a context manager."""

    def __init__(self, port: int, key: Key, published: Callable[[], None], receipted: Callable[[], None]) -> None:
        self._key, self._published, self._receipted = key, published, receipted
        self._loop = asyncio.get_running_loop()
        self._port, self._seq = port, 0
        self.online = asyncio.Event()
        """The daemon has said that it listens."""
        self.sent: dict[str, Sent] = {}
        self.strange: list[str] = []
        """Receipts for commands that were never sent."""
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe([(RECEIPT_TOPIC, 1), (AVAILABILITY_TOPIC, 1)])
        self._client.on_message = self._pass_on

    async def __aenter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._leave)

    async def setpoint(self, asset: str, power_w: int) -> Sent:
        """Order a setpoint until further notice; return when it has been accepted. [W, + = charging]"""
        power = {"value": power_w, "unit": "watt"}
        return await self._insist(resource=asset, kind="setpoint", power=power, interval={"start_time": _stamp()})

    async def release(self, asset: str) -> Sent:
        """Release all orders on the asset; return when that has been accepted."""
        return await self._insist(resource=asset, kind="release")

    def repeat(self, command: Sent) -> None:
        """Send the very same bytes once more."""
        self._client.publish(ORDER_TOPIC, command.payload, 1)

    async def _insist(self, **data: Any) -> Sent:
        command = self._command(data)
        command.sent_s = self._loop.time()
        while not command.accepted.is_set():
            self.repeat(command)
            self._published()
            try:
                async with asyncio.timeout(RESEND_S):
                    await command.accepted.wait()
            except TimeoutError:
                continue
        return command

    def _command(self, data: dict[str, Any]) -> Sent:
        self._seq += 1
        order_id = str(uuid.uuid4())
        order = {"order_id": order_id, "seq": self._seq, "expires_at": _stamp(600.0), **data}
        envelope = event("vpp.order.set.v1", self._key.jws(order), subject="order", time=_stamp())
        command = Sent(envelope["id"], order_id, json.dumps(envelope).encode())
        self.sent[command.command_id] = command
        return command

    def _pass_on(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self._loop.call_soon_threadsafe(self._hear, message.topic, bytes(message.payload))

    def _hear(self, topic: str, payload: bytes) -> None:
        if topic != RECEIPT_TOPIC:
            if payload == b"online":
                self.online.set()
            return
        data = json.loads(payload)["data"].split(".")[1]
        receipt = json.loads(base64.urlsafe_b64decode(data + "=" * (-len(data) % 4)))
        command = self.sent.get(receipt.get("command_id", ""))
        if command is None:
            self.strange.append(str(receipt))
            return
        command.count += 1
        command.answers[receipt["status"]].add(payload)
        if receipt["status"] == "accepted":
            command.accepted.set()
            self._receipted()

    def _leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
