"""Green power by the calendar: what a period holds so far, what that asks of the plan, and what contracts cover."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from tests.planning.plan_rig import STEP_S, a_day, flat, moment_of, outlook
from vppd.config.planning import GreenPeriod, PlanningConfig
from vppd.errors import Garbled
from vppd.planning.plan.assemble import Assembled, assemble
from vppd.planning.plan.deferral import Ledger
from vppd.planning.plan.file import Kept, packed, unpacked
from vppd.planning.plan.green_account import GreenAccount, account_at, counted, green_view, period_of
from vppd.planning.plan.tally import Step
from vppd.planning.plan.worker import answered
from vppd.testing.cycles import START, World

HELSINKI = ZoneInfo("Europe/Helsinki")
RULES = PlanningConfig(green_load_frac=0.3, green_self_use_frac=0.6, time_limit_s=5.0)


@pytest.mark.parametrize(
    ("at", "period", "start", "end"),
    [
        ("2026-11-21T20:30+00:00", "hour", "2026-11-21T20:00+00:00", "2026-11-21T21:00+00:00"),
        ("2026-11-21T21:59+00:00", "day", "2026-11-20T22:00+00:00", "2026-11-21T22:00+00:00"),
        ("2026-03-29T10:00+00:00", "day", "2026-03-28T22:00+00:00", "2026-03-29T21:00+00:00"),
        ("2026-10-25T10:00+00:00", "day", "2026-10-24T21:00+00:00", "2026-10-25T22:00+00:00"),
        ("2026-12-31T21:59+00:00", "month", "2026-11-30T22:00+00:00", "2026-12-31T22:00+00:00"),
        ("2026-12-31T22:00+00:00", "year", "2026-12-31T22:00+00:00", "2027-12-31T22:00+00:00"),
    ],
)
def test_periods_are_those_of_the_local_calendar(at: str, period: GreenPeriod, start: str, end: str) -> None:
    """Days have 23 or 25 hours where the clock changes; years begin at local midnight."""
    found = period_of(datetime.fromisoformat(at), period, HELSINKI)
    assert found == (datetime.fromisoformat(start), datetime.fromisoformat(end))


def a_step(world: World, import_w: float, pv_w: float, could_w: float, bess_w: float, hall_w: float) -> Step:
    """Return a step over which everything was measured; nothing else ran."""
    power_w = np.zeros(len(world.plant.asset_ids))
    for name, drawn_w in (("pv-b", -pv_w), ("bess-b", bess_w), ("hall-a", hall_w)):
        power_w[world.index(name)] = drawn_w
    unheld_w = power_w.copy()
    unheld_w[world.index("pv-b")] = -could_w
    return Step(START, power_w, unheld_w, import_w, pv_w, None)


def test_a_step_is_counted_at_the_meters() -> None:
    """Used is what was generated less the export; load leaves storage out; contracts cover import and no more."""
    world = World()
    empty = account_at(None, START, "day", HELSINKI)
    night = counted(empty, a_step(world, 400e3, 0.0, 0.0, 100e3, 200e3), 300e3, 1.0, world.plant, RULES)
    assert (night.used_wh, night.contracted_wh, night.load_wh) == (0.0, 300e3, 300e3)
    noon = counted(night, a_step(world, -50e3, 250e3, 300e3, 0.0, 150e3), 300e3, 1.0, world.plant, RULES)
    assert (noon.used_wh, noon.contracted_wh) == (200e3, 300e3)
    assert (noon.available_wh, noon.load_wh) == (300e3, 500e3)
    jobs = counted(
        empty, a_step(world, 400e3, 0.0, 0.0, 0.0, 200e3), 0.0, 0.25, world.plant,
        RULES.model_copy(update={"green_of": "compute"}),
    )  # fmt: skip
    assert jobs.load_wh == 50e3
    shares = green_view(noon, RULES)
    assert shares is not None
    assert shares["so_far"] == {"share_of_load_frac": 1.0, "self_use_frac": pytest.approx(2 / 3)}


def test_what_was_not_measured_does_not_count() -> None:
    """A gap in the meter's readings is neither load nor sun."""
    world = World()
    before = account_at(None, START, "day", HELSINKI)
    assert counted(before, a_step(world, np.nan, 1e3, 1e3, 0.0, 0.0), 0.0, 1.0, world.plant, RULES) == before


def test_a_new_period_begins_with_nothing() -> None:
    """Over midnight, and when another kind of period is asked for, the account is a new one; within it goes on."""
    account = replace(account_at(None, START, "day", HELSINKI), used_wh=5.0)
    assert account_at(account, START + timedelta(minutes=1), "day", HELSINKI) == account
    assert account_at(account, START + timedelta(days=1), "day", HELSINKI).used_wh == 0.0
    assert account_at(account, START, "year", HELSINKI).used_wh == 0.0


def problem(terms: PlanningConfig, account: GreenAccount | None = None, contract_w: float | None = None) -> Assembled:
    """Return the planner's problem at noon."""
    world = World()
    series = a_day() | ({} if contract_w is None else {"contract/wind": outlook("contract/wind", flat(contract_w))})
    moment = replace(moment_of(world), green=account)
    return assemble(moment, world.plant, series, (), {}, terms, STEP_S)


def test_the_day_so_far_is_asked_for_in_full() -> None:
    """The first window ends at midnight and holds what the day holds; what is owed is planned for, and the plan exists."""
    start, end = period_of(START, "day", ZoneInfo("UTC"))
    account = GreenAccount(start, end, 100e3, 50e3, 120e3, 400e3)
    green = problem(RULES, account).document["green"]
    assert green["first_window_steps"] == (end - START) / timedelta(seconds=STEP_S)
    assert green["window_steps"] == 86_400 / STEP_S
    assert green["before"] == {"used_wh": 100e3, "contracted_wh": 50e3, "available_wh": 120e3, "load_wh": 400e3}
    assert answered(problem(RULES, account).document)["cost"] is not None


def test_a_year_is_made_good_over_the_time_that_is_left() -> None:
    """Of what a year is short the plan is asked for the horizon's part; near its end for all of it."""
    terms = RULES.model_copy(update={"green_period": "year"})
    account = GreenAccount(START - timedelta(days=100), START + timedelta(days=100), 0.0, 0.0, 0.0, 100e6)
    before = problem(terms, account).document["green"]["before"]
    assert before["load_wh"] == pytest.approx(100e6 / 100.0)
    late = replace(account, end=START + timedelta(hours=6))
    green = problem(terms, late).document["green"]
    assert green["before"]["load_wh"] == 100e6
    assert green["first_window_steps"] == 6 * 3600 / STEP_S


def test_contracts_cover_what_the_sun_does_not() -> None:
    """With a contract that produces enough at all hours a share is kept that own sun alone cannot keep."""
    terms = RULES.model_copy(update={"green_load_frac": 0.8, "green_self_use_frac": None, "contracts": ("wind",)})
    without = problem(terms)
    assert without.missing[-1] == "contract/wind: no forecast, so nothing of it is counted"
    assert any(name.startswith("green.share_of_load_frac") for name in answered(without.document)["conflicts"])
    covered = problem(terms, contract_w=2e6)
    assert not answered(covered.document)["conflicts"]
    assert covered.contracted_w.tolist() == [2e6] * covered.steps


def test_the_share_may_be_of_the_clusters_alone() -> None:
    """What may not wait in the clusters is what is counted; the rest of the building is not."""
    found = problem(RULES.model_copy(update={"green_of": "compute"}))
    assert found.document["green"]["counted_load_w"] == sum(found.fixed_w.values()).tolist()  # type: ignore[union-attr]


def test_the_account_outlives_a_restart() -> None:
    """What was counted is in the file with what waits; a file of before knows none, and nonsense is refused."""
    account = GreenAccount(*period_of(START, "year", HELSINKI), 1.5, 2.5, 3.5, 4.5)
    kept = unpacked(packed(Kept(Ledger(), "2026-03", 5e5, account)))
    assert kept.green == account
    assert unpacked(b'{"owed": [], "deferred_wh": 0, "late_wh": 0, "month": "", "peak_w": 0}').green is None
    with pytest.raises(Garbled):
        unpacked(packed(kept).replace(b"+00:00", b""))
