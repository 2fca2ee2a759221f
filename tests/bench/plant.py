"""A process with many storage units, a twin of each, and the meter of their feed: the far side of the daemon benches.

Run: ``python -m tests.bench.plant DIR POINTS PORTS``. The first half of the points is for the daemon, the second half for
whoever measures the bare protocol. It writes ``DIR/plant.json`` when all ports are open, and on SIGTERM ``DIR/acks.json``:
for each point of the first half when every write that changed its setpoint had been answered, and the setpoint.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from vppd.sim.battery import StorageUnit
from vppd.sim.faults import Outage
from vppd.sim.generation import MeterUnit
from vppd.sim.modbus import HOST, ModbusPort, _Connection, serve_modbus
from vppd.sim.physics import FeedState
from vppd.sim.points import SPEC, SimulatedPoint, _Plant

LOAD_W = 1_000_000.0
"""What the feed draws beside the storage units."""
UNIT = replace(SPEC, ramp_w_per_s=1e9)
"""Units that follow at once: what is measured is the daemon."""
Ack = tuple[float, float | None]
"""When a write had been answered [s] and the setpoint then followed [W], None for none."""


class Stamped(_Connection):
    """Answers as always, and notes when the answer to a changed setpoint had gone out."""

    def __init__(self, port: StampedPort) -> None:
        super().__init__(port)
        self._stamps = port

    def data_received(self, data: bytes) -> None:
        """Answer, then note what has changed."""
        super().data_received(data)
        self._stamps.note()


class StampedPort(ModbusPort):
    """A port that keeps the acknowledgements of the units behind it."""

    def __init__(self, units: dict[int, StorageUnit]) -> None:
        self._loop = asyncio.get_running_loop()
        super().__init__(units, {number: Outage(self._loop.time) for number in units})
        self._seen = {number: (unit, 0) for number, unit in units.items()}
        self.acks: dict[str, list[Ack]] = {unit.name: [] for unit in units.values()}

    def connection(self) -> asyncio.Protocol:
        """Return the handler of a new connection."""
        return Stamped(self)

    def note(self) -> None:
        """Take down what the request just answered has changed."""
        for number, (unit, before) in self._seen.items():
            if unit.log.transitions != before:
                self._seen[number] = (unit, unit.log.transitions)
                self.acks[unit.name].append((self._loop.time(), unit.setpoint_w()))


def meter_of(units: Sequence[StorageUnit]) -> MeterUnit:
    """Return the meter of a feed with a constant load and these units."""

    def state() -> FeedState:
        total_w = LOAD_W
        for unit in units:
            unit.refresh()
            total_w -= 10.0 * unit._bank.get(701, "W")
        return FeedState(0.0, 0.0, LOAD_W, total_w)

    return MeterUnit("poi", state, asyncio.get_running_loop().time)


async def serve(folder: Path, n: int, ports: int) -> None:
    """Serve n points and n twins on ``ports`` ports each, and the meter, until SIGTERM."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    async with AsyncExitStack() as stack:
        own = [_Plant(UNIT, f"point-{i:04d}", loop.time).unit for i in range(n)]
        watched: list[StampedPort] = []
        places = []
        for k in range(ports):
            units = dict(enumerate(own[k::ports], start=1))
            watched.append(StampedPort(units))
            number = await stack.enter_async_context(serve_modbus(watched[-1]))
            places += [{"id": unit.name, "port": number, "unit_id": i} for i, unit in units.items()]
        twins = await twins_of(stack, n, ports)
        meter = ModbusPort({1: meter_of(own)}, {1: Outage(loop.time)})
        poi = await stack.enter_async_context(serve_modbus(meter))
        gc.freeze()
        ready = {"host": HOST, "meter": poi, "points": places, "twins": [(t.port, t.unit_id) for t in twins]}
        put(folder / "plant.json", json.dumps(ready))
        await ended.wait()
        acks = {name: found for port in watched for name, found in port.acks.items()}
        put(folder / "acks.json", json.dumps(acks))


async def twins_of(stack: AsyncExitStack, n: int, ports: int) -> list[SimulatedPoint]:
    """Serve as many units again, which the daemon does not know."""
    loop, found = asyncio.get_running_loop(), []
    for k in range(ports):
        units = {i: _Plant(UNIT, f"twin-{k}-{i}", loop.time).unit for i in range(1, len(range(k, n, ports)) + 1)}
        outages = {i: Outage(loop.time) for i in units}
        port = await stack.enter_async_context(serve_modbus(ModbusPort(units, outages)))
        found += [SimulatedPoint(HOST, port, i, unit, outages[i]) for i, unit in units.items()]
    return found


def put(path: Path, text: str) -> None:
    """Put a file in place whole."""
    draft = path.with_suffix(".new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
