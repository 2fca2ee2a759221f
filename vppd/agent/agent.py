"""The agent: one loop that takes commands, lets go when the lease ends, and reads everything once a second.

Devices are asked in one worker thread, one thing at a time, so that the loop keeps its link and its time while a driver
thinks. A driver that never answers stops the loop's steps, and with them the watchdog: systemd ends the process then, and
``ExecStopPost`` puts the limits back.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import ParamSpec, TypeVar

import structlog

from vppd.agent.config import AgentConfig
from vppd.agent.device import TOLERANCE_W, Device, Reading
from vppd.agent.hold import Holder
from vppd.agent.inventory import Inventory
from vppd.agent.lease import Lease
from vppd.agent.link import Link, Said
from vppd.agent.restore import PriorFile, boot_id
from vppd.agent.wire import Command, State, Status, Topics, decode_command, encode_status, encode_telemetry, id_of
from vppd.errors import Garbled, Refused
from vppd.runtime.clock import Clock, tick_after
from vppd.runtime.watchdog import Notifier

P = ParamSpec("P")
T = TypeVar("T")
log = structlog.get_logger()

_INBOX = 16
"""Commands that wait while a device is slow; of more the newest count, since each is absolute."""


class Agent:
    """One node. ``run`` it until ``stop``."""

    def __init__(self, config: AgentConfig, clock: Clock, notifier: Notifier, inventory: Inventory) -> None:
        """Raises ConfigError when the broker's certificates cannot be used."""
        self._config, self._clock, self._notifier, self._inventory = config, clock, notifier, inventory
        self._topics = Topics(config.site, config.node)
        kinds = [kind for kind, table in (("gpu", config.gpus), ("cpu", config.cpus)) if table.control]
        file = PriorFile(config.state_dir, boot_id())
        self._holder = Holder(file, config.cap_floor_frac, kinds, config.gpus.prior_clocks_mhz)
        late_s = config.restore_spread_s * (zlib.crc32(config.node.encode()) % 1000) / 1000.0
        self._lease = Lease(config.longest_lease_s, late_s)
        self._link = Link(config.broker, self._topics, self._command_came, self._link_came, clock.mono_s)
        self._inbox: deque[tuple[bytes, bool, float]] = deque(maxlen=_INBOX)
        self._wake, self._stopping, self._link_is_new = asyncio.Event(), False, False
        self._node_cap_w: float | None = None
        self._worker = ThreadPoolExecutor(1, "devices")

    def stop(self) -> None:
        """End ``run``: everything is put back first."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Serve until told to stop. Raises Garbled when the file of prior limits makes no sense."""
        try:
            await self._do(self._begin)
            async with asyncio.TaskGroup() as group:
                linking = group.create_task(self._link.run())
                await self._serve()
                self._notifier.stopping()
                await self._let_go("stopped")
                await self._link.leave((Said(self._topics.availability, b"offline", 1, True),))
                linking.cancel()
        finally:
            # Also when a bug ends us: ExecStopPost would do it, but not everybody runs under systemd.
            await self._do(self._holder.restore)
            await self._do(self._inventory.close)
            self._worker.shutdown()

    # ---- the loop --------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        start_s = beat_s = self._clock.mono_s()
        ready = False
        while not self._stopping:
            await self._wait(beat_s)
            if self._inbox:
                await self._take(*self._inbox.popleft())
            if self._link_is_new:
                self._link_is_new = False
                await self._report()
            if self._lease.ended(self._clock.mono_s()):
                await self._let_go("the lease has ended")
            if self._clock.mono_s() >= beat_s:
                await self._step()
                beat_s = tick_after(start_s, self._config.telemetry_s, self._clock.mono_s())
                if not ready:
                    self._notifier.ready(f"{len(self._holder.devices)} devices")
                    ready = True

    async def _wait(self, beat_s: float) -> None:
        """Sleep until something comes, the next beat, or the end of the lease. [s]"""
        if self._inbox or self._link_is_new or self._stopping:
            return
        due_s = min(beat_s, self._lease.until_s + self._lease.late_s) if self._lease.held else beat_s
        with suppress(TimeoutError):
            async with asyncio.timeout(max(due_s - self._clock.mono_s(), 0.0)):
                await self._wake.wait()
        self._wake.clear()

    async def _take(self, payload: bytes, retained: bool, came_s: float) -> None:
        """Do one command, or say why not. [s]"""
        was_held = self._lease.held
        try:
            command = self._accepted(payload, retained, came_s)
        except (Garbled, Refused) as error:
            log.warning("agent_command_refused", id=id_of(payload), reason=str(error))
            await self._report(id_of(payload), str(error), refused=True)
            return
        await self._do(self._holder.apply, command)
        self._node_cap_w = command.node_cap_w
        if self._holder.clear:
            self._lease.let_go()
        if self._lease.held != was_held:
            log.info("agent_held" if self._lease.held else "agent_released", sender=command.sender, id=command.id)
        await self._report(command.id, _shortfall(command, self._holder))

    def _accepted(self, payload: bytes, retained: bool, came_s: float) -> Command:
        """Return a command whose lease runs since it came. Raises Garbled or Refused. [s]"""
        if retained:
            raise Refused("retained: a command of the past is not carried out; publish without the retain flag")
        command = decode_command(payload)
        waited_s = self._clock.mono_s() - came_s
        if waited_s >= command.lease_s > 0.0:
            raise Refused(f"late: it waited {waited_s:.1f} s for a device, longer than its lease")
        self._lease.renew(command.sender, command.seq, command.lease_s, came_s)
        return command

    async def _step(self) -> None:
        """Read everything, set again what was undone, tell, and feed the watchdog."""
        seen, reverted = await self._do(self._look)
        if seen:
            self._link.say(Said(self._topics.telemetry, encode_telemetry(self._clock.now(), seen)))
        if reverted:
            await self._report("", f"set again after a foreign change: {', '.join(reverted)}")
        if not self._lease.held and not self._holder.clear and await self._do(self._holder.restore):
            await self._report("", "restored")
        self._notifier.alive()

    async def _let_go(self, why: str) -> None:
        """End the lease and put everything back; what fails is tried again with every step."""
        self._lease.let_go()
        self._node_cap_w = None
        if self._holder.clear:
            return
        done = await self._do(self._holder.restore)
        log.info("agent_let_go", reason=why, sender=self._lease.holder, restored=done)
        await self._report("", why)

    async def _report(self, id: str = "", detail: str = "", *, refused: bool = False) -> None:
        """Say how everything stands; of an order that is refused as a whole, every device says so."""
        status = await self._do(self._status, id, detail, self._clock.mono_s())
        if refused:
            devices = {name: replace(o, outcome="rejected", detail=detail) for name, o in status.devices.items()}
            status = replace(status, devices=devices)
        self._link.say(Said(self._topics.cap_status, encode_status(status), 1, True))
        self._notifier.status(f"{status.state} {status.sender} {status.detail}")

    # ---- called by the link ----------------------------------------------------------------------------------------

    def _command_came(self, payload: bytes, retained: bool) -> None:
        self._inbox.append((payload, retained, self._clock.mono_s()))
        self._wake.set()

    def _link_came(self) -> None:
        self._link_is_new = True
        self._wake.set()

    # ---- in the worker thread --------------------------------------------------------------------------------------

    async def _do(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, lambda: work(*arguments, **named))

    def _begin(self) -> None:
        self._holder.devices = self._inventory.devices()
        self._holder.adopt()
        self._holder.restore()

    def _look(self) -> tuple[dict[str, tuple[Device, Reading]], tuple[str, ...]]:
        self._holder.devices = self._inventory.devices(lost=self._holder.gpus_lost)
        return self._holder.look()

    def _status(self, id: str, detail: str, now_s: float) -> Status:
        holder, lease = self._holder, self._lease
        if not id:  # the answer to a command tells how the command went
            holder.refresh()
        least_w, most_w = holder.range_w()
        return Status(
            at=self._clock.now(),
            state=self._state(now_s),
            id=id,
            sender=lease.holder if lease.held else "",
            lease_s=lease.left_s(now_s),
            node_cap_w=_node_cap_w(self._node_cap_w, holder.cap_w),
            min_cap_w=least_w,
            max_cap_w=most_w,
            devices=dict(holder.outcomes),
            detail=detail,
        )

    def _state(self, now_s: float) -> State:
        if self._holder.clear:
            return "idle"
        return "held" if self._lease.left_s(now_s) > 0.0 else "restoring"


def _node_cap_w(asked_w: float | None, held_w: float | None) -> float | None:
    """Return the node cap that is in force: the one asked for, or what is held where the floors do not allow it. [W]"""
    if asked_w is None or held_w is None:
        return None
    return asked_w if held_w <= asked_w + TOLERANCE_W else held_w


def _shortfall(command: Command, holder: Holder) -> str:
    held_w = holder.cap_w
    if command.node_cap_w is None or held_w is None or held_w <= command.node_cap_w + TOLERANCE_W:
        return ""
    return f"{command.node_cap_w:g} W is below what the devices may be capped to: {held_w:g} W are held"
