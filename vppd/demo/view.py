"""The terminal view: meters against targets, assets, orders, reasons; a pure picture of the record and the daemon's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vppd.demo.acts import Result
from vppd.demo.chart import chart
from vppd.demo.record import SITE, Record

HISTORY_S = 180.0
FRAME = 12
"""Columns of a panel that are not chart: borders, padding and scale."""
LOW = 34
"""Rows below which the feeds have no charts of their own."""
_SEVERITIES = {"none": "green", "warn": "yellow", "hold": "yellow"}
"""Colours of severities; those not named are red."""


@dataclass(slots=True)
class Scene:
    """What the audience sees."""

    record: Record
    title: str
    said: str = "starting"
    state: Mapping[str, Any] = field(default_factory=dict)
    """Answer of ``GET /api/v1/state``; empty while there is no daemon."""
    results: list[Result] = field(default_factory=list)


def picture(scene: Scene, width: int = 120, height: int = 60) -> RenderableType:
    """Return the whole view for a terminal of so many columns and rows."""
    tags, rows = scene.record.tags, max(3, min(7, (height - 30) // 3))
    parts: list[RenderableType] = [
        Text.assemble((f" {scene.title} ", "bold reverse"), "  ", (scene.said, "bold")),
        _meter(scene.record, SITE, width - FRAME, rows),
    ]
    if height >= LOW and tags:
        share = (width - len(tags)) // len(tags) - FRAME
        parts.append(Columns([_meter(scene.record, tag, share, rows) for tag in tags], equal=True))
    if scene.state:
        parts += [_assets(scene.state), _orders(scene.state), _warnings(scene.state)]
    if scene.results:
        parts.append(statement(scene.results))
    return Group(*parts)


def line(scene: Scene) -> str:
    """Return the view as one line, for where there is no terminal."""
    words = [scene.said]
    for name in (SITE, *scene.record.tags):
        points = scene.record.points[name]
        if points:
            target_w = scene.record.targets_w.get(name)
            words.append(f"{name} {kw(points[-1].power_w)}" + (f" (target {kw(target_w)})" if target_w else ""))
    return " | ".join(words)


def statement(results: Sequence[Result]) -> RenderableType:
    """Return what was ordered and what was delivered, act by act, with the reasons of what failed."""
    table = Table(title="Statement, measured at the meters", box=SIMPLE_HEAD, title_justify="left")
    for name in ("act", "resource", "ordered"):
        table.add_column(name)
    for name in ("ordered kWh", "delivered kWh", "kept", "worst 10 s", "result"):
        table.add_column(name, justify="right")
    for result in results:
        verdict = Text("passed", "bold green") if result.passed else Text("FAILED", "bold red")
        for i, entry in enumerate(result.lines):
            table.add_row(
                entry.act,
                entry.resource,
                entry.ordered,
                f"{entry.ordered_wh / 1e3:.2f}",
                f"{entry.delivered_wh / 1e3:.2f}",
                f"{entry.kept_frac:.0%}",
                "" if entry.worst_frac is None else f"{entry.worst_frac:+.1%}",
                verdict if i == 0 else "",
            )
        if not result.lines:
            table.add_row(result.name, "", "", "", "", "", "", verdict)
    faults = [Text(f"  {fault}", "red") for result in results for fault in result.faults]
    return Group(table, *faults)


def kw(power_w: float | None) -> str:
    """Return a power for people, a dash when it is missing. [kW]"""
    return "-" if power_w is None else f"{power_w / 1e3:,.0f} kW"


def _meter(record: Record, name: str, width: int, rows: int) -> RenderableType:
    points = record.points[name]
    target_w = record.targets_w.get(name)
    label = f"{name}  {kw(points[-1].power_w) if points else '-'}"
    if target_w is not None:
        label += f"  target {kw(target_w)}"
    return Panel(Group(*chart(points, max(10, width), rows, HISTORY_S)), title=label, title_align="left", expand=False)


def _assets(state: Mapping[str, Any]) -> RenderableType:
    table = Table(box=SIMPLE_HEAD)
    for name in ("asset", "kind", "feed"):
        table.add_column(name)
    for name in ("power", "setpoint", "charge"):
        table.add_column(name, justify="right")
    table.add_column("state")
    table.add_column("why", style="dim", no_wrap=True)
    for asset in state.get("assets", ()):
        soc_frac = asset.get("soc_frac")
        table.add_row(
            asset["id"],
            asset["kind"],
            asset.get("feed", ""),
            kw(asset.get("power_w")),
            kw(asset.get("setpoint_w")),
            "" if soc_frac is None else f"{soc_frac:.0%}",
            _condition(asset),
            str(asset.get("reason") or ""),
        )
    return table


def _condition(asset: Mapping[str, Any]) -> Text:
    if not asset.get("online", True):
        return Text("offline", "bold red")
    severity = str(asset.get("severity") or "none").lower()
    if severity == "none":
        return Text("ok", "green")
    return Text(f"{severity}: {asset.get('cause') or 'no cause given'}", _SEVERITIES.get(severity, "bold red"))


def _orders(state: Mapping[str, Any]) -> RenderableType:
    orders = state.get("orders", ())
    if not orders:
        return Text("no orders", "dim")
    table = Table(box=SIMPLE_HEAD)
    for name in ("order", "kind", "resource", "power", "state"):
        table.add_column(name)
    for order in orders:
        table.add_row(
            str(order.get("order_id", ""))[:8],
            str(order.get("kind", "")),
            str(order.get("resource", "")),
            kw(order.get("power_w")),
            str(order.get("phase") or order.get("state") or ""),
        )
    return table


def _warnings(state: Mapping[str, Any]) -> RenderableType:
    """Return what is wrong with the whole site and what cannot be delivered; nothing when all is well."""
    texts = [Text(str(cause), "bold yellow") for cause in state.get("causes", ())]
    texts += [
        Text(f"{name} cannot deliver {kw(abs(power_w))}", "bold red")
        for name, power_w in state.get("shortfall_w", {}).items()
        if power_w
    ]
    return Group(*texts)
