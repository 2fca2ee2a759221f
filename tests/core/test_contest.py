"""Who speaks for a series: rules of the contest between feeds and our own method."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vppd.core.forecast.contest import BETTER_FRAC, LEAST_ORIGINS, Contestant, ranked, relative_loss
from vppd.core.forecast.quantiles import Forecast, Score, Trials
from vppd.snapshot import Floats

ROWS, STEPS = 2 * LEAST_ORIGINS, 4


def said(losses: Floats | float = 1.0, learnt: int = LEAST_ORIGINS) -> Forecast:
    """Return a forecast with the losses of its back-test."""
    rows = np.broadcast_to(np.asarray(losses, dtype=np.float64), (ROWS, STEPS)).copy()
    values = np.zeros((1, STEPS))
    return Forecast("x", 900.0, (0.5,), values, Score(1.0, np.zeros(1), 1), values[:0], Trials(rows, learnt))


OWN = Contestant("own", said(), loss_frac=1.0)


def feed(name: str, loss_frac: float | None, *, trusted: bool = False) -> Contestant:
    """Return a feed that has done so well; None: nobody knows."""
    return Contestant(name, said(), trusted, loss_frac)


def names(*feeds: Contestant, own: Contestant | None = OWN, spoke: str = "") -> str:
    """Return who speaks, and who fills the gaps."""
    return " ".join(one.name for one in ranked(feeds, own, spoke))


def test_losses_are_compared_where_both_said_something() -> None:
    """A feed that speaks of the next hours only is not better for having left out the rest."""
    near = np.full((ROWS, STEPS), np.nan)
    near[:, 0] = 2.0
    steep = np.broadcast_to(np.array([1.0, 5.0, 9.0, 13.0]), (ROWS, STEPS))
    assert relative_loss(said(near), said(steep)) == pytest.approx(2.0)


@pytest.mark.parametrize("rows", [LEAST_ORIGINS - 1, LEAST_ORIGINS])
def test_a_judgement_needs_a_record(rows: int) -> None:
    """Two days of origins that both spoke at, and as many to learn from, or nobody is judged."""
    short = np.full((ROWS, STEPS), np.nan)
    short[:rows] = 1.0
    enough = rows == LEAST_ORIGINS
    assert (relative_loss(said(short), said()) is not None) is enough
    assert (relative_loss(said(), said(short)) is not None) is enough
    assert (relative_loss(said(learnt=rows), said()) is not None) is enough
    assert (relative_loss(said(), said(learnt=rows)) is not None) is enough
    assert relative_loss(said(), None) is None


def test_what_is_always_right_is_not_divided_by() -> None:
    """A constant is foreseen by all; who errs where the other does not is worse without end."""
    assert relative_loss(said(0.0), said(0.0)) == 1.0
    assert relative_loss(said(1.0), said(0.0)) == np.inf


def test_a_feed_speaks_until_it_is_judged() -> None:
    """Without a score the order of the file counts, and all feeds come before our own method."""
    assert names(feed("a", None), feed("b", None)) == "a b own"
    assert names(feed("a", None), own=None) == "a"
    assert names() == "own"
    assert names(own=None) == ""


def test_the_least_loss_speaks() -> None:
    """With all judged the best one speaks, and one that is worse than our own method is not heard."""
    assert names(feed("a", 0.8), feed("b", 0.5)) == "b a own"
    assert names(feed("a", 1.5)) == "own"
    assert names(feed("a", 1.5), feed("b", 0.5)) == "b own"
    assert names(feed("a", 1.5), feed("b", 1.3), own=None) == "b a"


def test_a_proven_feed_keeps_its_place_before_a_new_one() -> None:
    """A new feed is trusted before one that is no better than our own method, but not before one that is and stands first."""
    assert names(feed("a", 0.7), feed("b", None)) == "a b own"
    assert names(feed("a", 1.2), feed("b", None)) == "b own"
    assert names(feed("a", None), feed("b", 0.3)) == "a b own"


def test_a_trusted_feed_speaks_whatever_it_did() -> None:
    """The operator's word counts before any score."""
    assert names(feed("a", 0.3), feed("b", 5.0, trusted=True)) == "b a own"
    assert names(feed("a", 5.0, trusted=True), own=None) == "a"


def test_slightly_better_is_no_reason_to_change() -> None:
    """Whoever speaks goes on until the other's loss is a tenth less; at first that is the first of the file."""
    assert names(feed("a", 1.05), spoke="a") == "a own"
    assert names(feed("a", 1.05)) == "a own"
    assert names(feed("a", 1.05), spoke="own") == "own"
    assert names(feed("a", 0.95), spoke="own") == "own"
    assert names(feed("a", 0.85), spoke="own") == "a own"
    assert names(feed("a", 1.2), spoke="a") == "own"
    assert names(feed("a", 0.6), feed("b", 0.58), spoke="a") == "a b own"
    assert names(feed("a", 1.05), feed("b", None), spoke="a") == "a b own"


@settings(deadline=None)
@given(st.lists(st.floats(-0.04, 0.04), min_size=2, max_size=60))
def test_two_of_a_kind_do_not_take_turns(wobbles: list[float]) -> None:
    """Losses that wander by 4 % around each other change who speaks once at most, from whoever spoke first."""
    spoke, changes = "", 0
    for wobble in wobbles:
        now = names(feed("a", 1.0 + wobble), spoke=spoke).split()[0]
        changes += spoke not in ("", now)
        spoke = now
    assert changes == 0
    assert BETTER_FRAC < 0.96
