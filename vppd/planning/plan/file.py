"""What the planner must not forget in a restart: work that waits for its deadline, the peak that will be billed, the green account."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from vppd.errors import Garbled
from vppd.planning.plan.deferral import Key, Ledger, Owed
from vppd.planning.plan.green_account import GreenAccount

LONGEST = 100_000
"""More entries than this were never written by us."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is in the file."""

    ledger: Ledger
    month: str
    """The billing period of the peak, as in 2026-03."""
    peak_w: float
    green: GreenAccount | None = None


def packed(kept: Kept) -> bytes:
    """Return the file's contents."""
    owed = [
        {"asset": key.asset, "tier": key.tier, "until": key.until.isoformat()}
        | {"energy_wh": found.energy_wh, "power_w": found.power_w}
        for key, found in kept.ledger.owed.items()
    ]
    body = {
        "owed": owed,
        "deferred_wh": kept.ledger.deferred_wh,
        "late_wh": kept.ledger.late_wh,
        "month": kept.month,
        "peak_w": kept.peak_w,
        "green": None if kept.green is None else kept.green.to_body(),
    }
    return json.dumps(body).encode()


def unpacked(blob: bytes) -> Kept:
    """Return what ``packed`` was given. Raises Garbled."""
    try:
        body: dict[str, Any] = json.loads(blob)
        owed = dict(_entry(row) for row in body["owed"][:LONGEST])
        ledger = Ledger(owed, float(body["deferred_wh"]), float(body["late_wh"]))
        green = GreenAccount.from_body(body["green"]) if body.get("green") else None
        return Kept(ledger, str(body["month"]), float(body["peak_w"]), green)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Garbled(f"what waits cannot be read: {error}") from error


def _entry(row: dict[str, Any]) -> tuple[Key, Owed]:
    until = datetime.fromisoformat(row["until"])
    if until.tzinfo is None:
        raise ValueError("a deadline has no offset from UTC")
    return Key(str(row["asset"]), int(row["tier"]), until), Owed(float(row["energy_wh"]), float(row["power_w"]))


def read(path: Path) -> Kept | None:
    """Return what is kept, None where there is nothing. Raises Garbled when it cannot be understood."""
    try:
        blob = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Garbled(f"{path}: {error.strerror}") from error
    return unpacked(blob)
