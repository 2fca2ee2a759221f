"""Many bare units behind few ports."""

from __future__ import annotations

import asyncio
import struct

import pytest

from tests.sim.hands import HandClock, address
from vppd.sim.points import SPEC, serve_points


async def test_every_unit_is_its_own() -> None:
    """Units that share a port keep their own setpoints and counts."""
    async with serve_points(7, ports=2) as points:
        assert len({(p.port, p.unit_id) for p in points}) == 7
        assert len({p.port for p in points}) == 2
        chosen = points[3]
        reader, writer = await asyncio.open_connection(chosen.host, chosen.port)
        body = struct.pack(">BHHBHHi", 16, address(chosen.unit, 704, "WSetEna"), 4, 8, 1, 1, 5000)
        writer.write(struct.pack(">HHHB", 1, 0, len(body) + 1, chosen.unit_id) + body)
        await reader.readexactly(12)
        writer.close()
        assert [p.unit.log.transitions for p in points] == [0, 0, 0, 1, 0, 0, 0]


async def test_a_unit_moves_on_when_it_is_looked_at() -> None:
    """The physics of an idle unit costs nothing and is up to date at the next read."""
    clock = HandClock()
    async with serve_points(1, clock=clock) as (point,):
        unit = point.unit
        unit.write(address(unit, 704, "WSetEna"), struct.pack(">HHi", 1, 1, 50_000))
        clock.now_s += 0.05
        (raw,) = struct.unpack(">h", unit.read(address(unit, 701, "W"), 1))
        assert raw * 10 == pytest.approx(0.05 * SPEC.ramp_w_per_s)


async def test_too_many_units_for_a_port_are_refused() -> None:
    """A port has 247 unit ids."""
    with pytest.raises(ValueError, match="more than 1 ports"):
        async with serve_points(248, ports=1):
            pytest.fail("served")
