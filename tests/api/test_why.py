"""The chain of reasons: from plant, order and decision, to words."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.runtime.plannable_cluster import Cluster, mixed
from vppd.api.console import status_table
from vppd.api.console_why import why_lines
from vppd.api.view import state_view
from vppd.api.why import why_view
from vppd.core.curtail.bearing import bearing, left_s
from vppd.model import OrderKind
from vppd.runtime.curtailer import Curtailer, Terms
from vppd.runtime.curtailer_story import chosen_view, measured_view
from vppd.snapshot import Snapshot
from vppd.testing.cycles import World

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)


def viewed(world: World, asset: str) -> dict[str, Any]:
    """Return the cycle's part of the chain."""
    snapshot = Snapshot(world.at, world.mono_s, world.readings.copy(), tuple(world.orders))
    return why_view(world.plant.asset_ids.index(asset), world.plant, snapshot, world.history[-1])


def test_an_order_on_the_feed_is_the_first_link() -> None:
    """With what the feed and the site needed, what was decided, and the UPS that bridges."""
    world = World()
    world.step(5)
    order = world.order(OrderKind.LIMIT, "main-a", 300e3)
    world.step(8)
    found = viewed(world, "hall-a")
    assert [o["order_id"] for o in found["orders"]] == [order.order_id]
    assert [need["node"] for need in found["needs"]] == ["main-a", "dc1"]
    assert found["needs"][0]["target_w"] == pytest.approx(297e3)
    assert found["wanted"]["command"] == "setpoint"
    assert [other["asset"] for other in found["covered_by"]] == ["ups-a"]
    text = "\n".join(why_lines(found))
    assert f"ordered  limit 300.0 kW on main-a by tso, order {order.order_id}" in text
    assert "covered  ups-a" in text
    assert "told     nothing since the start" in text


def test_an_increase_says_what_is_drawn_at_least() -> None:
    """The need is told from below, and the battery that charges for it covers it; no limit is told where none is."""
    world = World()
    world.step(5)
    order = world.order(OrderKind.INCREASE, "main-b", 100e3)
    world.step(20)
    found = viewed(world, "hall-b")
    (told,) = found["orders"]
    assert (told["kind"], told["most_w"]) == ("increase", None)
    assert found["needs"][0]["least_w"] == found["needs"][0]["least_target_w"] == pytest.approx(told["least_w"])
    assert [other["asset"] for other in found["covered_by"]] == ["bess-b"]
    text = "\n".join(why_lines(found))
    assert f"ordered  increase 100.0 kW on main-b by tso, order {order.order_id}" in text
    assert "at least 555.5 kW by the ramp, 555.5 kW in the end" in text
    assert "at most" not in text


def test_a_status_and_its_orders_show_an_increase() -> None:
    """The feed's least power has a column while there is one, the order its energy above the baseline."""
    world = World()
    world.step(5)
    world.order(OrderKind.INCREASE, "main-b", 100e3)
    world.order(OrderKind.INCREASE, "dc1", 50e3)
    decision = world.step(60)
    snapshot = Snapshot(world.at, world.mono_s, world.readings.copy(), tuple(world.orders))
    view = state_view(world.plant, snapshot, decision)
    assert view["feeds"][1]["least_w"] == pytest.approx(555.5e3)
    assert view["orders"][0]["added_wh"] == pytest.approx(100e3 * 60.0 / 3600.0, rel=0.1)
    out = Console(width=160, record=True, file=io.StringIO())
    status_table(view, out)
    text = out.export_text()
    assert "least now" in text
    assert "at least 959.5 kW now" in text
    assert "555.5 kW" in text


def test_an_asset_nobody_orders_says_so() -> None:
    """And an order on the other feed is none of its business."""
    world = World()
    world.order(OrderKind.LIMIT, "main-b", 300e3)
    world.step(5)
    found = viewed(world, "ups-a")
    assert (found["orders"], found["covered_by"], found["chosen"]) == ([], [], None)
    assert "ordered  nothing: no order bears on it" in "\n".join(why_lines(found))


def test_the_time_that_orders_go_on_is_that_of_the_last() -> None:
    """0 without any, endless when one has no end; an order on the asset itself counts."""
    world = World()
    world.step(2)
    hall = world.plant.asset_ids.index("hall-a")
    assert left_s(bearing(hall, world.history[-1].demands, world.plant), world.at) == 0.0
    world.order(OrderKind.LIMIT, "main-a", 300e3, for_s=600.0)
    world.order(OrderKind.LIMIT, "hall-a", 100e3, for_s=900.0)
    world.step(1)
    demands = bearing(hall, world.history[-1].demands, world.plant)
    assert len(demands) == 2
    assert left_s(demands, world.at) == pytest.approx(900.0, abs=2.0)
    world.order(OrderKind.LIMIT, "dc1", 700e3, for_s=None)
    world.step(1)
    assert left_s(bearing(hall, world.history[-1].demands, world.plant), world.at) == np.inf


def test_every_touched_job_is_told_and_the_others_are_counted() -> None:
    """What was wanted, what is in force, why, and what is left; then before, expected, now."""
    cluster = Cluster(*mixed())
    planner = Curtailer("hall-a", Terms(window_s=1_200.0), cluster.now)
    planner.shed_w(cluster.look())
    cluster.jobs["j3"].deaf = True
    cluster.live(planner, 0.8 * cluster.full_w, 90)
    planner.plan(cluster.look(), 0.8 * cluster.full_w, cluster.now_s)
    assert planner.story is not None
    world = World()
    world.step(2)
    found = viewed(world, "hall-a")
    found["chosen"] = chosen_view(planner.story, AT, cluster.now_s)
    found["measured"] = measured_view(planner.story, planner.verification, planner.measured_w, AT, cluster.now_s)
    jobs = {job["id"]: job for job in found["chosen"]["jobs"]}
    assert found["chosen"]["at_full_speed"] == len(cluster.jobs) - len(jobs)
    assert jobs["j3"]["reason"] == "left alone for a while: it did not follow"
    assert jobs["j7"]["reason"].startswith("tier 3: slowed to ")
    assert 0.0 < jobs["j7"]["account_left_s"] < 600.0
    assert "j0" not in jobs
    assert found["measured"]["before_w"] == pytest.approx(cluster.full_w)
    assert found["measured"]["delivered_frac"] >= 1.0
    text = "\n".join(why_lines(found, jobs_shown=3))
    assert f"and {len(jobs) - 3} more (--json shows all)" in text
    assert "of the drop is delivered" in text
    assert "verified at 2026-01-01 1" in text
