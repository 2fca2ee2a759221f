"""The plan in a terminal: one row per hour, planned beside measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Column, Table

PLANNED = ("battery", "ups", "cluster")
"""Kinds with a column of their own, storage first."""
BARS = " ▁▂▃▄▅▆▇█"
MOST_COLUMNS = 6


def plan_table(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the plan: import, renewable output, price, and what each cluster and battery is to do, hour by hour."""
    out = console or Console()
    out.print(_head(found))
    for line in _green_rules(found.get("green")):
        out.print(line, markup=False)
    for line in (*found["missing"], *(f"could not be had: {name}" for name in found["conflicts"])):
        out.print(f"  {line}", markup=False)
    if not found["steps"]:
        return
    assets = sorted((a for a in found["assets"] if a["kind"] in PLANNED), key=lambda a: PLANNED.index(a["kind"]))
    names = [asset["id"] for asset in assets]
    shown, left_out = names[:MOST_COLUMNS], names[MOST_COLUMNS:]
    out.print(_by_hour(found["steps"], shown))
    out.print("Prices per MWh; what was measured stands under `was` and in brackets.")
    if left_out:
        out.print(f"and {len(left_out)} more (--json shows all): {', '.join(left_out)}", markup=False)
    _waiting(found, out)


def _by_hour(steps: Sequence[Mapping[str, Any]], assets: Sequence[str]) -> Table:
    """Return one row per hour, with a column for each of these assets."""
    hours = list(_hours(steps))
    most_w = max((_mean(hour, "renewable_w") or 0.0 for hour in hours), default=0.0)
    sunny = ("renewable", "was", "") if most_w > 0.0 else ()
    columns = ("hour", "price", "import", "was", *sunny, *assets)
    table = Table(*(Column(name, no_wrap=k == 0) for k, name in enumerate(columns)))
    for hour in hours:
        green = _green(hour, most_w) if sunny else ()
        table.add_row(
            _at(hour[0]["start"]), _number(_mean(hour, "price_per_mwh")), _kw(_mean(hour, "import_w")),
            _kw(_mean(hour, "measured_import_w")), *green, *(_asset(hour, name) for name in assets),
        )  # fmt: skip
    return table


def _head(found: Mapping[str, Any]) -> str:
    if found["made_at"] is None:
        return f"There is no plan: {found['reason'] or 'none has been made yet'}."
    followed = "followed" if found["in_force"] and found["economics"] else "shown only"
    followed = followed if found["in_force"] else "out of date"
    old = f"; no newer one: {found['reason']}" if found["reason"] else ""
    cost = "" if found["cost"] is None else f", costs {found['cost']:.2f}"
    return f"Plan of {_at(found['made_at'])}: {found['status']}{cost}, {followed}{old}"


def _green_rules(green: Mapping[str, Any] | None) -> Iterable[str]:
    """Yield how each green rule stands in the period so far."""
    if green is None:
        return
    words = {
        "share_of_load_frac": f"of the {green['of']} from renewables",
        "self_use_frac": "of PV and wind used on site",
    }
    for key, what in words.items():
        so_far, asked = green["so_far"][key], green["asked"][key]
        if asked is not None:
            known = "nothing measured" if so_far is None else f"{so_far:.0%}"
            yield f"Green, this {green['period']} so far: {known} {what}, {asked:.0%} asked for"


def _waiting(found: Mapping[str, Any], out: Console) -> None:
    waiting = found["waiting"]
    late = f", {found['late_wh'] / 1e3:.1f} kWh missed their deadline" if found["late_wh"] else ""
    total_kwh = sum(row["energy_wh"] for row in waiting) / 1e3
    until = f", the first until {_at(waiting[0]['until'])}" if waiting else ""
    out.print(
        f"{total_kwh:.1f} kWh of compute wait{until}; {found['deferred_wh'] / 1e3:.1f} kWh have waited so far{late}."
    )


def _green(hour: Sequence[Mapping[str, Any]], most_w: float) -> tuple[str, str, str]:
    """Return planned and measured output of the site's generation, and a bar."""
    planned_w = _mean(hour, "renewable_w")
    return _kw(planned_w), _kw(_mean(hour, "measured_renewable_w")), _bar(planned_w, most_w)


def _hours(steps: Sequence[Mapping[str, Any]]) -> Iterable[list[Mapping[str, Any]]]:
    """Yield the steps of each hour."""
    hour: list[Mapping[str, Any]] = []
    for step in steps:
        if hour and _hour(step) != _hour(hour[0]):
            yield hour
            hour = []
        hour.append(step)
    if hour:
        yield hour


def _hour(step: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(step["start"]).replace(minute=0, second=0, microsecond=0)


def _mean(hour: Sequence[Mapping[str, Any]], key: str) -> float | None:
    known = [step[key] for step in hour if step[key] is not None]
    return sum(known) / len(known) if known else None


def _asset(hour: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return what an asset was or is to do, and beside it what it did. [kW]"""
    planned = [step["planned_w"][name] for step in hour if name in step["planned_w"]]
    measured = [step["measured_w"][name] for step in hour if name in step["measured_w"]]
    said = _kw(sum(planned) / len(planned)) if planned else "-"
    return f"{said} ({_kw(sum(measured) / len(measured))})" if measured else said


def _bar(power_w: float | None, most_w: float) -> str:
    if power_w is None or most_w <= 0.0:
        return ""
    eighths = round(max(power_w, 0.0) / most_w * 8 * 6)
    whole, rest = divmod(eighths, 8)
    return BARS[8] * whole + (BARS[rest] if rest else "")


def _kw(power_w: float | None) -> str:
    return "" if power_w is None else f"{power_w / 1e3:.0f} kW"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _at(when: str) -> str:
    return datetime.fromisoformat(when).strftime("%d %H:%M")
