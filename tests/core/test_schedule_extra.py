"""The optional keys of an instance: each does what it says, at the least cost, and is named where it cannot be kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from tests.core.schedule_instances import Json, day, odd_day, rich_day
from tests.core.schedule_oracle import best_cost, breaches, cost_of
from vppd.core.schedule.bound import battery_prices, least_cost
from vppd.core.schedule.groups import grouped
from vppd.core.schedule.plan import excess_frac, settled
from vppd.core.schedule.problem import parse
from vppd.core.schedule.program import Flows, formulate
from vppd.core.schedule.report import lines, report
from vppd.core.schedule.solve import Status, solve
from vppd.core.schedule.solver import Verdict, solve_program
from vppd.errors import ConfigError


def site(**changes: object) -> Json:
    """Return four hours at a flat price with one battery that may do nothing else, and no limit in reach."""
    battery = {
        "name": "bess",
        "energy_wh": 1000.0,
        "reserve_wh": 100.0,
        "initial_wh": 500.0,
        "final_min_wh": 0.0,
        "charge_max_w": 400.0,
        "discharge_max_w": 400.0,
        "efficiency_charge": 0.8,
        "efficiency_discharge": 0.8,
    }
    return {
        "step_s": 3600.0,
        "price_import_per_wh": [1e-3] * 4,
        "price_export_per_wh": [5e-4] * 4,
        "inflexible_load_w": [1000.0] * 4,
        "site": {"import_max_w": 1e4, "export_max_w": 1e4},
        "batteries": [battery],
        "renewables": [],
        "flexible_loads": [],
        "mip_gap": 1e-6,
    } | changes


def job(**changes: object) -> Json:
    """Return a load that needs two hours of its most power in four."""
    need = {"name": "job", "min_w": 0.0, "max_w": 100.0, "energy_wh": 200.0, "first_step": 0, "last_step": 3}
    return need | changes


def scheduled(problem: Json) -> Json:
    """Return the answer, checked against the textbook program: every constraint kept, as cheap, told as it is."""
    instance = parse(problem)
    answer = report(instance, solve(instance, perf_counter))
    reference = best_cost(problem, limit_s=20.0, gap_frac=1e-7)
    if answer["status"] == "infeasible":
        assert reference is None
        return answer
    assert reference is not None
    assert not breaches(problem, answer)
    assert cost_of(problem, answer) == pytest.approx(answer["cost"], rel=1e-6, abs=1e-9)
    assert answer["cost"] == pytest.approx(reference[0], rel=1e-4, abs=1e-7)
    assert sum(answer["costs"].values()) == pytest.approx(answer["cost"], rel=1e-9, abs=1e-9)
    return answer


def test_answers_without_optional_keys_have_the_keys_they_had() -> None:
    """An instance that asks for nothing further gets the answer's old form."""
    instance = parse(day(1, 1))
    keys = [
        "status",
        "cost",
        "bound",
        "gap",
        "solve_s",
        "import_w",
        "batteries",
        "renewables",
        "flexible_loads",
        "conflicts",
    ]
    assert list(report(instance, solve(instance, perf_counter))) == keys


def test_a_demand_charge_levels_the_peak() -> None:
    """The import's peak is levelled down to what is billed already, and no further."""
    problem = site(inflexible_load_w=[1000.0, 1300.0, 1000.0, 1000.0], price_export_per_wh=[0.0] * 4)
    problem["batteries"][0]["final_min_wh"] = 500.0
    free = scheduled(problem | {"demand_charge": {"cost_per_w": 0.0}})
    level = scheduled(problem | {"demand_charge": {"cost_per_w": 10.0}})
    billed = scheduled(problem | {"demand_charge": {"cost_per_w": 10.0, "billed_peak_w": 1200.0}})
    assert (free["peak_w"], billed["peak_w"]) == pytest.approx((1300.0, 1200.0), abs=1e-3)
    assert level["peak_w"] == pytest.approx(1000.0 + 300.0 / 2.92, abs=0.1)
    assert billed["costs"]["demand_charge"] == pytest.approx(0.0, abs=1e-6)


def test_a_reserve_towards_less_keeps_headroom_and_energy() -> None:
    """A reserve of 100 W for two hours keeps 250 Wh above the battery's own reserve while it is awarded, not after."""
    reserve = {"name": "mfrr", "direction": "up", "power_w": [0.0, 100.0, 100.0, 0.0], "sustain_h": 2.0}
    bare, held = scheduled(site(carbon_g_per_wh=[0.0] * 4)), scheduled(site(reserves=[reserve]))
    assert bare["batteries"]["bess"]["energy_wh"][3] == pytest.approx(100.0, abs=1e-3)
    assert min(held["batteries"]["bess"]["energy_wh"][:3]) >= 350.0 - 1e-3
    assert held["batteries"]["bess"]["energy_wh"][3] == pytest.approx(100.0, abs=1e-3)
    assert min(held["batteries"]["bess"]["power_w"][1:3]) >= -300.0 - 1e-3
    assert held["reserves"] == {"mfrr": {"bess": [0.0, 100.0, 100.0, 0.0]}}


def test_a_reserve_towards_more_keeps_room() -> None:
    """A reserve that may be told to draw 300 W for an hour needs room in the battery and at the connection."""
    reserve = {"name": "down", "direction": "down", "power_w": [300.0] * 4, "sustain_h": 1.0}
    problem = site(price_import_per_wh=[-1e-3] * 4, price_export_per_wh=[-1e-3] * 4, reserves=[reserve])
    answer = scheduled(problem)
    assert max(answer["batteries"]["bess"]["energy_wh"]) <= 1000.0 - 0.8 * 300.0 + 1e-3
    problem["site"]["import_max_w"] = 1350.0
    assert max(scheduled(problem)["import_w"]) <= 1050.0 + 1e-3


def test_a_load_holds_a_reserve_only_as_far_as_its_deadline_allows() -> None:
    """A load that could be called keeps enough of its later steps free to make up for the call."""
    prices = [4e-3, 3e-3, 1e-3, 2e-3]
    reserve = {
        "name": "up",
        "direction": "up",
        "power_w": [0.0, 0.0, 50.0, 0.0],
        "sustain_h": 1.0,
        "resources": ["job"],
    }
    problem = site(batteries=[], flexible_loads=[job()], price_import_per_wh=prices)
    assert scheduled(problem | {"demand_charge": {"cost_per_w": 0.0}})["flexible_loads"]["job"] == [
        0.0,
        0.0,
        100.0,
        100.0,
    ]
    answer = scheduled(problem | {"reserves": [reserve]})
    assert answer["flexible_loads"]["job"] == pytest.approx([0.0, 50.0, 100.0, 50.0], abs=1e-3)


def test_reserves_share_what_there_is() -> None:
    """Two reserves of one direction do not lean on the same power: a load takes what the battery cannot."""
    first = {"name": "first", "direction": "up", "power_w": [400.0] * 4, "sustain_h": 0.25, "resources": ["bess"]}
    second = {"name": "second", "direction": "up", "power_w": [30.0] * 4, "sustain_h": 0.25}
    answer = scheduled(site(reserves=[first, second], flexible_loads=[job(min_w=10.0)]))
    assert sum(answer["reserves"]["first"]["bess"]) == pytest.approx(1600.0)
    assert min(answer["flexible_loads"]["job"]) >= 40.0 - 1e-3 or "bess" in answer["reserves"]["second"]
    none_left = site(reserves=[first, second])
    none_left["batteries"][0]["initial_wh"] = 230.0
    assert scheduled(none_left)["status"] == "infeasible"


def test_a_reserve_with_a_price_is_held_as_far_as_it_can_be() -> None:
    """Of more than there is all is held that can be, the rest costs its price; below what holding costs none is held."""
    asked = {
        "name": "up",
        "direction": "up",
        "power_w": [500.0, 0.0, 0.0, 0.0],
        "sustain_h": 0.0,
        "resources": ["bess"],
    }
    short = scheduled(site(reserves=[asked | {"shortfall_cost_per_wh": 0.01}]))
    assert scheduled(site(reserves=[asked | {"power_w": [900.0, 0.0, 0.0, 0.0]}]))["status"] == "infeasible"
    assert short["reserve_shortfall_w"]["up"] == pytest.approx([0.0] * 4, abs=1e-3)
    most = scheduled(site(reserves=[asked | {"power_w": [900.0, 0.0, 0.0, 0.0], "shortfall_cost_per_wh": 0.01}]))
    assert most["reserve_shortfall_w"]["up"] == pytest.approx([100.0, 0.0, 0.0, 0.0], abs=1e-3)
    assert most["costs"]["reserve_shortfall"] == pytest.approx(1.0)
    cheap = scheduled(site(reserves=[asked | {"shortfall_cost_per_wh": 0.0}]))
    assert cheap["costs"]["reserve_shortfall"] == 0.0


def test_a_feed_keeps_its_limits() -> None:
    """What is behind a feed stays within the feed's limits, and only its own source is held back for that."""
    sources = [
        {"name": "near", "available_w": [900.0] * 4, "curtailable": True},
        {"name": "far", "available_w": [900.0] * 4, "curtailable": True},
    ]
    members = ["near", "bess"]
    feed = {
        "tag": "a",
        "import_max_w": 300.0,
        "export_max_w": 200.0,
        "members": members,
        "inflexible_load_w": [100.0] * 4,
    }
    answer = scheduled(site(renewables=sources, feeds=[feed], inflexible_load_w=[100.0] * 4))
    assert max(answer["feeds"]["a"]) <= 300.0 + 1e-3
    assert min(answer["feeds"]["a"]) >= -200.0 - 1e-3
    assert answer["renewables"]["far"] == pytest.approx([900.0] * 4)
    assert sum(answer["renewables"]["near"]) < 3000.0


def test_a_feed_has_room_for_what_its_members_hold_ready() -> None:
    """A battery that may be told to draw 250 W more behind a feed of 300 W charges with 50 W at most."""
    reserve = {"name": "down", "direction": "down", "power_w": [250.0] * 4, "sustain_h": 0.25}
    feed = {"tag": "a", "import_max_w": 300.0, "members": ["bess"]}
    cheap = {"price_import_per_wh": [-1e-4, -1e-4, 9e-3, 9e-3], "price_export_per_wh": [-1e-4, -1e-4, 8e-3, 8e-3]}
    answer = scheduled(site(feeds=[feed], reserves=[reserve], **cheap))
    assert max(answer["batteries"]["bess"]["power_w"]) == pytest.approx(50.0, abs=1e-3)


def test_copies_behind_different_feeds_are_told_apart() -> None:
    """Of two batteries that are alike, the one behind a closed feed rests while the other charges."""
    problem = site(price_import_per_wh=[1e-4, 1e-4, 9e-3, 9e-3])
    one = problem["batteries"][0]
    problem["batteries"] = [one, one | {"name": "other"}]
    feed = {"tag": "a", "import_max_w": 0.0, "members": ["bess"]}
    answer = scheduled(problem | {"feeds": [feed]})
    assert max(answer["batteries"]["bess"]["power_w"]) <= 1e-3
    assert max(answer["batteries"]["other"]["power_w"]) > 100.0


def test_waste_that_a_green_rule_pays_for_is_not_planned_with() -> None:
    """Where a loss in a battery would help a rule, the plan is proven against whole numbers, not against the waste."""
    sun = [{"name": "pv", "available_w": [100.0, 700.0, 500.0, 800.0], "curtailable": False}]
    prices = {"price_import_per_wh": [3e-4, 1e-4, 1e-4, 1e-4], "price_export_per_wh": [1e-4] * 4}
    problem = site(inflexible_load_w=[400.0, 300.0, 200.0, 100.0], renewables=sun, **prices)
    answer = scheduled(problem | {"green": {"self_use_frac": 1.0, "shortfall_cost_per_wh": 1e-3}})
    assert answer["status"] == "optimal"


def test_waste_at_a_full_feed_is_not_planned_with() -> None:
    """Behind a feed at its export limit a load must run, dear as it is, when no battery has room: none burns the surplus."""
    sun = [{"name": "pv", "available_w": [300.0] * 4, "curtailable": False}]
    dear = job(energy_wh=0.0, max_w=200.0, delay_cost_per_wh_h=1e-2)
    feed = {"tag": "a", "import_max_w": 900.0, "export_max_w": 200.0, "members": ["bess", "pv", "job"]}
    problem = site(renewables=sun, flexible_loads=[dear], feeds=[feed])
    problem["batteries"][0]["initial_wh"] = 900.0
    answer = scheduled(problem)
    assert answer["status"] == "optimal"
    assert sum(answer["flexible_loads"]["job"]) > 200.0


def test_carbon_has_a_price() -> None:
    """At a price of carbon a load runs when the grid is clean, and the grams bought are told."""
    problem = site(batteries=[], flexible_loads=[job()], price_import_per_wh=[1e-3, 1e-3, 2e-3, 2e-3])
    dirty = problem | {"carbon_g_per_wh": [0.8, 0.8, 0.1, 0.1], "inflexible_load_w": [0.0] * 4}
    assert scheduled(dirty)["carbon_g"] == pytest.approx(160.0)
    clean = scheduled(dirty | {"carbon_cost_per_g": 2e-3})
    assert clean["flexible_loads"]["job"] == pytest.approx([0.0, 0.0, 100.0, 100.0], abs=1e-3)
    assert (clean["carbon_g"], clean["costs"]["carbon"]) == (pytest.approx(20.0), pytest.approx(0.04))


def sunny(**changes: object) -> Json:
    """Return a site whose sun shines in two of four hours, at prices that would rather sell it."""
    prices = {"price_import_per_wh": [1e-4, 1e-4, 9e-4, 9e-4], "price_export_per_wh": [1e-4, 1e-4, 8e-4, 8e-4]}
    sun = [{"name": "pv", "available_w": [0.0, 0.0, 400.0, 400.0], "curtailable": True}]
    return site(batteries=[], inflexible_load_w=[50.0] * 4, renewables=sun, flexible_loads=[job()], **prices) | changes


def test_green_rules_move_work_into_the_sun() -> None:
    """A share of the load from renewables moves a load from cheap hours into sunny ones, as far as needed."""
    asked = scheduled(sunny(green={"share_of_load_frac": 0.5}))
    assert scheduled(sunny(green={"share_of_load_frac": 0.0}))["green"]["share_of_load_frac"] == pytest.approx(0.25)
    assert asked["green"]["share_of_load_frac"] == pytest.approx(0.5, abs=1e-4)
    own = scheduled(sunny(green={"self_use_frac": 0.3}))
    assert own["green"]["self_use_frac"] == pytest.approx(0.3, abs=1e-4)


def test_a_green_rule_with_a_price_is_kept_as_far_as_it_pays() -> None:
    """Missing a rule costs its price a Wh: below what keeping it costs it is missed, above it is kept."""
    rule = {"share_of_load_frac": 0.5, "shortfall_cost_per_wh": 1e-5}
    missed = scheduled(sunny(green=rule))
    assert missed["costs"]["green_shortfall"] == pytest.approx(1e-3, rel=1e-3)
    kept = scheduled(sunny(green=rule | {"shortfall_cost_per_wh": 1e-2}))
    assert kept["costs"]["green_shortfall"] == pytest.approx(0.0, abs=1e-6)


def test_what_a_year_has_in_hand_counts() -> None:
    """A rule counts what was used before the first step: what is in hand need not be earned again, a debt must be."""
    before = {"used_wh": 500.0, "available_wh": 600.0, "load_wh": 600.0}
    ahead = scheduled(sunny(green={"share_of_load_frac": 0.5, "before": before}))
    assert ahead["cost"] == pytest.approx(scheduled(sunny(green={"share_of_load_frac": 0.0}))["cost"])
    lent = {"used_wh": 0.0, "contracted_wh": 500.0}
    assert scheduled(sunny(green={"share_of_load_frac": 0.5, "before": before | lent}))["cost"] == ahead["cost"]
    behind = scheduled(sunny(green={"share_of_load_frac": 0.5, "before": before | {"used_wh": 250.0}}))
    assert behind["green"]["share_of_load_frac"] == pytest.approx(0.625, abs=1e-4)


def test_contracted_power_covers_load_in_the_hours_it_is_produced() -> None:
    """What is bought elsewhere as it is produced counts for the load as far as the site imports then, and moves work there."""
    wind = [0.0, 100.0, 0.0, 0.0]
    alone = scheduled(sunny(green={"share_of_load_frac": 0.5}))
    beside = scheduled(sunny(green={"share_of_load_frac": 0.5, "contracted_w": wind}))
    assert beside["green"]["share_of_load_frac"] >= 0.5 - 1e-6
    assert beside["green"]["contracted_wh"] == pytest.approx(100.0, abs=1e-3)
    assert beside["cost"] < alone["cost"] - 1e-3
    own = sunny(green={"self_use_frac": 0.3, "contracted_w": wind})
    assert scheduled(own)["cost"] == pytest.approx(scheduled(sunny(green={"self_use_frac": 0.3}))["cost"])


def test_contracted_power_that_nobody_draws_counts_for_nothing() -> None:
    """In an hour in which the site exports, wind from elsewhere covers nothing; above the import no more than that."""
    noon = sunny(green={"share_of_load_frac": 0.0, "contracted_w": [0.0, 0.0, 500.0, 500.0]}, flexible_loads=[])
    assert scheduled(noon)["green"] == pytest.approx(
        {"share_of_load_frac": 0.5, "self_use_frac": 0.125, "contracted_wh": 0.0}
    )
    rule = sunny(green={"share_of_load_frac": 0.5, "contracted_w": [0.0, 0.0, 500.0, 500.0]})
    assert scheduled(rule)["cost"] == pytest.approx(scheduled(sunny(green={"share_of_load_frac": 0.5}))["cost"])
    night = sunny(green={"share_of_load_frac": 0.0, "contracted_w": [500.0, 0.0, 0.0, 0.0]}, flexible_loads=[])
    assert scheduled(night)["green"]["contracted_wh"] == pytest.approx(50.0)


def test_a_share_may_be_of_the_compute_alone() -> None:
    """Inflexible load that does not count, cooling say, needs no green power, and neither raises nor lowers the share."""
    rule = {"share_of_load_frac": 0.5}
    whole = scheduled(sunny(green=rule | {"counted_load_w": [50.0] * 4}))
    assert whole["cost"] == pytest.approx(scheduled(sunny(green=rule))["cost"])
    jobs = scheduled(sunny(green=rule | {"counted_load_w": [0.0] * 4}))
    assert jobs["green"]["share_of_load_frac"] == pytest.approx(0.5, abs=1e-4)
    assert jobs["cost"] < whole["cost"] - 1e-3


def test_the_first_window_may_have_begun_before() -> None:
    """The first window is as long as is said, the others as long as all: a day that ends at the second step, then a whole one."""
    rule = {"share_of_load_frac": 0.25, "window_steps": 3, "first_window_steps": 1}
    with_debt = sunny(green=rule | {"before": {"used_wh": 100.0, "available_wh": 0.0, "load_wh": 350.0}})
    answer = scheduled(with_debt)
    assert answer["status"] == "optimal"
    assert answer["flexible_loads"]["job"][0] == pytest.approx(0.0, abs=1e-3)  # 0.25 x (350 + 50) = 100: not a Wh more
    assert sum(answer["flexible_loads"]["job"]) == pytest.approx(200.0, abs=1e-3)


def test_late_energy_costs_its_delay() -> None:
    """At a cost of delay a load runs earlier than prices alone would have it."""
    falling = site(batteries=[], price_import_per_wh=[4e-3, 3e-3, 2e-3, 1e-3])
    patient = scheduled(falling | {"flexible_loads": [job(delay_cost_per_wh_h=5e-4)]})
    assert patient["flexible_loads"]["job"] == pytest.approx([0.0, 0.0, 100.0, 100.0], abs=1e-3)
    assert patient["costs"]["delay"] == pytest.approx(5e-4 * (2.0 + 3.0) * 100.0)
    hasty = scheduled(falling | {"flexible_loads": [job(delay_cost_per_wh_h=2e-3)]})
    assert hasty["flexible_loads"]["job"] == pytest.approx([100.0, 100.0, 0.0, 0.0], abs=1e-3)


def test_a_soft_need_is_served_while_it_pays() -> None:
    """Energy that may stay open is bought below its cost of curtailment, and what is never served is told."""
    soft = job(curtail_cost_per_wh=25e-4, energy_wh=1000.0)
    answer = scheduled(site(batteries=[], price_import_per_wh=[4e-3, 3e-3, 2e-3, 1e-3], flexible_loads=[soft]))
    assert answer["flexible_loads"]["job"] == pytest.approx([0.0, 0.0, 100.0, 100.0], abs=1e-3)
    assert answer["unserved_wh"] == {"job": pytest.approx(800.0)}
    assert answer["costs"]["curtailed_load"] == pytest.approx(2.0)


def test_what_is_held_back_comes_back() -> None:
    """A load that is held back in a dear step draws more in the next ones, dear or not."""
    back = job(energy_wh=0.0, rebound_frac=0.5, rebound_steps=2)
    prices = [4e-3, 3e-3, 2e-3, 1e-3]
    power = scheduled(site(batteries=[], price_import_per_wh=prices, flexible_loads=[back]))["flexible_loads"]["job"]
    missing = 100.0 - np.array(power)
    assert power[1] >= 0.25 * missing[0] - 1e-3
    assert power[2] >= 0.25 * (missing[0] + missing[1]) - 1e-3
    assert sum(power) > 50.0


def _reserve_too_large(p: Json) -> None:
    p["reserves"] = [{"name": "mfrr", "direction": "up", "power_w": [0.0, 900.0, 0.0, 0.0], "sustain_h": 0.0}]


def _reserve_without_energy(p: Json) -> None:
    p["batteries"][0] |= {"initial_wh": 150.0, "charge_max_w": 0.0}
    p["reserves"] = [{"name": "mfrr", "direction": "up", "power_w": [100.0, 0.0, 0.0, 0.0], "sustain_h": 2.0}]


def _reserve_by_nobody(p: Json) -> None:
    p["reserves"] = [{"name": "mfrr", "direction": "down", "power_w": [1.0] * 4, "sustain_h": 0.0, "resources": []}]


def _reserve_beyond_the_connection(p: Json) -> None:
    p["site"]["import_max_w"] = 1000.0
    p["batteries"][0]["initial_wh"] = 100.0
    p["reserves"] = [{"name": "down", "direction": "down", "power_w": [300.0, 0.0, 0.0, 0.0], "sustain_h": 0.1}]


def _feed_too_small(p: Json) -> None:
    feed = {"tag": "a", "import_max_w": 400.0, "members": ["bess"], "inflexible_load_w": [0.0, 900.0, 0.0, 0.0]}
    p["feeds"] = [feed]


def _no_sun(p: Json) -> None:
    p["green"] = {"share_of_load_frac": 0.3, "window_steps": 2}


def _deadline_before_the_call_is_made_up(p: Json) -> None:
    p["flexible_loads"] = [job(energy_wh=400.0)]
    p["reserves"] = [
        {"name": "up", "direction": "up", "power_w": [50.0] * 4, "sustain_h": 1.0, "resources": ["job"]},
    ]


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        pytest.param(
            _reserve_too_large, ["reserves.mfrr.power_w at step 1", "bess: headroom for reserves"], id="power"
        ),
        pytest.param(_reserve_without_energy, ["reserves.mfrr.power_w at step 0", "bess: energy for"], id="energy"),
        pytest.param(_reserve_by_nobody, ["reserves.mfrr.power_w"], id="nobody"),
        pytest.param(_reserve_beyond_the_connection, ["site.import_max_w 1000: room for reserves"], id="connection"),
        pytest.param(_feed_too_small, ["feeds.a.import_max_w 400 at step 1", "bess.discharge_max_w 400"], id="feed"),
        pytest.param(_no_sun, ["green.share_of_load_frac 0.3 at steps 0"], id="green"),
        pytest.param(_deadline_before_the_call_is_made_up, ["job: energy for reserves", "reserves.up"], id="deadline"),
    ],
)
def test_what_cannot_be_kept_is_named(spoil: Callable[[Json], None], names: list[str]) -> None:
    """An instance whose optional keys contradict the rest names them."""
    problem = site()
    spoil(problem)
    answer = scheduled(problem)
    found = "\n".join(map(str, answer["conflicts"]))
    assert answer["status"] == "infeasible"
    assert all(name in found for name in names), found


@pytest.mark.parametrize("negative", [False, True], ids=["positive", "negative"])
def test_a_day_with_everything_costs_what_the_textbook_program_costs(negative: bool) -> None:
    """A day with every optional key costs at most 0.1 % more than the textbook program's bound."""
    problem = rich_day(3, 3, negative=negative)
    instance = parse(problem)
    answer = report(instance, solve(instance, perf_counter))
    reference = best_cost(problem, limit_s=20.0, gap_frac=1e-3)
    assert reference is not None
    assert not breaches(problem, answer)
    assert answer["cost"] <= reference[0] + 1e-3 * abs(reference[0])
    assert answer["cost"] >= reference[1] - 1e-6 * abs(reference[1])


@pytest.mark.parametrize("seed", [0, 2, 23, 328])
def test_odd_days_are_planned(seed: int) -> None:
    """A day with every optional key, drawn by chance, gets a plan that keeps them; 328 is lost on its way out of presolve."""
    problem = odd_day(seed)
    instance = parse(problem)
    answer = report(instance, solve(instance, perf_counter))
    assert answer["status"] in ("optimal", "incumbent")
    assert answer["gap"] <= 0.01
    assert not breaches(problem, answer)


@pytest.mark.parametrize("problem", [rich_day(6, 4), *(odd_day(seed) for seed in (0, 2, 3, 23, 29, 328))])
def test_without_time_every_optional_key_is_kept(problem: Json) -> None:
    """With next to no time the merit order answers a day with every optional key, and keeps them."""
    problem = problem | {"time_limit_s": 1e-3}
    instance = parse(problem)
    answer = report(instance, solve(instance, perf_counter))
    assert answer["status"] == "heuristic"
    assert not breaches(problem, answer)


def test_the_example_in_the_documentation_is_an_instance() -> None:
    """Both examples of docs/scheduling.md together are one instance that has a schedule."""
    text = (Path(__file__).parents[2] / "docs/scheduling.md").read_text(encoding="utf-8")
    plain, further = (json.loads(part.split("```")[0]) for part in text.split("```json")[1:3])
    loads = [plain["flexible_loads"][0] | further["flexible_loads"][0]]
    instance = parse(plain | further | {"flexible_loads": loads})
    assert solve(instance, perf_counter).status is Status.OPTIMAL


def test_without_time_batteries_work_beside_their_reserves_and_rest_where_they_cannot() -> None:
    """The merit order turns batteries over with what reserves may take put aside; where that breaks a feed they rest."""
    answers = []
    cheap = {"price_import_per_wh": [1e-4, 1e-4, 9e-3, 9e-3]}
    closed = site(feeds=[{"tag": "a", "import_max_w": 100.0, "members": ["bess"]}], **cheap)
    for problem in (rich_day(6, 4), closed):
        instance = parse(problem | {"time_limit_s": 1e-3})
        answers.append(report(instance, solve(instance, perf_counter)))
        assert answers[-1]["status"] == "heuristic"
        assert not breaches(problem, answers[-1])
    assert any(any(battery["power_w"]) for battery in answers[0]["batteries"].values())


def test_a_call_that_a_deadline_does_not_allow_is_seen() -> None:
    """A plan whose load holds a reserve in its last step, without time to make up for a call, is seen to break that."""
    reserve = {
        "name": "up",
        "direction": "up",
        "power_w": [0.0, 0.0, 0.0, 50.0],
        "sustain_h": 1.0,
        "resources": ["job"],
    }
    instance = parse(site(batteries=[], flexible_loads=[job()], reserves=[reserve]))
    none_w = np.zeros((0, 4))
    held_w = np.array([[[0.0, 0.0, 0.0, 50.0]]])
    late = Flows(none_w, none_w, np.array([[0.0, 0.0, 100.0, 100.0]]), np.zeros(4), held_w=held_w)
    early = Flows(none_w, none_w, np.array([[0.0, 100.0, 100.0, 50.0]]), np.zeros(4), held_w=held_w)
    assert excess_frac(instance, settled(instance, late)) == pytest.approx(50.0 / 200.0)
    assert excess_frac(instance, settled(instance, early)) <= 1e-9


def test_people_are_told_what_the_cost_is_made_of() -> None:
    """The few lines for people name the parts of the cost, the carbon and the green shares."""
    instance = parse(rich_day(2, 2))
    said = "\n".join(lines(instance, solve(instance, perf_counter)))
    assert "of that: energy" in said
    assert "carbon" in said
    assert " kg" in said
    assert "is used on site" in said


def _coupled(seed: int) -> Json:
    """Return two batteries that share reserves and a feed, at prices below zero half of the time."""
    rng, steps = np.random.default_rng(seed), 8
    buy = rng.normal(-2e-4, 1e-3, steps)
    prices = {"price_import_per_wh": buy.tolist(), "price_export_per_wh": (buy - 0.1 * np.abs(buy)).tolist()}
    problem = site(inflexible_load_w=[1000.0] * steps, **prices)
    problem["batteries"] = [
        problem["batteries"][0]
        | {"name": f"b{k}", "energy_wh": rng.uniform(600.0, 1500.0), "initial_wh": rng.uniform(300.0, 500.0)}
        | {"wear_cost_per_wh": rng.uniform(0.0, 1e-4)}
        for k in range(2)
    ]
    problem["reserves"] = [
        {"name": way, "direction": way, "sustain_h": sustain_h}
        | {"power_w": (300.0 * rng.random(steps) * (rng.random(steps) < 0.6)).tolist()}
        for way, sustain_h in (("up", 0.5), ("down", 0.7))
    ]
    return problem | {"feeds": [{"tag": "f", "import_max_w": 450.0, "members": ["b0", "b1"]}]}


def test_batteries_optima_at_all_their_prices_prove_more_than_the_relaxation() -> None:
    """The bound with reserves and a feed is never above the textbook program's optimum, and often above the relaxation."""
    raised = 0
    for seed in (0, 5, 8, 17, 22, 58):
        problem = _coupled(seed)
        instance, reference = parse(problem), best_cost(problem, gap_frac=1e-7)
        program, layout = formulate(instance)
        relaxed = solve_program(program, limit_s=5.0)
        if reference is None or relaxed.verdict is not Verdict.SOLVED:
            continue
        power, stored = battery_prices(program, layout, relaxed.row_dual)
        assert stored is not None
        b, lower = grouped(instance, None)[0].batteries, relaxed.value * layout.scale.money
        for k in range(2):
            into, out, held = (
                relaxed.columns[of[k]] * layout.scale.power_w for of in (layout.charge, layout.discharge, layout.stored)
            )
            wear = b.wear_cost_per_wh[k] / 2.0 * float((into + out).sum())
            part = float(power[k] @ (into - out) + stored[k] @ held * instance.step_h) + wear * instance.step_h
            lower += max(0.0, least_cost(b, k, power[k], instance.step_h, stored[k]) - part)
        assert lower <= reference[0] + 1e-6
        raised += lower > relaxed.value * layout.scale.money + 1e-6
    assert raised >= 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"demand_charge": {}}, "demand_charge.cost_per_w: is missing", id="demand"),
        pytest.param({"carbon_cost_per_g": 1.0}, "carbon_g_per_wh: is missing", id="carbon"),
        pytest.param({"green": {}}, "green.share_of_load_frac: is missing", id="green"),
        pytest.param({"green": {"self_use_frac": 2}}, "green.self_use_frac: is 2, must be", id="green-part"),
        pytest.param({"green": {"self_use_frac": 1, "window_steps": 0}}, "is 0, must be from 1 to", id="window"),
        pytest.param(
            {"green": {"self_use_frac": 1, "window_steps": 2, "first_window_steps": 3}},
            "green.first_window_steps: is 3, must be from 1 to 2",
            id="first-window",
        ),
        pytest.param(
            {"green": {"share_of_load_frac": 1, "contracted_w": [-1.0] * 4}}, "green.contracted_w[0]", id="contracted"
        ),
        pytest.param({"reserves": [{"name": "r"}]}, "reserves[0].direction: is missing", id="reserve"),
        pytest.param({"feeds": [{"tag": "a", "members": ["x"]}]}, "'x' is no battery or flexible load", id="member"),
        pytest.param({"feeds": [{"tag": "a", "extra": 1}]}, "feeds[0].extra: unknown key", id="unknown"),
        pytest.param({"feeds": [{"tag": "a"}, {"tag": "a"}]}, "feeds[1].tag: 'a' is taken", id="taken"),
        pytest.param({"flexible_loads": [job(rebound_frac=0.5)]}, "need one another", id="rebound"),
        pytest.param({"flexible_loads": [job(delay_cost_per_wh_h=-1)]}, "delay_cost_per_wh_h: is -1", id="delay"),
    ],
)
def test_mistakes_in_optional_keys_are_told_with_their_key(change: Json, said: str) -> None:
    """An optional key that is not of the form is refused, with the key and the reason."""
    with pytest.raises(ConfigError) as caught:
        parse(site() | change)
    assert said in str(caught.value)
