"""Our SunSpec adapter drives the simulated storage unit, which keeps its own time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters._sunspec_storage import DispatchableStorage
from adapters.modbus_sunspec import Config, connect
from vppd.model import Setpoint
from vppd.sim.points import SPEC, SimulatedPoint, serve_points


class DeviceTime:
    """The device's clock, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        """Return the time. [s]"""
        return self.now_s


@asynccontextmanager
async def storage(point: SimulatedPoint) -> AsyncIterator[DispatchableStorage]:
    """Connect to one simulated unit."""
    async with connect(Config(host=point.host, port=point.port, unit_id=point.unit_id, reserve_frac=0.3)) as device:
        assert isinstance(device, DispatchableStorage)
        yield device


async def test_units_behind_one_port_follow_their_own_setpoints() -> None:
    """Two units share a connection; each gets its reserve and follows its own setpoint."""
    clock = DeviceTime()
    async with serve_points(2, ports=1, clock=clock) as (one, two), storage(one) as first, storage(two) as second:
        assert (await first.apply(Setpoint("1", -1000.0, 20.0))).power_w == -1000.0
        assert (await second.apply(Setpoint("2", 2000.0, 20.0))).power_w == 2000.0
        clock.now_s += 5.0
        seen = await first.read()
        assert (seen.power_w, seen.setpoint_w, seen.lower_w) == (-1000.0, -1000.0, -SPEC.max_discharge_w)
        assert (await second.read()).power_w == 2000.0
        await first.release()
        assert one.unit.setpoint_w() is None
        assert two.unit.setpoint_w() == 2000.0


async def test_an_adapter_that_vanishes_leaves_no_setpoint_behind() -> None:
    """The device's own timer ends the setpoint when the lease was not renewed, and not before."""
    clock = DeviceTime()
    async with serve_points(1, clock=clock) as (point,):
        async with storage(point) as device:
            await device.apply(Setpoint("1", -1000.0, 12.0))
            clock.now_s += 8.0
            await device.apply(Setpoint("1", -1000.0, 12.0))
        clock.now_s += 11.0
        async with storage(point) as device:
            assert (await device.read()).setpoint_w == -1000.0
            clock.now_s += 2.0
            assert (await device.read()).setpoint_w is None
        assert point.unit.log.transitions == 1
