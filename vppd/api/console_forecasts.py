"""What is foreseen, as a table for a terminal: who says so, what they say, and how well they have done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

BARS = "▁▂▃▄▅▆▇█"
BAR_COUNT = 24
"""Columns of a curve."""
WIDE = 106
"""There is room for a curve, and for how far a feed reaches, in a terminal of so many columns."""


def forecasts_table(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print every series with its source, its median ahead and its back-tested error, then feeds and faults."""
    out = console or Console()
    if found["made_at"] is None:
        out.print("Nothing has been foreseen yet." + (f" {found['fault']}" if found["fault"] else ""))
        return
    curve = ("ahead",) if out.width >= WIDE else ()
    table = Table("series", "by", "now", *curve, "P10 - P90", "error", "below", box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
    reasons = tuple(dict.fromkeys(row["reason"] for row in found["series"] if row["reason"]))
    for row in found["series"]:
        table.add_row(*_cells(row, reasons, with_curve=bool(curve)))
    out.print(f"Made at {found['made_at'][:19]}Z in {found['took_s']:.1f} s.")
    out.print(table)
    out.print("error: pinball loss in back-tests; below: how often the truth was at or below P10 and P90.")
    for k, reason in enumerate(reasons, 1):
        out.print(f"{k}) {reason}")
    if found["feeds"]:
        out.print(_feeds(found["feeds"], _records(found["series"]), wide=out.width >= WIDE))
        out.print("times own: its loss as a part of that of the site's own method; below 1 is better.")
    for what, fault in (("The last round failed", found["fault"]), ("History", found["history"]["fault"])):
        if fault:
            out.print(f"[bold red]{what}:[/] {fault}")


def _cells(row: Mapping[str, Any], reasons: Sequence[str], *, with_curve: bool) -> tuple[str, ...]:
    """Return one line; why it says no more is told below the table, by its number."""
    values, score = row.get("values"), row.get("score")
    number = f" {reasons.index(row['reason']) + 1})" if row["reason"] else ""
    source = (row["source"] or "-") + number
    if values is None:
        return row["name"], source
    levels = row["levels"]
    low, middle, high = (values[levels.index(level)] for level in (levels[0], 0.5, levels[-1]))
    span = f"{_said(row['name'], _least(low), unit=False)} - {_said(row['name'], _most(high), unit=False)}"
    curve = (bars(middle),) if with_curve else ()
    return row["name"], source, _said(row["name"], middle[0]), *curve, span, *_score(row["name"], score)


def _score(name: str, score: Mapping[str, Any] | None) -> tuple[str, str]:
    if not score or not score["samples"]:
        return "unknown", ""
    return _said(name, score["pinball"]), f"{score['coverage'][0]:.0%}, {score['coverage'][-1]:.0%}"


def _records(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return by name how each feed did."""
    return {record["feed"]: record for row in rows for record in row.get("feeds", ())}


def _feeds(feeds: Sequence[Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]], *, wide: bool) -> Table:
    times = ("issued", "until") if wide else ("issued",)
    table = Table("feed", "series", "from", *times, "error", "times own", "state", box=None, pad_edge=False)
    for feed in feeds:
        record = records.get(feed["name"], {})
        ratio = record.get("times_own")
        said = [_minute(at) for at in (feed["issued_at"], feed.get("end"))][: len(times)]
        error = _score(feed["series"], record.get("score"))[0]
        better = "" if ratio is None else f"{ratio:.2f}"
        table.add_row(feed["name"], feed["series"], feed["kind"], *said, error, better, _state(feed, record))
    return table


def _state(feed: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Return what is wrong with a feed, or whether it is it that speaks."""
    if feed["fault"]:
        return str(feed["fault"])
    if feed["issued_at"] is None:
        return "silent"
    if feed["stale"]:
        return "stale"
    return {True: "speaks", False: "silent" if record.get("reason") else "waits"}.get(record.get("speaks", ...), "ok")


def _minute(at: str | None) -> str:
    return "-" if at is None else at[:16]


def bars(values: Sequence[float | None], count: int = BAR_COUNT) -> str:
    """Return a curve of one character for each part of the time ahead; a blank is not known."""
    parts = [
        values[k * len(values) // count : max((k + 1) * len(values) // count, k * len(values) // count + 1)]
        for k in range(count)
    ]
    means = [_mean(part) for part in parts]
    known = [mean for mean in means if mean is not None]
    if not known:
        return " " * count
    lowest, span = min(known), max(known) - min(known)
    return "".join(
        " " if mean is None else BARS[0 if not span else round((mean - lowest) / span * (len(BARS) - 1))]
        for mean in means
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _least(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _said(name: str, value: float | None, *, unit: bool = True) -> str:
    """Return a value in the unit that people use for the series."""
    if value is None:
        return ""
    if name.startswith("price/"):
        return f"{value * 1e6:.2f}" + " /MWh" * unit
    return f"{value * 1e3:.0f}" + " g/kWh" * unit if name == "carbon" else f"{value / 1e3:.1f}" + " kW" * unit
