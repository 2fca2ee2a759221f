"""Accounts of jobs that come and go, who follows his wish, and the limit by which power comes back."""

from __future__ import annotations

import numpy as np
import pytest

from vppd.core.curtail.books import STEPS_PER_WINDOW, Books, Look, blank, looked
from vppd.core.curtail.ceiling import ahead, followed
from vppd.core.curtail.tracking import Track, seen, untracked, wished
from vppd.snapshot import Floats

WINDOW_S = 600.0


def look(lost: dict[str, float], tier: int = 3, restart_s: float = 0.0, checkpoint_s: float = 0.0) -> Look:
    """Return a look that found jobs losing this much; 1 is paused."""
    n, rate = len(lost), np.asarray(list(lost.values()), dtype=np.float64)
    return Look(
        tuple(lost), np.full(n, tier), rate, rate >= 1.0, np.full(n, restart_s), np.full(n, checkpoint_s)
    )  # fmt: skip


def spent_s(books: Books, at_s: float) -> Floats:
    """Return what the present jobs lost in the window. [s]"""
    return books.present_accounts().since_s(at_s - WINDOW_S)


def test_between_two_looks_the_worse_counts() -> None:
    """Slowed at either end is charged as slowed all the time."""
    books = looked(blank(WINDOW_S, 0.0), look({"a": 0.0}), 0.0)
    books = looked(books, look({"a": 0.2}), 10.0)
    books = looked(books, look({"a": 0.1}), 20.0)
    books = looked(books, look({"a": 0.0}), 30.0)
    assert spent_s(books, 30.0).tolist() == pytest.approx([2.0 + 2.0 + 1.0])


def test_who_is_held_at_the_first_sight_of_a_cluster_counts_as_held_for_a_window() -> None:
    """But as having lost no more than his tier let him; who runs free has lost nothing."""
    books = looked(blank(WINDOW_S, 0.0), look({"a": 1.0, "b": 0.1, "c": 0.0}), 0.0)
    assert spent_s(books, 0.0).tolist() == pytest.approx([300.0, 60.0, 0.0])
    assert spent_s(books, WINDOW_S - 1.0).tolist() == pytest.approx([300.0, 60.0, 0.0])


def test_a_job_that_starts_under_a_cap_is_charged_since_the_last_look() -> None:
    """Not for a window: it was not there."""
    books = looked(blank(WINDOW_S, 0.0), look({"a": 0.0}), 0.0)
    books = looked(books, look({"a": 0.0, "b": 0.3}), 10.0)
    assert spent_s(books, 10.0).tolist() == pytest.approx([0.0, 3.0])


def test_a_missed_job_is_charged_as_it_was_last_seen_and_forgotten_after_a_window() -> None:
    """So that an answer that leaves it out, or a requeue, forgives nothing."""
    books = looked(blank(WINDOW_S, 0.0), look({"a": 0.0, "b": 0.0}), 0.0)
    books = looked(books, look({"a": 0.0, "b": 1.0}), 10.0)
    books = looked(books, look({"a": 0.0}), 20.0)
    assert (books.ids, books.present) == (("a", "b"), 1)
    books = looked(books, look({"b": 1.0, "a": 0.0}), 40.0)
    assert spent_s(books, 40.0).tolist() == pytest.approx([40.0, 0.0])
    books = looked(books, look({"a": 0.0}), 50.0)
    books = looked(books, look({"a": 0.0, "c": 0.0}), 50.0 + 2 * WINDOW_S)
    assert books.ids == ("a", "c")


def test_a_restart_is_lost_too_and_a_checkpoint_at_once() -> None:
    """Ten seconds paused, five of restart, three that were not saved."""
    books = looked(blank(WINDOW_S, 0.0), look({"a": 0.0}, restart_s=5.0, checkpoint_s=3.0), 0.0)
    for at_s, rate in ((0.0, 1.0), (10.0, 0.0), (12.0, 0.0), (20.0, 0.0), (30.0, 0.0)):
        books = looked(books, look({"a": rate}, restart_s=5.0, checkpoint_s=3.0), at_s)
    assert spent_s(books, 30.0).tolist() == pytest.approx([18.0])
    assert books.owed_s.tolist() == [0.0]
    assert books.since_s.tolist() == [10.0]


def test_books_stay_small_and_what_leaves_the_window_is_free_again() -> None:
    """A look every second for three windows keeps at most a step per sixtieth, and never forgives too soon."""
    books = looked(blank(WINDOW_S, 0.0), look({"a": 0.0}), 0.0)
    for second in range(1, 1_801):
        books = looked(books, look({"a": 0.5 if second <= 600 else 0.0}), float(second))
        assert spent_s(books, float(second))[0] >= 0.5 * max(0, min(second, 600) - max(second - 600, 0)) - 1e-6
    assert spent_s(books, 1_800.0).tolist() == [0.0]
    assert len(books.accounts.ends_s) <= STEPS_PER_WINDOW + 3


def follow(track: Track, level: float, paused: bool, now_s: float) -> Track:
    """Return the track after one job was seen."""
    return seen(track, ("a",), np.asarray([level]), np.asarray([paused]), now_s, ramp_s=30.0, bar_s=120.0)


@pytest.mark.parametrize(
    ("wish", "found", "barred"),
    [
        pytest.param((0.6, False), (0.6, False), False, id="follows"),
        pytest.param((0.6, False), (0.7, False), False, id="comes-most-of-the-way"),
        pytest.param((0.6, False), (0.9, False), True, id="hardly-moves"),
        pytest.param((1.0, True), (1.0, False), True, id="is-not-paused"),
        pytest.param((1.0, True), (1.0, True), False, id="is-paused"),
        pytest.param((0.6, False), (1.0, True), False, id="gives-more"),
    ],
)
def test_who_has_not_followed_at_the_end_of_his_ramp_is_barred(
    wish: tuple[float, bool], found: tuple[float, bool], barred: bool
) -> None:
    """Not before, and only who gives less than half of what was wished."""
    track = follow(untracked(), 1.0, False, 0.0)
    track = wished(track, np.asarray([wish[0]]), np.asarray([wish[1]]), 0.0)
    assert (follow(track, *found, 29.0).barred_s <= 29.0).all()
    assert bool((follow(track, *found, 30.0).barred_s > 30.0).any()) is barred


def test_asking_for_more_gives_a_deaf_job_no_more_time() -> None:
    """Each plan goes deeper, and still it is barred when its first ramp is over."""
    track = follow(untracked(), 1.0, False, 0.0)
    for second, level in enumerate(np.linspace(0.95, 0.6, 31).tolist()):
        track = wished(track, np.asarray([level]), np.asarray([False]), float(second))
        track = follow(track, 1.0, False, float(second))
    assert track.barred_s.tolist() == [150.0]


def test_power_comes_back_by_a_rising_limit() -> None:
    """It falls at once, rises over the time of restoring, counted from the deepest cut, and ends when all is back."""
    ceiling = followed(None, 60.0, 100.0, 0.0, 300.0)
    assert ceiling is not None
    ceiling = followed(ceiling, 80.0, 100.0, 30.0, 300.0)
    assert ceiling is not None
    assert ceiling.most_w == pytest.approx(60.0 + 30.0 * 40.0 / 300.0)
    ceiling = followed(ceiling, 50.0, 100.0, 60.0, 300.0)
    assert ceiling is not None
    assert ceiling.most_w == 50.0
    back = followed(ceiling, 1e9, 100.0, 120.0, 300.0)
    assert back is not None
    assert back.most_w == pytest.approx(60.0)
    assert followed(back, 1e9, 100.0, 361.0, 300.0) is None
    assert followed(None, 100.0, 100.0, 0.0, 300.0) is None


def test_the_time_ahead_is_soft_where_only_the_rising_limit_binds() -> None:
    """The order's own limit is hard."""
    ceiling = followed(None, 60.0, 100.0, 0.0, 300.0)
    budget = ahead(ceiling, 80.0, 10.0, 0.0, 600.0, 30.0)
    assert budget.soft[0]
    assert not budget.soft[-1]
    assert budget.most_w[0] == pytest.approx(50.0)
    assert budget.most_w[-1] == pytest.approx(70.0)
    assert budget.ends_s[-1] == 600.0
