"""What Prometheus reads of forecasts and of the plan, also while there are none."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

import numpy as np

from tests.planning.market_rig import outlook, outlooks, paths, timetable
from tests.scrape import Scrape, scrape
from vppd.core.forecast.outlook import Outlook
from vppd.planning.forecasts.figures import MOST_SERIES, forecast_figures
from vppd.planning.plan.answer import Plan
from vppd.planning.plan.assemble import Assembled
from vppd.planning.plan.figures import plan_figures
from vppd.planning.plan.tally import Planned, Step
from vppd.plant import plant_of
from vppd.runtime.figures import Figure
from vppd.runtime.metrics import Metrics
from vppd.testing.cycles import START, two_feeds

PLANT = plant_of(two_feeds())
LATER = START + timedelta(minutes=20)


@dataclass
class Foreseen:
    """A forecaster that the test makes up."""

    outlook: dict[str, Outlook] = field(default_factory=dict)
    fault: str = ""


@dataclass
class Planning:
    """A planner that the test makes up."""

    newest: Plan | None = None
    in_force: bool = False
    last_step: Step | None = None
    reason: str = ""


def read(figures: tuple[Figure, ...]) -> Scrape:
    """Return what is told."""
    metrics = Metrics()
    metrics.add(*figures)
    return scrape(metrics.render().decode())


def step(planned_w: float | None, measured_w: float) -> Step:
    """Return a step that is over."""
    n = len(PLANT.asset_ids)
    planned = None if planned_w is None else Planned(np.zeros(n), planned_w, 0.0, 0.0)
    return Step(START, np.zeros(n), np.zeros(n), measured_w, 0.0, planned)


def test_before_anything_is_planned_that_is_what_is_told() -> None:
    """No figure stands in for one that is not there."""
    found = read(plan_figures(Planning(reason="waits for the first forecasts"), lambda: LATER))
    assert found["vppd_plan_in_force",] == 0.0
    assert found["vppd_plan_failing",] == 1.0
    assert found["vppd_plan_status", "none"] == 1.0
    assert not any(name.startswith(("vppd_plan_age", "vppd_plan_cost", "vppd_plan_import")) for name, *_ in found)


def test_a_plan_is_told_with_its_age_and_the_step_under_way() -> None:
    """Twenty minutes into a plan of quarters of an hour the second step is under way."""
    table = replace(timetable(PLANT, {}, {}), import_w=np.arange(96.0), cost=12.5, conflicts=("a", "b"))
    blank = np.zeros((0, 0))
    plan = Plan(table, _assembled(), (), blank, blank, 0.25, None)
    found = read(plan_figures(Planning(plan, in_force=True), lambda: LATER))
    assert found["vppd_plan_age_seconds",] == 1200.0
    assert found["vppd_plan_import_watts",] == 1.0
    assert found["vppd_plan_cost",] == 12.5
    assert found["vppd_plan_conflicts",] == 2
    assert found["vppd_plan_solve_seconds",] == 0.25
    assert found["vppd_plan_status", "optimal"] == 1.0
    assert ("vppd_plan_gap_ratio",) not in found
    over = read(plan_figures(Planning(plan), lambda: START + timedelta(days=2)))
    assert ("vppd_plan_import_watts",) not in over


def _assembled() -> Assembled:
    """Return nothing that was assembled: no figure looks at it."""
    return object.__new__(Assembled)


def test_planned_and_measured_import_of_the_last_step_stand_side_by_side() -> None:
    """What was not measured, or not planned, is left out."""
    both = read(plan_figures(Planning(last_step=step(100e3, 90e3)), lambda: LATER))
    assert both["vppd_plan_step_import_watts", "planned"] == 100e3
    assert both["vppd_plan_step_import_watts", "measured"] == 90e3
    blind = read(plan_figures(Planning(last_step=step(None, np.nan)), lambda: LATER))
    assert not any(name == "vppd_plan_step_import_watts" for name, *_ in blind)


def test_forecasts_are_told_with_age_source_and_score() -> None:
    """A series that was never tried has no loss; each loss is in the units of its series."""
    found = read(forecast_figures(Foreseen(dict(outlooks())), lambda: LATER))
    assert found["vppd_forecast_series",] == len(outlooks())
    assert found["vppd_forecast_age_seconds", "price/import"] == 1200.0
    assert found["vppd_forecast_source_info", "compute/hall-a", "seasonal"] == 1.0
    assert found["vppd_forecast_pinball_watts", "compute/hall-a"] == 0.0
    assert ("vppd_forecast_pinball_currency_per_watthour", "price/import") not in found
    tried = Foreseen({"price/import": outlook("price/import", 1e-4, paths(1e-4, 0.0))}, "too slow")
    priced = read(forecast_figures(tried, lambda: LATER))
    assert priced["vppd_forecast_pinball_currency_per_watthour", "price/import"] == 0.0
    assert priced["vppd_forecast_failing",] == 1.0


def test_a_large_site_is_not_told_series_by_series() -> None:
    """A scrape stays short; how many series there are is told all the same."""
    many = {f"load/m{k}": outlook(f"load/m{k}", 1.0) for k in range(MOST_SERIES + 50)}
    found = read(forecast_figures(Foreseen(many), lambda: LATER))
    assert sum(name == "vppd_forecast_age_seconds" for name, *_ in found) == MOST_SERIES
    assert found["vppd_forecast_series",] == MOST_SERIES + 50
