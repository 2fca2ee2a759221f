"""A cluster that is given back: whoever goes on does what is wanted, and the next cut finds everybody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest

from tests.runtime.plannable_cluster import Cluster, mixed
from tests.runtime.rig import CLOCK, LEASE_S, Book
from vppd.model import Kind, Outcome, Setpoint
from vppd.ports import Planner
from vppd.runtime.actuator import Actuator
from vppd.runtime.curtailer import Curtailer, Terms
from vppd.runtime.intents import Terms as Care
from vppd.runtime.link import Device, attend
from vppd.runtime.poller import Pace
from vppd.runtime.table import LatestValues
from vppd.testing.fakes import FakeDevice
from vppd.workload import Curtailment, Knob, Workload


class Hopeful(FakeDevice):
    """A cluster that takes a planner and asks it nothing."""

    on_release: Callable[[], None] = staticmethod(lambda: None)

    async def release(self) -> None:
        """Say so, then go."""
        self.on_release()
        await super().release()

    def plan_with(self, planner: Planner) -> None:
        """Take note of who plans."""


class Listener:
    """A planner that hears."""

    let_go_times = 0

    def plan(self, workload: Workload, budget_w: float, now_s: float) -> Curtailment:
        """Ask nothing of anybody."""
        return Curtailment()

    def shed_w(self, workload: Workload) -> tuple[float, ...]:
        """Promise nothing."""
        return ()

    def let_go(self) -> None:
        """Hear that the cluster was given back."""
        self.let_go_times += 1


@pytest.mark.parametrize("is_told", [True, False])
def test_who_goes_on_after_a_release_does_not_refuse(is_told: bool) -> None:
    """The second cut, a little after the release of the first, is met; by a planner that is not told it would find nobody."""
    cluster = Cluster(*mixed(knob=Knob.NONE))
    planner = Curtailer("hall", Terms(ramp_s=20.0), cluster.now)
    planner.shed_w(cluster.look())
    target_w = 0.8 * cluster.full_w
    cluster.live(planner, target_w, 60)
    for truth in cluster.jobs.values():
        truth.level_frac, truth.paused = 1.0, False
    if is_told:
        planner.let_go()
    planner.shed_w(cluster.look())
    cluster.now_s += 5.0
    planner.shed_w(cluster.look())
    cluster.live(planner, 0.5 * cluster.full_w, 8)
    held = sum(truth.paused for truth in cluster.jobs.values())
    assert (held > 8) == is_told


@pytest.mark.looptime
async def test_the_planner_hears_of_a_release() -> None:
    """The daemon tells it before jobs go on, because they are read one after another, and after; not while a setpoint holds."""
    table, book, device, planner = LatestValues(["hall"]), Book(), Hopeful(CLOCK.mono_s), Listener()
    seen: list[int] = []
    care = Care(Kind.CLUSTER, tolerance_w=1_000.0, limit_s=2.0, fresh_s=3.0)
    actuator = Actuator("hall", care, CLOCK, book, lambda bad: table.set_rejected(0, bad), touched=False)
    async with _attended(Device("hall", device.connect, Pace(1.0, 2.0), actuator, planner), table):
        actuator.aim(Setpoint("hall", 50_000.0, LEASE_S))
        await asyncio.sleep(2.0)
        assert book.news == [Outcome.CONFIRMED]
        assert planner.let_go_times == 0
        device.on_release = lambda: seen.append(planner.let_go_times)
        await actuator.release(5.0)
    assert seen == [1]
    assert planner.let_go_times == 2


@asynccontextmanager
async def _attended(device: Device, table: LatestValues) -> AsyncIterator[None]:
    task = asyncio.ensure_future(attend(device, table, CLOCK, Random(1)))
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
