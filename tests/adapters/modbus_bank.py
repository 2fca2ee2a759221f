"""A Modbus TCP server of registers for tests, hand-written so that it can misbehave on purpose."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, cast

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS = 1, 2
READS, WRITE_ONE, WRITE_MANY = (3, 4), 6, 16


class Asked(NamedTuple):
    """One request as it came."""

    unit: int
    function: int
    addr: int
    words: int
    values: tuple[int, ...] = ()


@dataclass
class Bank:
    """Registers by unit id and address, and the ways in which it may fail."""

    units: dict[int, dict[int, int]] = field(default_factory=lambda: {1: {}})
    inputs: dict[int, dict[int, int]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    silent: set[int] = field(default_factory=set)
    """Units that do not answer."""
    stuck: set[int] = field(default_factory=set)
    """Addresses whose writes are acknowledged and not applied."""
    read_only: set[int] = field(default_factory=set)
    """Addresses whose writes are refused."""
    refused_functions: set[int] = field(default_factory=set)
    exception: int = 0
    """Answer everything with this code."""
    late_s: float = 0.0
    transaction_id: int | None = None
    """Answer with this id instead of the one asked with."""
    hang_up: bool = False
    """Close the connection instead of answering."""
    mangle: Callable[[bytes], bytes] | None = None
    after_write: Callable[[Bank, Asked], None] | None = None
    connections: int = 0
    port: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by each request."""
    _open: set[asyncio.Transport] = field(default_factory=set)

    @property
    def registers(self) -> dict[int, int]:
        """The holding registers of unit 1."""
        return self.units[1]

    def put(self, addr: int, form: str, *values: float | bytes) -> None:
        """Store values from ``addr`` on, ``form`` as in the struct module, big-endian."""
        self.registers.update(enumerate(packed(form, *values), addr))

    def get(self, addr: int, form: str) -> float:
        """Return the value stored at ``addr``."""
        count = struct.calcsize(f">{form}") // 2
        data = struct.pack(f">{count}H", *(self.registers[addr + i] for i in range(count)))
        value: float = struct.unpack(f">{form}", data)[0]
        return value

    @property
    def writes(self) -> list[Asked]:
        """The write requests so far."""
        return [asked for asked in self.asked if asked.function in (WRITE_ONE, WRITE_MANY)]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Bank]:
        """Serve on a free loopback port until left."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for transport in tuple(self._open):
                transport.abort()
            await server.wait_closed()
            await asyncio.sleep(0)

    def answer(self, unit: int, pdu: bytes) -> bytes:
        """Return the response to one request, after noting it."""
        function, addr, third = struct.unpack_from(">BHH", pdu)
        if function == WRITE_MANY:
            asked = Asked(unit, function, addr, third, struct.unpack_from(f">{third}H", pdu, 6))
        elif function == WRITE_ONE:
            asked = Asked(unit, function, addr, 1, (third,))
        else:
            asked = Asked(unit, function, addr, third)
        self.asked.append(asked)
        self.heard.set()
        if self.exception:
            return bytes((function | 0x80, self.exception))
        if function in self.refused_functions:
            return bytes((function | 0x80, ILLEGAL_FUNCTION))
        return self._carry_out(asked, pdu)

    def _carry_out(self, asked: Asked, pdu: bytes) -> bytes:
        table = self.inputs.get(asked.unit, {}) if asked.function == 4 else self.units.get(asked.unit, {})
        span = range(asked.addr, asked.addr + asked.words)
        if any(addr not in table for addr in span):
            return bytes((asked.function | 0x80, ILLEGAL_ADDRESS))
        if asked.function in READS:
            return struct.pack(f">BB{asked.words}H", asked.function, 2 * asked.words, *(table[addr] for addr in span))
        if self.read_only.intersection(span):
            return bytes((asked.function | 0x80, ILLEGAL_ADDRESS))
        table.update({addr: value for addr, value in zip(span, asked.values, strict=True) if addr not in self.stuck})
        if self.after_write:
            self.after_write(self, asked)
        return pdu[:5]


class _Connection(asyncio.Protocol):
    def __init__(self, bank: Bank) -> None:
        self._bank, self._buffer = bank, b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no instance of it
        self._bank.connections += 1
        self._bank._open.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._transport is not None
        self._bank._open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 7:
            length = int.from_bytes(self._buffer[4:6], "big")
            if len(self._buffer) < 6 + length:
                return
            frame, self._buffer = self._buffer[: 6 + length], self._buffer[6 + length :]
            self._handle(frame)

    def _handle(self, frame: bytes) -> None:
        bank, unit = self._bank, frame[6]
        pdu = bank.answer(unit, frame[7:])
        assert self._transport is not None
        if bank.hang_up:
            self._transport.close()
            return
        if unit in bank.silent:
            return
        transaction = int.from_bytes(frame[:2], "big") if bank.transaction_id is None else bank.transaction_id
        reply = struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu
        if bank.mangle:
            reply = bank.mangle(reply)
        asyncio.get_running_loop().call_later(bank.late_s, self._send, reply)

    def _send(self, reply: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(reply)


def packed(form: str, *values: float | bytes) -> tuple[int, ...]:
    """Return the registers of ``values``, big-endian."""
    data = struct.pack(f">{form}", *values)
    return struct.unpack(f">{len(data) // 2}H", data)


def sunspec_map(models: Mapping[int, Iterable[int]], base: int = 40000) -> dict[int, int]:
    """Return registers: the marker, each model's header and body, the end."""
    registers = list(packed("4s", b"SunS"))
    for number, body in models.items():
        content = list(body)
        registers += [number, len(content), *content]
    registers += [0xFFFF, 0]
    return dict(enumerate(registers, base))
