"""The OpenADR link as tables for a terminal: the server, what it asks, what is not applied and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

TARIFFS_SHOWN = 12


def openadr_table(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the link, the orders of the plan, prices, and every signal that is not applied as it stands, with its reason."""
    out = console or Console()
    for line in _link(found):
        out.print(line)
    orders = Table("event", "program", "asks", "resource", "power", "from", "until")
    for order in found["orders"]:
        orders.add_row(
            *_words(order["event_id"] or "none: our own last resort", order["program"], order["kind"], order["resource"]),
            _kw(order["power_w"]), order["start"], order["end"] or "replaced",
        )  # fmt: skip
    out.print(orders if found["orders"] else "Nothing is asked of this site.")
    if found["tariffs"]:
        out.print(_tariffs(found["tariffs"]))
    if found["notes"]:
        notes = Table("event", "payload", "not applied as it stands", "because")
        for note in found["notes"]:
            notes.add_row(*_words(note["event_id"], note["payload_type"], note["reason"], note["detail"]))
        out.print(notes)


def _link(found: Mapping[str, Any]) -> Iterator[str]:
    state = "LOST: limits run out, then the subscription holds" if found["lost"] else "answers"
    state = state if found["known"] or found["lost"] else "has not answered yet"
    yield f"[bold]{escape(found['issuer'])}[/] {escape(found['url'])}: {state}"
    yield (
        f"fetched {found['fetches']} times, last at {found['fetched_at'] or 'no time'}; {found['events']} events of "
        + (escape(", ".join(found["programs"])) or "no program")
    )
    if found["trouble"]:
        yield f"trouble: {escape(found['trouble'])}"
    if found["hold"]:
        yield f"no new orders: {escape(found['hold'])}"
    bell = found["notifier"]
    if bell is not None:
        heard = f"{escape(bell['address'])}, {bell['connections']} connections, {bell['messages']} messages"
        why = f" ({escape(bell['trouble'])})" if bell["trouble"] else ""
        yield f"notifier: {heard}" if bell["address"] else f"notifier: none{why}; the server is polled"
    yield f"reports: {found['reports']['sent']} sent, {found['reports']['waiting']} waiting"


def _tariffs(tariffs: list[Mapping[str, Any]]) -> Table:
    shown = tariffs[:TARIFFS_SHOWN]
    more = f"{len(tariffs) - len(shown)} more" if len(tariffs) > len(shown) else None
    table = Table("event", "tariff", "value", "from", "until", caption=more)
    for entry in shown:
        units = " per ".join(word for word in (entry["currency"], entry["units"]) if word)
        table.add_row(
            *_words(entry["event_id"], entry["payload_type"], f"{entry['value']:g} {units}".strip()), entry["start"],
            entry["end"] or "replaced",
        )  # fmt: skip
    return table


def _words(*texts: str) -> Iterator[str]:
    """Yield texts of others as they are: their brackets are no markup."""
    return (escape(text) for text in texts)


def _kw(power_w: float | None) -> str:
    return "" if power_w is None else f"{power_w / 1e3:.1f} kW"
