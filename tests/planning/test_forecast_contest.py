"""Feeds against each other and against our own method, over a real history file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.planning.test_forecast_worker import HOUR_S, NOW, PV, START, hourly, made, write
from tests.planning.test_forecast_worker import path as path
from tests.planning.test_forecast_worker import weeks as weeks
from vppd.ledger.history import Issue, open_history
from vppd.snapshot import Floats

HOURS = 29 * 24


def terms(name: str, *, trusted: bool = False, stale_after_s: float = 12 * HOUR_S) -> dict[str, Any]:
    """Return what the daemon says of a feed."""
    return {"name": name, "stale_after_s": stale_after_s, "trusted": trusted}


async def foretold(
    path: Path, truth: Floats, feeds: Mapping[str, float], days: float = 21.0, steps: int = 30, until_h: float = 0.0
) -> None:
    """Let feeds have said what will come every two hours up to a moment, wrong by a factor of a size of their own."""
    rng = np.random.default_rng(11)
    async with open_history(path) as history:
        for k in range(round(-12 * days), round(until_h / 2.0) + 1):
            at = NOW + timedelta(hours=2 * k)
            row = hourly(truth, at, min(steps, HOURS - round((at - START).total_seconds() / HOUR_S)))
            for name, size in feeds.items():
                values = np.maximum(row * (1.0 + size * rng.normal(size=len(row))), 0.0)[None, :]
                history.issue(Issue(name, PV, at, at, HOUR_S, (), values))
            if k % 50 == 0:
                await history.flush()


def asked(*feeds: dict[str, Any]) -> dict[str, Any]:
    """Return a wish for what the sun gives."""
    return {"name": PV, "sunny": True, "lower": 0.0, "upper": 50e3, "feeds": list(feeds)}


async def test_a_feed_worse_than_our_own_method_gives_way(path: Path, weeks: dict[str, Floats]) -> None:
    """A weather service that guesses is overruled with the figures, and still shown with its score; trusted, it speaks."""
    write(path, weeks)
    await foretold(path, weeks[PV], {"guess": 2.0})
    said, _, _ = made(path, NOW, asked(terms("guess")))
    assert said["source"] in {"seasonal", "similar-day"}
    assert said["reason"].startswith("feed 'guess' is overruled: its loss was ")
    (record,) = said["feeds"]
    assert (record["speaks"], record["trust"], record["reason"]) == (False, "score", "")
    assert record["times_own"] > 1.2
    assert record["score"]["samples"] > 500
    assert "instead" not in said
    trusted, _, _ = made(path, NOW, asked(terms("guess", trusted=True)))
    assert trusted["source"] == "feed:guess"
    assert trusted["instead"]["score"]["pinball"] < trusted["score"]["pinball"]


async def test_of_two_feeds_the_better_one_speaks(path: Path, weeks: dict[str, Floats]) -> None:
    """The order of the file does not save a feed with twice the error; both scores are told."""
    write(path, weeks)
    await foretold(path, weeks[PV], {"rough": 0.3, "fine": 0.05})
    said, _, _ = made(path, NOW, asked(terms("rough"), terms("fine")))
    assert said["source"] == "feed:fine"
    assert "feed 'rough' is overruled" in said["reason"]
    assert "that of feed 'fine' 0." in said["reason"]
    rough, fine = said["feeds"]
    assert fine["times_own"] < 0.5 * rough["times_own"]
    assert fine["speaks"]
    assert not rough["speaks"]


async def test_a_young_feed_is_not_judged(path: Path, weeks: dict[str, Floats]) -> None:
    """Five days are no record: the first of the file speaks, however bad it is, and nobody claims to know."""
    write(path, weeks)
    await foretold(path, weeks[PV], {"guess": 2.0, "fine": 0.05}, days=5.0)
    said, _, _ = made(path, NOW, asked(terms("guess"), terms("fine")))
    assert said["source"] == "feed:guess"
    assert [record["times_own"] for record in said["feeds"]] == [None, None]


async def test_silence_falls_to_the_next_then_to_us(path: Path, weeks: dict[str, Floats]) -> None:
    """The best feed goes stale and the second takes over with the reason; then that one too, and it is our own method."""
    write(path, weeks)
    await foretold(path, weeks[PV], {"fine": 0.05}, until_h=-14.0)
    await foretold(path, weeks[PV], {"rough": 0.15}, until_h=-10.0)
    feeds = (terms("fine"), terms("rough"))
    said, _, _ = made(path, NOW, asked(*feeds))
    assert said["source"] == "feed:rough"
    assert said["reason"].startswith("feed 'fine' is stale: what it said at")
    said, values, _ = made(path, NOW, asked(feeds[0], terms("rough", stale_after_s=9 * HOUR_S)))
    assert said["source"] in {"seasonal", "similar-day"}
    assert said["reason"].count("is stale") == 2
    assert np.isfinite(values).all()
    assert all("is stale" in record["reason"] and record["score"] is None for record in said["feeds"])


async def test_gaps_are_filled_by_the_next_best(path: Path, weeks: dict[str, Floats]) -> None:
    """Where the speaker ends the second feed goes on, and our own method after that."""
    write(path, weeks)
    await foretold(path, weeks[PV], {"near": 0.02}, steps=6)
    await foretold(path, weeks[PV], {"far": 0.1}, steps=20)
    said, values, _ = made(path, NOW, asked(terms("far"), terms("near")))
    assert said["source"] == "feed:near"
    assert said["filled"] == 18
    own = said["instead"]["method"]
    assert f"feed 'near' does not cover all steps: 18 of 24 are by feed 'far' and {own}" in said["reason"]
    assert np.isfinite(values).all()


@pytest.mark.parametrize("spoke", ["feed:even", "own"])
async def test_an_even_match_is_left_as_it_is(path: Path, weeks: dict[str, Floats], spoke: str) -> None:
    """A feed about as good as our own method neither takes over nor gives way."""
    write(path, weeks)
    await foretold(path, weeks[PV], {"even": 0.255})
    said, _, _ = made(path, NOW, asked(terms("even")), spoke={PV: spoke if spoke != "own" else "seasonal"})
    assert 0.9 < said["feeds"][0]["times_own"] < 1.0 / 0.9
    assert said["source"].startswith("feed:") is (spoke != "own")
