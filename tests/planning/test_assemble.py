"""The planner's problem: what goes in, what is named as missing, and what its answer comes to."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.planning.plan_rig import DAY, STEP_S, a_day, by_hour, flat, moment_of, outlook, sunny
from vppd.config.planning import PlanningConfig
from vppd.core.forecast.outlook import Outlook
from vppd.core.schedule.problem import parse
from vppd.errors import Unreachable
from vppd.model import Interval, Obligation, OrderKind
from vppd.planning.plan.answer import Plan, plan_of, wishes
from vppd.planning.plan.assemble import Assembled, assemble
from vppd.planning.plan.deferral import Key, Ledger, Measured, Owed, settled
from vppd.planning.plan.worker import answered
from vppd.testing.cycles import START, World

TERMS = PlanningConfig(time_limit_s=5.0)
DEFERS = (False, False, True, True)


def world_at(soc_frac: float = 0.6) -> World:
    """Return a site with storage at one charge, after a few cycles."""
    world = World()
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), soc_frac, np.nan)
    world.step(3)
    return world


def assembled(
    world: World, outlooks: dict[str, Outlook] | None = None, terms: PlanningConfig = TERMS, **more: Any
) -> Assembled:
    """Return the problem of a day."""
    known: dict[str, Any] = {"obligations": (), "owed": {}} | more
    series = a_day() if outlooks is None else outlooks
    return assemble(moment_of(world), world.plant, series, known["obligations"], known["owed"], terms, STEP_S)


def planned(world: World, problem: Assembled) -> Plan:
    """Return the plan of a problem."""
    return plan_of(problem, answered(problem.document), world.at, world.plant)


def test_a_day_is_a_problem_that_the_schedule_takes() -> None:
    """Two halls, two batteries and PV over 96 quarters of an hour, and nothing is missing."""
    problem = assembled(world_at())
    parsed = parse(problem.document)
    assert parsed.steps == DAY
    assert parsed.batteries.names == ("ups-a", "bess-b")
    assert parsed.renewables.names == ("pv-b",)
    assert len(problem.chunks) == 2 * 2 * 24
    assert problem.missing == ()
    assert parsed.inflexible_load_w == pytest.approx(2 * 150e3 + 2 * 200e3)
    np.testing.assert_allclose(parsed.batteries.reserve_wh, [37e3, 85e3])


def test_what_may_wait_has_its_hour_and_its_deadline() -> None:
    """Work of tier 2 of the hour from 3 to 4 may run until 8, of tier 3 until 16; all of it is asked for."""
    world = world_at()
    loads = {load["name"]: load for load in assembled(world).document["flexible_loads"]}
    tier2, tier3 = loads["hall-a/tier2/2026-01-01T08:00"], loads["hall-a/tier3/2026-01-01T16:00"]
    assert (tier2["first_step"], tier2["last_step"]) == (12, 31)
    assert (tier3["first_step"], tier3["last_step"]) == (12, 63)
    assert tier2["energy_wh"] == pytest.approx(40e3)
    assert tier2["max_w"] == pytest.approx(40e3)
    assert tier2["delay_cost_per_wh_h"] == pytest.approx(1.5e-4 / 4.0)


def test_what_is_not_deferred_is_load() -> None:
    """With no hours to wait nothing is flexible, and all of the demand is there."""
    problem = assembled(world_at(), terms=PlanningConfig(defer_h=(0.0, 0.0, 0.0, 0.0)))
    assert problem.document["flexible_loads"] == []
    assert problem.document["inflexible_load_w"] == pytest.approx([900e3] * DAY)


def test_what_nobody_forecasts_is_named_and_held() -> None:
    """Without forecasts loads and clusters are held at what is measured, sources are not counted on, and all of it is said."""
    world = world_at()
    problem = assembled(world, {})
    said = "\n".join(problem.missing)
    for name in ("load/main-a", "load/main-b", "compute/hall-a", "compute/hall-b", "generation/pv-b"):
        assert name in said
    assert problem.document["inflexible_load_w"] == pytest.approx([900e3] * DAY)
    assert problem.document["price_import_per_wh"] == pytest.approx([80e-6] * DAY, rel=2e-3)
    assert planned(world, problem).timetable.status == "optimal"


def test_without_any_reading_there_is_no_plan() -> None:
    """A load that is neither forecast nor measured is no zero."""
    world = world_at()
    moment = moment_of(world)
    blind = replace(moment.decision.state, base_w=np.full(3, np.nan))
    moment = replace(moment, decision=replace(moment.decision, state=blind))
    with pytest.raises(Unreachable, match="load/main-a"):
        assemble(moment, world.plant, {}, (), {}, TERMS, STEP_S)


def test_the_plan_ends_where_a_forecast_ends() -> None:
    """Prices that are known for six hours make a plan of six hours, and that is said."""
    series = a_day() | {"price/import": outlook("price/import", flat(80e-6, 24))}
    problem = assembled(world_at(), series)
    assert problem.steps == 24
    assert any("price/import: known for 6 h only" in line for line in problem.missing)
    assert parse(problem.document).steps == 24


def test_storage_that_cannot_be_counted_on_is_left_out() -> None:
    """A battery that is silent, and one below its reserve and margin, are not planned, and that is said."""
    world = world_at()
    world.soc_frac[world.index("ups-a")] = 0.33
    world.silent.add("bess-b")
    world.step(15)
    problem = assembled(world)
    assert problem.batteries == ()
    assert any("ups-a: below its reserve" in line for line in problem.missing)
    assert any("bess-b: not to be counted on" in line for line in problem.missing)


def test_a_hall_that_is_isolated_still_draws() -> None:
    """A cluster that cannot be told anything is load, and nothing of it waits."""
    world = world_at()
    world.silent.add("hall-a")
    world.step(15)
    problem = assembled(world)
    assert {chunk.key.asset for chunk in problem.chunks} == {"hall-b"}
    assert problem.document["inflexible_load_w"] == pytest.approx([2 * 150e3 + 300e3 + 200e3] * DAY)


def test_the_present_step_goes_on_from_its_beginning() -> None:
    """In the middle of a step the plan begins with the energy that was stored when the step began."""
    world = world_at()
    world.at = START + timedelta(minutes=20)
    stored_wh = np.full(len(world.plant.asset_ids), np.nan)
    stored_wh[world.index("bess-b")] = 0.55 * 500e3
    problem = assemble(replace(moment_of(world), stored_wh=stored_wh), world.plant, a_day(), (), {}, TERMS, STEP_S)
    assert problem.start == START + timedelta(minutes=15)
    assert [b["initial_wh"] for b in problem.document["batteries"]] == pytest.approx([60e3, 275e3], rel=1e-3)


def test_what_is_owed_runs_by_its_deadline() -> None:
    """Work left from before runs within its time, beside what comes."""
    world = world_at()
    key = Key("hall-a", 3, START + timedelta(hours=3))
    problem = assembled(world, owed={key: Owed(90e3, 60e3)})
    plan = planned(world, problem)
    chunk, run_w = next((c, w) for c, w in plan.chunks if c.key == key)
    assert chunk.last == 11
    assert run_w[:12].sum() * 0.25 == pytest.approx(90e3, rel=1e-6)
    assert run_w[12:].sum() == 0.0


def test_what_is_sold_is_kept_in_the_plan() -> None:
    """Power sold for an hour is planned as power and energy, less what clusters can shed that does not wait."""
    world = world_at(0.9)
    hour = Interval(START + timedelta(hours=17), START + timedelta(hours=18))
    sold = Obligation("a1", "b", "tso", "mfrr", "dc1", "up", hour, 200e3, sustain_s=3600.0)
    problem = assembled(world, obligations=(sold,))
    (row,) = problem.document["reserves"]
    assert max(row["power_w"]) == pytest.approx(200e3 - 2 * 6e3)
    assert [k for k, w in enumerate(row["power_w"]) if w] == [68, 69, 70, 71]
    plan = planned(world, problem)
    assert plan.timetable.conflicts == ()
    gone = replace(sold, resource="main-z")
    assert any("no longer configured" in line for line in assembled(world, obligations=(gone,)).missing)


def test_what_contradicts_gives_way_and_is_named() -> None:
    """More sold than there is: a plan all the same, with what could not be had."""
    world = world_at(0.5)
    sold = Obligation("a1", "b", "tso", "mfrr", "dc1", "up", Interval(START, START + timedelta(hours=4)), 5e6)
    plan = planned(world, assembled(world, obligations=(sold,)))
    assert plan.timetable.status != "infeasible"
    assert any("award a1" in line for line in plan.timetable.conflicts)


def test_no_limit_makes_a_plan_impossible() -> None:
    """A feed that is over its limit anyway gets a plan, and the limit is named."""
    world = world_at()
    series = a_day(load__main_b=flat(900e3))
    plan = planned(world, assembled(world, series))
    assert plan.timetable.conflicts
    assert plan.timetable.steps == DAY


def test_an_order_is_kept_free_in_the_plan() -> None:
    """A limit that is ordered for the evening, and one in force now, are planned for while they last."""
    world = world_at(0.6)
    later = world.order(OrderKind.LIMIT, "dc1", 700e3, after_s=18 * 3600.0, for_s=3600.0)
    world.order(OrderKind.LIMIT, "main-b", 440e3, for_s=7200.0)
    world.step(2)
    moment = moment_of(world)
    moment = replace(moment, snapshot=replace(moment.snapshot, orders=tuple(world.orders)))
    problem = assemble(moment, world.plant, a_day(), (), {}, TERMS, STEP_S)
    plan = planned(world, problem)
    starts = plan.timetable.starts()
    during = [later.interval.contains(start) for start in starts]
    assert sum(during) >= 4
    assert plan.timetable.conflicts == ()
    assert plan.timetable.import_w[during].max() <= 700e3 + 1.0
    assert plan.timetable.import_w[~np.array(during)].max() > 750e3
    on_b = [world.index(name) for name in ("bess-b", "pv-b", "hall-b")]
    feed_w = 150e3 + np.nan_to_num(plan.timetable.power_w[on_b]).sum(axis=0)
    assert feed_w[:8].max() <= 440e3 + 1.0
    assert feed_w[9:].max() > 445e3


def test_green_rules_and_the_billed_peak_go_in() -> None:
    """What the billing period and the supply contract ask is part of the problem."""
    terms = PlanningConfig(
        demand_charge_per_w=0.12, billed_peak_w=5e5, green_load_frac=0.1, green_self_use_frac=0.6, green_period="hour",
        green_shortfall_cost_per_mwh=300.0, carbon_cost_per_t=50.0,
    )  # fmt: skip
    world = world_at()
    series = a_day() | {"carbon": outlook("carbon", flat(0.4))}
    problem = assemble(replace(moment_of(world), peak_w=6e5), world.plant, series, (), {}, terms, STEP_S)
    assert problem.document["demand_charge"] == {"cost_per_w": 0.12, "billed_peak_w": 6e5}
    assert problem.document["green"]["window_steps"] == 4
    assert problem.document["green"]["shortfall_cost_per_wh"] == pytest.approx(3e-4)
    assert problem.document["carbon_cost_per_g"] == pytest.approx(5e-5)
    assert answered(problem.document)["status"] == "optimal"


def test_the_answer_becomes_wishes() -> None:
    """At the dear hours storage discharges and the halls' patient work waits; PV is not held and meters are nobody's."""
    world = world_at(0.9)
    plan = planned(world, assembled(world))
    dear = START + timedelta(hours=19, minutes=35)
    found_w = wishes(plan, dear, world.readings, DEFERS, world.plant)
    assert found_w is not None
    assert found_w[world.index("bess-b")] < -100e3
    assert found_w[world.index("hall-a")] < 299e3
    assert np.isnan(found_w[[world.index("pv-b"), world.index("poi-a")]]).all()
    cheap_w = wishes(plan, START + timedelta(hours=3), world.readings, DEFERS, world.plant)
    assert cheap_w is not None
    assert np.isnan(cheap_w[world.index("hall-a")])
    assert wishes(plan, START + timedelta(days=2), world.readings, DEFERS, world.plant) is None


def test_a_forecast_that_was_too_low_holds_nobody() -> None:
    """More demand than was foreseen is let through: held is what the plan lets wait, and no more than may wait now."""
    world = world_at(0.9)
    plan = planned(world, assembled(world))
    dear = START + timedelta(hours=19, minutes=35)
    hall = world.index("hall-a")
    world.readings.available_w[hall] = 380e3
    found_w = wishes(plan, dear, world.readings, DEFERS, world.plant)
    may_w = world.readings.tier_shed_w[hall, 2:].sum()
    assert found_w is not None
    assert found_w[hall] >= 380e3 - may_w - 1e-6
    world.readings.tier_shed_w[hall] = 0.0
    found_w = wishes(plan, dear, world.readings, DEFERS, world.plant)
    assert found_w is not None
    assert found_w[hall] == pytest.approx(380e3)


def test_storage_without_a_use_is_left_alone() -> None:
    """With one price all day storage has no use in the plan, so it rests and recharges as without one."""
    world = world_at(0.6)
    series = a_day() | {
        "price/import": outlook("price/import", flat(80e-6)),
        "generation/pv-b": outlook("generation/pv-b", flat(0.0)),
    }
    plan = planned(world, assembled(world, series))
    found_w = wishes(plan, START, world.readings, DEFERS, world.plant)
    assert found_w is not None
    assert np.isnan(found_w[world.index("bess-b")])


def test_storage_charges_soon_and_gives_late() -> None:
    """Of equal hours storage charges in the first and gives in the last: the next plan says the same."""
    world = world_at(0.4)
    series = a_day() | {
        "price/import": outlook("price/import", by_hour([50e-6] * 12 + [300e-6] * 4 + [50e-6] * 8)),
        "generation/pv-b": outlook("generation/pv-b", flat(0.0)),
    }
    plan = planned(world, assembled(world, series))
    bess_w = plan.timetable.power_w[world.index("bess-b")]
    charging = np.flatnonzero(bess_w[:48] > 1.0)
    assert len(charging) > 1
    assert charging[0] == 0
    assert (np.diff(charging) == 1).all()
    giving = np.flatnonzero(bess_w < -1.0)
    assert giving[-1] == 63
    assert (np.diff(giving) == 1).all()
    assert plan.assembled.price_import_per_wh[:48] == pytest.approx([50e-6] * 48)


def test_negative_prices_hold_pv_back() -> None:
    """Where export costs money the plan curtails, and the ceiling is a wish."""
    world = world_at(0.9)
    series = a_day() | {
        "price/import": outlook("price/import", by_hour([80e-6] * 10 + [-50e-6] * 4 + [80e-6] * 10)),
        "price/export": outlook("price/export", by_hour([0.0] * 10 + [-60e-6] * 4 + [0.0] * 10)),
        "load/main-b": outlook("load/main-b", flat(10e3)),
        "generation/pv-b": outlook("generation/pv-b", sunny(150e3)),
    }
    plan = planned(world, assembled(world, series))
    found_w = wishes(plan, START + timedelta(hours=12), world.readings, DEFERS, world.plant)
    assert found_w is not None
    assert np.isnan(found_w[world.index("pv-b")]), "holding PV back costs 100 per MWh of its own"
    series |= {"price/export": outlook("price/export", by_hour([0.0] * 10 + [-300e-6] * 4 + [0.0] * 10))}
    plan = planned(world, assembled(world, series))
    found_w = wishes(plan, START + timedelta(hours=12), world.readings, DEFERS, world.plant)
    assert found_w is not None
    assert found_w[world.index("pv-b")] > -140e3


def test_nothing_is_curtailed_for_nothing() -> None:
    """What nobody pays for is exported as far as may be: within the limits of its feed and of the site."""
    world = world_at(0.9)
    series = a_day() | {
        "load/main-b": outlook("load/main-b", flat(0.0)),
        "compute/hall-b": outlook("compute/hall-b", flat(10e3)),
        "generation/pv-b": outlook("generation/pv-b", sunny(150e3)),
        "price/import": outlook("price/import", flat(80e-6)),
    }
    series = {name: o for name, o in series.items() if "hall-b/tier" not in name}
    plan = planned(world, assembled(world, series))
    noon, pv = 48, world.index("pv-b")
    given_w = -plan.timetable.power_w[pv]
    on_b_w = np.nan_to_num(plan.timetable.power_w[[pv, world.index("hall-b"), world.index("bess-b")]]).sum(axis=0)
    assert on_b_w.min() == pytest.approx(-99e3)
    assert given_w[noon] >= 109e3 - 1.0
    assert given_w[30] == pytest.approx(sunny(150e3)[30])
    assert plan.timetable.renewable_w[noon] == pytest.approx(given_w[noon])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), soc_frac=st.floats(0.05, 1.0), minutes=st.integers(0, 1439), scale=st.floats(0.0, 3.0))
def test_whatever_is_known_there_is_a_plan(data: st.DataObject, soc_frac: float, minutes: int, scale: float) -> None:
    """Any of the forecasts may be missing, end early or be far off, anything may be owed or sold: a plan comes of it."""
    world = world_at(soc_frac)
    world.at = START + timedelta(minutes=minutes)
    series = a_day()
    for name in sorted(series):
        what = data.draw(st.sampled_from(["as it is", "missing", "short", "scaled"]), label=name)
        values = np.array(series[name].forecast.values[0])
        if what == "missing":
            del series[name]
        elif what == "short":
            values[minutes // 15 + data.draw(st.integers(0, 60)) :] = np.nan
            series[name] = outlook(name, values)
        elif what == "scaled":
            series[name] = outlook(name, values * scale)
    owed = {
        Key(hall, tier, START + timedelta(hours=data.draw(st.integers(0, 40)))): Owed(
            data.draw(st.floats(0.0, 3e5)), 6e4
        )
        for hall in ("hall-a", "hall-b")
        for tier in (2, 3)
    }
    begin = START + timedelta(minutes=data.draw(st.integers(0, 2000)))
    sold = tuple(
        Obligation(f"a{k}", "b", "tso", "p", where, way, Interval(begin, begin + timedelta(hours=2)), power_w)
        for k, (where, way, power_w) in enumerate(
            data.draw(
                st.lists(
                    st.tuples(
                        st.sampled_from(["dc1", "main-b", "bess-b"]),
                        st.sampled_from(["up", "down"]),
                        st.floats(1e3, 1e6),
                    ),
                    max_size=2,
                )
            )
        )
    )
    plan = planned(world, assembled(world, series, obligations=sold, owed=owed))
    table, n = plan.timetable, len(world.plant.asset_ids)
    assert table.status in ("optimal", "incumbent", "heuristic")
    assert table.power_w.shape == (n, table.steps) == plan.waiting_w.shape
    assert np.isfinite(table.import_w).all()
    halls = [world.index("hall-a"), world.index("hall-b")]
    own_w = np.asarray(plan.assembled.document["inflexible_load_w"])
    fixed_w = sum(plan.assembled.fixed_w.values(), np.zeros(table.steps))
    moved_w = np.nan_to_num(table.power_w).sum(axis=0) + own_w - fixed_w
    used = np.isfinite(table.energy_wh).any(axis=1) == np.isfinite(table.power_w).any(axis=1)
    if used[halls[0] - 3 : halls[0] - 1].all():  # no storage was left to itself
        np.testing.assert_allclose(moved_w, table.import_w, atol=10.0)
    found_w = wishes(plan, world.at, world.readings, DEFERS, world.plant)
    assert found_w is not None
    assert np.isnan(found_w[[world.index("poi-a"), world.index("poi-b")]]).all()


# ---- what is owed ----------------------------------------------------------------------------------------------------


def step_of(plan: Plan, ledger: Ledger, step: int, measured: dict[str, Measured]) -> Ledger:
    """Return what is owed after a step of a plan."""
    budgets_w = {
        name: float(w) for name, w in zip(plan.timetable.asset_ids, plan.timetable.power_w[:, step], strict=True)
    }
    end = plan.timetable.starts()[step] + timedelta(minutes=15)
    return settled(ledger, step, plan.chunks, measured, budgets_w, end, 0.25)


def test_work_that_waited_is_owed_until_it_has_run() -> None:
    """What the plan defers is owed with its deadline; what runs later is owed no more."""
    world = world_at(0.9)
    plan = planned(world, assembled(world))
    ledger = Ledger()
    most_wh = 0.0
    for step in range(plan.timetable.steps):
        ledger = step_of(plan, ledger, step, {})
        most_wh = max(most_wh, sum(o.energy_wh for o in ledger.owed.values()))
    assert most_wh > 100e3
    assert sum(o.energy_wh for o in ledger.owed.values()) < 1e3
    assert ledger.late_wh == 0.0


def test_who_draws_all_he_wants_owes_nothing() -> None:
    """A hall that nothing holds has no work waiting, whatever the plan thought."""
    world = world_at()
    plan = planned(world, assembled(world))
    before = Ledger({Key("hall-a", 3, START + timedelta(hours=5)): Owed(50e3, 60e3)})
    after = step_of(plan, before, 0, {"hall-a": Measured(300e3, 301e3)})
    assert not [key for key in after.owed if key.asset == "hall-a"]


def test_who_is_held_deeper_owes_more_and_who_draws_more_owes_less() -> None:
    """An order below the budget leaves more to run, a floor of the tiers above it less: what was planned is corrected."""
    world = world_at()
    key = Key("hall-a", 3, START + timedelta(hours=5))
    problem = assembled(world, owed={key: Owed(50e3, 60e3)})
    plan = planned(world, problem)
    step, before = 0, Ledger({key: Owed(50e3, 60e3)})
    budget_w = float(plan.timetable.power_w[world.index("hall-a"), step])

    def owed_wh(drawn_w: float) -> float:
        after = step_of(plan, before, step, {"hall-a": Measured(drawn_w, 500e3)})
        return sum(o.energy_wh for k, o in after.owed.items() if k.asset == "hall-a")

    kept_wh = owed_wh(budget_w)
    assert owed_wh(budget_w - 40e3) == pytest.approx(kept_wh + 10e3)
    assert owed_wh(budget_w + 20e3) <= kept_wh - min(5e3, kept_wh) + 1.0
    assert all(
        k.until <= START + timedelta(hours=14) for k in step_of(plan, before, 0, {"hall-a": Measured(1e5, 5e5)}).owed
    )


def test_work_that_misses_its_deadline_is_counted_once() -> None:
    """Held all the time by somebody else, work passes its deadline: late, and still to be run."""
    world = world_at()
    key = Key("hall-a", 3, START + timedelta(minutes=15))
    plan = planned(world, assembled(world, owed={key: Owed(10e3, 60e3)}))
    held = {"hall-a": Measured(0.0, 500e3)}
    ledger = Ledger({key: Owed(10e3, 60e3)})
    for step in range(3):
        ledger = step_of(plan, ledger, step, held)
    assert ledger.late_wh == pytest.approx(10e3)
    assert ledger.owed[key].energy_wh == pytest.approx(10e3)
