"""A Modbus TCP server: answers pipelined requests in order, many units on a port, and fails on demand."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol, cast

from vppd.sim.faults import Fault, Outage

HOST = "127.0.0.1"

ILLEGAL_FUNCTION = 1
ILLEGAL_ADDRESS = 2
ILLEGAL_VALUE = 3
DEVICE_FAILURE = 4
_NO_SUCH_UNIT = 11

_HEADER = struct.Struct(">HHHB")
_READ = (3, 4)
_WRITE_ONE = 6
_WRITE_MANY = 16
_MAX_READ = 125
_MAX_LENGTH = 254


class Illegal(Exception):
    """A request the device answers with an exception code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"Modbus exception {code}")
        self.code = code


class Unit(Protocol):
    """A device behind a unit id."""

    def read(self, address: int, count: int) -> bytes:
        """Return registers as bytes. Raises Illegal."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Take registers. Raises Illegal, and then nothing has changed."""
        ...


class ModbusPort:
    """The units behind one TCP port, with the outage each of them suffers."""

    def __init__(self, units: Mapping[int, Unit], outages: Mapping[int, Outage]) -> None:
        self._units = units
        self._outages = outages
        self.open: set[asyncio.Transport] = set()

    def connection(self) -> asyncio.Protocol:
        """Return the handler of a new connection."""
        return _Connection(self)

    def answer(self, unit_id: int, pdu: bytes) -> bytes | None:
        """Return the reply to one request, None for silence. Raises ConnectionResetError where the device hangs up."""
        unit = self._units.get(unit_id)
        if unit is None:
            return bytes([pdu[0] | 0x80, _NO_SUCH_UNIT])
        fault = self._outages[unit_id].now()
        if fault is Fault.SILENT:
            return None
        if fault is Fault.RESET:
            raise ConnectionResetError
        if fault is Fault.REFUSE:
            return bytes([pdu[0] | 0x80, DEVICE_FAILURE])
        try:
            return _execute(unit, pdu, deaf=fault is Fault.ACK_IGNORE)
        except Illegal as error:
            return bytes([pdu[0] | 0x80, error.code])


class _Connection(asyncio.Protocol):
    """Cuts a byte stream into requests and writes the replies in one piece."""

    def __init__(self, port: ModbusPort) -> None:
        self._port = port
        self._pending = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._port.open.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the transport."""
        if self._transport is not None:
            self._port.open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        """Answer every whole request that has arrived."""
        assert self._transport is not None
        self._pending += data
        replies = bytearray()
        try:
            while (request := self._next()) is not None:
                replies += self._reply(*request)
        except ConnectionResetError:
            self._transport.abort()
            return
        if replies:
            self._transport.write(replies)

    def _next(self) -> tuple[int, int, bytes] | None:
        """Take the next whole request off the stream. Raises ConnectionResetError when it is no Modbus."""
        if len(self._pending) < _HEADER.size:
            return None
        transaction, protocol, length, unit_id = _HEADER.unpack_from(self._pending)
        if protocol != 0 or not 2 <= length <= _MAX_LENGTH:
            raise ConnectionResetError
        if len(self._pending) < 6 + length:
            return None
        pdu = bytes(self._pending[_HEADER.size : 6 + length])
        del self._pending[: 6 + length]
        return transaction, unit_id, pdu

    def _reply(self, transaction: int, unit_id: int, pdu: bytes) -> bytes:
        """Return the framed reply, empty for silence."""
        answer = self._port.answer(unit_id, pdu)
        if answer is None:
            return b""
        return _HEADER.pack(transaction, 0, len(answer) + 1, unit_id) + answer


def _execute(unit: Unit, pdu: bytes, *, deaf: bool) -> bytes:
    """Return the reply to a request; a deaf unit acknowledges writes and does nothing. Raises Illegal."""
    function = pdu[0]
    if function in _READ and len(pdu) == 5:
        address, count = struct.unpack_from(">HH", pdu, 1)
        if not 1 <= count <= _MAX_READ:
            raise Illegal(ILLEGAL_VALUE)
        data = unit.read(address, count)
        return bytes([function, len(data)]) + data
    if function == _WRITE_ONE and len(pdu) == 5:
        (address,) = struct.unpack_from(">H", pdu, 1)
        data = pdu[3:]
    elif function == _WRITE_MANY and len(pdu) >= 8 and pdu[5] == len(pdu) - 6:
        address, count = struct.unpack_from(">HH", pdu, 1)
        data = pdu[6:]
        if len(data) != 2 * count:
            raise Illegal(ILLEGAL_VALUE)
    else:
        raise Illegal(ILLEGAL_FUNCTION)
    if not deaf:
        unit.write(address, data)
    return pdu[:5]


@asynccontextmanager
async def serve_modbus(port: ModbusPort, number: int = 0) -> AsyncIterator[int]:
    """Serve a port on loopback until the context ends; yields its number."""
    server = await asyncio.get_running_loop().create_server(port.connection, HOST, number)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for transport in list(port.open):
            transport.abort()
