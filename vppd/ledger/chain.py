"""The hash chain: canonical bytes of an event, and the link that ties it to all before it.

h_i = SHA-256(h_(i-1) || length || record), h_0 = 32 zero bytes. Who knows h_n knows that nothing before it changed.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

from vppd.errors import Garbled
from vppd.model import Event

GENESIS = bytes(32)
_FIELDS = {"at", "body", "key", "kind", "stream"}


def record_of(event: Event) -> bytes:
    """Return the canonical bytes of ``event``: JSON, keys sorted, no white space, UTF-8.

    Raises ValueError or TypeError for what plain JSON cannot hold (NaN, naive times, other objects).
    """
    if event.at.tzinfo is None:
        raise ValueError(f"the time of a ledger event needs a zone: {event.at}")
    record = {
        "at": event.at.isoformat(),
        "body": event.body,
        "key": event.key,
        "kind": event.kind,
        "stream": event.stream,
    }
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def event_of(record: bytes) -> Event:
    """Return the event that ``record_of`` wrote down. Raises Garbled."""
    try:
        fields: dict[str, Any] = json.loads(record)
        if set(fields) != _FIELDS:
            raise Garbled(f"a ledger record has the fields {sorted(fields)}")
        return Event(**{**fields, "at": datetime.fromisoformat(fields["at"])})
    except (ValueError, TypeError) as error:
        raise Garbled(f"a ledger record cannot be read: {error}") from error


def link(previous: bytes, record: bytes) -> bytes:
    """Return the hash of ``record`` as the successor of the one hashed ``previous``."""
    return hashlib.sha256(previous + len(record).to_bytes(8, "big") + record).digest()
