"""Who speaks for a series of which several foresee something: by what their forecasts were worth, slow to change. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vppd.core.forecast.quantiles import Forecast

LEAST_ORIGINS = 24
"""A judgement needs so many origins held back at which both said something, and as many before them to learn from."""
BETTER_FRAC = 0.9
"""Whoever speaks is replaced by one whose loss is at most this part of theirs, not by every one that is a little better. [0-1]"""


@dataclass(frozen=True, slots=True, eq=False)
class Contestant:
    """Somebody who foresees a series now."""

    name: str
    forecast: Forecast
    trusted: bool = False
    """Speaks whatever its losses are."""
    loss_frac: float | None = None
    """Its loss as a part of that of our own method on the same steps: below 1 is better; None is not known."""


def relative_loss(theirs: Forecast, own: Forecast | None) -> float | None:
    """Return the loss of a forecast as a part of our own on the steps that both foresaw, None with too few of them to judge."""
    if own is None or theirs.trials.losses.shape != own.trials.losses.shape:
        return None
    if min(theirs.trials.learnt, own.trials.learnt) < LEAST_ORIGINS:
        return None
    both = np.isfinite(theirs.trials.losses) & np.isfinite(own.trials.losses)
    if both.any(axis=1).sum() < LEAST_ORIGINS:
        return None
    loss, reference = float(theirs.trials.losses[both].mean()), float(own.trials.losses[both].mean())
    if reference <= 0.0:
        return 1.0 if loss <= 0.0 else np.inf
    return loss / reference


def ranked(feeds: Sequence[Contestant], own: Contestant | None, spoke: str = "") -> list[Contestant]:
    """Return who speaks, then who fills its gaps, and so on until our own, which has none.

    Trusted feeds come first, in their order. A feed that has not been judged speaks, unless one before it has proved better than our own;
    where all are known the least loss counts. ``spoke``: who speaks at present.
    """
    trusted, left = [feed for feed in feeds if feed.trusted], [feed for feed in feeds if not feed.trusted]
    found = list(trusted)
    while left:
        best = _best(left, own, spoke)
        found.append(best)
        if best is own:
            return found
        left.remove(best)
    return found + ([own] if own is not None else [])


def _best(feeds: Sequence[Contestant], own: Contestant | None, spoke: str) -> Contestant:
    unknown = next((i for i, feed in enumerate(feeds) if feed.loss_frac is None), None)
    if unknown is not None:
        proven = [
            feed for feed in feeds[:unknown] if _value(feed) <= (1.0 if feed.name != spoke else 1.0 / BETTER_FRAC)
        ]
        return _least(proven, spoke) if proven else feeds[unknown]
    return _least([*feeds, own] if own is not None else feeds, spoke)


def _least(all_known: Sequence[Contestant], spoke: str) -> Contestant:
    """Return who has the least loss, or who spoke before while nobody is clearly better; at first that is the first."""
    holder = next((one for one in all_known if one.name == spoke), all_known[0])
    best = min(all_known, key=_value)
    return best if _value(best) < BETTER_FRAC * _value(holder) else holder


def _value(one: Contestant) -> float:
    return 1.0 if one.loss_frac is None else one.loss_frac
