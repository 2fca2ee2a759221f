"""The schedule is feasible, as cheap as a textbook program's, honest about its quality, and always there in time."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np
import pytest

from tests.core.schedule_instances import Json, day, floors
from tests.core.schedule_oracle import best_cost, breaches, cheapest_by_enumeration, cost_of
from vppd.core.schedule.problem import parse
from vppd.core.schedule.program import formulate
from vppd.core.schedule.report import report
from vppd.core.schedule.solve import solve
from vppd.core.schedule.solver import solve_program


def scheduled(problem: Json) -> Json:
    """Return the answer to a problem, checked against everything that holds for any answer with a plan."""
    instance = parse(problem)
    answer = report(instance, solve(instance, perf_counter))
    if answer["status"] != "infeasible":
        assert not breaches(problem, answer)
        assert cost_of(problem, answer) == pytest.approx(answer["cost"], rel=1e-6, abs=1e-9)
    return answer


def small(**changes: object) -> Json:
    """Return four hours with one battery and nothing else, prices falling below zero in between."""
    battery = {
        "name": "bess",
        "energy_wh": 900.0,
        "reserve_wh": 100.0,
        "initial_wh": 500.0,
        "final_min_wh": 500.0,
        "charge_max_w": 400.0,
        "discharge_max_w": 400.0,
        "efficiency_charge": 0.5,
        "efficiency_discharge": 0.5,
        "wear_cost_per_wh": 0.0,
    }
    return {
        "step_s": 3600.0,
        "price_import_per_wh": [1e-3, -2e-3, -2e-3, 3e-3],
        "price_export_per_wh": [1e-3, -2e-3, -2e-3, 3e-3],
        "inflexible_load_w": [0.0] * 4,
        "site": {"import_max_w": 1e4, "export_max_w": 1e4},
        "batteries": [battery],
        "renewables": [],
        "flexible_loads": [],
        "time_limit_s": 10.0,
        "mip_gap": 1e-6,
    } | changes


def constant(steps: int, **changes: object) -> Json:
    """Return a site at a constant price."""
    prices = {"price_import_per_wh": [1e-4] * steps, "price_export_per_wh": [1e-4] * steps}
    return small(inflexible_load_w=[0.0] * steps, **prices) | changes


def test_the_day_that_peers_were_measured_on() -> None:
    """A day of 50 batteries, 25 loads and PV costs what a hand-built program for the same day was measured to cost."""
    answer = scheduled(day(50, 25))
    assert answer["status"] == "optimal"
    assert answer["cost"] == pytest.approx(14733.01, abs=0.02)


@pytest.mark.parametrize("negative", [False, True], ids=["positive", "negative"])
@pytest.mark.parametrize("mixed", [None, 1], ids=["copies", "mixed"])
def test_costs_what_the_textbook_program_costs(negative: bool, mixed: int | None) -> None:
    """A day of a few batteries and loads costs at most 0.1 % more than the textbook program's optimum."""
    problem = day(3, 3, negative=negative, mixed=mixed)
    answer, reference = scheduled(problem), best_cost(problem, limit_s=20.0)
    assert reference is not None
    cost, bound = reference
    assert answer["status"] == "optimal"
    assert answer["cost"] <= cost + 1e-3 * abs(cost)
    assert answer["cost"] >= bound - 1e-6 * abs(bound)
    assert answer["bound"] <= cost + 1e-6 * abs(cost)


@pytest.mark.parametrize("mixed", [None, 1], ids=["copies", "mixed"])
def test_fifty_batteries_at_negative_prices(mixed: int | None) -> None:
    """50 batteries, 25 loads and PV at negative prices are proven within 0.1 %."""
    answer = scheduled(day(50, 25, negative=True, mixed=mixed))
    assert answer["status"] == "optimal"
    assert answer["gap"] <= 1e-3


@pytest.mark.parametrize("convex", [True, False], ids=["convex", "sells-dearer"])
def test_loads_with_floors_at_negative_prices_are_answered_in_time(convex: bool) -> None:
    """10 batteries, 5 PV plants and 5 loads that never fall below half, prices below 0: an answer within the cap."""
    problem = floors(convex=convex) | {"time_limit_s": 3.0}
    began = perf_counter()
    answer = scheduled(problem)
    assert perf_counter() - began < 3.5
    assert answer["status"] in ("optimal", "incumbent")
    assert answer["cost"] < -1515.0


@pytest.mark.parametrize("problem", [day(50, 25, mixed=1), day(20, 10, negative=True, mixed=2), floors(convex=False)])
def test_without_time_the_merit_order_answers(problem: Json) -> None:
    """With next to no time the answer is the merit order's, labelled so, and keeps every constraint."""
    answer = scheduled(problem | {"time_limit_s": 1e-3})
    assert answer["status"] == "heuristic"
    assert (answer["bound"], answer["gap"]) == (None, None)


def test_short_of_time_the_best_plan_so_far_answers() -> None:
    """A gap that cannot be reached in time gives the best plan and the gap that was reached."""
    answer = scheduled(floors(convex=True) | {"time_limit_s": 0.5, "mip_gap": 0.0})
    assert answer["status"] in ("incumbent", "heuristic")
    assert answer["gap"] is None or answer["gap"] > 1e-6


def test_a_battery_alone_costs_what_trying_all_costs() -> None:
    """At prices below zero one battery's plan is as good as the best of all that were tried, on its rungs and between."""
    problem = small()
    answer, reference = scheduled(problem), best_cost(problem, gap_frac=1e-7)
    assert reference is not None
    assert answer["cost"] <= cheapest_by_enumeration(problem, 4) + 1e-9
    assert answer["cost"] == pytest.approx(reference[0], abs=1e-6)


def test_never_charges_and_discharges_at_once() -> None:
    """Where waste is paid for the relaxation does both at once and costs less than any schedule can."""
    problem = day(2, 0, negative=True) | {"mip_gap": 1e-6}
    instance = parse(problem)
    program, layout = formulate(instance)
    relaxed = solve_program(program, limit_s=5.0)
    flows = layout.flows(relaxed.columns, instance)
    assert ((flows.charge_w > 1.0) & (flows.discharge_w > 1.0)).any()
    answer, reference = scheduled(problem), best_cost(problem, limit_s=20.0)
    assert reference is not None
    assert answer["cost"] > relaxed.value * layout.scale.money + 0.05
    assert answer["cost"] == pytest.approx(reference[0], rel=1e-3)


def test_never_imports_and_exports_at_once() -> None:
    """Where selling is dearer than buying the site still trades in one direction a step."""
    problem = small(price_import_per_wh=[1e-3] * 4, price_export_per_wh=[5e-3] * 4, inflexible_load_w=[100.0] * 4)
    answer, reference = scheduled(problem), best_cost(problem, gap_frac=1e-7)
    assert reference is not None
    assert answer["cost"] == pytest.approx(reference[0], abs=1e-6)


def test_copies_share_alike_and_sizes_count() -> None:
    """Batteries that are the same but for their size get power in proportion to it."""
    problem = constant(4, price_import_per_wh=[1e-4, 1e-4, 5e-4, 5e-4])
    twice = {key: 2.0 * value for key, value in problem["batteries"][0].items() if key.endswith(("_wh", "_w"))}
    one = problem["batteries"][0] | {"efficiency_charge": 0.95, "wear_cost_per_wh": 0.0}
    other = one | twice | {"name": "double", "wear_cost_per_wh": 0.0}
    answer = scheduled(problem | {"batteries": [one, other], "inflexible_load_w": [5e3] * 4})
    powers = [np.array(answer["batteries"][name]["power_w"]) for name in ("bess", "double")]
    assert np.abs(powers[0]).max() > 1.0
    assert 2.0 * powers[0] == pytest.approx(powers[1], abs=1e-3)


def test_curtails_only_what_it_may() -> None:
    """Below zero the site curtails what may be curtailed and takes the rest."""
    sources = [
        {"name": "may", "available_w": [100.0, 100.0], "curtailable": True},
        {"name": "must", "available_w": [50.0, 50.0], "curtailable": False},
    ]
    prices = {"price_import_per_wh": [1e-3, -1e-3], "price_export_per_wh": [1e-3, -1e-3]}
    answer = scheduled(small(inflexible_load_w=[0.0, 0.0], batteries=[], renewables=sources, **prices))
    assert answer["renewables"] == {"may": [100.0, 0.0], "must": [50.0, 50.0]}
    assert answer["import_w"] == [-150.0, -50.0]


def test_a_load_runs_in_its_cheapest_steps_and_no_others() -> None:
    """A flexible load takes at least its energy, in the cheap steps of its window, both ends included."""
    load = {"name": "job", "min_w": 0.0, "max_w": 100.0, "energy_wh": 150.0, "first_step": 1, "last_step": 3}
    prices = {"price_import_per_wh": [1e-3, 4e-3, 3e-3, 2e-3], "price_export_per_wh": [0.0] * 4}
    answer = scheduled(small(batteries=[], flexible_loads=[load], **prices))
    assert answer["flexible_loads"]["job"] == [0.0, 0.0, 50.0, 100.0]


def _too_little_import(p: Json) -> None:
    p["inflexible_load_w"] = [500.0] * 4
    p["site"]["import_max_w"] = 300.0


def _too_much_sun(p: Json) -> None:
    p["renewables"] = [{"name": "pv", "available_w": [5e3] * 4, "curtailable": False}]
    p["site"]["export_max_w"] = 1e3


def _too_much_work(p: Json) -> None:
    job = {"name": "job", "min_w": 0.0, "max_w": 10.0, "energy_wh": 100.0, "first_step": 0, "last_step": 3}
    p["flexible_loads"] = [job]


def _too_full_at_the_end(p: Json) -> None:
    p["batteries"][0] |= {"initial_wh": 100.0, "final_min_wh": 890.0, "charge_max_w": 100.0}


def _jobs_that_do_not_fit(p: Json) -> None:
    job = {"min_w": 0.0, "max_w": 100.0, "energy_wh": 380.0, "first_step": 0, "last_step": 3}
    p["site"]["import_max_w"] = 150.0
    p["batteries"] = []
    p["flexible_loads"] = [job | {"name": "one"}, job | {"name": "two"}]


def _below_its_reserve(p: Json) -> None:
    p["batteries"][0] |= {"reserve_wh": 800.0, "initial_wh": 100.0, "final_min_wh": 0.0}


def _reserve_above_capacity(p: Json) -> None:
    p["batteries"][0]["reserve_wh"] = 1000.0


def _least_above_most(p: Json) -> None:
    job = {"name": "job", "min_w": 20.0, "max_w": 10.0, "energy_wh": 0.0, "first_step": 0, "last_step": 3}
    p["flexible_loads"] = [job]


def _surplus_only_waste_could_take(p: Json) -> None:
    # The battery is full and must end full: only charging while discharging would take the surplus.
    p["renewables"] = [{"name": "pv", "available_w": [50.0] * 4, "curtailable": False}]
    p["site"] = {"import_max_w": 1e4, "export_max_w": 0.0}
    p["batteries"][0] |= {"initial_wh": 900.0, "final_min_wh": 900.0}


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        pytest.param(
            _too_little_import, ["site.import_max_w 300", "inflexible_load_w", "bess.initial_wh"], id="import"
        ),
        pytest.param(_too_much_sun, ["site.export_max_w 1000", "renewables.pv.available_w"], id="export"),
        pytest.param(_too_much_work, ["flexible_loads.job: energy_wh 100", "max_w 10"], id="energy-by-itself"),
        pytest.param(_too_full_at_the_end, ["bess.final_min_wh 890", "bess.charge_max_w 100"], id="final"),
        pytest.param(_jobs_that_do_not_fit, ["one.energy_wh", "two.energy_wh", "site.import_max_w 150"], id="two-jobs"),
        pytest.param(_below_its_reserve, ["bess.reserve_wh 800", "bess.charge_max_w 400"], id="reserve"),
        pytest.param(_reserve_above_capacity, ["bess: reserve_wh 1000 is above energy_wh 900"], id="reserve-capacity"),
        pytest.param(_least_above_most, ["job: min_w 20 is above max_w 10"], id="least-most"),
        pytest.param(_surplus_only_waste_could_take, ["no charging and discharging at once", "pv"], id="apart"),
    ],
)
def test_what_cannot_be_done_is_named(spoil: Callable[[Json], None], names: list[str]) -> None:
    """An instance without a schedule names the constraints that contradict one another."""
    problem = small()
    spoil(problem)
    answer = scheduled(problem)
    assert answer["status"] == "infeasible"
    assert (answer["cost"], answer["import_w"], answer["batteries"]) == (None, [], {})
    found = "\n".join(map(str, answer["conflicts"]))
    assert all(name in found for name in names), found
    assert best_cost(problem) is None


def test_conflicts_name_nothing_beside_the_point() -> None:
    """What has no part in the contradiction is not named."""
    problem = small()
    _jobs_that_do_not_fit(problem)
    spare = {"name": "spare", "min_w": 0.0, "max_w": 100.0, "energy_wh": 0.0, "first_step": 0, "last_step": 3}
    problem["flexible_loads"].append(spare)
    conflicts = scheduled(problem)["conflicts"]
    assert not [name for name in conflicts if "spare" in name or "export" in name]


def test_nothing_to_decide_is_an_answer() -> None:
    """A site with nothing but its load has one schedule."""
    answer = scheduled(constant(2, batteries=[], inflexible_load_w=[100.0, 0.0]))
    assert (answer["status"], answer["import_w"]) == ("optimal", [100.0, 0.0])
    assert answer["cost"] == pytest.approx(0.01)


def test_free_energy_is_an_answer() -> None:
    """Prices of zero throughout are solved like any others."""
    free = [0.0] * 4
    answer = scheduled(small(price_import_per_wh=free, price_export_per_wh=free))
    assert (answer["status"], answer["cost"]) == ("optimal", 0.0)
