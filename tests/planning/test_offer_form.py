"""A round of offering survives its way to the worker and back."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import pytest

from tests.planning.market_rig import STEP_S, config, outlooks, product, timetable
from vppd.core.bidding.bid import Bid
from vppd.core.bidding.offering import Unsold
from vppd.core.bidding.quote import Step
from vppd.errors import Refused
from vppd.model import Interval, Obligation
from vppd.planning.trade.connection import nodes_of
from vppd.planning.trade.gates import slots
from vppd.planning.trade.offer_form import Answer, Question, answer, answer_form, question, question_form
from vppd.planning.trade.sales import sale_of
from vppd.planning.trade.shelf import Steps, shelf_of
from vppd.plant import plant_of
from vppd.products import site_of
from vppd.runtime.apart import apart
from vppd.testing.cycles import START

WORKER = "vppd.planning.trade.worker"
SLOT = Interval(START + timedelta(hours=1), START + timedelta(hours=2))


def a_question() -> Question:
    """Return what a desk asks at its first gate, with an award held and a step of which nothing is known."""
    plain = config()
    assert plain.market is not None
    plan = timetable(plant_of(plain), {"ups-a": 0.0}, {"ups-a": 90e3})
    made = product()
    sales = tuple(sale_of(made, slot, "dc1", plain.market, outlooks()) for slot in slots(made, START, 7200.0, 0.0))
    steps = Steps(START, STEP_S, 8)
    shelf = shelf_of(plain.assets, site_of(plain), outlooks(), plan, steps, nodes=nodes_of(plain))
    shelf.stocks[-1].paths_w[3, 2] = np.nan
    return Question(sales, shelf, (Obligation("a", "b", "tso", "quick", "dc1", "up", SLOT, 5e3),), 20.0)


def test_a_question_comes_back_as_it_was() -> None:
    """Infinities, gaps and every digit of the samples."""
    asked = a_question()
    back = question(json.loads(json.dumps(question_form(asked), allow_nan=False)))
    assert (back.sales, back.held, back.shelf.steps) == (asked.sales, asked.held, asked.shelf.steps)
    for one, other in zip(back.shelf.stocks, asked.shelf.stocks, strict=True):
        assert (one.name, one.response_s, one.cost_per_wh) == (other.name, other.response_s, other.cost_per_wh)
        np.testing.assert_array_equal(one.paths_w, other.paths_w)
        assert (one.energy_wh is None) == (other.energy_wh is None)
    assert len(asked.shelf.rooms) == 6
    for room, like in zip(back.shelf.rooms, asked.shelf.rooms, strict=True):
        assert (room.name, room.direction, room.names, room.within_s) == (
            like.name, like.direction, like.names, like.within_s,
        )  # fmt: skip
        np.testing.assert_array_equal(room.room_w, like.room_w)


def test_an_answer_comes_back_as_it_was() -> None:
    """Bids, reasons, what is short."""
    bid = Bid("b", "quick", "dc1", "up", SLOT, (Step(1e5, 1e-4),), "EUR")
    given = Answer((bid,), (Unsold("quick", SLOT, "too little", "down"),), {"a": 1.5}, "optimal")
    assert answer(json.loads(json.dumps(answer_form(given), allow_nan=False))) == given


async def test_the_worker_answers_in_a_process_of_its_own() -> None:
    """Bids for the open slots, of what is left beside the award."""
    given = answer(await apart(WORKER, question_form(a_question()), 60.0))
    assert given.bids
    assert given.short_w == {}


async def test_the_worker_refuses_nonsense() -> None:
    """It says what it cannot understand, and ends with an error."""
    with pytest.raises(Refused, match="cannot be answered"):
        await apart(WORKER, {"sales": []}, 60.0)
