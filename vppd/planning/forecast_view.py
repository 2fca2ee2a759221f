"""The newest forecasts as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from vppd.core.outlook import Outlook
from vppd.snapshot import Floats

SHOWN_VALUES = 20_000
"""The view shows so many numbers; series beyond them come without."""


def forecasts_view(
    now: datetime, took_s: float, told: Sequence[Mapping[str, Any]], outlook: Mapping[str, Outlook]
) -> dict[str, Any]:
    """Return what a round gave: every series with its source, and where there is a forecast its quantiles and score."""
    shown, left = [], SHOWN_VALUES
    for one in told:
        row = {k: one[k] for k in ("name", "source", "reason", "filled")} | {"instead": one.get("instead")}
        found = outlook.get(one["name"])
        if found is not None:
            left -= found.forecast.values.size
            row |= {
                "made_at": found.made_at.isoformat(),
                "start": found.start.isoformat(),
                "step_s": found.forecast.step_s,
                "levels": list(found.forecast.levels),
                "values": _rows(found.forecast.values) if left >= 0 else None,
                "score": one["score"],
            }
        shown.append(row)
    return {"made_at": now.isoformat(), "took_s": round(took_s, 3), "series": shown}


def _rows(values: Floats) -> list[list[float | None]]:
    """Return numbers with six digits, None where there is none."""
    return [[float(f"{x:.6g}") if x == x else None for x in row] for row in values.tolist()]
