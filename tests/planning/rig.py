"""A plant in virtual time whose cycles are recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from vppd.core.state import Decision
from vppd.ledger.history import STEP_S, open_history
from vppd.ledger.history_reader import reading
from vppd.planning.forecasts.recorder import Quotes, Recorder
from vppd.snapshot import Floats, Snapshot
from vppd.testing.cycles import START, World, two_feeds

CYCLE_S = 10.0


def world() -> World:
    """Return a plant of two feeds with a slow beat: 30 cycles make a step."""
    return World(two_feeds(cycle_s=CYCLE_S, io_timeout_s=2.0, lease_s=30.0))


@dataclass
class Recording:
    """Runs a world and records it, as often as wanted, into one file."""

    path: Path
    world: World = field(default_factory=world)
    quotes: Quotes | None = None

    async def run(self, cycles: int) -> Recorder:
        """Let cycles pass under a recorder of their own: that is what a restart is."""
        async with open_history(self.path) as history:
            recorder = Recorder(self.world.plant, history, self.quotes)
            for _ in range(cycles):
                recorder.take(*self.cycle())
            return recorder

    def cycle(self) -> tuple[Snapshot, Decision]:
        """Let a cycle pass; return what it saw and decided."""
        decision = self.world.step()
        return Snapshot(self.world.at, self.world.mono_s, self.world.readings.copy()), decision

    def pause(self, for_s: float) -> None:
        """Let time pass without cycles. [s]"""
        self.world.at += timedelta(seconds=for_s)
        self.world.mono_s += for_s

    def means(self, name: str, steps: int, first: int = 0) -> Floats:
        """Return recorded means of a series."""
        with reading(self.path) as reader:
            return reader.array(name, step(first), STEP_S, steps)


def step(n: int) -> datetime:
    """Return the beginning of the n-th 5-minute step."""
    return START + timedelta(seconds=n * STEP_S)
