"""One device's place in the daemon: its link, its readings into the table, its actuator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Never, Protocol, runtime_checkable

import structlog

from vppd.model import Applied, Sample, Setpoint
from vppd.ports import Controllable, Plannable, Planner, Reservable
from vppd.runtime.actuator import Actuator
from vppd.runtime.clock import Clock
from vppd.runtime.poller import Pace, watch
from vppd.runtime.supervise import Backoff, Link, Up, supervise
from vppd.runtime.table import LatestValues
from vppd.runtime.windows import Windows

log = structlog.get_logger()

Connect = Callable[[], AbstractAsyncContextManager[object]]


@runtime_checkable
class Expectant(Protocol):
    """A planner that looks whether the cluster does what it planned."""

    def let_go(self) -> None:
        """Note that the cluster was given back: what was planned is wished no more."""
        ...


@dataclass(frozen=True, slots=True)
class Device:
    """What is needed to keep one device attached."""

    asset_id: str
    connect: Connect
    pace: Pace
    actuator: Actuator | None = None
    """None: watched only."""
    planner: Planner | None = None
    """Chooses for a cluster that lets it; outlives reconnections."""
    windows: Windows | None = None
    """What a cluster's scheduler is told of awards, if it can be told."""


async def attend(
    device: Device, table: LatestValues, clock: Clock, rng: Random, backoff: Backoff | None = None
) -> Never:
    """Keep one device connected, read and (if it is ours to control) commanded, for ever. Bugs escape."""
    i = table.index(device.asset_id)
    if device.actuator is not None:
        table.listen(i, device.actuator.heard)

    def changed(is_up: bool) -> None:
        table.set_online(i, is_up)
        table.set_tried(i)

    run = partial(_run, device, table, clock)
    await supervise(Link(device.asset_id, changed), device.connect, run, clock, rng, backoff)


async def _run(device: Device, table: LatestValues, clock: Clock, connected: object, up: Up) -> None:
    i = table.index(device.asset_id)
    if device.planner is not None and isinstance(connected, Plannable):
        connected.plan_with(device.planner)

    def store(sample: Sample, mono_s: float, asked_s: float) -> None:
        table.store(i, sample, mono_s, asked_s)
        up()

    # A device that speaks by itself may have nothing to say for long; the start must not wait for it.
    silence = asyncio.get_running_loop().call_later(device.pace.limit_s, table.set_tried, i)
    try:
        async with asyncio.TaskGroup() as group:
            if device.actuator is not None:
                _command(group, device.actuator, connected, device.planner, partial(table.set_rejected, i))
            if device.windows is not None and isinstance(connected, Reservable):
                group.create_task(device.windows.keep(connected))
            group.create_task(watch(device.asset_id, connected, device.pace, clock, store))
    finally:
        silence.cancel()


def _command(
    group: asyncio.TaskGroup,
    actuator: Actuator,
    connected: object,
    planner: Planner | None,
    set_rejected: Callable[[bool], None],
) -> None:
    if isinstance(connected, Controllable):
        group.create_task(actuator.run(_Told(connected, planner) if isinstance(planner, Expectant) else connected))
        return
    log.error("device_takes_no_setpoints", asset=actuator.asset_id)
    set_rejected(True)


class _Told:
    """A cluster whose planner hears that it is given back; else it would take all who go on for refusing."""

    def __init__(self, cluster: Controllable, planner: Expectant) -> None:
        self._cluster, self._planner = cluster, planner

    async def apply(self, setpoint: Setpoint) -> Applied:
        return await self._cluster.apply(setpoint)

    async def release(self) -> None:
        self._planner.let_go()  # it is read while jobs go on one after another
        try:
            await self._cluster.release()
        finally:
            self._planner.let_go()  # it may have been asked once more before the release had its turn
