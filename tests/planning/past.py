"""Weeks of a made-up past, written into a history file in one go."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import apsw
import numpy as np

from vppd.ledger.history import DAY_STEPS, SCHEMA, row_of, slot_of
from vppd.snapshot import Floats

STEPS_A_DAY = DAY_STEPS


def write(path: Path, start: datetime, series: Mapping[str, Floats]) -> None:
    """Write 5-minute means from ``start`` on, which must be a midnight (UTC); the last day may be unfinished."""
    day = slot_of(start) // DAY_STEPS
    db = apsw.Connection(str(path))
    db.pragma("journal_mode", "wal")
    with db:
        db.execute(SCHEMA)
        for number, (name, values) in enumerate(series.items(), start=1):
            db.execute("INSERT INTO series VALUES(?, ?)", (number, name))
            rows = np.full(-(-len(values) // DAY_STEPS) * DAY_STEPS, np.nan)
            rows[: len(values)] = values
            for i, row in enumerate(rows.reshape(-1, DAY_STEPS)):
                db.execute("INSERT INTO days VALUES(?, ?)", (row_of(day + i, number), row.tobytes()))
    db.close()
    path.chmod(0o600)


def hours(start: datetime, steps: int) -> Floats:
    """Return the hour of the day of each step, in the zone of ``start``."""
    first = start.hour + start.minute / 60.0
    return np.asarray((first + np.arange(steps) / 12.0) % 24.0)


def sunny(start: datetime, steps: int, rated_w: float, seed: int) -> Floats:
    """Return what a PV plant gives under clouds that differ from day to day. [W, >= 0]"""
    rng = np.random.default_rng(seed)
    clear = np.maximum(np.sin((hours(start, steps) - 6.0) / 12.0 * np.pi), 0.0)
    days = -(-steps // DAY_STEPS)
    return np.asarray(rated_w * clear * np.repeat(rng.uniform(0.3, 0.95, days), DAY_STEPS)[:steps])


def busy(start: datetime, steps: int, full_w: float, seed: int) -> Floats:
    """Return a load that is lower at weekends and at night, with an error that lasts for hours. [W]"""
    rng = np.random.default_rng(seed)
    shape = 0.75 + 0.15 * np.sin((hours(start, steps) - 9.0) / 24.0 * 2 * np.pi)
    days = np.array([(start + timedelta(minutes=5 * i)).weekday() >= 5 for i in range(0, steps, DAY_STEPS)])
    weekend = np.repeat(days, DAY_STEPS)[:steps]
    noise, drift = rng.normal(0.0, 0.006, steps), np.zeros(steps)
    for i in range(1, steps):
        drift[i] = 0.98 * drift[i - 1] + noise[i]
    return np.asarray(full_w * shape * np.where(weekend, 0.8, 1.0) * (1.0 + drift))


def site(start: datetime, steps: int, clusters: int = 2, generators: int = 1) -> dict[str, Floats]:
    """Return the series of a site with a feed for each cluster."""
    found: dict[str, Floats] = {}
    for k in range(clusters):
        found[f"load/feed-{k}"] = busy(start, steps, 150e3, 10 + k)
        found[f"compute/hall-{k}"] = busy(start, steps, 400e3, 20 + k)
        for tier in range(4):
            found[f"compute/hall-{k}/tier{tier}"] = 0.08 * tier * found[f"compute/hall-{k}"]
    for k in range(generators):
        found[f"generation/pv-{k}"] = sunny(start, steps, 150e3, 30 + k)
    return found
