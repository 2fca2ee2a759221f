"""As much of MQTT 3.1.1 as an imagined agent needs, for a thousand connections in one process."""

from __future__ import annotations

import asyncio
import struct
from typing import cast

from vppd.agent.wire import Topics

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK, _PINGREQ = 1, 2, 3, 4, 8, 9, 12


class MqttClient(asyncio.Protocol):
    """One agent's connection."""

    def __init__(self, name: str, topics: Topics, keepalive_s: int) -> None:
        self._name, self._topics, self._keepalive_s = name, topics, keepalive_s
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._number = 0
        self.up = asyncio.get_running_loop().create_future()
        """Done when the subscription stands."""
        self.commands: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello, with the last will."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        flags = 0x02 | 0x04 | 0x08 | 0x20  # clean session, will with QoS 1, retained
        head = _text("MQTT") + bytes([4, flags]) + struct.pack(">H", self._keepalive_s)
        self._send(_CONNECT, 0, head + _text(self._name) + _text(self._topics.availability) + _text("offline"))

    def data_received(self, data: bytes) -> None:
        """Take whole packets out of what came."""
        self._buffer += data
        while (packet := self._packet()) is not None:
            self._take(*packet)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection."""
        self._transport = None
        if not self.up.done():
            self.up.set_exception(ConnectionError(f"{self._name}: no connection"))

    def publish(self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False) -> None:
        """Publish without waiting; nothing happens without a connection."""
        number = b""
        if qos:
            self._number = self._number % 65_535 + 1
            number = struct.pack(">H", self._number)
        self._send(_PUBLISH, qos << 1 | retain, _text(topic) + number + payload)

    def ping(self) -> None:
        """Keep the connection alive."""
        self._send(_PINGREQ, 0, b"")

    def close(self, *, abort: bool = False) -> None:
        """End the connection; the broker publishes the last will, as nothing is said."""
        if self._transport is not None:
            (self._transport.abort if abort else self._transport.close)()

    def _take(self, kind: int, flags: int, body: bytes) -> None:
        if kind == _CONNACK:
            assert body[1] == 0, f"the broker refuses: {body[1]}"
            self._send(_SUBSCRIBE, 2, b"\0\1" + _text(self._topics.cap_set) + b"\1")
        elif kind == _SUBACK:
            self.publish(self._topics.availability, b"online", 1, retain=True)
            self.up.set_result(None)
        elif kind == _PUBLISH:
            at = 2 + int.from_bytes(body[:2], "big")
            if flags & 0x06:
                self._send(_PUBACK, 0, body[at : at + 2])
                at += 2
            self.commands.put_nowait((bytes(body[at:]), bool(flags & 1)))

    def _packet(self) -> tuple[int, int, bytes] | None:
        buffer, size, at = self._buffer, 0, 1
        while True:
            if at >= len(buffer):
                return None
            size |= (buffer[at] & 0x7F) << 7 * (at - 1)
            at += 1
            if buffer[at - 1] < 0x80:
                break
        if len(buffer) < at + size:
            return None
        head, body = buffer[0], bytes(buffer[at : at + size])
        del buffer[: at + size]
        return head >> 4, head & 15, body

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        if self._transport is not None:
            self._transport.write(bytes([kind << 4 | flags]) + _length(len(body)) + body)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">H", len(raw)) + raw


def _length(size: int) -> bytes:
    said = bytearray()
    while True:
        size, low = size >> 7, size & 0x7F
        said.append(low | (0x80 if size else 0))
        if not size:
            return bytes(said)
