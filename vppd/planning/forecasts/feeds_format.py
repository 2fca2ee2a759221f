"""What a feed may say: one JSON form and CSV, in the units it is configured to speak; every mistake with its place. Pure."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from vppd.errors import Garbled
from vppd.ledger.history import Issue
from vppd.snapshot import Floats

MOST_BYTES = 1 << 20
MOST_STEPS = 20_000
MOST_LEVELS = 50
STEP_S = (60.0, 86_400.0)
"""Shortest and longest step of a feed. [s]"""
AHEAD_S = 300.0
"""A clock may be wrong by so much. [s]"""
SCALES: Mapping[str, float] = MappingProxyType(
    {
        "w": 1.0, "kw": 1e3, "mw": 1e6, "per_wh": 1.0, "per_kwh": 1e-3, "per_mwh": 1e-6,
        "g_per_wh": 1.0, "g_per_kwh": 1e-3, "kg_per_mwh": 1e-3, "lb_per_mwh": 453.59237e-6,
    }
)  # fmt: skip
"""From the unit of a feed to ours: W, per Wh, g/Wh."""
SIGNED = ("load/", "price/")
"""Series that may be negative."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a feed is held to."""

    name: str
    series: str
    unit: str
    format: Literal["json", "csv"]
    most_w: float = math.inf
    """A power beyond this is not believed: somebody took another unit. [W]"""
    may_be_blank: bool = False
    """It may say that it says nothing any more."""


def parsed(terms: Terms, content: bytes, changed_at: datetime | None, now: datetime) -> Issue:
    """Return what a feed says; ``changed_at`` stands for the time of issue when it says none. Raises Garbled."""
    where = f"feed {terms.name!r}"
    text = _text(where, content)
    said = _json(where, text) if terms.format == "json" else _csv(where, text)
    issued_at = said.issued_at or changed_at
    if issued_at is None:
        raise Garbled(f"{where}: it was stored for whoever comes and has no issued_at: nobody knows how old it is")
    if issued_at > now + timedelta(seconds=AHEAD_S):
        raise Garbled(f"{where}: issued_at = {issued_at.isoformat()} lies in the future")
    values = _checked(where, terms, said.values) * SCALES[terms.unit]
    if (beyond := float(np.max(np.abs(np.nan_to_num(values))))) > terms.most_w:
        raise Garbled(
            f"{where}: {beyond:g} W is beyond {terms.series}, which has {terms.most_w:g} W at most: is it in {terms.unit}?"
        )
    return Issue(
        terms.name, terms.series, min(issued_at, now), said.start.astimezone(UTC), said.step_s, said.levels, values
    )


def _text(where: str, content: bytes) -> str:
    if len(content) > MOST_BYTES:
        raise Garbled(f"{where}: more than {MOST_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Garbled(f"{where}: byte {error.start} is not UTF-8") from error


@dataclass(frozen=True, slots=True, eq=False)
class _Said:
    issued_at: datetime | None
    start: datetime
    step_s: float
    levels: tuple[float, ...]
    values: Floats
    """(q, h) or (1, h), in the units of the feed."""


def _checked(where: str, terms: Terms, values: Floats) -> Floats:
    """Return values that make sense: levels in order (rearranged: Chernozhukov et al. 2010), and none below 0 that cannot be."""
    if not np.isfinite(values).any():
        if terms.may_be_blank:
            return values
        raise Garbled(f"{where}: it has no values")
    if not terms.series.startswith(SIGNED):
        wrong = np.argwhere(values < -1e-6 * np.nanmax(np.abs(values)))
        if len(wrong):
            row, step = wrong[0].tolist()
            raise Garbled(f"{where}: {terms.series} is never negative, but step {step} is {values[row, step]:g}")
        values = np.maximum(values, 0.0)
    return np.where(np.isfinite(values).all(axis=0), np.sort(values, axis=0), np.nan)


def _json(where: str, text: str) -> _Said:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"{where}: no JSON: {error}") from error
    if not isinstance(body, dict):
        raise Garbled(f"{where}: no JSON object")
    start, step_s = _moment(where, "start", body.get("start")), _number(where, "step_s", body.get("step_s"))
    if step_s is None or not STEP_S[0] <= step_s <= STEP_S[1]:
        raise Garbled(f"{where}: step_s must be {STEP_S[0]:g} to {STEP_S[1]:g}")
    issued_at = _moment(where, "issued_at", body["issued_at"]) if body.get("issued_at") is not None else None
    if ("values" in body) == ("quantiles" in body):
        raise Garbled(f"{where}: it needs either values or quantiles")
    if "values" in body:
        return _Said(issued_at, start, step_s, (), _row(where, "values", body["values"])[None, :])
    levels, rows = _quantiles(where, body["quantiles"])
    return _Said(issued_at, start, step_s, levels, rows)


def _quantiles(where: str, said: Any) -> tuple[tuple[float, ...], Floats]:
    if not isinstance(said, dict) or not 1 <= len(said) <= MOST_LEVELS:
        raise Garbled(f"{where}: quantiles must be an object of 1 to {MOST_LEVELS} levels")
    rows = {_level(where, name): _row(where, f"quantiles.{name}", row) for name, row in said.items()}
    if len({len(row) for row in rows.values()}) > 1 or len(rows) < len(said):
        raise Garbled(f"{where}: each level must occur once and all must have as many values")
    levels = tuple(sorted(rows))
    return levels, np.stack([rows[level] for level in levels])


def _level(where: str, name: str) -> float:
    try:
        level = float(name)
    except ValueError:
        level = math.nan
    if not 0.0 < level < 1.0:
        raise Garbled(f"{where}: {name!r} is no level between 0 and 1")
    return level


def _row(where: str, place: str, said: Any) -> Floats:
    if not isinstance(said, list) or not 1 <= len(said) <= MOST_STEPS:
        raise Garbled(f"{where}: {place} must be a list of 1 to {MOST_STEPS} numbers")
    found = [_number(where, f"{place}[{i}]", value) for i, value in enumerate(said)]
    return np.array([math.nan if value is None else value for value in found])


def _number(where: str, place: str, said: Any) -> float | None:
    """Return a finite number, None for null."""
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int | float) or not abs(said) < 1e300:
        raise Garbled(f"{where}: {place} is no finite number")
    return float(said)


def _moment(where: str, place: str, said: Any) -> datetime:
    try:
        found = datetime.fromisoformat(said)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise Garbled(f"{where}: {place} is no time with an offset, such as 2026-03-29T00:00:00+02:00")


def _csv(where: str, text: str) -> _Said:
    """Return what lines of ``start,value`` say; with a head of ``start`` and levels there are as many values."""
    try:
        lines = [row for row in csv.reader(io.StringIO(text)) if row and not row[0].lstrip().startswith("#")]
    except csv.Error as error:
        raise Garbled(f"{where}: no CSV: {error}") from error
    levels: tuple[float, ...] = ()
    if lines and lines[0][0].strip().lower() == "start":
        names = [name.strip() for name in lines.pop(0)[1:]]
        levels = () if names == ["value"] else tuple(_level(where, name) for name in names[:MOST_LEVELS])
    if not 2 <= len(lines) <= MOST_STEPS:
        raise Garbled(f"{where}: it has {len(lines)} lines of values instead of 2 to {MOST_STEPS}")
    if list(levels) != sorted(set(levels)):
        raise Garbled(f"{where}: the levels in the head do not rise")
    starts, rows = [], []
    for i, line in enumerate(lines):
        if len(line) != 1 + (len(levels) or 1):
            raise Garbled(f"{where}: line {i + 1} of the values has {len(line)} columns")
        starts.append(_moment(where, f"line {i + 1}", line[0].strip()))
        rows.append([_cell(where, i + 1, cell) for cell in line[1:]])
    return _on_grid(where, starts, np.array(rows), levels)


def _cell(where: str, line: int, cell: str) -> float:
    try:
        value = float(cell) if cell.strip() else math.nan
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise Garbled(f"{where}: {cell!r} in line {line} of the values is no number")
    return value


def _on_grid(where: str, starts: Sequence[datetime], rows: Floats, levels: tuple[float, ...]) -> _Said:
    """Return lines as a row without gaps: the shortest distance is the step, what is left out is missing."""
    after_s = np.array([(at - starts[0]).total_seconds() for at in starts])
    apart_s = np.diff(after_s)
    step_s = float(apart_s.min())
    if not STEP_S[0] <= step_s <= STEP_S[1]:
        raise Garbled(f"{where}: lines must follow one another by {STEP_S[0]:g} to {STEP_S[1]:g} s")
    place = np.rint(after_s / step_s).astype(np.int64)
    odd = np.flatnonzero(np.abs(place * step_s - after_s) > 1e-3)
    if len(odd) or place[-1] >= MOST_STEPS:
        line = int(odd[0]) + 1 if len(odd) else len(starts)
        raise Garbled(f"{where}: line {line} of the values is not a whole number of {step_s:g} s after the first")
    values = np.full((rows.shape[1], int(place[-1]) + 1), np.nan)
    values[:, place] = rows.T
    return _Said(None, starts[0], step_s, levels, values)
