"""Our SunSpec adapter against register data and a server that are not ours."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from adapters.modbus_sunspec import Config, connect
from vppd.model import Sample
from vppd.ports import Controllable


@pytest.fixture
async def device_1547(free_port: int) -> AsyncIterator[int]:
    """pysunspec2's IEEE 1547 device, encoded by pysunspec2, served by pymodbus at 40000; yields the port."""
    sunspec2 = pytest.importorskip("sunspec2", reason="pysunspec2 carries an IEEE 1547 device")
    client = pytest.importorskip("sunspec2.file.client")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its file open
        source = client.FileClientDevice(str(Path(sunspec2.__file__).parent / "tests/test_data/device_1547.json"))
        source.scan()
    data = b"SunS" + source.get_mb() + b"\xff\xff\x00\x00"
    registers = [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
    device = SimDevice(1, simdata=[SimData(40000, values=registers, datatype=DataType.REGISTERS)])
    server = ModbusTcpServer(device, address=("127.0.0.1", free_port))
    await server.serve_forever(background=True)
    try:
        yield free_port
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


async def test_the_1547_device_is_an_inverter_that_generates_9800_w(device_1547: int) -> None:
    """It has models 701-713, no state of charge and no limit: an inverter that is only watched."""
    async with connect(Config(host="127.0.0.1", port=device_1547)) as inverter:
        assert await inverter.read() == Sample(
            power_w=-9800.0, energy_wh=0.0, available_w=-9800.0, lower_w=-10000.0, upper_w=0.0
        )
        assert not isinstance(inverter, Controllable)


async def test_the_1547_device_read_as_a_meter(device_1547: int) -> None:
    """Absorbed energy and power of model 701, in our sign."""
    async with connect(Config(host="127.0.0.1", port=device_1547, role="meter")) as meter:
        assert await meter.read() == Sample(power_w=-9800.0, energy_wh=0.0)


async def test_a_storage_without_a_charge_is_never_dischargeable(device_1547: int) -> None:
    """Forced to be storage, it has no state of charge and so nothing to give."""
    async with connect(Config(host="127.0.0.1", port=device_1547, role="storage")) as storage:
        sample = await storage.read()
        assert (sample.soc_frac, sample.lower_w, sample.upper_w) == (None, 0.0, 0.0)
