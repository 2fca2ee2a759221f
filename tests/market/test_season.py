"""Two days of a season: everything that was sold is delivered, stated once and paid, and nothing is sold twice."""

from __future__ import annotations

import pytest

from tests.market.season import Season
from tests.market.season_report import Report

DAYS = 2
DIRECTIONS = {"peak": "up", "ready": "up", "noon": "down", "swing": "symmetric"}


@pytest.fixture(scope="module")
def report() -> Report:
    """Two days of trading."""
    return Season(DAYS, seed=1).run()


@pytest.fixture(scope="module")
def known() -> Report:
    """The same two days with foresight."""
    return Season(DAYS, seed=1, foresight=True).run()


@pytest.mark.timeout(180)
def test_what_was_sold_is_delivered(report: Report) -> None:
    """Every product is sold and called, kept ready in most hours, and at least 98 % of the energy of each is delivered."""
    assert report.products["ready"].awards > 24 * DAYS * 0.6
    assert {name: tally.direction for name, tally in report.products.items()} == DIRECTIONS
    assert all(tally.obliged_wh > 0 for tally in report.products.values())
    assert all(tally.delivered_frac >= 0.98 for tally in report.products.values())
    assert report.obliged_wh > 1_000_000
    assert report.delivered_frac >= 0.98


@pytest.mark.timeout(180)
def test_every_award_is_taken_and_has_one_statement(report: Report) -> None:
    """The daemon's own matching refuses none of the market's awards; each obligation ends with exactly one statement."""
    assert not report.refused
    assert report.obligations == report.awards == len(report.statements)
    assert set(report.statements.values()) == {1}


@pytest.mark.timeout(180)
def test_nothing_is_sold_twice(report: Report) -> None:
    """In no step of any round is more sold, by all products together, than there is in half of all samples."""
    assert not report.sold_twice


@pytest.mark.timeout(180)
def test_revenue_stays_below_what_foresight_would_earn(report: Report, known: Report) -> None:
    """Promising only what is sure costs something, but not most of it."""
    assert 0.6 <= float(report.owed / known.owed) <= 1.05


def test_the_same_seed_gives_the_same_season(known: Report) -> None:
    """What is offered, awarded and owed is the same again, to the last cent; another seed gives another season."""
    again, other = (Season(DAYS, seed, foresight=True).run() for seed in (1, 2))
    assert (known.awards, known.obliged_wh, known.owed) == (again.awards, again.obliged_wh, again.owed)
    assert (known.obliged_wh, known.owed) != (other.obliged_wh, other.owed)
