"""The newest forecasts as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from vppd.core.forecast.outlook import Outlook
from vppd.core.forecast.quantiles import LEVELS
from vppd.snapshot import Floats

SHOWN_FRAC = (0.1, 0.5, 0.9)
"""The levels that are shown. [0-1]"""
SHOWN_VALUES = 12_000
"""The view shows so many numbers; series beyond them come without, so that nobody waits for it."""


def forecasts_view(
    now: datetime, took_s: float, told: Sequence[Mapping[str, Any]], outlook: Mapping[str, Outlook]
) -> dict[str, Any]:
    """Return what a round gave: every series with its source, and where there is a forecast its quantiles and score."""
    shown, left = [], SHOWN_VALUES
    for one in told:
        row = {k: one[k] for k in ("name", "source", "reason", "filled")} | {"instead": one.get("instead")}
        row["feeds"] = [_heard(feed) for feed in one.get("feeds", ())]
        found = outlook.get(one["name"])
        if found is not None:
            rows = [found.forecast.at(level) for level in SHOWN_FRAC]
            left -= len(rows) * found.forecast.values.shape[1]
            row |= {
                "made_at": found.made_at.isoformat(),
                "start": found.start.isoformat(),
                "step_s": found.forecast.step_s,
                "levels": list(SHOWN_FRAC),
                "values": _rows(rows) if left >= 0 else None,
                "score": _score(one["score"], found.forecast.levels),
            }
        shown.append(row)
    return {"made_at": now.isoformat(), "took_s": round(took_s, 3), "series": shown}


def _heard(feed: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a feed did; its coverage is that of the levels that are shown."""
    return dict(feed) | {"score": None if feed["score"] is None else _score(feed["score"], LEVELS)}


def _score(score: Mapping[str, Any], levels: Sequence[float]) -> dict[str, Any]:
    """Return a score with the coverage of the levels that are shown."""
    return dict(score) | {"coverage": [score["coverage"][levels.index(level)] for level in SHOWN_FRAC]}


def _rows(values: Sequence[Floats]) -> list[list[float | None]]:
    """Return numbers with six digits, None where there is none."""
    return [[float(f"{x:.6g}") if x == x else None for x in row.tolist()] for row in values]
