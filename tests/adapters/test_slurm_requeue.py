"""Which jobs go back into the queue as the last resort, and how long they stay there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from adapters._slurm_config import SlurmConfig
from adapters._slurm_jobs import Job, Node
from adapters._slurm_journal import Held, Touch
from adapters._slurm_plan import Plan, plan
from adapters._slurm_power import Picture, picture
from adapters._slurm_requeue import Requeueing

CONFIG = SlurmConfig(
    command_line=True, node_idle_w=2000.0, node_max_w=8000.0, requeue_tiers=(2, 3), requeue_after_s=60.0
)
JOB_W = 12_000.0
"""Two nodes, without what they draw when idle."""


def job(number: int, tier: int, words: str = "vpp:requeue") -> Job:
    """Return a job on two nodes, which may not be stopped."""
    nodes = (f"n{number}a", f"n{number}b")
    return Job(number, "RUNNING", "flex", comment=f"vpp:tier={tier} {words}", nodes=nodes, cpus=128)


JOBS = [job(1, 0), job(2, 1), job(3, 2), job(4, 3), job(5, 3, ""), job(6, 3)]
TOTAL_W = 6 * (JOB_W + 4000.0)


def look(jobs: list[Job] = JOBS) -> Picture:
    """Return what such jobs draw."""
    nodes = [Node(name, ("flex",), 64, power_w=8000.0) for one in JOBS for name in one.nodes]
    return picture(CONFIG, jobs, nodes, Held(), {}, 0.0)


def chosen(budget_w: float, times_s: tuple[float, ...], requeueing: Requeueing | None = None) -> list[int]:
    """Return who is chosen at the last of some times."""
    requeueing, now = requeueing or Requeueing(CONFIG), look()
    wanted = plan(now, budget_w)
    found = [requeueing.choose(wanted, now, JOBS, budget_w, frozenset(), at_s) for at_s in times_s]
    return [one.id for one in found[-1]]


@pytest.mark.parametrize(
    ("budget_w", "ids"),
    [
        pytest.param(TOTAL_W, [], id="enough"),
        pytest.param(TOTAL_W - 1000.0, [4], id="one is enough"),
        pytest.param(TOTAL_W - JOB_W - 1000.0, [4, 6], id="the most tolerant first"),
        pytest.param(0.0, [4, 6, 3], id="only those that say so, of tiers that may"),
    ],
)
def test_who_goes_back(budget_w: float, ids: list[int]) -> None:
    """Tier 3 before tier 2, no more than are needed, and nobody without a checkpoint."""
    assert chosen(budget_w, (0.0, 60.0)) == ids


def test_not_before_the_rest_has_been_too_little_for_a_while() -> None:
    """A budget that is missed for a moment puts nobody back, and the time begins anew when it has been met."""
    assert chosen(0.0, (0.0, 59.0)) == []
    requeueing = Requeueing(CONFIG)
    chosen(0.0, (0.0, 50.0), requeueing)
    chosen(TOTAL_W, (55.0,), requeueing)
    assert chosen(0.0, (60.0, 100.0), requeueing) == []


def test_what_stops_can_give_puts_nobody_back() -> None:
    """A budget that stops can meet is met by stops."""
    safe = [replace(one, comment=f"{one.comment} vpp:stopsafe") for one in JOBS]
    requeueing, now = Requeueing(CONFIG), look(safe)
    wanted = plan(now, TOTAL_W - 3 * JOB_W)
    assert wanted.stop == {4, 5, 6}
    assert not requeueing.choose(wanted, now, safe, TOTAL_W - 3 * JOB_W, frozenset(), 1e6)


def test_nothing_starts_while_they_have_no_room() -> None:
    """Once put back they wait until their power fits the budget; those of an earlier process until the budget is lifted."""
    budget_w = TOTAL_W - 1000.0
    requeueing = Requeueing(CONFIG)
    assert chosen(budget_w, (0.0, 60.0), requeueing) == [4]
    now, held = look([one for one in JOBS if one.id != 4]), Held(touched={4: Touch("requeue", 60.0)})
    free = Plan(frozenset())
    assert requeueing.freezes(free, now, budget_w, held).freeze
    assert not requeueing.freezes(free, now, now.available_w + JOB_W, held).freeze
    assert Requeueing(CONFIG).freezes(free, now, 1e9, held).freeze
    assert not requeueing.freezes(free, now, budget_w, Held()).freeze


def test_it_takes_the_command_line() -> None:
    """Most versions of slurmrestd cannot put a job back."""
    with pytest.raises(ValidationError, match="command_line"):
        SlurmConfig.model_validate({"url": "http://slurm", "token_file": "t", "requeue_tiers": [3]})
