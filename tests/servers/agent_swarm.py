"""Many node agents in one process: the agent's own decisions and messages over imagined GPUs, one MQTT connection each.

In a test: ``async with swarm(host, port, site, names) as agents``. As a process: ``python -m tests.servers.agent_swarm HOST PORT SITE
COUNT [TELEMETRY_S]`` says ``ready`` on standard output when all have connected, and on SIGTERM one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import structlog
import uvloop

from tests.servers.agent_swarm_link import MqttClient
from vppd.agent.device import Clocks, Limits, Reading
from vppd.agent.hold import Holder
from vppd.agent.lease import Lease
from vppd.agent.restore import Prior, PriorFile
from vppd.agent.wire import Command, Status, Topics, decode_command, encode_status, encode_telemetry, id_of
from vppd.errors import Garbled, Refused

GPUS = 8
LONGEST_LEASE_S = 600.0
HIGHEST_MHZ = 1980


class Gpu:
    """An imagined GPU: draws what its work asks for, as far as cap and clock allow."""

    kind: Literal["gpu", "cpu"] = "gpu"

    def __init__(self, index: int, name: str, demand_w: float) -> None:
        self.name, self._index, self.demand_w = name, index, demand_w
        self.limits: Limits | None = Limits(200.0, 700.0, 700.0)
        self.limit_w, self.refusal = 700.0, ""
        self.clocks: Clocks | None = None
        self.has_meter = True
        """Tells its power."""

    @property
    def power_w(self) -> float:
        """Return what it draws. [W]"""
        clocked_w = self.demand_w if self.clocks is None else self.demand_w * (0.4 + 0.6 * self.clocks[1] / HIGHEST_MHZ)
        return min(clocked_w, self.limit_w)

    def about(self) -> dict[str, str | int]:
        """Return what telemetry says besides numbers."""
        return {"index": self._index, "name": "NVIDIA H200"}

    def read(self) -> Reading:
        """Return what it says now."""
        clock_mhz = HIGHEST_MHZ if self.clocks is None else self.clocks[1]
        power_w = self.power_w if self.has_meter else None
        return Reading(power_w, 0.97, 1e6, self.limit_w, self.limit_w, clock_mhz, 61.0)

    def cap_w(self) -> float:
        """Return its limit. [W]"""
        return self.limit_w

    def set_cap(self, cap_w: float) -> None:
        """Set its limit. Raises Refused. [W]"""
        if self.refusal:
            raise Refused(self.refusal)
        self.limit_w = cap_w

    def lock_clocks(self, clocks: Clocks) -> None:
        """Lock its clocks."""
        self.clocks = clocks

    def free_clocks(self) -> None:
        """Let it choose its clocks."""
        self.clocks = None


class _NoFile(PriorFile):
    """Prior limits of a node that is only imagined: never on disk."""

    def load(self) -> dict[str, Prior]:
        return {}

    def save(self, priors: object) -> None:
        """Keep nothing."""


@dataclass(slots=True)
class Counts:
    """What happened in the swarm."""

    commands: int = 0
    telemetry: int = 0


class SwarmAgent:
    """One node."""

    def __init__(self, site: str, name: str, demand_w: float, telemetry_s: float, counts: Counts) -> None:
        self.name, self._topics, self._telemetry_s, self._counts = name, Topics(site, name), telemetry_s, counts
        self.gpus = [Gpu(i, f"GPU-{name}-{i}", demand_w) for i in range(GPUS)]
        self._holder = Holder(_NoFile(Path(), ""), 0.5, ("gpu",))
        self._holder.devices = {gpu.name: gpu for gpu in self.gpus}
        self._lease = Lease(LONGEST_LEASE_S)
        self._cap_w: float | None = None
        self.is_mute = False
        """Says nothing any more, neither telemetry nor acknowledgements."""
        self.is_deaf = False
        """Goes on with telemetry, but does not hear commands."""
        self.senders: list[str] = []
        """Who sent each command, in order."""
        self._client = MqttClient(f"agent-{site}-{name}", self._topics, 60)

    @property
    def cap_w(self) -> float | None:
        """Return what the node's GPUs may draw together; None while nothing of ours holds. [W]"""
        return None if self._holder.clear else sum(gpu.limit_w for gpu in self.gpus)

    @property
    def power_w(self) -> float:
        """Return what the GPUs draw. [W]"""
        return sum(gpu.power_w for gpu in self.gpus)

    async def run(self, host: str, port: int, late_s: float) -> None:
        """Connect and live until cancelled."""
        await asyncio.sleep(late_s)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self._client, host, port)
        await self._client.up
        self._report()
        beat_s, pinged_s = loop.time(), loop.time()
        try:
            while True:
                try:
                    async with asyncio.timeout_at(min(beat_s, self._lease.until_s if self._lease.held else beat_s)):
                        self._do(*await self._client.commands.get())
                except TimeoutError:
                    self._let_go_in_time(loop.time())
                if loop.time() >= beat_s:
                    self._tell()
                    beat_s = max(beat_s + self._telemetry_s, loop.time())  # what a busy machine missed is not caught up
                if loop.time() >= pinged_s + 20.0:
                    pinged_s = loop.time()
                    self._client.ping()
        finally:
            self._client.close()

    def restart(self) -> None:
        """Begin anew, as the agent does after a crash: everything is put back first."""
        self._lease.let_go()
        self._cap_w = None
        self._holder.restore()
        self._report()

    def die(self) -> None:
        """Lose the connection without a word; the broker says that it is offline."""
        self.is_mute = True
        self._client.close(abort=True)

    async def connected(self) -> None:
        """Return when it listens."""
        await self._client.up

    def say(self, part: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish something of the test's own."""
        self._client.publish(f"vpp/agent/v1/{self._topics.site}/{self.name}/{part}", payload, 1, retain=retain)

    def _do(self, payload: bytes, retained: bool) -> None:
        """Carry out a command as the agent does."""
        if self.is_deaf or self.is_mute:
            return
        now_s = asyncio.get_running_loop().time()
        try:
            command = _live(payload, retained)
            self._lease.renew(command.sender, command.seq, command.lease_s, now_s)
        except (Garbled, Refused) as error:
            self._report(id_of(payload), str(error), refused=True)
            return
        self._counts.commands += 1
        self.senders.append(command.sender)
        self._holder.apply(command)
        self._cap_w = command.node_cap_w
        if self._holder.clear:
            self._lease.let_go()
        self._report(command.id)

    def _let_go_in_time(self, now_s: float) -> None:
        if self._lease.ended(now_s):
            self._lease.let_go()
            self._cap_w = None
            self._holder.restore()
            self._report("", "the lease has ended")

    def _tell(self) -> None:
        seen, reverted = self._holder.look()
        if not self.is_mute:
            self._counts.telemetry += 1
            self._client.publish(self._topics.telemetry, encode_telemetry(datetime.now(UTC), seen))
        if reverted:
            self._report("", "set again after a foreign change")

    def _report(self, id: str = "", detail: str = "", *, refused: bool = False) -> None:
        if self.is_mute:
            return
        if not id:  # the answer to a command tells how the command went
            self._holder.refresh()
        least_w, most_w = self._holder.range_w()
        lease = self._lease
        status = Status(
            at=datetime.now(UTC),
            state="idle" if self._holder.clear else "held",
            id=id,
            sender=lease.holder if lease.held else "",
            lease_s=lease.left_s(asyncio.get_running_loop().time()),
            node_cap_w=None if self._holder.cap_w is None else max(self._cap_w or 0.0, self._holder.cap_w),
            min_cap_w=least_w,
            max_cap_w=most_w,
            devices=dict(self._holder.outcomes),
            detail=detail,
        )
        if refused:
            devices = {name: replace(o, outcome="rejected", detail=detail) for name, o in status.devices.items()}
            status = replace(status, devices=devices)
        self._client.publish(self._topics.cap_status, encode_status(status), 1, retain=True)


@asynccontextmanager
async def swarm(
    host: str,
    port: int,
    site: str,
    names: Iterable[str],
    *,
    demand_w: float = 650.0,
    telemetry_s: float = 1.0,
    counts: Counts | None = None,
) -> AsyncIterator[dict[str, SwarmAgent]]:
    """Yield agents by name once all have connected. ``demand_w`` is what each of their GPUs would draw. [W]"""
    said = counts or Counts()
    agents = {name: SwarmAgent(site, name, demand_w, telemetry_s, said) for name in names}
    step_s = telemetry_s / max(len(agents), 1)
    tasks = [asyncio.create_task(a.run(host, port, i * step_s)) for i, a in enumerate(agents.values())]
    try:
        async with asyncio.timeout(60.0):
            await asyncio.gather(*(agent.connected() for agent in agents.values()))
        yield agents
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the next round of the loop
        for result in results:
            if isinstance(result, Exception):
                raise result


async def _serve(host: str, port: int, site: str, count: int, telemetry_s: float) -> None:
    counts, stop = Counts(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    names = [f"n{i:04d}" for i in range(count)]
    async with swarm(host, port, site, names, telemetry_s=telemetry_s, counts=counts):
        _say("ready")
        await stop.wait()
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = round(used.ru_utime + used.ru_stime, 2)
    _say(json.dumps({"commands": counts.commands, "telemetry": counts.telemetry, "cpu_s": cpu_s}))


def _live(payload: bytes, retained: bool) -> Command:
    """Return a command. Raises Refused for one of the past, Garbled."""
    if retained:
        raise Refused("retained")
    return decode_command(payload)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def raise_file_limit(wanted: int) -> None:
    """Allow this process, and those it starts, so many open files, as far as the machine lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, hard)), hard))


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    raise_file_limit(8192)
    uvloop.run(
        _serve(
            sys.argv[1],
            int(sys.argv[2]),
            sys.argv[3],
            int(sys.argv[4]),
            float(sys.argv[5]) if len(sys.argv) > 5 else 1.0,
        )
    )
