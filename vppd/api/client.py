"""Asks the daemon on its local socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from vppd.errors import Refused, Unreachable

LIMIT_S = 15.0
"""A release is answered only when it is on disk. [s]"""


def ask(socket: Path, method: str, path: str) -> Any:
    """Return the daemon's answer. Raises Unreachable when it does not run, Refused when it says no."""
    transport = httpx.HTTPTransport(uds=str(socket))
    with httpx.Client(transport=transport, base_url="http://vppd", timeout=LIMIT_S) as client:
        try:
            answer = client.request(method, path)
        except httpx.HTTPError as error:
            raise Unreachable(
                f"no daemon answers on {socket} ({error}); is vppd running, and may you use its socket?"
            ) from error
    if answer.is_error:
        raise Refused(_reason(answer) or f"the daemon refused {method} {path}: {answer.text}")
    return answer.json()


def _reason(answer: httpx.Response) -> str:
    """Return the daemon's own words, where there are some."""
    try:
        body = answer.json()
    except ValueError:
        return ""
    return str(body.get("error", "")) if isinstance(body, dict) else ""
