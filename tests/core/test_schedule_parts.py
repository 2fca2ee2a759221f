"""The parts of the schedule: its form, its dynamic program, its bound, its groups."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.schedule_instances import Json, day
from tests.core.schedule_oracle import best_cost
from vppd.core.schedule.bound import least_cost, lowest_ahead
from vppd.core.schedule.groups import grouped
from vppd.core.schedule.plan import excess_frac, settled
from vppd.core.schedule.problem import parse
from vppd.core.schedule.program import Flows, formulate
from vppd.core.schedule.sides import wasteful
from vppd.core.schedule.solver import solve_program
from vppd.core.schedule.storage import best_powers, ladder
from vppd.errors import ConfigError


def _set(*path: str | int, value: object) -> Callable[[Json], None]:
    def change(problem: Json) -> None:
        at = problem
        for key in path[:-1]:
            at = at[key]  # type: ignore[index]
        at[path[-1]] = value  # type: ignore[index]

    return change


def _without(key: str) -> Callable[[Json], None]:
    return lambda problem: problem.pop(key)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(_without("step_s"), "step_s: is missing", id="missing"),
        pytest.param(_without("site"), "site: is missing", id="missing-table"),
        pytest.param(_without("price_import_per_wh"), "price_import_per_wh: is missing", id="missing-series"),
        pytest.param(_set("colour", value=1), "colour: unknown key", id="unknown"),
        pytest.param(_set("site", "feed", value=1), "site.feed: unknown key", id="unknown-inside"),
        pytest.param(_set("batteries", 1, "soc", value=1), "batteries[1].soc: unknown key", id="unknown-in-list"),
        pytest.param(_set("step_s", value=0), "step_s: is 0, must be > 0", id="zero"),
        pytest.param(_set("step_s", value=True), "step_s: must be a finite number", id="boolean"),
        pytest.param(_set("mip_gap", value=-1e-3), "mip_gap: is -0.001, must be >= 0", id="negative"),
        pytest.param(_set("time_limit_s", value=math.inf), "time_limit_s: must be a finite number", id="infinite"),
        pytest.param(_set("step_s", value=10**400), "step_s: must be a finite number", id="huge"),
        pytest.param(_set("price_import_per_wh", value=[]), "price_import_per_wh: needs at least one step", id="empty"),
        pytest.param(_set("inflexible_load_w", value=[1.0]), "inflexible_load_w: has 1 entries", id="length"),
        pytest.param(_set("inflexible_load_w", 7, value=math.nan), "inflexible_load_w[7]: must be a finite", id="nan"),
        pytest.param(_set("renewables", 0, "available_w", 3, value=-1.0), "renewables[0].available_w[3]", id="series"),
        pytest.param(_set("renewables", 0, "curtailable", value=1), "curtailable: must be true or false", id="flag"),
        pytest.param(_set("batteries", 0, "efficiency_charge", value=1.1), "must be > 0, <= 1", id="efficiency"),
        pytest.param(_set("batteries", 1, "name", value="bess-0"), "batteries[1].name: 'bess-0' is taken", id="name"),
        pytest.param(_set("batteries", 1, "name", value=""), "batteries[1].name: must be text", id="no-name"),
        pytest.param(_set("batteries", value={}), "batteries: must be a list", id="not-a-list"),
        pytest.param(_set("batteries", 0, value=3), "batteries[0]: must be an object", id="not-an-object"),
        pytest.param(_set("flexible_loads", 0, "last_step", value=96), "is 96, must be from 0 to 95", id="last-step"),
        pytest.param(_set("flexible_loads", 0, "first_step", value=1.5), "must be a whole number", id="whole"),
    ],
)
def test_mistakes_are_told_with_their_key(change: Callable[[Json], None], said: str) -> None:
    """A problem that is not of the form is refused, with the key and the reason."""
    problem = day(2, 1)
    change(problem)
    with pytest.raises(ConfigError) as caught:
        parse(problem)
    assert said in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    """Every mistake is reported, not only the first."""
    with pytest.raises(ConfigError) as caught:
        parse({"site": {}, "extra": 1})
    assert len(str(caught.value).splitlines()) == 7


def test_only_an_object_is_a_problem() -> None:
    """A document that is not an object is refused."""
    with pytest.raises(ConfigError, match="must be an object"):
        parse([1])


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=40), st.integers(0, 50))
def test_the_least_of_a_window(values: list[int], reach: int) -> None:
    """The least of each window is what looking at all its entries gives."""
    found = lowest_ahead(np.array(values, dtype=np.float64), reach)
    assert found.tolist() == [min(values[k : k + reach + 1]) for k in range(len(values))]


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_of_one_battery_is_below_its_optimum_and_near(seed: int) -> None:
    """A battery's bound at a price per step is at most the textbook program's optimum, and within 1 % of it."""
    rng = np.random.default_rng(seed)
    problem = day(1, 0, negative=True, mixed=seed)
    steps = 24
    price = rng.normal(0.0, 3e-5, steps)
    flat = {"price_import_per_wh": price.tolist(), "price_export_per_wh": price.tolist()}
    problem |= flat | {
        "inflexible_load_w": [0.0] * steps,
        "renewables": [],
        "site": dict.fromkeys(problem["site"], 1e7),
    }
    reference = best_cost(problem, gap_frac=1e-6)
    assert reference is not None
    instance = parse(problem)
    bound = least_cost(instance.batteries, 0, price * instance.step_h, instance.step_h)
    assert bound <= reference[0] + 1e-6
    assert bound >= reference[0] - 0.01 * abs(reference[0])


def test_a_ladder_keeps_reserve_and_final_need() -> None:
    """The cheapest way never goes below the reserve, never above the capacity, and ends with what is needed."""
    instance = parse(day(1, 0, negative=True))
    rungs = ladder(instance.batteries, 0, instance.step_h)
    price_per_w = instance.price_import_per_wh * instance.step_h
    power_w = best_powers(rungs, price_per_w[:, None] * rungs.power_w + rungs.wear)
    assert power_w is not None
    gained = np.where(power_w > 0.0, power_w * 0.95, power_w / 0.95) * instance.step_h
    stored_wh = 150e3 + np.cumsum(gained)
    assert stored_wh.min() >= 30e3 - 1e-3
    assert stored_wh.max() <= 285e3 + 1e-3
    assert stored_wh[-1] >= 150e3 - 1e-3


def test_a_ladder_without_a_way_says_so() -> None:
    """A final need beyond what the rates allow has no way."""
    problem = day(1, 0)
    problem["batteries"][0] |= {"charge_max_w": 0.0, "final_min_wh": 200e3}
    rungs = ladder(parse(problem).batteries, 0, 0.25)
    assert best_powers(rungs, np.zeros((96, len(rungs.move)))) is None


def test_copies_are_one_battery() -> None:
    """Fifty copies are one battery fifty times the size, and different ones stay apart."""
    small, storage, loads = grouped(parse(day(50, 25)), None)
    assert small.batteries.energy_wh.tolist() == pytest.approx([50 * 285e3])
    assert len(small.loads.names) == 8
    assert storage.share.tolist() == pytest.approx([0.02] * 50)
    assert loads.share.sum() == pytest.approx(8.0)
    assert len(grouped(parse(day(50, 25, mixed=1)), None)[0].batteries.names) == 50


def test_waste_cannot_pay_above_zero_with_room_to_export() -> None:
    """At prices above zero no step needs a whole number while the export limit is out of reach, else every step does."""
    problem = day(2, 0)
    assert not wasteful(parse(problem)).any()
    problem["site"]["export_max_w"] = 0.0
    assert not wasteful(parse(problem)).any()
    problem["inflexible_load_w"] = [1e5] * 96
    assert wasteful(parse(problem)).all()


@pytest.mark.parametrize("dearer", [False, True], ids=["convex", "sells-dearer"])
def test_the_whole_program_alone_is_exact(dearer: bool) -> None:
    """With a whole number wherever waste could pay, the program's optimum is the textbook program's, and keeps apart."""
    problem = day(2, 0, negative=True)
    series = ("price_import_per_wh", "price_export_per_wh", "inflexible_load_w")
    problem |= {key: problem[key][:10] for key in series} | {"inflexible_load_w": [1e5] * 10, "renewables": []}
    if dearer:
        problem["price_export_per_wh"] = [0.8 * price for price in problem["price_import_per_wh"]]
    instance = parse(problem)
    program, layout = formulate(instance, whole=True)
    found, reference = solve_program(program, limit_s=20.0, gap_frac=1e-7), best_cost(problem, gap_frac=1e-7)
    assert reference is not None
    assert found.value * layout.scale.money == pytest.approx(reference[0], rel=1e-5)
    flows = layout.flows(found.columns, instance)
    assert (np.minimum(flows.charge_w, flows.discharge_w) < 1.0).all()
    assert (np.minimum(found.columns[layout.imported], found.columns[layout.exported]) < 1e-5).all()


@pytest.mark.parametrize(
    ("change", "at_least_frac"),
    [
        pytest.param({}, -np.inf, id="nothing"),
        pytest.param({"site": {"import_max_w": 900.0, "export_max_w": 1e3}}, 0.05, id="import"),
        pytest.param(
            {"inflexible_load_w": [1e3, -2e3], "site": {"import_max_w": 2e3, "export_max_w": 1e3}}, 0.2, id="export"
        ),
        pytest.param({"final_min_wh": 700.0}, 0.15, id="final"),
        pytest.param({"initial_wh": 950.0}, 0.04, id="capacity"),
        pytest.param({"reserve_wh": 600.0}, 0.1, id="reserve"),
        pytest.param({"need_wh": 10.0}, 0.9, id="load"),
    ],
)
def test_a_plan_that_breaks_something_is_seen(change: Json, at_least_frac: float) -> None:
    """An idle plan is found to break a limit of the site, of a battery or a load's need, and by how much."""
    battery = day(1, 0)["batteries"][0] | {"energy_wh": 900.0, "reserve_wh": 100.0, "initial_wh": 500.0}
    battery |= {"final_min_wh": 500.0} | {key: change[key] for key in change if key in battery}
    load = {"name": "job", "min_w": 0.0, "max_w": 50.0, "energy_wh": change.get("need_wh", 0.0)}
    problem = {
        "step_s": 900.0,
        "price_import_per_wh": [1e-4] * 2,
        "price_export_per_wh": [1e-4] * 2,
        "inflexible_load_w": change.get("inflexible_load_w", [1e3, 0.0]),
        "site": change.get("site", {"import_max_w": 1e3, "export_max_w": 1e3}),
        "batteries": [battery],
        "flexible_loads": [load | {"first_step": 0, "last_step": 1}],
    }
    instance, idle = parse(problem), np.zeros((1, 2))
    found_frac = excess_frac(instance, settled(instance, Flows(idle, idle, idle, np.zeros(2))))
    assert (found_frac <= 1e-9) if not change else (found_frac >= at_least_frac)
