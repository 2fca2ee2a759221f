"""Many bare storage units at once, for benches: n SunSpec devices behind as many ports as wanted, in one process, with no site around."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from vppd.sim.battery import StorageUnit
from vppd.sim.faults import Clock, Outage
from vppd.sim.modbus import HOST, ModbusPort, serve_modbus
from vppd.sim.storage import StorageSpec, StorageState, step

_MOST_UNITS_PER_PORT = 247
SPEC = StorageSpec(
    rated_w=100_000.0,
    max_charge_w=100_000.0,
    max_discharge_w=100_000.0,
    capacity_wh=200_000.0,
    ramp_w_per_s=1_000_000.0,
    reserve_frac=0.1,
    start_soc_frac=0.6,
)


@dataclass(frozen=True, slots=True)
class SimulatedPoint:
    """One unit, where it listens, and what is wrong with it."""

    host: str
    port: int
    unit_id: int
    unit: StorageUnit
    outage: Outage


class _Plant:
    """A storage unit's physics that moves on only when somebody looks: a thousand of them cost nothing at rest."""

    def __init__(self, spec: StorageSpec, name: str, clock: Clock) -> None:
        self._spec = spec
        self._clock = clock
        self._seen_s = clock()
        self._state = StorageState(0.0, spec.start_soc_frac)
        self.unit = StorageUnit(name, spec, lambda: self._state, clock, before_look=self._advance)

    def _advance(self, unit: StorageUnit) -> None:
        """Move on to now under what the unit has followed since it was last seen."""
        now_s = self._clock()
        dt_s, self._seen_s = now_s - self._seen_s, now_s
        command = unit.command()
        self._state = step(self._spec, self._state, command.target_w, command.reserve_frac, dt_s, dt_s)


@asynccontextmanager
async def serve_points(
    n: int, *, ports: int | None = None, spec: StorageSpec = SPEC, clock: Clock | None = None
) -> AsyncIterator[tuple[SimulatedPoint, ...]]:
    """Serve n storage units until the context ends, spread over ``ports`` TCP ports (default: one each)."""
    clock = clock or asyncio.get_running_loop().time
    count = n if ports is None else ports
    if n > count * _MOST_UNITS_PER_PORT:
        raise ValueError(f"{n} units need more than {count} ports")
    plants = [_Plant(spec, f"point-{i:04d}", clock) for i in range(n)]
    async with AsyncExitStack() as stack:
        points: list[SimulatedPoint] = []
        for first in range(count):
            units = {i + 1: plant.unit for i, plant in enumerate(plants[first::count])}
            outages = {unit_id: Outage(clock) for unit_id in units}
            port = await stack.enter_async_context(serve_modbus(ModbusPort(units, outages)))
            points += [SimulatedPoint(HOST, port, i, unit, outages[i]) for i, unit in units.items()]
        yield tuple(sorted(points, key=lambda point: point.unit.name))
