"""What the market knows as plain JSON, so that it goes on after a restart where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from vppd.core.bidding.bid import Bid, Offered
from vppd.errors import ConfigError
from vppd.grid.issuer import Command
from vppd.market.book import Book, Entry, Slot
from vppd.market.rounds import Deal, Round

_DEAL_TIMES = ("start", "end", "order_start", "order_end")


@dataclass(slots=True)
class Errand:
    """A command that waits for its receipt."""

    award_id: str
    purpose: str
    """award or order."""
    command: Command
    not_after: datetime
    tries: int = 0
    due_s: float = float("-inf")
    """Sent again from then on, on the loop's clock. [s]"""


@dataclass(slots=True)
class Memory:
    """All of it."""

    book: Book = field(default_factory=Book)
    rounds: list[Round] = field(default_factory=list)
    deals: dict[str, Deal] = field(default_factory=dict)
    """By award id."""
    errands: list[Errand] = field(default_factory=list)
    """In the order in which they go out."""


def save(memory: Memory, path: Path) -> None:
    """Write it, whole or not at all."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps(to_body(memory)) + "\n", encoding="utf-8")
    draft.replace(path)


def load(path: Path) -> Memory:
    """Return what was saved, nothing where there is no file. Raises ConfigError for a file that is something else."""
    try:
        return from_body(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Memory()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is not the state of a market: {error}") from error


def to_body(memory: Memory) -> dict[str, Any]:
    """Return plain JSON values."""
    book = memory.book
    return {
        "heard": book.heard,
        "entries": [_entry_body(entry) for entry in book.entries.values()],
        "cleared": [_slot_body(slot) for slot in sorted(book.cleared)],
        "rounds": [round_body(found) for found in memory.rounds],
        "deals": [deal_body(deal) for deal in memory.deals.values()],
        "errands": [_errand_body(errand) for errand in memory.errands],
    }


def from_body(body: Mapping[str, Any]) -> Memory:
    """Return what ``to_body`` described. Raises KeyError, TypeError or ValueError for anything else."""
    entries = [_entry(entry) for entry in body["entries"]]
    book = Book({(e.vpp, e.bid.bid_id): e for e in entries}, {_slot(slot) for slot in body["cleared"]}, body["heard"])
    deals = [_deal(deal) for deal in body["deals"]]
    rounds = [_round(found) for found in body["rounds"]]
    return Memory(book, rounds, {d.award_id: d for d in deals}, [_errand(errand) for errand in body["errands"]])


def round_body(found: Round) -> dict[str, Any]:
    """Return a round in plain JSON values."""
    names = ("offered_w", "rivals_w", "need_w", "exact", "scarce")
    rest = {name: getattr(found, name) for name in names}
    price = None if found.price is None else str(found.price)
    maps = {"taken_w": dict(found.taken_w), "passed_over": dict(found.passed_over)}
    return {**_slot_body(found.slot), **rest, "price": price, **maps}


def deal_body(deal: Deal) -> dict[str, Any]:
    """Return an award in plain JSON values."""
    body = {f.name: getattr(deal, f.name) for f in fields(deal)}
    return body | {k: body[k].isoformat() if body[k] else None for k in _DEAL_TIMES} | {"price": str(deal.price)}


def _deal(body: Mapping[str, Any]) -> Deal:
    times = {k: datetime.fromisoformat(body[k]) if body[k] else None for k in _DEAL_TIMES}
    return Deal(**{**body, **times, "price": Decimal(body["price"])})


def _round(body: Mapping[str, Any]) -> Round:
    price = None if body["price"] is None else Decimal(body["price"])
    names = ("offered_w", "rivals_w", "need_w", "taken_w", "passed_over", "exact")
    scarce = bool(body.get("scarce"))  # a state of before scarcity was priced does not say
    return Round(slot=_slot(body), price=price, scarce=scarce, **{name: body[name] for name in names})


def _slot_body(slot: Slot) -> dict[str, Any]:
    times = {k: getattr(slot, k).isoformat() for k in ("gate", "start", "end")}
    return times | {k: getattr(slot, k) for k in ("product", "direction", "currency")}


def _slot(body: Mapping[str, Any]) -> Slot:
    gate, start, end = (datetime.fromisoformat(body[k]) for k in ("gate", "start", "end"))
    return Slot(gate, body["product"], body["direction"], start, end, body["currency"])


def _entry_body(entry: Entry) -> dict[str, Any]:
    offered = entry.offered
    rest = {"state": offered.state, "gate": offered.gate_closes_at.isoformat()}
    return {"vpp": entry.vpp, "arrived": entry.arrived, "bid": offered.bid.to_body(), **rest}


def _entry(body: Mapping[str, Any]) -> Entry:
    offered = Offered(Bid.from_body(body["bid"]), body["state"], datetime.fromisoformat(body["gate"]))
    return Entry(body["vpp"], offered, body["arrived"])


def _errand_body(errand: Errand) -> dict[str, Any]:
    command = errand.command
    sent = {"id": command.id, "topic": command.topic, "payload": command.payload.decode()}
    about = {"award_id": errand.award_id, "purpose": errand.purpose, "tries": errand.tries}
    return {**about, "not_after": errand.not_after.isoformat(), "command": sent}


def _errand(body: Mapping[str, Any]) -> Errand:
    sent = body["command"]
    command = Command(sent["id"], sent["topic"], sent["payload"].encode())
    return Errand(body["award_id"], body["purpose"], command, datetime.fromisoformat(body["not_after"]), body["tries"])
