"""The OpenADR link on a terminal."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from vppd.api.console_openadr import openadr_table

ASKED: dict[str, Any] = {
    "issuer": "utility",
    "url": "https://vtn.test/openadr3/3.1.0",
    "lost": False,
    "known": True,
    "fetches": 12,
    "fetched_at": "2026-03-02T12:00:00+00:00",
    "trouble": "",
    "notifier": {"address": "vtn.test:8883", "topics": ["events"], "connections": 1, "messages": 3, "trouble": ""},
    "programs": ["limits"],
    "events": 2,
    "hold": "",
    "orders": [
        {
            "event_id": "e-1", "program": "limits", "kind": "limit", "resource": "dc1", "power_w": 220e3,
            "start": "2026-03-02T12:00:00+00:00", "end": None,
        }
    ],
    "tariffs": [
        {
            "event_id": f"p-{k}", "payload_type": "PRICE", "start": "t0", "end": "t1", "value": 0.21, "units": "KWH",
            "currency": "EUR",
        }
        for k in range(30)
    ],
    "notes": [{"event_id": "e-2", "payload_type": "CURVE", "reason": "not_supported", "detail": "[red]no[/red] such thing"}],
    "reports": {"sent": 4, "waiting": 1},
}  # fmt: skip


def printed(**changes: Any) -> str:
    """Return what a wide terminal shows."""
    out = io.StringIO()
    openadr_table(ASKED | changes, Console(file=out, width=200, color_system=None))
    return out.getvalue()


def test_the_plan_and_what_is_not_applied() -> None:
    """Orders, prices and every note with its reason are there; what the server says is text, not markup."""
    text = printed()
    for word in ("utility", "answers", "e-1", "220.0 kW", "replaced", "0.21 EUR per KWH", "18 more", "not_supported"):
        assert word in text
    assert "[red]no[/red] such thing" in text
    assert "4 sent, 1 waiting" in text


def test_a_lost_server_without_a_notifier() -> None:
    """What is wrong is said: the loss, the trouble, why nothing is taken, and why nobody is listened to."""
    bell = {"address": "", "topics": [], "connections": 0, "messages": 0, "trouble": "the server has no MQTT notifier"}
    text = printed(
        lost=True, trouble="GET /events: no route", hold="commits fail", notifier=bell, orders=[], tariffs=[], notes=[]
    )
    for word in ("LOST", "no route", "commits fail", "no MQTT notifier", "polled", "Nothing is asked"):
        assert word in text


def test_before_the_first_answer() -> None:
    """A server that has not answered yet is not called well."""
    assert "has not answered yet" in printed(known=False, fetched_at=None, notifier=None)
