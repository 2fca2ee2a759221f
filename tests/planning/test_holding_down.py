"""The account of what was sold to draw more, or both ways: over restarts, with its alarms, told once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.planning.test_holding import Book, cycle, run, sold
from vppd.model import OrderKind, Signal
from vppd.planning.trade.holding import looks
from vppd.planning.trade.settling import SAVE_S, Settling
from vppd.testing.cycles import START, World, two_feeds


@pytest.fixture
def world() -> World:
    """Return a plant whose storage rests half full, having run for a while."""
    config = two_feeds()
    assets = tuple(a.model_copy(update={"soc_target_frac": 0.5}) for a in config.assets)
    made = World(config=config.model_copy(update={"assets": assets}), base_w={"main-a": 50e3, "main-b": 50e3})
    made.soc_frac[:] = np.where(np.isfinite(made.soc_frac), 0.5, np.nan)
    made.step(30)
    made.at = START
    return made


def watching(book: Book, world: World) -> Settling:
    """Return a desk's account as a process begins it."""
    settling = Settling(book, world.plant, None, book.written.append)
    settling.restore(book.saved())
    return settling


def test_a_restart_in_the_middle_of_an_increase_loses_little(world: World) -> None:
    """Ordered in the middle of its slot and across a restart: one statement, with the energy of both processes."""
    book = Book([sold("a", 150e3, 1200.0, direction="down", sustain_s=600.0)])
    run(world, watching(book, world), 300.0)
    world.order(OrderKind.INCREASE, "dc1", 150e3, product="quick", for_s=600.0)
    first = watching(book, world)
    run(world, first, 300.0)
    (shown,) = first.view()
    assert shown["ordered_w"] == 150e3
    assert shown["delivered_w"] == pytest.approx(150e3, rel=0.03)
    run(world, watching(book, world), 650.0)
    (told,) = book.statements
    assert told["held_frac"] == pytest.approx(1.0, abs=0.06)
    assert told["complete_frac"] > 1.0 - (SAVE_S + 120.0) / 1200.0
    assert told["ordered_wh"] == pytest.approx(150e3 / 6.0, rel=0.12)
    assert told["delivered_wh"] == pytest.approx(told["ordered_wh"], rel=0.1)
    assert told["lowest_w"] > 100e3


@pytest.mark.parametrize(("direction", "soc_frac"), [("down", 0.99), ("symmetric", 0.99), ("symmetric", 0.31)])
def test_what_is_missing_on_a_side_is_said(world: World, direction: str, soc_frac: float) -> None:
    """Full storage cannot charge, empty storage cannot give: said once when it is noticed, and once when it is back."""
    book = Book([sold("a", 250e3, 1200.0, direction=direction, resource="bess-b", sustain_s=900.0)])
    if direction == "symmetric":
        book.obligations[0] = sold("a", 90e3, 1200.0, direction=direction, resource="ups-a", sustain_s=900.0)
    with capture_logs() as logs:
        settling = watching(book, world)
        run(world, settling, 130.0)
        for frac in (soc_frac, 0.6):
            world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), frac, np.nan)
            world.state, world.orders = type(world.state).first(world.plant), []
            run(world, settling, 130.0)
    said = [entry["event"] for entry in logs if entry["event"].startswith("sold_power")]
    assert said == ["sold_power_missing", "sold_power_back"]


def test_a_signal_both_ways_is_told_with_what_it_moved(world: World) -> None:
    """A regulation up and down for a slot: held, and the energy of both ways."""
    book = Book([sold("a", 80e3, 300.0, direction="symmetric", sustain_s=60.0)])
    world.order(OrderKind.REGULATION, "dc1", 80e3, product="quick", for_s=300.0)
    settling = watching(book, world)
    for k in range(330):
        world.signals[:] = [Signal("tso", 1.0 if k // 30 % 2 else -1.0, world.mono_s)]
        settling.take(*cycle(world))
    (told,) = book.statements
    assert told["held_frac"] == 1.0
    assert told["ordered_wh"] == pytest.approx(80e3 * 300.0 / 3600.0, rel=0.1)
    assert told["delivered_wh"] == pytest.approx(told["ordered_wh"], rel=0.1)


def test_an_increase_that_nothing_follows_is_short(world: World) -> None:
    """What the meter does not show was not delivered."""
    world.stuck.update({"bess-b", "ups-a"})
    world.order(OrderKind.INCREASE, "dc1", 100e3, product="quick", for_s=300.0)
    told = _told(world, Book([sold("a", 100e3, 300.0, direction="down", sustain_s=60.0)]))
    assert told["delivered_wh"] == pytest.approx(0.0, abs=300.0)
    assert told["ordered_wh"] == pytest.approx(100e3 / 12.0, rel=0.1)


def _told(world: World, book: Book) -> dict[str, Any]:
    run(world, watching(book, world), 330.0)
    (told,) = book.statements
    return told


def test_work_that_the_plan_puts_off_is_there_for_an_increase_alone(world: World) -> None:
    """It runs when an increase is ordered; a signal counts from a baseline that has it in already."""
    world.soc_frac[:] = np.where(np.isfinite(world.soc_frac), 1.0, np.nan)
    world.preferred_w = np.full(len(world.plant.asset_ids), np.nan)
    world.preferred_w[world.index("hall-a")] = 220e3
    world.step(60)
    assert world.power_w[world.index("hall-a")] == pytest.approx(220e3)
    more, both = (sold(side, 60e3, direction=side, resource="main-a", sustain_s=60.0) for side in ("down", "symmetric"))
    found = looks([more], *cycle(world), world.plant)["down"]
    assert found.there_w == pytest.approx(60e3)
    assert looks([both], *cycle(world), world.plant)["symmetric"].there_w == pytest.approx(0.0, abs=2e3)
    world.order(OrderKind.INCREASE, "main-a", 60e3, product="quick", for_s=300.0)
    world.preferred_w[world.index("hall-a")] = np.nan
    world.step(60)
    found = looks([more], *cycle(world), world.plant)["down"]
    assert found.delivered_w == pytest.approx(60e3, rel=0.03)
