"""Who speaks for a series: its feeds and our own methods, each held to what it said before. Pure but for the file it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vppd.core.forecast.contest import Contestant, ranked, relative_loss
from vppd.core.forecast.outlook import MEDIAN_FRAC
from vppd.core.forecast.quantiles import Forecast, forecast
from vppd.ledger.history_reader import HistoryReader
from vppd.planning.forecasts.feed_record import SaidBefore, own_quantiles
from vppd.planning.forecasts.own import FeedTerms, Wish, filled, moved, own_forecast
from vppd.planning.forecasts.round import Round
from vppd.snapshot import Floats

FEED = "feed:"
OWN = "own"
"""Our methods are one contestant, whichever of them is best."""
MOST_TIMES = 999.0
"""A ratio of losses is not told beyond this."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is expected of a series, and how it came about."""

    forecast: Forecast | None
    source: str = ""
    reason: str = ""
    filled: int = 0
    """Steps that the source does not cover and another one does."""
    instead: Forecast | None = None
    """What our own method would have said where a feed speaks."""
    heard: tuple[Mapping[str, Any], ...] = ()
    """How each feed of the series did, as plain JSON values."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """One feed of the series: what it expects, or why it is not used."""

    terms: FeedTerms
    contestant: Contestant | None
    silence: str


def expect(wish: Wish, reader: HistoryReader, whole: Round) -> Found:
    """Return what is expected of a series, by whoever does it best. Raises Unreachable or Garbled."""
    history = reader.array(wish.name, whole.first, whole.grid.step_s, whole.t)
    own, reason = own_forecast(history, wish, whole)
    heard = [_heard(terms, reader, history, own, wish, whole) for terms in wish.feeds]
    ours = None if own is None else Contestant(OWN, own, loss_frac=1.0)
    spoke = wish.spoke if wish.spoke.startswith(FEED) or not wish.spoke else OWN
    order = ranked([one.contestant for one in heard if one.contestant is not None], ours, spoke)
    if not order:
        return Found(None, reason="; ".join([*(one.silence for one in heard), reason]), heard=_told(heard, ""))
    speaks, by_us = order[0], order[0] is ours
    whole_forecast, gaps, by = _without_gaps(order)
    reasons = [_passed_over(one, speaks) for one in heard[: _place(heard, speaks)]]
    if gaps:
        reasons.append(f"{_said(speaks)} does not cover all steps: {gaps} of {whole.steps} are by {by}")
    if by_us and reason:
        reasons.append(reason)
    source = speaks.forecast.method
    return Found(whole_forecast, source, "; ".join(reasons), gaps, None if by_us else own, _told(heard, speaks.name))


def _heard(
    terms: FeedTerms, reader: HistoryReader, history: Floats, own: Forecast | None, wish: Wish, whole: Round
) -> _Heard:
    said = SaidBefore(reader, terms.name, wish.name, terms.stale_after_s, whole)
    theirs = _theirs(said, terms, history, own, wish, whole)
    if theirs is None:
        return _Heard(terms, None, said.silence())
    return _Heard(terms, Contestant(theirs.method, theirs, terms.trusted, relative_loss(theirs, own)), "")


def _theirs(
    said: SaidBefore, terms: FeedTerms, history: Floats, own: Forecast | None, wish: Wish, whole: Round
) -> Forecast | None:
    """Return what a feed expects with the quantiles of its own errors, or its own quantiles where they are better; None: it is silent.

    Until its errors are known, those of our own method are taken.
    """
    grid = whole.grid_of(wish.name, sunny=wish.sunny)
    if said.now is None:
        return None
    found = forecast(
        history, whole.steps, grid, levels=whole.levels, bounds=wish.bounds, trial=whole.trial,
        methods={f"{FEED}{terms.name}": said.method},
    )  # fmt: skip
    if not np.isfinite(found.values).any():
        return None
    point = said.method(history, np.array([whole.t]), whole.steps, grid)[0]
    lent = None if own is None else moved(own, point - own.at(MEDIAN_FRAC), wish.bounds)
    if not found.score.known and lent is not None:
        found = replace(found, values=np.where(np.isfinite(lent.values), lent.values, found.values))
    if lent is not None and len(found.paths) == len(lent.paths):
        found = replace(found, paths=np.where(np.isfinite(found.paths), found.paths, lent.paths))
    return own_quantiles(said, history, found, whole)


def _without_gaps(order: Sequence[Contestant]) -> tuple[Forecast, int, str]:
    """Return what the first says, with its gaps closed by the others in turn, how many steps these are, and who closed them."""
    found, helpers = order[0].forecast, []
    open_before = gaps = _open(found)
    for other in order[1:]:
        found = filled(found, other.forecast)
        if _open(found) < open_before:
            open_before = _open(found)
            helpers.append(_said(other))
    return found, gaps - open_before, " and ".join(helpers)


def _open(found: Forecast) -> int:
    return int((~np.isfinite(found.values).all(axis=0)).sum())


def _place(heard: Sequence[_Heard], speaks: Contestant) -> int:
    """Return how many feeds stand before whoever speaks."""
    return next((i for i, one in enumerate(heard) if one.contestant is speaks), len(heard))


def _passed_over(one: _Heard, speaks: Contestant) -> str:
    """Return why a feed does not speak, though it comes first."""
    if one.contestant is None:
        return one.silence
    if speaks.trusted:
        return f"feed {one.terms.name!r} gives way to {_said(speaks)}, which is always trusted"
    theirs = "" if speaks.name == OWN else f", that of {_said(speaks)} {_ratio(speaks)}"
    return f"feed {one.terms.name!r} is overruled: its loss was {_ratio(one.contestant)} times that of our own method{theirs}"


def _ratio(one: Contestant) -> str:
    return "unknown" if one.loss_frac is None else f"{min(one.loss_frac, MOST_TIMES):.2f}"


def _said(one: Contestant) -> str:
    return f"feed {one.name.removeprefix(FEED)!r}" if one.name.startswith(FEED) else one.forecast.method


def _told(heard: Sequence[_Heard], speaks: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        {
            "feed": one.terms.name,
            "trust": "always" if one.terms.trusted else "score",
            "speaks": one.contestant is not None and one.contestant.name == speaks,
            "score": None if one.contestant is None else score_of(one.contestant.forecast),
            "times_own": None if one.contestant is None or one.contestant.loss_frac is None else min(one.contestant.loss_frac, MOST_TIMES),
            "reason": one.silence,
        }
        for one in heard
    )  # fmt: skip


def score_of(found: Forecast) -> dict[str, Any]:
    """Return the score of a forecast as plain JSON values, None for what is not known."""
    score = found.score
    return {
        "pinball": score.pinball if np.isfinite(score.pinball) else None,
        "coverage": [x if x == x else None for x in score.coverage.tolist()],
        "samples": score.samples,
    }
