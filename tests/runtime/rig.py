"""An actuator on a fake device, with the control loop and the poller around it, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import count

from vppd.errors import Unreachable
from vppd.model import Kind, Outcome, Setpoint
from vppd.runtime.actuator import Actuator
from vppd.runtime.clock import SystemClock
from vppd.runtime.intents import Intent, Report, Terms
from vppd.testing.fakes import FakeDevice

CLOCK = SystemClock()
LEASE_S = 30.0


class Book:
    """Keeps intents and reports; may be slow or failing."""

    def __init__(self) -> None:
        self.intents: list[Intent] = []
        self.reports: list[Report] = []
        self.commit_s = 0.0
        self.is_broken = False

    async def intent(self, intent: Intent) -> None:
        """Keep one."""
        await asyncio.sleep(self.commit_s)
        if self.is_broken:
            raise Unreachable("no space left on device")
        self.intents.append(intent)

    def outcome(self, report: Report) -> None:
        """Keep one."""
        self.reports.append(report)

    @property
    def news(self) -> list[Outcome]:
        """Outcomes worth recording."""
        return [r.outcome for r in self.reports if r.is_news]


class Rig:
    """An actuator on a fake device, with a control loop that wishes every second and a poller every second."""

    def __init__(self, kind: Kind = Kind.BATTERY, *, touched: bool = False, fresh_s: float = 3.0) -> None:
        self.device, self.book = FakeDevice(CLOCK.mono_s), Book()
        self.flags: list[bool] = []
        ids = count(1)
        self.actuator = Actuator(
            "ups-1",
            Terms(kind, tolerance_w=1_000.0, limit_s=2.0, fresh_s=fresh_s),
            CLOCK,
            self.book,
            self.flags.append,
            touched=touched,
            new_id=lambda: f"i{next(ids)}",
        )
        self.wish_w: float | None = None
        self.wishes = self.reads = True
        self.running: asyncio.Task[None] | None = None

    def aim(self, power_w: float, cause: str = "order-1") -> None:
        """Wish once."""
        self.actuator.aim(Setpoint("ups-1", power_w, LEASE_S, cause, "00-aa-bb-01"))

    async def connect(self) -> None:
        """Connect again."""
        if self.running is not None:
            await asyncio.wait([self.running])
        self.running = asyncio.create_task(self._run())
        await asyncio.sleep(0)

    async def _run(self) -> None:
        with contextlib.suppress(Unreachable):
            await self.actuator.run(self.device)

    async def stop(self) -> None:
        """Stop; a bug that ended the actuator comes out."""
        assert self.running is not None
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.running

    async def live(self, lasts_s: int) -> None:
        """Let the control loop and the poller go on."""
        for _ in range(lasts_s):
            if self.wishes and self.wish_w is not None:
                self.aim(self.wish_w)
            if self.reads and self.device.read_fault is None:
                asked_s = CLOCK.mono_s()
                self.actuator.heard(await self.device.read(), asked_s)
            await asyncio.sleep(1.0)

    @property
    def written_w(self) -> list[float]:
        """Powers written so far."""
        return [s.power_w for s in self.device.writes]


@contextlib.asynccontextmanager
async def rigged(kind: Kind = Kind.BATTERY, *, touched: bool = False, fresh_s: float = 3.0) -> AsyncIterator[Rig]:
    """A connected rig, made inside the test: fixtures live outside virtual time."""
    rig = Rig(kind, touched=touched, fresh_s=fresh_s)
    await rig.connect()
    yield rig
    await rig.stop()
