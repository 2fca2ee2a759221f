"""The accounts of a cluster's jobs on disk, so that a restart forgives nothing.

A file of columns rather than ledger events: accounts change with every look, and only the newest state is of any use. The
planner's time is monotonic and does not survive a reboot, so all times are kept as ages beside one wall time.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from vppd.core.curtail.accounts import Accounts
from vppd.core.curtail.books import Books
from vppd.core.curtail.classes import Classes, Key, classes
from vppd.snapshot import Floats

VERSION = 1

log = structlog.get_logger()


def packed(books: Books, known: Classes, mono_s: float, at: datetime) -> bytes:
    """Return books and classes as they were at one moment; jobs that have lost nothing are left out."""
    lost_s = np.stack(books.accounts.lost_s)
    lost_s = lost_s - lost_s[0]
    kept = np.flatnonzero((lost_s[-1] > 0.0) | books.paused | (books.lost_frac > 0.0))
    words = {
        "version": VERSION,
        "at": at.isoformat(),
        "ids": [books.ids[i] for i in kept.tolist()],
        "classes": list(known.row),
    }
    learned = known.learned
    buffer = io.BytesIO()
    np.savez(
        buffer,
        words=np.frombuffer(json.dumps(words).encode(), dtype=np.uint8),
        age_s=mono_s - np.asarray([*books.accounts.ends_s, books.at_s]),
        lost_s=lost_s[:, kept].astype(np.float32),
        now=np.stack(
            (
                books.lost_frac[kept],
                books.paused[kept].astype(np.float64),
                mono_s - books.since_s[kept],
                books.owed_s[kept],
                mono_s - books.seen_s[kept],
            )
        ),
        power_weight=learned.power_weight,
        power_error=learned.power_error_w,
    )
    return buffer.getvalue()


def unpacked(blob: bytes, window_s: float, mono_s: float, at: datetime) -> tuple[Books, Classes]:
    """Return books and classes in the time of this process. Raises ValueError, KeyError or BadZipFile for nonsense."""
    with np.load(io.BytesIO(blob), allow_pickle=False) as file:
        words: dict[str, Any] = json.loads(file["words"].tobytes())
        if words["version"] != VERSION:
            raise ValueError(f"version {words['version']}")
        # A clock that was set back in between must not make losses younger than they are, nor give time away.
        gone_s = max((at - datetime.fromisoformat(words["at"]).astimezone(UTC)).total_seconds(), 0.0)
        then_s = mono_s - gone_s
        ages_s, lost_s, now = file["age_s"], file["lost_s"].astype(np.float64), file["now"]
        ends_s = tuple((then_s - ages_s[:-1]).tolist())
        ids = tuple(str(job_id) for job_id in words["ids"])
        if lost_s.shape != (len(ends_s), len(ids)) or now.shape != (5, len(ids)):
            raise ValueError("columns of different lengths")
        books = Books(
            ids=ids,
            present=len(ids),
            accounts=Accounts(window_s, ends_s, tuple(lost_s)),
            at_s=float(then_s - ages_s[-1]),
            lost_frac=now[0],
            paused=now[1] > 0.0,
            since_s=then_s - now[2],
            owed_s=now[3],
            seen_s=then_s - now[4],
        )
        return books, _classes(words["classes"], file["power_weight"], file["power_error"])


def read(path: Path, window_s: float, mono_s: float, at: datetime) -> tuple[Books, Classes] | None:
    """Return what an earlier process knew; None without a file that makes sense: then held counts as held for a window."""
    try:
        return unpacked(path.read_bytes(), window_s, mono_s, at)
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        log.warning("accounts_unreadable", file=str(path), reason=str(error))
        return None


def write(path: Path, blob: bytes) -> None:
    """Replace the file at once or not at all. Raises OSError."""
    draft = path.with_suffix(".new")
    with draft.open("wb") as file:
        file.write(blob)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _classes(words: list[Any], power_weight: Floats, power_error_w: Floats) -> Classes:
    keys: list[Key] = [
        (str(knob), str(family), tuple((float(p), float(t)) for p, t in curve)) for knob, family, curve in words
    ]
    known = classes().grown(keys)
    if known.learned.power_weight.shape != power_weight.shape or len(keys) != len(known.row):
        return known
    return known.taught(replace(known.learned, power_weight=power_weight, power_error_w=power_error_w))
