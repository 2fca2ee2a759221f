"""Rounds of planning are counted and timed on the way to the process that computes them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tests.scrape import Scrape, scrape
from vppd.errors import Refused, Unreachable
from vppd.planning.rounds import Rounds
from vppd.runtime.metrics import Metrics

pytestmark = pytest.mark.looptime


class Worker:
    """Takes two seconds and then answers, or fails."""

    def __init__(self) -> None:
        self.answer: Any = {"cost": 1.0}

    async def think(self, module: str, document: Mapping[str, Any], limit_s: float) -> Any:
        """Answer."""
        await asyncio.sleep(2.0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def rounds(worker: Worker) -> Rounds:
    """Return what counts the rounds of a worker."""
    return Rounds(asyncio.get_running_loop().time, worker.think)


def told(found: Rounds) -> Scrape:
    """Return what Prometheus reads."""
    metrics = Metrics()
    metrics.add(*found.figures)
    return scrape(metrics.render().decode())


async def test_answers_come_through_with_their_time() -> None:
    """Nothing is changed on the way."""
    worker = Worker()
    found = rounds(worker)
    assert await found.of("plan")("m", {}, 10.0) == {"cost": 1.0}
    seen = told(found)
    assert seen["vppd_planning_round_seconds_sum", "plan"] == pytest.approx(2.0)
    assert seen["vppd_planning_rounds_failed_total", "plan"] == 0


@pytest.mark.parametrize("fault", [Unreachable("too slow"), Refused("it makes no sense")])
async def test_faults_come_through_and_are_counted(fault: Exception) -> None:
    """By the part that failed; the others stand at 0, so that a first failure is an increase."""
    worker = Worker()
    found = rounds(worker)
    plan, _ = found.of("plan"), found.of("offers")
    worker.answer = fault
    with pytest.raises(type(fault)):
        await plan("m", {}, 10.0)
    seen = told(found)
    assert seen["vppd_planning_rounds_failed_total", "plan"] == 1
    assert seen["vppd_planning_rounds_failed_total", "offers"] == 0


async def test_an_answer_that_is_none_has_failed() -> None:
    """A solver that finds no plan answers, and yet there is no plan."""
    worker = Worker()
    found = rounds(worker)
    worker.answer = {"cost": None}
    await found.of("plan", lambda answer: answer["cost"] is not None)("m", {}, 10.0)
    assert told(found)["vppd_planning_rounds_failed_total", "plan"] == 1


async def test_a_round_that_is_cancelled_has_not_failed() -> None:
    """The daemon ends in the middle of many a round."""
    found = rounds(Worker())
    task = asyncio.ensure_future(found.of("plan")("m", {}, 10.0))
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told(found)["vppd_planning_rounds_failed_total", "plan"] == 0
