"""The planner at work: plans when something changes, falls back on the old plan, and moves patient work into the sun."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.planning.green_day import START as DUSK
from tests.planning.green_day import GreenDay
from tests.planning.plan_rig import STEP_S, a_day, flat, outlooks
from vppd.config.planning import PlanningConfig
from vppd.core.forecast.outlook import Outlook
from vppd.core.timetable import Timetable
from vppd.errors import Refused, Unreachable
from vppd.model import Interval, Obligation, OrderKind
from vppd.planning.plan.deferral import Ledger
from vppd.planning.plan.planner import APART_S, STALE_S, Planner
from vppd.planning.plan.worker import answered, relaxed
from vppd.runtime.apart import apart
from vppd.runtime.clock import FakeClock, LoopClock
from vppd.snapshot import Snapshot
from vppd.testing.cycles import START, World


class Rig:
    """A site with a planner that solves on the spot."""

    def __init__(self, outlook: Mapping[str, Outlook] | None = None, **terms: Any) -> None:
        self.world = World()
        self.world.soc_frac[:] = np.where(np.isfinite(self.world.soc_frac), 0.9, np.nan)
        self.clock = FakeClock(START, 1000.0)
        self.sold: tuple[Obligation, ...] = ()
        self.fault: Exception | None = None
        self.documents: list[Mapping[str, Any]] = []
        config = PlanningConfig(**({"time_limit_s": 5.0} | terms))
        series = a_day() if outlook is None else outlook
        self.planner = Planner(
            config, STEP_S, self.world.plant, lambda: series, lambda _: self.sold, self.clock, solve=self.solve
        )

    async def solve(self, _module: str, document: Mapping[str, Any], _limit_s: float) -> Any:
        """Answer in this process, or fail as told."""
        self.documents.append(document)
        if self.fault is not None:
            raise self.fault
        return answered(document)

    def cycle(self, seconds: float = 1.0, *, follow: bool = True) -> None:
        """Let one cycle pass, with the planner's wishes."""
        world = self.world
        self.clock.advance(seconds)
        world.at, world.mono_s = self.clock.now(), self.clock.mono_s()
        world.preferred_w = self.planner.preferred_w(world.at) if follow else None
        decision = world.step()
        snapshot = Snapshot(world.at, world.mono_s, world.readings.copy(), tuple(world.orders), health=world.health)
        self.planner.take(snapshot, decision)


async def test_the_first_plan_steers_the_site() -> None:
    """After the first readings there is a timetable, and storage and halls follow it at the dear hours."""
    rig = Rig()
    assert rig.planner.preferred_w(START) is None
    rig.clock.advance(19.4 * 3600.0)
    rig.cycle()
    await rig.planner.round()
    table = rig.planner.timetable
    assert isinstance(table, Timetable)
    assert table.status == "optimal"
    for _ in range(60):
        rig.cycle()
    assert rig.world.power_w[rig.world.index("bess-b")] < -50e3


async def test_economics_can_be_switched_off() -> None:
    """With economics = false there is a plan to look at and none to follow."""
    rig = Rig(economics=False)
    rig.cycle()
    await rig.planner.round()
    assert rig.planner.timetable is not None
    assert rig.planner.preferred_w(rig.clock.now()) is None


@pytest.mark.parametrize("fault", [Unreachable("no answer within 5 s"), Refused("ended with status 2")])
async def test_without_an_answer_the_old_plan_stays_for_an_hour(fault: Exception) -> None:
    """A solver that fails leaves the old plan in force while it can be believed; then there is none, and why is told."""
    rig = Rig()
    rig.cycle()
    await rig.planner.round()
    first = rig.planner.timetable
    rig.fault = fault
    rig.clock.advance(600.0)
    await rig.planner.round()
    assert rig.planner.timetable is first
    assert rig.planner.view()["reason"] == str(fault)
    rig.clock.advance(STALE_S)
    assert rig.planner.timetable is None
    assert rig.planner.preferred_w(rig.clock.now()) is None
    assert not rig.planner.view()["in_force"]


async def test_too_little_known_is_a_reason_too() -> None:
    """A site whose meters were never read has no plan, and says what it waits for."""
    rig = Rig(outlook={})
    rig.cycle()
    await rig.planner.round()
    assert rig.planner.reason == "waits for the first forecasts"
    rig = Rig(outlook=outlooks({"price/import": flat(1e-4)}))
    rig.world.silent = {"poi-a", "poi-b"}
    rig.cycle()
    await rig.planner.round()
    assert rig.planner.timetable is None
    assert "load/main-a" in rig.planner.reason
    assert not rig.documents


async def test_orders_and_outages_wake_it() -> None:
    """A new order, its end, and an asset that comes or goes each ask for a new plan; a quiet cycle does not."""
    rig = Rig()
    woken = rig.planner._woken
    rig.cycle()
    for change in ("order", "outage", "back"):
        woken.clear()
        for _ in range(5):
            rig.cycle(follow=False)
        assert not woken.is_set(), f"quiet before {change}"
        if change == "order":
            rig.world.order(OrderKind.LIMIT, "main-b", 580e3, for_s=None)
        elif change == "outage":
            rig.world.silent.add("hall-b")
        else:
            rig.world.silent.clear()
        for _ in range(30):
            rig.cycle(follow=False)
        assert woken.is_set(), change


@pytest.mark.looptime
async def test_it_plans_again_in_time_and_not_too_often() -> None:
    """Woken all the time it plans every ten seconds; left alone every five minutes."""
    clock = LoopClock(START)
    world = World()
    series, began_s = a_day(), []

    async def solve(_module: str, document: Mapping[str, Any], _limit_s: float) -> Any:
        began_s.append(clock.mono_s())
        return answered(document)

    planner = Planner(PlanningConfig(), STEP_S, world.plant, lambda: series, lambda _: (), clock, solve=solve)
    task = asyncio.create_task(planner.run())
    await asyncio.sleep(5.0)
    assert not began_s, "nothing has been measured yet"
    decision = world.step(3)
    planner.take(Snapshot(clock.now(), clock.mono_s(), world.readings), decision)
    for _ in range(30):
        planner.wake()
        await asyncio.sleep(1.0)
    often = len(began_s)
    await asyncio.sleep(1200.0)
    task.cancel()
    await asyncio.wait([task])
    assert often in (3, 4)
    assert min(np.diff(began_s)) >= APART_S
    assert len(began_s) - often in (3, 4, 5)


async def test_what_is_sold_now_narrows_the_wishes() -> None:
    """With all of the battery sold, nothing of it is discharged for money."""
    rig = Rig()
    rig.clock.advance(19.4 * 3600.0)
    rig.cycle()
    await rig.planner.round()
    for _ in range(5):
        rig.cycle()
    now = rig.clock.now()
    free_w = rig.planner.preferred_w(now)
    four_hours = Interval(now - timedelta(hours=1), now + timedelta(hours=3))
    rig.sold = (Obligation("a", "b", "tso", "cap", "main-b", "up", four_hours, 250e3, sustain_s=3600.0),)
    kept_w = rig.planner.preferred_w(now)
    bess = rig.world.index("bess-b")
    assert free_w is not None
    assert kept_w is not None
    assert free_w[bess] < -1e3
    assert kept_w[bess] == pytest.approx(0.0, abs=1.0)


async def test_the_view_shows_planned_and_measured() -> None:
    """Steps that are over show what was planned beside what was measured; the others what is planned."""
    rig = Rig()
    rig.cycle()
    await rig.planner.round()
    for _ in range(200):
        rig.cycle(5.0)
    view = rig.planner.view()
    past = [step for step in view["steps"] if step["measured_import_w"] is not None]
    ahead = [step for step in view["steps"] if step["measured_import_w"] is None]
    assert len(past) == 1
    assert len(ahead) == 95
    assert past[0]["start"] < ahead[0]["start"]
    assert past[0]["measured_import_w"] == pytest.approx(past[0]["import_w"], rel=0.05)
    assert past[0]["measured_w"]["hall-a"] == pytest.approx(300e3, rel=0.02)
    assert {asset["id"] for asset in view["assets"]} >= {"bess-b", "pv-b", "hall-a", "hall-b"}
    assert view["missing"] == []
    assert view["status"] == "optimal"


@pytest.mark.looptime
async def test_what_waits_outlives_a_restart(tmp_path: Path) -> None:
    """Owed work and the month's peak are in the next process as they were; a file that makes no sense is told and left out."""
    clock, world, file = LoopClock(START + timedelta(hours=16)), World(), tmp_path / "plan.json"
    series = outlooks({name: o.forecast.values[0] for name, o in a_day().items()}, START)

    async def solve(_module: str, document: Mapping[str, Any], _limit_s: float) -> Any:
        return answered(document)

    def planner() -> Planner:
        terms = PlanningConfig(time_limit_s=5.0)
        return Planner(terms, STEP_S, world.plant, lambda: series, lambda _: (), clock, solve=solve, file=file)

    first = planner()
    task = asyncio.create_task(first.run())
    for _ in range(24):
        decision = world.step()
        world.readings.power_w[world.index("hall-a")] = 200e3
        snapshot = Snapshot(clock.now(), clock.mono_s(), world.readings)
        world.readings.mono_s[:] = clock.mono_s()
        first.take(snapshot, decision)
        await asyncio.sleep(300.0)
    task.cancel()
    await asyncio.wait([task])
    assert first.ledger.owed
    again = planner()
    assert again.ledger == first.ledger
    assert again.view()["waiting"] == first.view()["waiting"]
    file.write_bytes(b"{")
    assert planner().ledger == Ledger()


def test_the_relaxed_problem_always_has_a_plan() -> None:
    """With a price on rules and room for what is there anyway, something is always possible."""
    document = {
        "step_s": 900.0,
        "price_import_per_wh": [1e-4, 1e-4],
        "price_export_per_wh": [0.0, 0.0],
        "inflexible_load_w": [9e5, -5e5],
        "site": {"import_max_w": 5e5, "export_max_w": 0.0},
        "batteries": [],
        "renewables": [{"name": "pv", "available_w": [0.0, 3e5], "curtailable": False}],
        "flexible_loads": [
            {"name": "w", "min_w": 0.0, "max_w": 1e5, "energy_wh": 5e4, "first_step": 0, "last_step": 1}
        ],
        "feeds": [{"tag": "f", "import_max_w": 1e5, "export_max_w": 0.0, "members": ["pv", "w"]}],
        "green": {"share_of_load_frac": 1.0},
    }
    assert answered(document)["conflicts"]
    again = answered(relaxed(document))
    assert again["status"] == "optimal"
    assert again["conflicts"] == []


def test_what_was_sold_is_kept_as_far_as_it_can_be() -> None:
    """More was sold than storage can give: it is said, and no dear hour tempts what there is of it away."""
    bess = {
        "name": "bess", "energy_wh": 1e5, "reserve_wh": 0.0, "initial_wh": 1e5, "final_min_wh": 0.0, "charge_max_w": 1e5,
        "discharge_max_w": 1e5, "efficiency_charge": 1.0, "efficiency_discharge": 1.0, "wear_cost_per_wh": 0.0,
    }  # fmt: skip
    document = {
        "step_s": 3600.0, "price_import_per_wh": [1e-3, 1e-4], "price_export_per_wh": [0.0, 0.0],
        "inflexible_load_w": [2e5, 2e5], "site": {"import_max_w": 1e6, "export_max_w": 0.0}, "batteries": [bess],
        "renewables": [], "flexible_loads": [],
        "reserves": [{"name": "award a1", "direction": "up", "power_w": [1.5e5, 1.5e5], "sustain_h": 1.0}],
    }  # fmt: skip
    found = answered(document)
    assert any("award a1" in line for line in found["conflicts"])
    assert found["batteries"]["bess"]["power_w"] == pytest.approx([0.0, 0.0], abs=1.0)
    assert found["reserve_shortfall_w"]["award a1"] == pytest.approx([5e4, 5e4], abs=1.0)
    free = answered({key: value for key, value in document.items() if key != "reserves"})
    assert free["batteries"]["bess"]["power_w"][0] == pytest.approx(-1e5, abs=1.0)


@pytest.mark.integration
async def test_a_plan_comes_from_a_process_of_its_own() -> None:
    """The real worker answers a day's problem; what makes no sense is refused with its reason."""
    rig = Rig()
    rig.cycle()
    await rig.planner.round()
    answer = await apart("vppd.planning.plan.worker", rig.documents[0], 60.0)
    assert answer["status"] == "optimal"
    with pytest.raises(Refused, match="step_s"):
        await apart("vppd.planning.plan.worker", {**rig.documents[0], "step_s": -1.0}, 60.0)


async def test_patient_work_moves_into_the_sun(capsys: pytest.CaptureFixture[str]) -> None:
    """A night's patient work waits for midday: more of the sun is used, no tier is violated, no deadline missed."""
    plain = GreenDay()
    await plain.play(54.0)
    planned = GreenDay(outlooks(plain.forecasts(), DUSK))
    await planned.play(30.0)
    hours = np.arange(30.0)
    night, midday = (hours >= 8) & (hours < 12), (hours >= 16) & (hours < 19)
    drawn_w, before_w = (np.array(day.drawn_w[:360]).reshape(-1, 12).mean(axis=1) for day in (planned, plain))
    assert (drawn_w[night] < 0.8 * before_w[night]).all()
    assert (drawn_w[midday] > 1.2 * before_w[midday]).all()
    used_frac, before_frac = planned.self_use_frac(30.0), plain.self_use_frac(30.0)
    assert used_frac > before_frac + 0.08
    assert planned.violations() == []
    assert planned.planner is not None
    ledger = planned.planner.ledger
    assert ledger.deferred_wh > 300e3
    assert ledger.late_wh == 0.0
    assert all(key.until > planned.clock.now() for key in ledger.owed)
    with capsys.disabled():
        print(  # noqa: T201
            f"\nself-consumption {used_frac:.1%} with the plan, {before_frac:.1%} without; "
            f"{ledger.deferred_wh / 1e3:.0f} kWh waited, {ledger.late_wh:.0f} late, {len(planned.violations())} tiers violated"
        )
