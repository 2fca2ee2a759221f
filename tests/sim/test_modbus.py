"""The Modbus server on a real socket: framing, pipelining, refusals, outages."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.sim.hands import HandClock
from vppd.sim.faults import Fault, Outage
from vppd.sim.modbus import HOST, ILLEGAL_ADDRESS, Illegal, ModbusPort, serve_modbus


class Registers:
    """Ten registers from address 0."""

    def __init__(self) -> None:
        self.data = bytearray(range(20))

    def read(self, address: int, count: int) -> bytes:
        """Return registers."""
        if address + count > 10:
            raise Illegal(ILLEGAL_ADDRESS)
        return bytes(self.data[2 * address : 2 * (address + count)])

    def write(self, address: int, data: bytes) -> None:
        """Take registers."""
        if 2 * address + len(data) > 20:
            raise Illegal(ILLEGAL_ADDRESS)
        self.data[2 * address : 2 * address + len(data)] = data


class Line:
    """A client that speaks bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, transaction: int, pdu: bytes, unit: int = 1) -> None:
        """Put a request on the wire."""
        self.writer.write(struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu)

    async def reply(self) -> tuple[int, bytes]:
        """Return transaction id and PDU of the next reply."""
        transaction, _, length, _ = struct.unpack(">HHHB", await self.reader.readexactly(7))
        return transaction, await self.reader.readexactly(length - 1)

    async def ask(self, pdu: bytes, unit: int = 1) -> bytes:
        """Return the PDU that answers a request."""
        self.send(7, pdu, unit)
        return (await self.reply())[1]


class Served:
    """Two units on a port; unit 2 never fails."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.registers = {1: Registers(), 2: Registers()}
        self.outages = {unit: Outage(self.clock) for unit in self.registers}
        self.number = 0

    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        """Open a connection."""
        reader, writer = await asyncio.open_connection(HOST, self.number)
        try:
            yield Line(reader, writer)
        finally:
            writer.close()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server on a free port."""
    served = Served()
    async with serve_modbus(ModbusPort(served.registers, served.outages)) as served.number:
        yield served


READ_2 = struct.pack(">BHH", 3, 1, 2)


async def test_reads_and_writes(served: Served) -> None:
    """Functions 3, 4, 6 and 16 do what they say."""
    async with served.line() as line:
        assert await line.ask(READ_2) == b"\x03\x04\x02\x03\x04\x05"
        assert await line.ask(struct.pack(">BHH", 4, 0, 1)) == b"\x04\x02\x00\x01"
        assert await line.ask(struct.pack(">BHH", 6, 1, 0xABCD)) == struct.pack(">BHH", 6, 1, 0xABCD)
        assert await line.ask(struct.pack(">BHHBHH", 16, 2, 2, 4, 1, 2)) == struct.pack(">BHH", 16, 2, 2)
    assert served.registers[1].data[2:8] == b"\xab\xcd\x00\x01\x00\x02"


async def test_pipelined_requests_are_all_answered_in_order(served: Served) -> None:
    """Eight requests in one segment get eight replies, each with its own transaction id."""
    async with served.line() as line:
        for transaction in range(8):
            line.send(transaction, struct.pack(">BHH", 3, transaction, 1))
        replies = [await line.reply() for _ in range(8)]
    assert replies == [(t, bytes([3, 2, 2 * t, 2 * t + 1])) for t in range(8)]


async def test_a_request_in_pieces_is_answered_once_whole(served: Served) -> None:
    """Bytes that trickle in make one request."""
    async with served.line() as line:
        for byte in struct.pack(">HHHB", 9, 0, 6, 1) + READ_2:
            line.writer.write(bytes([byte]))
            await line.writer.drain()
            await asyncio.sleep(0)
        assert await line.reply() == (9, b"\x03\x04\x02\x03\x04\x05")


@pytest.mark.parametrize(
    ("pdu", "unit", "code"),
    [
        pytest.param(struct.pack(">BHH", 3, 9, 2), 1, 2, id="beyond-the-map"),
        pytest.param(struct.pack(">BHH", 3, 0, 126), 1, 3, id="too-many"),
        pytest.param(struct.pack(">BHH", 3, 0, 0), 1, 3, id="none"),
        pytest.param(struct.pack(">BHH", 1, 0, 1), 1, 1, id="unknown-function"),
        pytest.param(struct.pack(">BHHBH", 16, 0, 2, 2, 1), 1, 3, id="count-and-bytes-differ"),
        pytest.param(READ_2, 9, 11, id="unknown-unit"),
    ],
)
async def test_bad_requests_get_exception_codes(served: Served, pdu: bytes, unit: int, code: int) -> None:
    """What cannot be done is answered with the function's exception."""
    async with served.line() as line:
        assert await line.ask(pdu, unit) == bytes([pdu[0] | 0x80, code])


async def test_what_is_no_modbus_is_cut_off(served: Served) -> None:
    """A stream with another protocol id ends."""
    async with served.line() as line:
        line.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await line.reply()


async def test_a_silent_unit_beside_a_live_one(served: Served) -> None:
    """Only the silent unit's request stays without an answer."""
    served.outages[1].begin(Fault.SILENT, 10.0)
    async with served.line() as line:
        line.send(1, READ_2, unit=1)
        line.send(2, READ_2, unit=2)
        assert (await line.reply())[0] == 2
        served.clock.now_s += 10.0
        assert await line.ask(READ_2, unit=1) == b"\x03\x04\x02\x03\x04\x05"


async def test_a_resetting_unit_hangs_up(served: Served) -> None:
    """The connection drops while the request is in flight."""
    served.outages[1].begin(Fault.RESET, 10.0)
    async with served.line() as line:
        line.send(1, READ_2)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await line.reply()


async def test_a_refusing_unit_answers_device_failure(served: Served) -> None:
    """Every request gets exception 4 until the fault is taken back."""
    served.outages[1].begin(Fault.REFUSE, 10.0)
    async with served.line() as line:
        assert await line.ask(READ_2) == b"\x83\x04"
        served.outages[1].begin(Fault.NONE, 0.0)
        assert await line.ask(READ_2) == b"\x03\x04\x02\x03\x04\x05"


async def test_a_deaf_unit_acknowledges_and_does_nothing(served: Served) -> None:
    """The write is acknowledged, the register is what it was."""
    served.outages[1].begin(Fault.ACK_IGNORE, 10.0)
    async with served.line() as line:
        assert await line.ask(struct.pack(">BHH", 6, 1, 9)) == struct.pack(">BHH", 6, 1, 9)
        assert await line.ask(READ_2) == b"\x03\x04\x02\x03\x04\x05"
