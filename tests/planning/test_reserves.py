"""What is sold downwards and both ways is kept in the plan: room in storage, and power to charge with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from tests.planning.plan_rig import STEP_S, a_day, by_hour, moment_of, outlook
from vppd.config.planning import PlanningConfig
from vppd.core.forecast.outlook import Outlook
from vppd.core.timetable import Timetable
from vppd.model import Interval, Obligation
from vppd.planning.plan.answer import plan_of
from vppd.planning.plan.assemble import Assembled, assemble
from vppd.planning.plan.worker import answered
from vppd.snapshot import Floats
from vppd.testing.cycles import START, World

TERMS = PlanningConfig(time_limit_s=5.0)
CAPACITY_WH, EFFICIENCY_FRAC = 600e3, 0.96
LATE = slice(68, 72)
"""Steps of the hour from five to six, when the sun goes down."""


def world_at(soc_frac: float) -> World:
    """Return a site with storage at one charge, after a few cycles."""
    world = World()
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), soc_frac, np.nan)
    world.step(3)
    return world


def award(direction: str, power_w: float, after_h: float = 17.0, for_h: float = 1.0, **changes: Any) -> Obligation:
    """Return an award that can be asked for half an hour at a time."""
    begin = START + timedelta(hours=after_h)
    span = Interval(begin, begin + timedelta(hours=for_h))
    return Obligation("a1", "b", "tso", "mfrr", "dc1", direction, span, power_w, **{"sustain_s": 1800.0, **changes})


def problem_of(
    world: World, series: Mapping[str, Outlook], *sold: Obligation, terms: PlanningConfig = TERMS
) -> Assembled:
    """Return the problem of a day."""
    return assemble(moment_of(world), world.plant, series, sold, {}, terms, STEP_S)


def planned(world: World, problem: Assembled) -> Timetable:
    """Return the plan of a problem, which gives nothing up."""
    found = plan_of(problem, answered(problem.document), world.at, world.plant).timetable
    assert found.conflicts == ()
    return found


def room_wh(world: World, plan: Timetable) -> Floats:
    """Return what can still be stored in each step of the hour, at the fuller of its two ends. [Wh]"""
    stored_wh = plan.energy_wh[[world.index("ups-a"), world.index("bess-b")]].sum(axis=0)
    return np.asarray(CAPACITY_WH - np.maximum(stored_wh[LATE], stored_wh[LATE.start - 1 : LATE.stop - 1]))


def test_an_increase_is_kept_as_room() -> None:
    """Sold for an hour in which storage would be full: where nothing waits that could run instead, it is full later."""
    world, terms = world_at(0.9), PlanningConfig(time_limit_s=5.0, defer_h=(0.0, 0.0, 0.0, 0.0))
    series = a_day() | {"price/import": outlook("price/import", by_hour([20e-6] * 17 + [200e-6] * 7))}
    problem = problem_of(world, series, award("down", 150e3), terms=terms)
    (row,) = problem.document["reserves"]
    assert (row["direction"], row["resources"], row["sustain_h"]) == ("down", ["ups-a", "bess-b"], 0.5)
    sun_w = series["generation/pv-b"].forecast.values[0]
    np.testing.assert_allclose(row["power_w"][LATE], 150e3 - sun_w[LATE])
    needed_wh = np.array(row["power_w"][LATE]) * 0.5 * EFFICIENCY_FRAC
    assert (room_wh(world, planned(world, problem)) >= needed_wh - 1.0).all()
    assert not (room_wh(world, planned(world, problem_of(world, series, terms=terms))) >= needed_wh).all()


def test_work_that_waits_may_stand_behind_an_increase() -> None:
    """It may run in that hour after all; behind a signal, which counts from what would run without the plan, it may not."""
    for direction, is_behind in (("down", True), ("symmetric", False)):
        row = problem_of(world_at(0.9), a_day(), award(direction, 150e3)).document["reserves"][-1]
        assert row["direction"] == "down"
        assert (len(row["resources"]) > 2) is is_behind


def test_an_increase_for_a_schedule_is_energy_for_all_of_it() -> None:
    """Carried out over its whole hour, it needs room for an hour, as a reduction needs the energy."""
    world = world_at(0.6)
    (row,) = problem_of(world, a_day(), award("down", 50e3, sustain_s=None, dispatch="scheduled")).document["reserves"]
    assert row["sustain_h"] == 1.0


def test_what_is_sold_both_ways_is_kept_both_ways() -> None:
    """One award, two reserves; each is less what is sure without the plan: shedding upwards, sunshine downwards."""
    world = world_at(0.9)
    problem = problem_of(world, a_day(), award("symmetric", 100e3))
    up, down = problem.document["reserves"]
    assert [row["name"] for row in (up, down)] == ["award a1 (up)", "award a1 (down)"]
    assert [row["direction"] for row in (up, down)] == ["up", "down"]
    assert max(up["power_w"]) == pytest.approx(100e3 - 2 * 6e3)
    assert len(up["resources"]) > len(down["resources"]) == 2
    plan = planned(world, problem)
    assert (room_wh(world, plan) >= np.array(down["power_w"][LATE]) * 0.5 * EFFICIENCY_FRAC - 1.0).all()


@pytest.mark.parametrize(("after_h", "is_kept"), [(12.0, False), (1.0, True)])
def test_sunshine_that_is_sure_stands_behind_an_increase(after_h: float, *, is_kept: bool) -> None:
    """At noon PV gives more than was sold, so nothing else is kept; by night all of it is."""
    rows = problem_of(world_at(0.6), a_day(), award("down", 20e3, after_h, 0.25)).document["reserves"]
    assert bool(rows) is is_kept


def test_generation_that_cannot_be_held_back_stands_behind_nothing() -> None:
    """PV that does not answer is no increase, and neither is any for what is no longer configured."""
    world = world_at(0.6)
    world.silent.add("pv-b")
    world.step(15)
    (row,) = problem_of(world, a_day(), award("down", 20e3, 12.0)).document["reserves"]
    assert max(row["power_w"]) == 20e3
    gone = problem_of(world, a_day(), replace(award("symmetric", 20e3), resource="main-z"))
    assert gone.document["reserves"] == []
    assert sum("no longer configured" in line for line in gone.missing) == 1
