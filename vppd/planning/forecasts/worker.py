"""``python -m vppd.planning.forecasts.worker``: one round of forecasts, JSON in and out, in a process of its own.

It reads the history file itself and writes the numbers into a file beside it; what it says on standard output is where they stand.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vppd.core.forecast.quantiles import Forecast
from vppd.errors import VppdError
from vppd.ledger.history_reader import reading
from vppd.planning.forecasts.contest import Found, expect, score_of
from vppd.planning.forecasts.own import Wish
from vppd.planning.forecasts.round import round_of
from vppd.snapshot import Floats

NICE = 10
"""The control loop goes first."""


def answer(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return where each series stands in the file of numbers. Raises ConfigError, Unreachable or Garbled."""
    with reading(Path(document["history"])) as reader:
        whole = round_of(document, reader.first_day())
        found = {said["name"]: expect(Wish.of(said, document), reader, whole) for said in document["series"]}
    rows = [part for one in found.values() if one.forecast for part in (one.forecast.values, _paths(one.forecast))]
    with Path(document["answer"]).open("wb") as file:
        np.save(file, np.concatenate(rows) if rows else np.zeros((0, whole.steps)))
    return {"series": [_told(name, one) for name, one in found.items()]}


def _paths(found: Forecast) -> Floats:
    """Return joint samples, none where nothing at all is known of past errors."""
    return found.paths if np.isfinite(found.paths).any() else found.paths[:0]


def _told(name: str, found: Found) -> dict[str, Any]:
    said: dict[str, Any] = {
        "name": name, "source": found.source, "reason": found.reason, "filled": found.filled, "feeds": list(found.heard),
    }  # fmt: skip
    if found.forecast is not None:
        said |= {
            "method": found.forecast.method,
            "rows": len(found.forecast.values),
            "paths": len(_paths(found.forecast)),
            "score": score_of(found.forecast),
        }
    if found.instead is not None:
        said["instead"] = {"method": found.instead.method, "score": score_of(found.instead)}
    return said


def main(arguments: Sequence[str] = ()) -> None:
    """Answer the document on standard input."""
    with suppress(PermissionError):  # the hardened unit allows nobody to change priorities
        os.nice(NICE)
    try:
        json.dump(answer(json.load(sys.stdin)), sys.stdout, allow_nan=False)
    except VppdError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
