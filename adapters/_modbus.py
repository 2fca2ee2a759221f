"""Modbus TCP for adapters: one shared connection per host and port, one request in flight, library errors made ours."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal, TypeVar
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict, Field
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusIOException
from pymodbus.pdu import ModbusPDU

from vppd.errors import Garbled, Refused, Unreachable

Table = Literal["holding", "input", "coil", "discrete"]
T = TypeVar("T")
Request = Callable[[AsyncModbusTcpClient], Awaitable[ModbusPDU]]

MAX_READ_WORDS = 125
MAX_WRITE_WORDS = 123
BREAK_AFTER = 2
BREAK_FIRST_S = 1.0
BREAK_MAX_S = 10.0
_ASK_AGAIN = {6: "busy", 10: "gateway path unavailable", 11: "gateway target did not answer"}
_NAMES = {1: "illegal function", 2: "illegal address", 3: "illegal value", 4: "device failure"}
_TARGET_SILENT = 11

# What the library logs about every lost answer is in the errors raised here; the runtime logs the transitions.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


class ModbusConfig(BaseModel):
    """``[assets.connection]`` of every Modbus device."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 502
    unit_id: Annotated[int, Field(ge=0, le=255)] = 1
    timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = 1.0
    """Wait for one answer; the runtime's own limit for a whole read or write should be longer."""
    connect_delay_s: Annotated[float, Field(ge=0.0, le=60.0)] = 0.0
    """Rest after connecting, for devices that answer nonsense or nothing at first."""
    min_interval_s: Annotated[float, Field(ge=0.0, le=60.0)] = 0.0
    """Rest between an answer and the next request on the same connection."""


class ExceptionAnswer(Refused):
    """The device answered with a Modbus exception code."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(text)


class Silence(Unreachable):
    """A request was sent and no answer came: what it asked for may have happened."""


@dataclass(slots=True)
class _Breaker:
    """Keeps a silent unit from holding up the others on its connection."""

    misses: int = 0
    open_until_s: float = 0.0

    def missed(self, now_s: float) -> None:
        self.misses += 1
        over = self.misses - BREAK_AFTER
        if over >= 0:
            self.open_until_s = now_s + min(BREAK_MAX_S, BREAK_FIRST_S * 2.0 ** min(over, 8))

    def answered(self) -> None:
        self.misses, self.open_until_s = 0, 0.0


@dataclass(slots=True)
class _Bus:
    """The one connection to a host and port, shared by all unit ids behind it."""

    host: str
    port: int
    links: list[ModbusLink] = field(default_factory=list)
    breakers: dict[int, _Breaker] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # first come, first served: fair between units
    client: AsyncModbusTcpClient | None = None
    in_flight: bool = False
    function: int = 0
    rest_until_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    async def exchange(self, config: ModbusConfig, request: Request) -> ModbusPDU:
        """Return the answer to one request. Raises Unreachable or Garbled; the socket does not survive either."""
        async with self.turn:
            self._refuse_broken(config.unit_id)
            client = await self._connected(config)
            await self._rest()
            in_step = False
            try:
                response = await self._ask(client, config, request)
                in_step = True
            finally:
                # After silence or a cancellation a late answer could be taken for that to the next request.
                if not in_step:
                    self.drop()
                self.rest_until_s = _now_s() + max(link.config.min_interval_s for link in self.links)
            return response

    def drop(self) -> None:
        """Close the socket; the next request opens a new one."""
        client, self.client = self.client, None
        if client is not None:
            client.close()

    def _refuse_broken(self, unit_id: int) -> None:
        breaker = self.breakers.setdefault(unit_id, _Breaker())
        if len(self.breakers) > 1 and _now_s() < breaker.open_until_s:
            raise Unreachable(f"{self} unit {unit_id} was silent {breaker.misses} times: not asked for now")

    async def _connected(self, config: ModbusConfig) -> AsyncModbusTcpClient:
        if self.client is None:
            client = AsyncModbusTcpClient(
                self.host,
                port=self.port,
                timeout=config.timeout_s,
                retries=0,
                reconnect_delay=0,
                trace_packet=self._check_frame,
                trace_connect=self._connection_changed,
            )
            self.client = client
            is_open = False
            try:
                is_open = await _uncancelled(client.connect())
            finally:
                if not is_open:
                    self.drop()
            if not is_open:
                raise Unreachable(f"{self} does not accept a connection")
            self.rest_until_s = _now_s() + max(link.config.connect_delay_s for link in self.links)
        if self.client is None:
            raise Unreachable(f"{self} closed the connection at once (does it allow one client only?)")
        return self.client

    async def _rest(self) -> None:
        delay_s = self.rest_until_s - _now_s()
        if delay_s > 0.0:
            await asyncio.sleep(delay_s)

    async def _ask(self, client: AsyncModbusTcpClient, config: ModbusConfig, request: Request) -> ModbusPDU:
        client.ctx.comm_params.timeout_connect = config.timeout_s
        self.in_flight = True
        breaker = self.breakers[config.unit_id]
        try:
            response = await _uncancelled(request(client))
        except ConnectionException as error:
            raise Unreachable(f"{self} closed the connection") from error
        except ModbusIOException as error:
            breaker.missed(_now_s())
            raise Silence(f"{self} unit {config.unit_id} did not answer in {config.timeout_s:g} s") from error
        finally:
            self.in_flight = False
        if response.isError() and response.exception_code == _TARGET_SILENT:
            breaker.missed(_now_s())
        else:
            breaker.answered()
        return response

    def _check_frame(self, sending: bool, data: bytes) -> bytes:
        if sending:
            self.function = data[7]
        elif fault := _frame_fault(data, self.function):
            self._fail(Garbled(f"{self}: {fault}"))
            return b""
        return data

    def _connection_changed(self, is_connected: bool) -> None:
        if not is_connected:
            self._fail(Silence(f"{self} closed the connection before it answered"))
            self.client = None

    def _fail(self, error: Exception) -> None:
        """Let the request in flight fail now: the library would wait for its whole timeout."""
        if self.in_flight and self.client is not None and not self.client.ctx.response_future.done():
            self.client.ctx.response_future.set_exception(error)


class ModbusLink:
    """One unit id on a shared connection. The caller owns pace and retries."""

    def __init__(self, bus: _Bus, config: ModbusConfig) -> None:
        self._bus, self.config = bus, config

    def with_timeout(self, timeout_s: float) -> ModbusLink:
        """Return the same link with another patience. [s]"""
        return ModbusLink(self._bus, self.config.model_copy(update={"timeout_s": timeout_s}))

    async def read(self, addr: int, count: int, table: Table = "holding") -> bytes:
        """Return ``count`` registers as big-endian bytes. Raises Unreachable, Refused or Garbled."""
        unit = self.config.unit_id

        def request(client: AsyncModbusTcpClient) -> Awaitable[ModbusPDU]:
            ask = client.read_input_registers if table == "input" else client.read_holding_registers
            return ask(addr, count=count, device_id=unit)

        response = await self._exchange(request, f"reading {count} {table} registers at {addr}")
        if len(response.registers) != count:
            raise Garbled(f"{self._bus}: {len(response.registers)} registers for the {count} at {addr}")
        return struct.pack(f">{count}H", *response.registers)

    async def read_bits(self, addr: int, count: int, table: Table = "coil") -> tuple[bool, ...]:
        """Return ``count`` coils or discrete inputs. Raises Unreachable, Refused or Garbled."""
        unit = self.config.unit_id

        def request(client: AsyncModbusTcpClient) -> Awaitable[ModbusPDU]:
            ask = client.read_discrete_inputs if table == "discrete" else client.read_coils
            return ask(addr, count=count, device_id=unit)

        response = await self._exchange(request, f"reading {count} {table} bits at {addr}")
        if len(response.bits) < count:
            raise Garbled(f"{self._bus}: {len(response.bits)} bits for the {count} at {addr}")
        return tuple(response.bits[:count])

    async def write(self, addr: int, values: Sequence[int]) -> None:
        """Write contiguous registers in one request (FC16). Raises Unreachable (outcome unknown) or Refused."""
        request = partial(_write_registers, addr=addr, values=list(values), unit=self.config.unit_id)
        await self._exchange(request, f"writing {len(values)} registers at {addr}")

    async def write_one(self, addr: int, value: int) -> None:
        """Write one register (FC06). Raises Unreachable (outcome unknown) or Refused."""
        request = partial(_write_register, addr=addr, value=value, unit=self.config.unit_id)
        await self._exchange(request, f"writing register {addr}")

    async def write_coil(self, addr: int, is_on: bool) -> None:
        """Write one coil (FC05). Raises Unreachable (outcome unknown) or Refused."""
        request = partial(_write_coil, addr=addr, is_on=is_on, unit=self.config.unit_id)
        await self._exchange(request, f"writing coil {addr}")

    async def _exchange(self, request: Request, deed: str) -> ModbusPDU:
        response = await self._bus.exchange(self.config, request)
        if not response.isError():
            return response
        code = response.exception_code
        text = f"{self._bus} unit {self.config.unit_id}, {deed}"
        if code in _ASK_AGAIN:
            raise Unreachable(f"{text}: {_ASK_AGAIN[code]} (exception {code})")
        raise ExceptionAnswer(code, f"{text}: {_NAMES.get(code, 'refused')} (exception {code})")


def _write_registers(client: AsyncModbusTcpClient, addr: int, values: list[int], unit: int) -> Awaitable[ModbusPDU]:
    return client.write_registers(addr, values, device_id=unit)


def _write_register(client: AsyncModbusTcpClient, addr: int, value: int, unit: int) -> Awaitable[ModbusPDU]:
    return client.write_register(addr, value, device_id=unit)


def _write_coil(client: AsyncModbusTcpClient, addr: int, is_on: bool, unit: int) -> Awaitable[ModbusPDU]:
    return client.write_coil(addr, is_on, device_id=unit)


_BUSES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int], _Bus]] = WeakKeyDictionary()


@asynccontextmanager
async def modbus(config: ModbusConfig) -> AsyncIterator[ModbusLink]:
    """Yield a link to one unit; all links to the same host and port share one connection, opened when needed."""
    buses = _BUSES.setdefault(asyncio.get_running_loop(), {})
    key = (config.host, config.port)
    bus = buses.setdefault(key, _Bus(*key))
    link = ModbusLink(bus, config)
    bus.links.append(link)
    try:
        yield link
    finally:
        bus.links.remove(link)
        if all(other.config.unit_id != config.unit_id for other in bus.links):
            bus.breakers.pop(config.unit_id, None)
        if not bus.links:
            buses.pop(key, None)
            bus.drop()
            await asyncio.sleep(0)  # lets the transport finish closing


async def _uncancelled(work: Awaitable[T]) -> T:
    """Return the result, unless the task was cancelled while it waited.

    ``asyncio.wait_for`` of Python 3.11, which the library uses, drops a cancellation that meets a result half-way.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    result = await work
    if task and task.cancelling() > before:
        raise asyncio.CancelledError
    return result


def _frame_fault(data: bytes, function: int) -> str:
    """Say what is wrong with a frame, as far as it has come; the library would wait for ever for it to make sense."""
    if len(data) >= 6:
        length = int.from_bytes(data[4:6], "big")
        if data[2:4] != b"\0\0" or not 3 <= length <= 254:
            return f"not a Modbus frame: {data[:8].hex()}"
        if len(data) >= 8 and data[7] & 0x7F != function:
            return f"answer to function {data[7] & 0x7F}, not {function}"
        if len(data) >= 9 and function in (1, 2, 3, 4) and data[7] == function and data[8] != length - 3:
            return f"{data[8]} bytes announced in a frame of {length}"
    return ""


def _now_s() -> float:
    return asyncio.get_running_loop().time()
