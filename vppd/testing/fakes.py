"""Stand-ins for devices, ledger and dispatch link that behave, and misbehave, as the real ones do."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from vppd.errors import DeviceError, Garbled, Refused, Unreachable
from vppd.model import Applied, Event, Inbound, Outbound, Recorded, Sample, Setpoint


class FakeDevice:
    """A polled and controllable device: ramps to its setpoint, forgets it when the lease ends, fails on demand.

    ``mono_s`` is the time it lives in, e.g. ``clock.mono_s``.
    """

    def __init__(
        self,
        mono_s: Callable[[], float],
        *,
        default_w: float = 0.0,
        ramp_w_per_s: float = float("inf"),
        soc_frac: float | None = None,
        answer_s: float = 0.0,
    ) -> None:
        self._mono_s = mono_s
        self.default_w, self.ramp_w_per_s, self.soc_frac, self.answer_s = default_w, ramp_w_per_s, soc_frac, answer_s
        self.setpoint: Setpoint | None = None
        self.writes: list[Setpoint] = []
        self.reads = self.releases = self.connections = 0
        self.read_fault: DeviceError | None = None
        """Raised by every read while set."""
        self.write_fault: DeviceError | None = None
        """Raised by every write while set; an Unreachable write has been carried out if ``writes_arrive``."""
        self.writes_arrive = False
        self.is_silent = False
        """Answers nothing, for ever: only a time limit ends the call."""
        self.ignores_writes = False
        """Acknowledges writes and goes on as before."""
        self.has_register = True
        """Its setpoint can be read back."""
        self._power_w, self._moved_s, self._ends_s = default_w, mono_s(), float("inf")

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[FakeDevice]:
        """Open it, as an adapter's ``connect`` does. Raises ``read_fault`` when it is Unreachable."""
        self.connections += 1
        if isinstance(self.read_fault, Unreachable):
            raise self.read_fault
        yield self

    @property
    def power_w(self) -> float:
        """Return what it draws now. [W, + = consumption]"""
        self._move()
        return self._power_w

    async def read(self) -> Sample:
        """Return what it says now. Raises ``read_fault``."""
        self.reads += 1
        await self._answer()
        if self.read_fault is not None:
            raise self.read_fault
        power_w = self.power_w
        shown_w = self.setpoint.power_w if self.setpoint and self.has_register else None
        return Sample(power_w=power_w, soc_frac=self.soc_frac, setpoint_w=shown_w)

    async def apply(self, setpoint: Setpoint) -> Applied:
        """Take a setpoint with its lease. Raises ``write_fault``."""
        await self._answer()
        if self.write_fault is not None and not self.writes_arrive:
            raise self.write_fault
        self.writes.append(setpoint)
        if not self.ignores_writes:
            self._move()
            self.setpoint, self._ends_s = setpoint, self._mono_s() + setpoint.valid_for_s
        if self.write_fault is not None:
            raise self.write_fault
        shown_w = self.setpoint.power_w if self.setpoint else self.default_w
        return Applied(shown_w if self.has_register else None)

    async def release(self) -> None:
        """Go back to its own default. Raises ``write_fault``."""
        await self._answer()
        if self.write_fault is not None:
            raise self.write_fault
        self.releases += 1
        self._move()
        self.setpoint, self._ends_s = None, float("inf")

    async def _answer(self) -> None:
        if self.is_silent:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self.answer_s)

    def _move(self) -> None:
        """Let the power ramp from where it was to now, also over the end of a lease."""
        now_s = self._mono_s()
        if now_s >= self._ends_s:
            self._ramp(self._ends_s)
            self.setpoint, self._ends_s = None, float("inf")
        self._ramp(now_s)

    def _ramp(self, until_s: float) -> None:
        target_w = self.setpoint.power_w if self.setpoint else self.default_w
        if self._moved_s < until_s or self.ramp_w_per_s == float("inf"):
            reach_w = (
                self.ramp_w_per_s * max(until_s - self._moved_s, 0.0) if self.ramp_w_per_s < float("inf") else None
            )
            off_w = target_w - self._power_w
            self._power_w += off_w if reach_w is None else max(-reach_w, min(reach_w, off_w))
        self._moved_s = max(self._moved_s, until_s)


@dataclass(slots=True)
class ScriptedStream:
    """A device that speaks by itself: each sample after its pause, then ``ending`` or silence."""

    script: Sequence[tuple[float, Sample]]
    """Pause before each sample [s], and the sample."""
    ending: DeviceError | None = None

    async def samples(self) -> AsyncIterator[Sample]:
        """Yield the script. Raises ``ending``; without one it stays silent."""
        for pause_s, sample in self.script:
            await asyncio.sleep(pause_s)
            yield sample
        if self.ending is not None:
            raise self.ending
        await asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class MemoryLedger:
    """A ledger that forgets at exit; keys are unique and the chain is hashed as in a real one."""

    recorded: list[Recorded] = field(default_factory=list)
    fault: DeviceError | None = None
    """Raised by every append while set."""
    commit_s: float = 0.0
    """How long a commit takes. [s]"""

    async def append(self, *events: Event) -> None:
        """Keep all events or none. Raises ``fault``, Refused when a key is taken."""
        await asyncio.sleep(self.commit_s)
        if self.fault is not None:
            raise self.fault
        keys = [event.key for event in events if event.key]
        taken = {recorded.event.key for recorded in self.recorded}
        if len(set(keys)) < len(keys) or taken & set(keys):
            raise Refused(f"a key is taken: {', '.join(keys)}")
        for event in events:
            self.recorded.append(Recorded(len(self.recorded) + 1, event, self._hash(event)))

    def events(self, stream: str = "", after: int = 0) -> Iterator[Recorded]:
        """Yield recorded events in order. Raises Garbled when one has been changed."""
        before = ""
        for recorded in tuple(self.recorded):
            if recorded.hash != _digest(before, recorded.event):
                raise Garbled(f"the chain is broken at event {recorded.id}")
            before = recorded.hash
            if recorded.id > after and stream in ("", recorded.event.stream):
                yield recorded

    def _hash(self, event: Event) -> str:
        return _digest(self.recorded[-1].hash if self.recorded else "", event)


class FakeChannel:
    """A dispatch link in memory: what the test delivers comes in, what vppd publishes is kept."""

    def __init__(self) -> None:
        self.published: list[Outbound] = []
        self.acked: list[Inbound] = []
        self.fault: DeviceError | None = None
        """Raised by every publish while set."""
        self._inbound: asyncio.Queue[Inbound] = asyncio.Queue()

    def deliver(self, message: Inbound) -> None:
        """Let a message arrive."""
        self._inbound.put_nowait(message)

    async def messages(self) -> AsyncIterator[Inbound]:
        """Yield messages as they are delivered."""
        while True:
            yield await self._inbound.get()

    async def ack(self, message: Inbound) -> None:
        """Note an acknowledgement."""
        self.acked.append(message)

    async def publish(self, message: Outbound) -> None:
        """Keep a message. Raises ``fault``."""
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        self.published.append(message)


def _digest(before: str, event: Event) -> str:
    return hashlib.sha256(f"{before}|{event!r}".encode()).hexdigest()
