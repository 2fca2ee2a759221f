"""What vppd asks of the world: narrow protocols, at most three methods each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel

from vppd.model import Applied, Event, Inbound, Outbound, Recorded, Sample, Setpoint
from vppd.workload import Curtailment, Workload

C = TypeVar("C", bound=BaseModel)


@runtime_checkable
class Polled(Protocol):
    """A device that answers when asked; the caller owns pace, outer time limit and retries."""

    async def read(self) -> Sample:
        """Return what the device says now. Raises Unreachable, Refused or Garbled."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """A device that speaks by itself."""

    def samples(self) -> AsyncIterator[Sample]:
        """Yield a Sample whenever there is news. Raises Unreachable when the link is lost."""
        ...


@runtime_checkable
class Controllable(Protocol):
    """A device that takes setpoints."""

    async def apply(self, setpoint: Setpoint) -> Applied:
        """Write an absolute setpoint, idempotently, with its lease, and read it back. Raises Unreachable (outcome unknown) or Refused."""
        ...

    async def release(self) -> None:
        """Give the device back to its own safe default; restore all that was touched, also by an earlier process. Idempotent."""
        ...


class Planner(Protocol):
    """Chooses which jobs of a cluster give how much."""

    def plan(self, workload: Workload, budget_w: float, now_s: float) -> Curtailment:
        """Return what is to be in force from ``now_s`` (loop-monotonic [s]) so that the cluster draws at most ``budget_w``. [W]"""
        ...

    def shed_w(self, workload: Workload) -> tuple[float, ...]:
        """Return what could be shed now from ``workload.full_w``, by flex tier 0-3. [W, >= 0]"""
        ...


@runtime_checkable
class Plannable(Protocol):
    """A cluster that lets somebody else choose; the daemon hands it a planner right after connecting."""

    def plan_with(self, planner: Planner) -> None:
        """Use this planner from now on; without one the adapter goes by tier alone."""
        ...


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time, half open and in aware UTC, in which power is to be kept free."""

    start: datetime
    end: datetime
    power_w: float
    """What is not to be drawn that might be. [W, >= 0]"""


@runtime_checkable
class Reservable(Protocol):
    """A cluster whose scheduler can be told of a window ahead, so that no long job starts into it."""

    async def reserve(self, windows: Sequence[Window]) -> tuple[Applied, ...]:
        """Keep power free in these windows and no others, and return for each how much is [W, >= 0]; idempotent, also over restarts.

        For whoever knows the awards: to be called with all of them that are not over when one comes or goes, and after a
        connection. Raises Unreachable, Refused or Garbled.
        """
        ...


@dataclass(frozen=True, slots=True)
class Adapter(Generic[C]):
    """What an entry point of the group ``vppd.adapters`` names."""

    config: type[C]
    """pydantic model of ``[assets.connection]``: frozen, extra="forbid"."""
    connect: Callable[[C], AbstractAsyncContextManager[object]]
    """Opens the device; what it yields is Polled or Streaming, and Controllable if it takes setpoints."""


class DispatchChannel(Protocol):
    """The link to the dispatcher."""

    def messages(self) -> AsyncIterator[Inbound]:
        """Yield messages as they arrive; not acknowledged until ``ack``."""
        ...

    async def ack(self, message: Inbound) -> None:
        """Acknowledge to the broker: only after the ledger commit."""
        ...

    async def publish(self, message: Outbound) -> None:
        """Publish and wait for the broker (QoS > 0). Raises Unreachable."""
        ...


class Ledger(Protocol):
    """Durable, append-only, hash-chained events."""

    async def append(self, *events: Event) -> None:
        """Return once all events are on disk, all or none. Raises Unreachable (retry) or Garbled (corrupt: stop)."""
        ...

    def events(self, stream: str = "", after: int = 0) -> Iterator[Recorded]:
        """Yield recorded events in order, of one stream or of all. Raises Garbled when the chain is broken."""
        ...
