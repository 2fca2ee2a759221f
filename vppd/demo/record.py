"""What the meters showed while the demo ran, and whether the machine room's promises were kept meanwhile."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from vppd.demo.acts import Point
from vppd.demo.meters import Meter
from vppd.demo.room import Room, Truth
from vppd.errors import DeviceError

EVERY_S = 0.5
KEEP = 4 * 3600 * 2
"""Points kept per meter: four hours."""
SITE = "site"
"""Name under which the sum of all meters is kept."""


@dataclass(slots=True)
class Record:
    """Histories by feed tag, and under ``site`` their sum."""

    tags: tuple[str, ...]
    storage_on: Mapping[str, str] = field(default_factory=dict)
    """Feed tag of each storage unit."""
    points: dict[str, deque[Point]] = field(default_factory=dict)
    """What the meters showed."""
    without_storage: dict[str, deque[Point]] = field(default_factory=dict)
    """The same without what storage took or gave: what a baseline is made of, since recharging is our doing."""
    targets_w: dict[str, float] = field(default_factory=dict)
    """What is ordered now, by feed tag or ``site``. [W, + = import]"""
    truth: Truth | None = None
    breaches: list[str] = field(default_factory=list)
    """Promises broken so far, one sentence each."""

    def __post_init__(self) -> None:
        for name in (*self.tags, SITE):
            self.points[name] = deque(maxlen=KEEP)
            self.without_storage[name] = deque(maxlen=KEEP)

    def add(self, mono_s: float, powers_w: Mapping[str, float]) -> None:
        """Keep one reading of all meters, taken at one moment. [W]"""
        for name, power_w in {**powers_w, SITE: sum(powers_w.values())}.items():
            self.points[name].append(Point(mono_s, power_w, self.targets_w.get(name)))
            self.without_storage[name].append(Point(mono_s, power_w - self._storage_w(name)))

    def witness(self, truth: Truth) -> None:
        """Take what is true in the machine room now and note a reserve that was broken into."""
        self.truth = truth
        for unit in truth.storage:
            text = f"{unit.name} fell below its reserve of {unit.reserve_frac:.0%}"
            if unit.soc_frac < unit.reserve_frac - 1e-3 and text not in self.breaches:
                self.breaches.append(text)

    def since(self, name: str, mono_s: float) -> list[Point]:
        """Return the points of one meter from ``mono_s`` on."""
        return [p for p in self.points[name] if p.mono_s >= mono_s]

    def baseline_w(self, name: str, last_s: float) -> float:
        """Return the mean of the last ``last_s`` seconds without storage. [W, + = import]"""
        points = self.without_storage[name]
        recent = [p.power_w for p in points if p.mono_s >= points[-1].mono_s - last_s]
        return sum(recent) / len(recent)

    def _storage_w(self, name: str) -> float:
        units = self.truth.storage if self.truth else ()
        return sum(unit.power_w for unit in units if name in (SITE, self.storage_on.get(unit.name)))


async def keep(record: Record, meters: Mapping[str, Meter], room: Room) -> None:
    """Read all meters and the truth of the room at a fixed beat, for ever; a reading that fails is left out."""
    loop = asyncio.get_running_loop()
    beat_s = loop.time()
    while True:
        try:
            powers_w = await asyncio.gather(*(meter.power_w() for meter in meters.values()))
            record.add(loop.time(), dict(zip(meters, powers_w, strict=True)))
            record.witness(await room.truth())
        except DeviceError:
            pass  # the next beat tries again; an act with too few points fails by that
        beat_s = max(beat_s + EVERY_S, loop.time())
        await asyncio.sleep(beat_s - loop.time())
