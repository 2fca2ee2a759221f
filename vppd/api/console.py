"""What the daemon says, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def status_table(state: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the site, its feeds and its assets."""
    out = console or Console()
    causes = f" ({', '.join(state['causes'])})" if state["causes"] else ""
    least = "" if state.get("least_w") is None else f", at least {_kw(state['least_w'])} now"
    out.print(f"[bold]{state['site']}[/] at {state['at']}: {_kw(state['power_w'])}{least}, {state['severity']}{causes}")
    columns = ["power_w", "limit_w", "target_w", "import_max_w", "shortfall_w"]
    titles = ["feed", "power", "limit now", "target", "most", "shortfall"]
    if any(feed.get("least_w") is not None for feed in state["feeds"]):
        columns.insert(1, "least_w")
        titles.insert(2, "least now")
    feeds = Table(*titles)
    for feed in state["feeds"]:
        feeds.add_row(feed["tag"], *(_kw(feed.get(name)) for name in columns))
    out.print(feeds)
    assets = Table("asset", "kind", "feed", "power", "setpoint", "charge", "state", "reason")
    for asset in state["assets"]:
        charge = "" if asset["soc_frac"] is None else f"{asset['soc_frac']:.0%}"
        well = "ok" if asset["severity"] == "none" else asset["severity"]
        link = well if asset["online"] else "offline"
        assets.add_row(
            asset["id"], asset["kind"], asset["feed"], _kw(asset["power_w"]), _kw(asset["setpoint_w"]), charge, link,
            asset["cause"] or asset["reason"],
        )  # fmt: skip
    out.print(assets)


def orders_table(orders: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print the open orders."""
    out = console or Console()
    if not orders:
        out.print("No orders are scheduled or active.")
        return
    table = Table("order", "issuer", "kind", "resource", "power", "from", "until", "phase", "kept")
    for order in orders:
        kept = order.get("kept_frac")
        table.add_row(
            order["order_id"], order["issuer"], order["kind"], order["resource"], _kw(order["power_w"]), order["start"],
            order["end"] or "replaced", order["phase"], "" if kept is None else f"{kept:.1%}",
        )  # fmt: skip
    out.print(table)


def _kw(power_w: float | None) -> str:
    return "" if power_w is None else f"{power_w / 1e3:.1f} kW"
