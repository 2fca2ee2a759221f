"""The desk in a terminal of 100 columns."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from vppd.api.console_market import market_table

SLOT = {"start": "2026-01-01T00:15:00+00:00", "end": "2026-01-01T00:30:00+00:00"}
FOUND: dict[str, Any] = {
    "trouble": "",
    "products": [
        {"name": "nordic-mfrr", "market": "Nordic", "dispatch": "order", "offered": True, "why_not": ""},
        {"name": "eu-fcr", "market": "EU", "dispatch": "order", "offered": False, "why_not": "both directions"},
    ],
    "next_gates": [{"product": "nordic-mfrr", **SLOT, "closes_at": "2025-12-31T23:30:00+00:00"}],
    "offers": [
        {
            "bid_id": "b1", "product": "nordic-mfrr", "direction": "symmetric", **SLOT, "state": "offered", "revision": 2, "power_w": 2e6,
            "awarded_w": 1e6, "price_per_mwh": ["80.00", "95.00", "120.00"],
        },
    ],
    "short_w": {"offered/b1": 3e5},
    "not_offered": [{"product": "nordic-mfrr", "direction": "down", **SLOT, "reason": "too little is sure"}],
    "not_counted": {"hall-a": "there is no forecast of what could be shed"},
}  # fmt: skip


def shown(**changes: Any) -> str:
    """Return what a terminal shows."""
    console = Console(width=100)
    with console.capture() as capture:
        market_table(FOUND | changes, console)
    return capture.get()


def test_everything_is_there_and_nothing_is_cut() -> None:
    """Products and reasons, gates, offers with their least and dearest price, what is missing and what is not counted."""
    text = shown()
    for part in (
        "both directions",
        "12-31 23:30",
        "01-01 00:15-00:30",
        "2000.0",
        "1000.0",
        "80.00-120.00",
        "offered (2)",
        " both ",
        "300.0",
    ):
        assert part in text, part
    assert "nordic-mfrr (down) at 01-01 00:15 is not offered: too little is sure" in text
    assert "hall-a is not counted on: there is no forecast" in text
    assert "…" not in text


def test_trouble_comes_first() -> None:
    """Whoever looks sees at once that offers cannot be computed."""
    assert shown(trouble="the worker hangs").startswith("Offers could not be computed: the worker hangs")
