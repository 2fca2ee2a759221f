"""Times as Kubernetes writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def text(at_s: float) -> str:
    """Return seconds since 1970 in RFC 3339. [s]"""
    return datetime.fromtimestamp(round(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed_s(text: str) -> float:
    """Return a time in seconds since 1970, -inf where there is none. [s]"""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return float("-inf")
