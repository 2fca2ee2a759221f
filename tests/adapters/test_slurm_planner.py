"""The Slurm adapter under a planner, over a cluster in memory and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters._slurm_config import SlurmConfig
from tests.adapters.slurm_fake import IDLE_W, JOB_W, FakeSlurm
from tests.adapters.slurm_rig import ALL_W, LEASE_S, apply, configured, connected, four_tiers, lost
from vppd.ports import Plannable
from vppd.workload import Curtailment, Workload

pytestmark = [pytest.mark.looptime]


class Wishes:
    """A planner that wishes what it is told, and keeps what it was shown."""

    def __init__(self, wish: Callable[[Workload], Curtailment] | Curtailment) -> None:
        self.wish = wish
        self.shown: list[Workload] = []
        self.budgets_w: list[float] = []

    def plan(self, workload: Workload, budget_w: float, now_s: float) -> Curtailment:
        """Return the wish."""
        self.shown.append(workload)
        self.budgets_w.append(budget_w)
        return self.wish if isinstance(self.wish, Curtailment) else self.wish(workload)

    def shed_w(self, workload: Workload) -> tuple[float, ...]:
        """Return something to be recognised by."""
        return (0.0, 1.0, 2.0, 3.0)


def pause(*ids: int) -> Curtailment:
    """Return the wish that these jobs are paused."""
    return Curtailment(paused=frozenset(map(str, ids)))


@pytest.fixture
def fake() -> FakeSlurm:
    """One node with a job of every tier."""
    return four_tiers()


@pytest.fixture
def config(tmp_path: Path) -> SlurmConfig:
    """A configuration without a command line."""
    return configured(tmp_path)


async def test_the_planner_chooses(fake: FakeSlurm, config: SlurmConfig) -> None:
    """With a planner its choice is carried out, although the tiers alone would choose another; without one the tiers do."""
    async with connected(fake, config) as cluster:
        assert isinstance(cluster, Plannable)
        await apply(cluster, ALL_W - JOB_W)
        assert fake.stopped() == {4}
        planner = Wishes(pause(3))
        cluster.plan_with(planner)
        applied = await apply(cluster, ALL_W - JOB_W)
        assert (applied.power_w, fake.stopped()) == (ALL_W - JOB_W, {3})
        assert planner.budgets_w == [ALL_W - JOB_W]
        assert {job.id: job.paused for job in planner.shown[0].jobs} == {"1": False, "2": False, "3": False, "4": True}


async def test_what_can_be_shed_is_the_planners_word(fake: FakeSlurm, config: SlurmConfig) -> None:
    """The flexibility read is what the planner says of the workload."""
    async with connected(fake, config) as cluster:
        cluster.plan_with(Wishes(pause()))
        sample = await cluster.read()
        assert sample.tier_shed_w == (0.0, 1.0, 2.0, 3.0)
        assert sample.lower_w == ALL_W - 6.0


async def test_asked_again_each_second_and_followed(fake: FakeSlurm, config: SlurmConfig) -> None:
    """While the lease runs the planner is asked each second, so that pauses take turns; after it nobody is held."""
    planner = Wishes(pause(4))
    async with connected(fake, config) as cluster:
        cluster.plan_with(planner)
        await apply(cluster, ALL_W - JOB_W)
        await asyncio.sleep(5.5)
        assert len(planner.shown) == 6
        planner.wish = pause(3)
        await asyncio.sleep(1.5)
        assert fake.stopped() == {3}
        await asyncio.sleep(LEASE_S)
        assert not fake.stopped()


async def test_a_wish_beyond_the_guards_is_named(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A planner that wants tiers 0 and 1 stopped gets the rest, and hears job by job what was not done."""
    async with connected(fake, config) as cluster:
        cluster.plan_with(Wishes(pause(1, 2, 3, 4)))
        applied = await apply(cluster, IDLE_W)
        assert fake.stopped() == {3, 4}
        assert applied.power_w == ALL_W - 2 * JOB_W
        assert "job 1: not stopped: it is of tier 0" in applied.detail
        assert "job 2: not stopped" in applied.detail
        assert "short by" in applied.detail


async def test_a_refused_wish_alone_is_not_confirmed(fake: FakeSlurm, config: SlurmConfig) -> None:
    """When nothing of a wish may be done, what reads back is what will be drawn."""
    async with connected(fake, config) as cluster:
        cluster.plan_with(Wishes(pause(1)))
        assert (await apply(cluster, ALL_W - JOB_W)).power_w == ALL_W


async def test_the_watchdog_stands_above_the_planner(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A planner that would pause a job for ever has it let go on before its longest pause is over, and not stopped again at once."""
    async with connected(fake, config.model_copy(update={"max_pause_s": {3: 100.0}})) as cluster:
        cluster.plan_with(Wishes(pause(4)))
        await apply(cluster, ALL_W - JOB_W, 1e6)
        stopped_s = 0
        for second in range(400):
            await asyncio.sleep(1.0)
            stopped_s += fake.stopped() == {4}
            if second == 95:
                assert fake.stopped() == {4}
            if 101 <= second <= 120:
                assert not fake.stopped()
        assert stopped_s <= 0.5 * 400 + 50
        assert stopped_s > 100


async def test_a_job_that_refuses_is_not_offered_for_a_while(fake: FakeSlurm, config: SlurmConfig) -> None:
    """What the token may not touch is told to the planner as not pausable, and offered again later."""
    fake.jobs[4].deny = True
    planner = Wishes(lambda load: pause(*(int(job.id) for job in load.jobs if job.pausable)))
    async with connected(fake, config) as cluster:
        cluster.plan_with(planner)
        assert "job 4" in (await apply(cluster, ALL_W - 2 * JOB_W)).detail
        await apply(cluster, ALL_W - 2 * JOB_W)
        assert {job.id for job in planner.shown[-1].jobs if job.pausable} == {"3"}
        await apply(cluster, ALL_W - 2 * JOB_W, 100.0)
        fake.jobs[4].deny = False
        await asyncio.sleep(65.0)
        assert fake.stopped() == {3, 4}


async def test_levels_are_caps_and_come_back_as_levels(fake: FakeSlurm, config: SlurmConfig) -> None:
    """A level caps the node, is shown to the planner as read back, holds at the meter, and goes with the release."""
    fake.nodes = ("n1", "n2")
    for _ in range(4):
        fake.add(3, node="n2")
    total_w = ALL_W + IDLE_W + 4 * JOB_W
    planner = Wishes(lambda load: Curtailment({job.id: 0.8 for job in load.jobs if job.group == "n2"}))
    capped = config.model_copy(update={"cap_url": "http://slurm/caps", "node_max_w": ALL_W, "cap_floor_frac": 0.2})
    async with connected(fake, capped) as cluster:
        cluster.plan_with(planner)
        applied = await apply(cluster, total_w - 1200.0)
        assert applied.power_w == total_w - 1200.0
        assert fake.cap_w == {"n2": ALL_W - 1200.0}
        await asyncio.sleep(1.5)
        slowed = [job for job in planner.shown[-1].jobs if job.group == "n2"]
        assert [job.level_frac for job in slowed] == pytest.approx([0.8] * 4)
        assert [job.power_w for job in slowed] == pytest.approx([0.8 * JOB_W] * 4)
        assert planner.shown[-1].full_w == pytest.approx(total_w)
        assert fake.count["cap n2"] == 1
        await cluster.release()
    assert fake.cap_w == {"n2": None}


async def test_a_successor_holds_by_tier_until_it_has_a_planner(fake: FakeSlurm, config: SlurmConfig) -> None:
    """After a kill the next process keeps the budget of the journal, and its planner sees what is paused."""
    await lost(fake, config, ALL_W - JOB_W)
    async with connected(fake, config) as cluster:
        planner = Wishes(pause(3))
        cluster.plan_with(planner)
        await asyncio.sleep(1.5)
        assert {job.id for job in planner.shown[0].jobs if job.paused} == {"4"}
        assert fake.stopped() == {3}
        await cluster.release()
        assert not fake.stopped()
