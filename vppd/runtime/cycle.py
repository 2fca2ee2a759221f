"""The beat: a snapshot, a decision, and its consequences handed on - at the beat and at once when an order arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from vppd.core.cycle import decide
from vppd.core.promised import kept_ready
from vppd.core.state import Decision, Phase, State
from vppd.model import Obligation, Order, Signal
from vppd.runtime.clock import Clock, tick_after
from vppd.snapshot import Floats, Health, Plant, Readings, Snapshot

log = structlog.get_logger()


@dataclass(slots=True)
class Beat:
    """How the beat is doing."""

    cycles: int = 0
    late_s: float = 0.0
    """How late the last cycle began. [s]"""
    took_s: float = 0.0
    """How long the last cycle took. [s]"""
    at_mono_s: float = 0.0
    """When it began. [s]"""


@dataclass(slots=True)
class Inbox:
    """What has come in and waits to be decided on; everything in it wakes the cycle."""

    orders: list[Order] = field(default_factory=list)
    signals: dict[str, Signal] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, orders: Iterable[Order]) -> None:
        """Add accepted orders and have them decided on at once."""
        self.orders.extend(orders)
        self.wake.set()

    def signal(self, signal: Signal) -> None:
        """Replace the issuer's regulation signal and follow it at once."""
        self.signals[signal.issuer] = signal
        self.wake.set()

    def forget(self, order_ids: frozenset[str]) -> None:
        """Drop orders that have been closed."""
        self.orders[:] = [order for order in self.orders if order.order_id not in order_ids]


Consequence = Callable[[Snapshot, Decision], None]


class Cycle:
    """Runs ``decide`` over and over; owns the state between two decisions and nothing else."""

    def __init__(
        self,
        clock: Clock,
        inbox: Inbox,
        image: Callable[[], Readings],
        health: Callable[[float], Health],
        consequence: Consequence,
        preferred: Callable[[datetime], Floats | None] = lambda _: None,
        sold: Callable[[datetime], Sequence[Obligation]] = lambda _: (),
    ) -> None:
        """``preferred``: what the plan wishes of each asset at a moment, see ``Snapshot.preferred_w`` [W]; ``sold``: what is owed."""
        self._preferred, self._sold = preferred, sold
        self._clock, self._inbox, self._image, self._health, self._consequence = (
            clock,
            inbox,
            image,
            health,
            consequence,
        )
        self.beat = Beat()

    async def run(self, plant: Plant, state: State) -> None:
        """Decide at every beat and whenever woken, for ever. A cycle that raises is a bug and ends the daemon."""
        start_s = self._clock.mono_s()
        due_s = start_s
        while True:
            await self._until(due_s)
            began_s = self._clock.mono_s()
            on_beat = began_s >= due_s
            self.beat.late_s = max(began_s - due_s, 0.0) if on_beat else 0.0
            state = self._once(plant, state, began_s)
            self.beat.took_s = self._clock.mono_s() - began_s
            if on_beat:
                due_s = tick_after(start_s, plant.cycle_s, self._clock.mono_s())

    async def _until(self, due_s: float) -> None:
        """Return when the beat is due or something has come in; a timer may ring a moment early."""
        while not self._inbox.wake.is_set() and (left_s := due_s - self._clock.mono_s()) > 0.0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._inbox.wake.wait()

    def _once(self, plant: Plant, state: State, mono_s: float) -> State:
        self._inbox.wake.clear()
        at = self._clock.now()
        snapshot = Snapshot(
            at=at,
            mono_s=mono_s,
            readings=self._image(),
            orders=tuple(self._inbox.orders),
            signals=tuple(self._inbox.signals.values()),
            health=self._health(self.beat.late_s),
            preferred_w=self._preferred(at),
            sold=kept_ready(self._sold(at), at),
        )
        decision = decide(snapshot, state, plant)
        closed = (t for t in decision.transitions if t.progress.phase in (Phase.COMPLETED, Phase.ABORTED))
        self._inbox.forget(frozenset(t.order.order_id for t in closed))
        self.beat.cycles += 1
        self.beat.at_mono_s = mono_s
        self._consequence(snapshot, decision)
        return decision.state
