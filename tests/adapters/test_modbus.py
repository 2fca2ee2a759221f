"""The shared Modbus connection: errors, silence, late answers, cancellation, fairness, on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import ValidationError

from adapters._modbus import BREAK_AFTER, ExceptionAnswer, ModbusConfig, Silence, modbus
from adapters._modbus_layout import Layout, words
from tests.adapters.modbus_bank import Bank
from vppd.errors import Garbled, Refused, Unreachable


@pytest.fixture
async def bank() -> AsyncIterator[Bank]:
    """Two units with the register's own address plus 100 times the unit as value."""
    units = {unit: {addr: addr + 100 * unit for addr in range(20)} for unit in (1, 2)}
    async with Bank(units).serving() as serving:
        yield serving


def config(bank: Bank, unit_id: int = 1, timeout_s: float = 0.1, min_interval_s: float = 0.0) -> ModbusConfig:
    """A link to the bank that gives up soon."""
    return ModbusConfig(
        host="127.0.0.1", port=bank.port, unit_id=unit_id, timeout_s=timeout_s, min_interval_s=min_interval_s
    )


async def test_reads_and_writes_registers(bank: Bank) -> None:
    """What is written in one request is read back as big-endian bytes."""
    async with modbus(config(bank)) as link:
        await link.write(3, words("Hi", 7, -2))
        assert await link.read(3, 3) == b"\x00\x07\xff\xff\xff\xfe"
        await link.write_one(3, 9)
        assert await link.read(3, 1) == b"\x00\x09"


async def test_units_share_one_connection(bank: Bank) -> None:
    """Any number of links to a host and port use one socket, closed with the last."""
    async with modbus(config(bank)) as one, modbus(config(bank, 2)) as two:
        answers = await asyncio.gather(one.read(1, 1), two.read(1, 1), one.read(2, 1))
        assert one._bus is two._bus
    assert list(answers) == [b"\x00\x65", b"\x00\xc9", b"\x00\x66"]
    assert bank.connections == 1
    assert one._bus.client is None


async def test_silence_is_unreachable_and_costs_the_socket(bank: Bank) -> None:
    """After a timeout the next request comes on a new connection."""
    async with modbus(config(bank)) as link:
        bank.silent.add(1)
        with pytest.raises(Silence):
            await link.read(0, 1)
        bank.silent.clear()
        assert await link.read(1, 1) == b"\x00\x65"
    assert bank.connections == 2


async def test_late_answers_without_id_never_reach_another_request(bank: Bank) -> None:
    """A gateway that echoes id 0 and answers after the timeout gives errors, never another register's value."""
    bank.transaction_id, bank.late_s = 0, 0.15
    async with modbus(config(bank)) as link:
        for addr in range(4):
            with pytest.raises(Unreachable):
                await link.read(addr, 1)
        bank.late_s = 0.0
        assert await link.read(9, 1) == b"\x00\x6d"


async def test_cancellation_gets_through(bank: Bank) -> None:
    """asyncio.timeout around a request to a silent device ends in TimeoutError, and the socket is dropped."""
    bank.silent.add(1)
    async with modbus(config(bank, timeout_s=5.0)) as link:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await link.read(0, 1)
        bank.silent.clear()
        assert await link.read(2, 1) == b"\x00\x66"
    assert bank.connections == 2


async def test_cancelling_the_task_ends_it(bank: Bank) -> None:
    """A poll loop that catches DeviceError does not survive task.cancel()."""
    bank.silent.add(1)

    async def poll() -> None:
        async with modbus(config(bank, timeout_s=5.0)) as link:
            while True:
                try:
                    await link.read(0, 1)
                except Unreachable:
                    continue

    task = asyncio.create_task(poll())
    await bank.heard.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancellation_that_meets_the_answer_is_not_lost(bank: Bank) -> None:
    """A cancellation in the very round of the loop in which the answer arrives still cancels."""
    async with modbus(config(bank, timeout_s=5.0)) as link:
        bank.late_s = 0.02
        task = asyncio.create_task(link.read(0, 1))
        await bank.heard.wait()
        client = link._bus.client
        assert client is not None
        client.ctx.response_future.add_done_callback(lambda _: task.cancel())
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_waiting_for_the_turn_can_be_cancelled_without_harm(bank: Bank) -> None:
    """Cancelling a request that was not sent yet leaves the connection alone."""
    bank.late_s = 0.02
    async with modbus(config(bank, timeout_s=1.0)) as link:
        first, second = asyncio.create_task(link.read(0, 1)), asyncio.create_task(link.read(1, 1))
        await bank.heard.wait()
        second.cancel()
        assert await first == b"\x00\x64"
        with pytest.raises(asyncio.CancelledError):
            await second
    assert bank.connections == 1


async def test_a_reset_in_flight_fails_at_once(bank: Bank) -> None:
    """A device that hangs up is not waited for."""
    bank.hang_up = True
    async with modbus(config(bank, timeout_s=30.0)) as link:
        async with asyncio.timeout(2.0):
            with pytest.raises(Unreachable, match="closed the connection"):
                await link.read(0, 1)
        bank.hang_up = False
        assert await link.read(0, 1) == b"\x00\x64"


async def test_nobody_listening_is_unreachable(free_port: int) -> None:
    """A refused connection is Unreachable."""
    async with modbus(ModbusConfig(host="127.0.0.1", port=free_port)) as link:
        with pytest.raises(Unreachable, match="does not accept"):
            await link.read(0, 1)


async def test_a_silent_unit_does_not_hold_up_its_neighbour(bank: Bank) -> None:
    """After a few silences the unit is not asked for a while, and the live one answers without waiting for it."""
    bank.silent.add(2)
    async with modbus(config(bank)) as live, modbus(config(bank, 2)) as dead:
        await live.read(0, 1)
        for _ in range(BREAK_AFTER):
            with pytest.raises(Silence):
                await dead.read(0, 1)
        asked = len(bank.asked)
        with pytest.raises(Unreachable, match="not asked for now"):
            await dead.read(0, 1)
        assert len(bank.asked) == asked
        assert await live.read(0, 1) == b"\x00\x64"


async def test_a_unit_alone_is_always_asked(bank: Bank) -> None:
    """With nobody to protect there is no breaker: the runtime's back-off is enough."""
    bank.silent.add(1)
    async with modbus(config(bank, timeout_s=0.02)) as link:
        for _ in range(BREAK_AFTER + 2):
            with pytest.raises(Silence):
                await link.read(0, 1)
    assert len(bank.asked) == BREAK_AFTER + 2


async def test_the_breaker_closes_when_the_unit_answers(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its rest is over the unit is asked again, and one answer clears its record."""
    monkeypatch.setattr("adapters._modbus.BREAK_FIRST_S", 0.0)
    bank.silent.add(2)
    async with modbus(config(bank)), modbus(config(bank, 2, timeout_s=0.02)) as unit:
        for _ in range(BREAK_AFTER + 1):
            with pytest.raises(Silence):
                await unit.read(0, 1)
        bank.silent.clear()
        assert await unit.read(0, 1) == b"\x00\xc8"
        assert unit._bus.breakers[2].misses == 0


@pytest.mark.parametrize(("code", "error"), [(1, Refused), (2, Refused), (3, Refused), (4, Refused)])
async def test_exception_codes_are_refusals(bank: Bank, code: int, error: type[Exception]) -> None:
    """A Modbus exception is a clear no, with its code."""
    bank.exception = code
    async with modbus(config(bank)) as link:
        with pytest.raises(error) as caught:
            await link.write(0, [1])
    assert isinstance(caught.value, ExceptionAnswer)
    assert caught.value.code == code


@pytest.mark.parametrize("code", [6, 10, 11])
async def test_busy_and_gateway_codes_ask_for_another_try(bank: Bank, code: int) -> None:
    """Busy and the gateway codes mean nobody answered."""
    bank.exception = code
    async with modbus(config(bank)) as link:
        with pytest.raises(Unreachable):
            await link.read(0, 1)


@pytest.mark.parametrize(
    "frame",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x00\x01\x00\x00\x00\x05\x01\x04\x02\x00\x07",  # another function
        b"\x00\x01\x00\x00\x00\x05\x01\x03\x04\x00\x07",  # more bytes announced than sent
        b"\x00\x01\x00\x00\x00\x07\x01\x03\x04\x00\x07\x00\x08",  # two registers for one
        b"\x00\x01\x00\x00\xff\xff\x01\x03",
    ],
)
async def test_nonsense_is_garbled_at_once(bank: Bank, frame: bytes) -> None:
    """An answer that cannot be one is Garbled without waiting for the timeout."""
    bank.mangle = lambda _: frame
    async with modbus(config(bank, timeout_s=30.0)) as link:
        async with asyncio.timeout(2.0):
            with pytest.raises(Garbled):
                await link.read(0, 1)
        bank.mangle = None
        assert await link.read(0, 1) == b"\x00\x64"


async def test_min_interval_spaces_requests(bank: Bank) -> None:
    """Devices that need rest between requests get it."""
    loop = asyncio.get_running_loop()
    async with modbus(config(bank, min_interval_s=0.03)) as link:
        await link.read(0, 1)
        start_s = loop.time()
        await link.read(0, 1)
        await link.read(0, 1)
        assert loop.time() - start_s >= 0.058


def test_uvloop_behaves_alike() -> None:
    """Silence, recovery and cancellation are the same under uvloop."""
    uvloop = pytest.importorskip("uvloop")

    async def scene() -> None:
        async with Bank({1: {0: 5}}).serving() as bank, modbus(config(bank)) as link:
            assert await link.read(0, 1) == b"\x00\x05"
            bank.silent.add(1)
            with pytest.raises(Silence):
                await link.read(0, 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await link.read(0, 1)
            bank.silent.clear()
            bank.hang_up = True
            with pytest.raises(Unreachable):
                await link.read(0, 1)
            bank.hang_up = False
            assert await link.read(0, 1) == b"\x00\x05"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scene())


def test_layout_decodes_with_gaps_and_shared_places() -> None:
    """One struct decodes a block; two names may share a register."""
    layout = Layout({"b": (3, "i"), "a": (0, "H"), "also_b": (3, "i")})
    assert layout.decode(b"\x00\x01" + b"\xee" * 4 + b"\xff\xff\xff\xfd") == {"a": 1, "b": -3, "also_b": -3}
    with pytest.raises(Garbled):
        layout.decode(b"\x00\x01")
    with pytest.raises(ValueError, match="overlaps"):
        Layout({"a": (0, "i"), "b": (1, "H")})


def test_unknown_keys_are_refused() -> None:
    """A misspelt key in the connection table is an error."""
    with pytest.raises(ValidationError):
        ModbusConfig.model_validate({"host": "h", "unitid": 1})
