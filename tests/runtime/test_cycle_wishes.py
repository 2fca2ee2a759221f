"""The beat asks the plan what it wishes, every time anew."""

from __future__ import annotations

import asyncio
from datetime import datetime

import numpy as np
import pytest

from vppd.core.state import Decision, State
from vppd.runtime.clock import LoopClock
from vppd.runtime.cycle import Cycle, Inbox
from vppd.snapshot import Floats, Health, Snapshot
from vppd.testing.cycles import START, World


@pytest.mark.looptime
async def test_every_snapshot_has_the_wishes_of_its_moment() -> None:
    """What the plan wishes at the moment of the snapshot is in it; without a plan there is nothing."""
    world, clock = World(), LoopClock(START)
    world.step(3)
    asked: list[datetime] = []
    seen: list[Snapshot] = []

    def wishes(at: datetime) -> Floats | None:
        asked.append(at)
        return None if len(asked) == 1 else np.full(len(world.plant.asset_ids), float(len(asked)))

    def consequence(snapshot: Snapshot, _: Decision) -> None:
        seen.append(snapshot)

    cycle = Cycle(clock, Inbox(), lambda: world.readings, lambda _: Health(ready=True), consequence, preferred=wishes)
    task = asyncio.create_task(cycle.run(world.plant, State.first(world.plant)))
    await asyncio.sleep(2.5)
    task.cancel()
    await asyncio.wait([task])
    assert [snapshot.at for snapshot in seen] == asked
    assert len(seen) == 3
    assert seen[0].preferred_w is None
    assert [float(s.preferred_w[0]) for s in seen[1:] if s.preferred_w is not None] == [2.0, 3.0]
